"""Ranges: what they keep of the values that they are for, by activation and over a histogram."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from quantbench.report.drawing.marks import palette
from quantbench.report.drawing.panels import keys_above, side_by_side
from quantbench.report.drawing.style import INK, MUTED, fit, short_count
from quantbench.report.drawing.svg import Picture, picture
from quantbench.units import one_line, percent


def range_shares(frame: pd.DataFrame, *, name: str) -> Picture:
    """How much of each activation the ranges of calibrators span: a panel per backend.

    Parameters
    ----------
    frame : DataFrame
        Columns ``backend``, ``calibrator``, ``place`` (0 is the first activation of the model) and
        ``share`` (of the span of all observed values).
    """
    title = "Share of the observed values' span that each calibrator keeps, by activation"
    return picture(lambda width: _shares(frame, width), title, name)


def range_histograms(frame: pd.DataFrame, *, name: str) -> Picture:
    """One activation per backend: how often its values occur, and the range of each calibrator.

    Parameters
    ----------
    frame : DataFrame
        Columns ``backend``, ``layer``, ``calibrator``, ``low``, ``high``; ``start``, ``width`` and
        ``counts`` of the backend's histogram in each row.
    """
    title = "The activation whose ranges differ most: its values, and each calibrator's range"
    return picture(lambda width: _histograms(frame, width), title, name)


def draw_histogram(
    axes: Axes,
    start: float,
    width: float,
    counts: Sequence[float],
    ranges: pd.DataFrame,
    colors: Mapping[str, str],
) -> None:
    """Draw how often values occur, and above them ranges, each at a height of its own.

    Parameters
    ----------
    start, width : float
        Where the first bin begins, and how wide each is.
    counts : sequence of float
        Of the values in each bin.
    ranges : DataFrame
        Columns ``line`` (a key of ``colors``), ``low`` and ``high``.
    """
    weights = pd.Series(list(counts), dtype=float)
    middles = start + width * (weights.index + 0.5)
    sns.histplot(
        x=middles, weights=weights, bins=min(len(weights), 96), ax=axes, color=MUTED,
        element="step", linewidth=0, alpha=0.35,
    )  # fmt: skip
    axes.set_yscale("log")
    held = ranges[["line", "low", "high"]].itertuples(index=False)
    for level, (line, low, high) in enumerate(held):
        height = 0.94 - 0.09 * level
        axes.plot(
            [low, high], [height, height], "|-", color=colors[line],
            transform=axes.get_xaxis_transform(), linewidth=2, markersize=8, markeredgewidth=2,
        )  # fmt: skip
    axes.set_xlabel("value")
    axes.set_ylabel("values in a bin")
    top = max(10.0, float(weights.max()))
    axes.set_ylim(0.5, top ** (1 / 0.45))  # room for the ranges
    every = 2 if top > 1000 else 1
    decades = [10.0**n for n in range(0, math.ceil(math.log10(top)) + 1, every)]
    axes.set_yticks(decades, [short_count(n) for n in decades])
    axes.yaxis.set_minor_formatter(NullFormatter())


def _shares(frame: pd.DataFrame, width: float) -> Figure:
    colors = palette(frame["calibrator"])
    figure, panels = side_by_side(list(dict.fromkeys(frame["backend"])), width, 2.4, sharey=True)
    for backend, axes in panels.items():
        here = frame[frame["backend"] == backend].sort_values("place")
        sns.lineplot(
            data=here, x="place", y="share", hue="calibrator", palette=colors, ax=axes,
            linewidth=1.4, errorbar=None, legend=False,
        )  # fmt: skip
        axes.set_xlabel("activation, from first to last")
        axes.set_ylabel("kept of the span")
        axes.set_ylim(0, 1.04 * max(1.0, float(frame["share"].max())))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    keys_above(figure, colors)
    return figure


def _histograms(frame: pd.DataFrame, width: float) -> Figure:
    colors = palette(frame["calibrator"])
    figure, panels = side_by_side(list(dict.fromkeys(frame["backend"])), width, 2.8, sharey=False)
    for backend, axes in panels.items():
        here = frame[frame["backend"] == backend].drop_duplicates("calibrator")
        lines = here.rename(columns={"calibrator": "line"})
        rows = here[["layer", "start", "width", "counts"]].itertuples(index=False)
        layer, start, bin_width, counts = next(rows)
        draw_histogram(axes, start, bin_width, counts, lines, colors)
        axes.set_title(
            fit(f"{one_line(backend)}: {one_line(layer)}", 72 * width / 1.2),
            loc="left", color=INK,
        )  # fmt: skip
    keys_above(figure, colors)
    return figure
