"""Weight ranges: the float weights of layers with the ranges of their files, and the ranges of channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantbench.backend_api import MULTIPLY, WEIGHT
from quantbench.report.drawing.marks import palette
from quantbench.report.drawing.panels import keys_above, side_by_side
from quantbench.report.drawing.ranges import draw_histogram
from quantbench.report.drawing.style import NARROW, SERIES, fit
from quantbench.report.drawing.svg import Picture, picture
from quantbench.results import ArtifactRow, HistogramRow, Results, TrialRow, rows
from quantbench.units import one_line

MOST_LAYERS = 6
"""Layers of a model whose weights are drawn: those whose extremes are furthest from the others."""
MOST_LINES = 5
MOST_MODELS = 3
MOST_CHANNELS = 40
"""Layers whose channels are drawn, the first of the model."""
_SAME = 0.02
"""A range that differs by more from the extremes of the float weights is not of the same numbers."""
_LEVELS = 256
_DEAD = 0.05
"""A channel with fewer levels holds next to nothing but zeros."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a model: histograms with ranges, the levels of its channels, and in words."""

    model: str
    histograms: Picture | None
    channels: Picture | None
    words: str


def weights(results: Results) -> tuple[Weights, ...]:
    """Of each model with quantized weights; a picture is missing where there is nothing to show."""
    found: list[Weights] = []
    for model in dict.fromkeys(results.trials["model"]):
        ranges = stored(results, model)
        if ranges.empty or len(found) == MOST_MODELS:
            continue
        seen, same = layers(results, model)
        # the most outlying ones, in the order of the model
        chosen = [layer for layer in ranges["layer"].unique() if layer in list(seen)[:MOST_LAYERS]]
        known = set(ranges["layer"]) & histograms(results, ranges["trial"]).keys()
        channels = channel_levels(ranges)
        name = str(len(found))
        title = f"Float weights of a layer, and the ranges of the files: {one_line(str(model))}"
        levels = f"Levels of each channel under one scale per tensor: {one_line(str(model))}"
        one = Weights(
            one_line(str(model)),
            _histograms(chosen, seen, same, title, name) if chosen else None,
            picture(partial(_channels, channels), levels, f"channels-{name}")
            if len(channels)
            else None,
            _words(len(chosen), len(seen), len(known)),
        )
        if one.histograms or one.channels:
            found.append(one)
    return tuple(found)


def stored(results: Results, model: str) -> pd.DataFrame:
    """The ranges of a model's quantized weights in the files that `_lines` chooses.

    Returns
    -------
    DataFrame
        The columns of ``artifacts``, and ``line``: the trial's name with its granularity.
    """
    own = results.trials[(results.trials["model"] == model) & (results.trials["training"] == "ptq")]
    known = results.artifacts[
        (results.artifacts["role"] == WEIGHT) & results.artifacts["trial"].isin(own["trial"])
    ].dropna(subset=["low", "high", "layer"])
    known = known[known["layer"] != ""]
    lines = _lines(own, known)
    known = known[known["trial"].isin(lines)].drop_duplicates(["trial", "layer"])
    return known.assign(line=[lines[trial] for trial in known["trial"]])


def layers(results: Results, model: str) -> tuple[dict[str, HistogramRow], pd.DataFrame]:
    """Histograms of the layers whose files hold the same numbers, most outlying first; the ranges."""
    ranges = stored(results, model)
    own = results.trials.loc[results.trials["model"] == model, "trial"]
    seen = histograms(results, ranges["trial"])
    same = unfolded(results, own, ranges, seen)
    return {layer: seen[layer] for layer in sorted(same, key=lambda x: -_outlying(seen[x]))}, ranges


def histograms(results: Results, trials: Sequence[str] | pd.Series[str]) -> dict[str, HistogramRow]:
    """By layer, the histogram of the float weights that ``trials`` were made from."""
    wanted = set(trials)
    known = results.histograms[results.histograms["role"] == "weight"]
    return {row.name: row for row in rows(HistogramRow, known) if wanted & set(row.trials)}


def unfolded(
    results: Results,
    trials: Sequence[str] | pd.Series[str],
    ranges: pd.DataFrame,
    seen: Mapping[str, HistogramRow],
) -> list[str]:
    """Layers whose files hold the numbers of the histogram: no batch norm was folded into them.

    Where the record of no file says so, as PyTorch's do not, the extremes decide.
    """
    nodes = results.artifacts[
        results.artifacts["trial"].isin(trials) & (results.artifacts["role"] == MULTIPLY)
    ]
    folded = {
        str(layer)
        for layer, fused in zip(nodes["layer"], nodes["fused"], strict=True)
        if fused is not None and any("BatchNorm" in str(part) for part in fused)
    }
    normed = folded or results.artifacts["name"].astype(str).str.contains("running_mean").any()
    layers = dict.fromkeys(str(layer) for layer in ranges["layer"])
    return [
        layer
        for layer in layers
        if layer in seen
        and layer not in folded
        and not (normed and _differs(ranges[ranges["layer"] == layer], seen[layer]))
    ]


def channel_levels(ranges: pd.DataFrame) -> pd.DataFrame:
    """Of the first trial with a scale per channel: what one scale per tensor would leave each.

    Returns
    -------
    DataFrame
        Columns ``layer`` and ``levels``: 256 times the channel's scale over the widest one's, at
        least 1. Channels that hold nothing are left out.
    """
    several = ranges[ranges["scale"].map(lambda s: s is not None and len(s) > 1).astype(bool)]
    first = several[several["trial"] == several["trial"].iloc[0]] if len(several) else several
    found: list[dict[str, Any]] = []
    for row in rows(ArtifactRow, first):
        scales = np.asarray(row.scale, np.float64)
        if scales.max() > 0 and row.granularity == "per-channel":
            levels = _LEVELS * scales / scales.max()
            found += [
                {"layer": row.layer, "levels": max(1.0, level)} for level in levels if level > _DEAD
            ]
    return pd.DataFrame(found, columns=["layer", "levels"])


def draw_channels(axes: Axes, channels: pd.DataFrame, room: float) -> None:
    """Draw a box per layer of `channel_levels`, from its least channel to its widest.

    Parameters
    ----------
    room : float
        For a layer's name, points.
    """
    layers = list(dict.fromkeys(channels["layer"]))[:MOST_CHANNELS]
    shown = channels[channels["layer"].isin(layers)]
    shown = shown.assign(bits=np.log2(shown["levels"]))
    sns.boxplot(
        data=shown, x="bits", y="layer", order=layers, ax=axes, whis=(0, 100), width=0.6,
        color=SERIES[0], linewidth=0.9, linecolor=SERIES[0], fill=False, saturation=1,
    )  # fmt: skip
    axes.set_yticks(range(len(layers)), [fit(one_line(name), room) for name in layers])
    axes.set_xticks(range(0, 9, 2), [str(2**n) for n in range(0, 9, 2)])
    axes.set_xlim(-0.15, 8.15)
    axes.set_xlabel("levels left to a channel, of 256 (more is better)")
    axes.set_ylabel("")


def _channels(channels: pd.DataFrame, width: float) -> Figure:
    count = min(MOST_CHANNELS, channels["layer"].nunique())
    figure = Figure(figsize=(width, 0.7 + 0.21 * count), dpi=72, layout="constrained")
    draw_channels(figure.subplots(), channels, 100 if width == NARROW else 240)
    return figure


def _histograms(
    layers: Sequence[str],
    seen: Mapping[str, HistogramRow],
    ranges: pd.DataFrame,
    title: str,
    name: str,
) -> Picture:
    colors = palette(ranges["line"])

    def draw(width: float) -> Figure:
        figure, panels = side_by_side(list(layers), width, 2.1, sharey=False)
        for layer, axes in panels.items():
            bins, own = seen[layer], ranges[ranges["layer"] == layer]
            draw_histogram(axes, bins.start, bins.width, bins.counts, own, colors)
            axes.set_xlabel("weight")
            axes.set_ylabel("weights in a bin")
        keys_above(figure, colors)
        return figure

    return picture(draw, title, f"weights-{name}")


def _lines(trials: pd.DataFrame, held: pd.DataFrame) -> dict[str, str]:
    """Names of trials with ranges of their own: the first of each backend and granularity."""
    kinds = {
        str(trial): str(own["granularity"].mode().iloc[0]) for trial, own in held.groupby("trial")
    }
    known = trials[trials["trial"].isin(list(kinds))]
    # static methods first: what they hold is what most people deploy
    order = known.sort_values("method", key=lambda m: ~m.str.startswith("static"), kind="stable")
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for row in rows(TrialRow, order):
        key = (row.backend, kinds[row.trial])
        found.setdefault(key, (row.trial, f"{row.backend} {row.label}, {key[1]}"))
    return dict(list(found.values())[:MOST_LINES])


def _differs(ranges: pd.DataFrame, values: HistogramRow) -> bool:
    most = max(abs(values.minimum), abs(values.maximum))
    reach = ranges[["low", "high"]].abs().max(axis=1)
    return bool(((reach / most - 1).abs() > _SAME).any()) if most > 0 else False


def _outlying(values: HistogramRow) -> float:
    """The largest weight over their standard deviation: outliers make a range wide."""
    most = max(abs(values.minimum), abs(values.maximum))
    return float(most / values.std) if values.std > 0 else math.inf


def _words(drawn: int, same: int, known: int) -> str:
    parts = []
    if known > same:
        layers = f"{known - same} of {known} layers are" if known - same > 1 else "one layer is"
        parts.append(
            f"A batch norm was folded into the weights before they were rounded, so that the file "
            f"holds other numbers than the float model: {layers} not drawn for that."
        )
    if same > drawn:
        parts.append(
            f"Drawn: the {drawn} of {same} layers whose largest weight is furthest from the others."
        )
    return " ".join(parts)
