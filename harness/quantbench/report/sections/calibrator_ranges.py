"""Ranges: what each calibrator keeps of every activation, and where they differ most."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantbench.backend_api import ACTIVATION, OUTPUT, observed_name
from quantbench.report.drawing.ranges import range_histograms, range_shares
from quantbench.report.drawing.svg import Picture
from quantbench.report.sections.section import Section
from quantbench.report.sections.weight_ranges import Weights, weights
from quantbench.results import ArtifactRow, HistogramRow, Results, TrialRow, rows
from quantbench.spec import Status

_FEWEST = 2


def ranges(results: Results) -> tuple[Picture, ...]:
    """Two pictures for each model whose ranges were injected by several calibrators.

    The share of an activation's values that its range spans, layer by layer; and the histogram of
    the activation whose ranges differ most, with every range in it.
    """
    found = pd.DataFrame(list(_ranges(results)))
    pictures = []
    for number, (_, group) in enumerate(found.groupby("model") if len(found) else ()):
        if group["calibrator"].nunique() < _FEWEST:
            continue
        pictures.append(range_shares(group, name=f"ranges-{number}"))
        spread = group.groupby(["backend", "place"], sort=False)["share"].agg(_spread)
        places = spread.groupby(level="backend", sort=False).idxmax()
        chosen = group.set_index(["backend", "place"]).loc[list(places)].reset_index()
        pictures.append(range_histograms(chosen, name=f"histograms-{number}"))
    return tuple(pictures)


@dataclass(frozen=True, slots=True)
class Bins:
    """The histogram of an activation."""

    start: float
    width: float
    counts: tuple[int, ...]


def layers(
    results: Results, model: str, backend: str | None = None
) -> tuple[dict[str, Bins], pd.DataFrame]:
    """Histograms of a backend's activations, those first whose ranges differ most; the ranges.

    The ranges have a row per calibrator: ``layer``, ``line`` (its name), ``low`` and ``high``.
    """
    found = pd.DataFrame(list(_ranges(results)))
    if found.empty:
        return {}, found
    own = found[found["model"] == model]
    own = own[own["backend"] == (backend if backend is not None else own["backend"].iloc[0])]
    spread = own.groupby("layer", sort=False)["share"].agg(_spread)
    first = own.drop_duplicates("layer").set_index("layer", drop=False)
    order = [str(name) for name in spread.sort_values(ascending=False, kind="stable").index]
    seen = dict(zip(order, rows(Bins, first.loc[order]), strict=True))
    return seen, own.assign(line=own["calibrator"]).drop_duplicates(["layer", "line"])


def _spread(shares: pd.Series[float]) -> float:
    """How many times wider the widest range is than the narrowest."""
    least = float(shares.min())
    return float(shares.max()) / least if least > 0 else math.inf


def _ranges(results: Results) -> Iterator[dict[str, Any]]:
    """A row for each activation of each trial with injected ranges: which part of it is kept."""
    trials = results.trials
    injected = trials[(trials["ranges"] == "injected") & (trials["status"] == Status.OK)]
    seen = _observed(results)
    stored = results.artifacts[
        (results.artifacts["kind"] == "tensor")
        & results.artifacts["role"].isin([ACTIVATION, OUTPUT])
    ].dropna(subset=["low", "high"])
    by_trial = dict(list(stored.groupby("trial")))
    for trial in rows(TrialRow, injected):
        known = seen.get(trial.trial, {})
        order = {name: place for place, name in enumerate(known)}
        done = set()
        for tensor in rows(ArtifactRow, by_trial.get(trial.trial, stored.iloc[:0])):
            name = observed_name(tensor.name, tensor.layer, known)
            if name is None or name in done:
                continue
            done.add(name)
            histogram = known[name]
            # a range always holds 0
            span = max(histogram.maximum, 0.0) - min(histogram.minimum, 0.0)
            yield {
                "model": trial.model, "backend": trial.backend,
                "calibrator": trial.axes["calibrator"], "place": order[name],
                "layer": tensor.layer or name, "low": tensor.low, "high": tensor.high,
                "share": (tensor.high - tensor.low) / span if span else math.nan,
                "start": histogram.start, "width": histogram.width, "counts": histogram.counts,
            }  # fmt: skip


def _observed(results: Results) -> dict[str, dict[str, HistogramRow]]:
    """By trial and name of an activation: its histogram, in the order of the model."""
    found: dict[str, dict[str, HistogramRow]] = {}
    known = results.histograms
    for row in rows(HistogramRow, known[known["role"] == "activation"]):
        for trial in row.trials:
            found.setdefault(trial, {})[row.name] = row
    return found


@dataclass(frozen=True, slots=True)
class Ranges:
    """Pictures of the ranges of activations, and of weights."""

    activations: tuple[Picture, ...]
    weights: tuple[Weights, ...]

    def __bool__(self) -> bool:
        return bool(self.activations or self.weights)


SECTION = Section(
    "ranges", "Calibration and ranges", "Ranges", 70,
    lambda seen: Ranges(ranges(seen.results), weights(seen.results)), "ranges.html.j2",
)  # fmt: skip
