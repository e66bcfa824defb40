"""Regression: how a candidate run differs from a baseline, trial by trial and metric by metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.advice import batch_sizes, control, interval, records, smallest_claim, trial_frame
from harness.errors import NotComparable
from harness.results import Results
from harness.statistics import FloatArray, Interval, exp_interval, paired_drop

Row = Mapping[str, Any]

BETTER, SAME, WORSE, MISSING, NEW = "better", "same", "worse", "missing", "new"
UNDECIDED, INCOMPARABLE = "undecided", "not comparable"
RAN = ("ok", "no-op", "simulated")
"""Statuses of a trial that has something to compare."""
REPEATABLE = 0.03
"""What two whole runs of one machine may differ by: docs/validation.md, 74 of 75 speed-ups agree."""
KERNELS_DB = 1.0
"""What the kernels of another CPU may move the SQNR by; one bit is 6 dB."""
POINTS, PERCENT, DECIBELS, COUNT = "pp", "%", "dB", ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is compared of a metric.

    ``unit``: of its change, `POINTS` (difference of shares), `PERCENT` (relative) or `DECIBELS`;
    ``harm``: the direction in which it gets worse, 1 or -1; ``claim``: smaller changes are none.
    """

    unit: str
    harm: int
    claim: float = 0.0


QUANTITIES: Mapping[str, Quantity] = {
    "quality_drop": Quantity(POINTS, 1),
    "agreement": Quantity(POINTS, -1),
    "sqnr_db": Quantity(DECIBELS, -1, KERNELS_DB),
    "size_bytes": Quantity(PERCENT, 1),
    "weight_bytes": Quantity(PERCENT, 1),
    "integer_macs_fraction": Quantity(POINTS, -1),
    "speedup": Quantity(PERCENT, -1, REPEATABLE),
    "latency_ms": Quantity(PERCENT, 1, REPEATABLE),
    "missing": Quantity(COUNT, 1),
}
"""``quality_drop``: quality that the candidate lost against the baseline's same trial."""
EXACT = ("size_bytes", "weight_bytes", "integer_macs_fraction", "sqnr_db")
TIMED = ("speedup", "latency_ms")


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one trial in two runs.

    Parameters
    ----------
    metric : str
        One of `QUANTITIES`.
    batch_size : int or None
        Of a timed metric.
    baseline, candidate : float
        The values; NaN where a run has none.
    change : Interval or None
        With its 95 % interval: candidate less baseline as a share of 1 (points), or relative to the
        baseline (percent), or in dB; for ``quality_drop`` what was lost. None where it is not known.
    verdict : str
        `BETTER`, `SAME`, `WORSE`, `UNDECIDED`, `MISSING`, `NEW` or `INCOMPARABLE`.
    reason : str
        Of a verdict that the numbers alone do not explain.
    """

    trial: str
    metric: str
    batch_size: int | None
    baseline: float
    candidate: float
    change: Interval | None
    verdict: str
    reason: str = ""

    @property
    def unit(self) -> str:
        """Of the change."""
        return QUANTITIES[self.metric].unit


def changes(baseline: Results, candidate: Results) -> tuple[Change, ...]:
    """What differs between two runs, in the order of the baseline's trials, then the new ones.

    Quality and agreement are paired sample by sample where both runs hold the same test samples.
    Speed-ups over the run's own reference are compared, and milliseconds only where both runs name
    the same machine.

    Raises
    ------
    NotComparable
        If the runs have no trial in common.
    """
    old, new = _Side(baseline), _Side(candidate)
    names = [*old.rows, *(name for name in new.rows if name not in old.rows)]
    if not any(name in old.rows and name in new.rows for name in names):
        raise NotComparable(
            f"{baseline.folder} and {candidate.folder} have no trial in common; compare two runs of "
            "one experiment"
        )
    found: list[Change] = []
    for name in names:
        found += _of_trial(name, old, new)
    return tuple(found)


class _Side:
    """A run made ready: a row per trial and batch size, and its per-sample outcomes."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.batches = batch_sizes(results)
        first = self.batches[0] if self.batches else None
        self.tables: dict[int | None, dict[str, Row]] = {
            batch: {str(row["trial"]): row for row in records(trial_frame(results, batch))}
            for batch in (*self.batches, first)
        }
        self.rows = self.tables[first]
        self.predictions = dict(list(results.predictions.groupby("trial")))

    @property
    def machine(self) -> str:
        """The fingerprint of the machine."""
        return str(self.results.machine.get("fingerprint", ""))

    def ran(self, name: str) -> bool:
        """Whether the run has the trial, with something to compare."""
        return name in self.rows and self.rows[name]["status"] in RAN

    def claim(self, row: Row, batch: int) -> float:
        """The smallest difference in time that is called one in the row's comparison."""
        return smallest_claim(control(self.results, row["model"], row["target"], batch))


def _of_trial(name: str, old: _Side, new: _Side) -> Iterator[Change]:
    if old.ran(name) and new.ran(name):
        yield _quality(name, old, new)
        yield from _agreement(name, old, new)
        for metric in EXACT:
            yield from _exact(name, metric, old.rows[name], new.rows[name])
        for batch in old.batches:
            if batch in new.batches:
                yield from _times(name, batch, old, new)
    elif old.ran(name):
        row = new.rows.get(name)
        why = "the candidate does not have it"
        if row is not None:
            why = f"its status is {row['status']}: {row['reason'] or 'no reason was recorded'}"
        yield Change(name, "missing", None, 0, 1, Interval(1, 1, 1), MISSING, why)
    elif new.ran(name):
        yield Change(name, "missing", None, 1, 0, Interval(-1, -1, -1), NEW)


def _quality(name: str, old: _Side, new: _Side) -> Change:
    """What the candidate lost; paired where both scored the same samples by a mean."""
    a, b = old.rows[name], new.rows[name]
    outcomes = _same_samples(old.predictions.get(name), new.predictions.get(name))
    if outcomes and all(
        abs(float(np.mean(values)) - row["quality"]) < 1e-9
        for values, row in zip(outcomes, (a, b), strict=True)
    ):
        drop = paired_drop(*outcomes).interval
        return _judged(name, "quality_drop", None, a["quality"], b["quality"], drop)
    lost = _difference(interval(b, "quality"), interval(a, "quality"))
    why = "" if outcomes is None else "its score is no mean: from the two intervals"
    if outcomes is None:
        why = "the runs scored other samples: from the two intervals"
    return _judged(name, "quality_drop", None, a["quality"], b["quality"], lost, reason=why)


def _agreement(name: str, old: _Side, new: _Side) -> Iterator[Change]:
    a, b = old.rows[name], new.rows[name]
    if math.isnan(a["agreement"]) or math.isnan(b["agreement"]):
        return
    same = [_agreeing(side, name) for side in (old, new)]
    if (
        same[0] is not None
        and same[1] is not None
        and _same_samples(old.predictions[name], new.predictions[name]) is not None
    ):
        # a drop of the baseline's agreement, turned round
        lost = paired_drop(same[0], same[1])
        gained = Interval(-lost.interval.value, -lost.interval.high, -lost.interval.low)
        yield _judged(name, "agreement", None, a["agreement"], b["agreement"], gained)
        return
    gained_apart = _difference(interval(a, "agreement"), interval(b, "agreement"))
    yield _judged(name, "agreement", None, a["agreement"], b["agreement"], gained_apart)


def _agreeing(side: _Side, name: str) -> FloatArray | None:
    """Per sample, 1 where the trial answers as what its agreement is relative to."""
    rows = side.results.measurements
    mine = rows[(rows["trial"] == name) & (rows["metric"] == "agreement")]
    reference = str(mine["reference"].iloc[0]) if len(mine) else ""
    own, theirs = side.predictions.get(name), side.predictions.get(reference)
    if own is None or theirs is None or len(own) != len(theirs):
        return None
    found: FloatArray = (own["prediction"].to_numpy() == theirs["prediction"].to_numpy()).astype(
        float
    )
    return found


def _same_samples(
    a: pd.DataFrame | None, b: pd.DataFrame | None
) -> tuple[FloatArray, FloatArray] | None:
    """Per-sample outcomes of both, or None where they are not of the same samples."""
    if a is None or b is None or not np.array_equal(a["label"], b["label"], equal_nan=True):
        return None
    return a["outcome"].to_numpy(float), b["outcome"].to_numpy(float)


def _exact(name: str, metric: str, a: Row, b: Row) -> Iterator[Change]:
    """A metric that is counted, or the same whenever it is computed on one machine."""
    x, y = float(a[metric]), float(b[metric])
    if math.isnan(x) or math.isnan(y):
        return
    relative = QUANTITIES[metric].unit == PERCENT
    moved = 0.0 if x == y else ((y / x - 1) if relative and x else y - x)
    yield _judged(name, metric, None, x, y, Interval(moved, moved, moved))


def _times(name: str, batch: int, old: _Side, new: _Side) -> Iterator[Change]:
    a, b = old.tables[batch][name], new.tables[batch][name]
    claim = max(old.claim(a, batch), new.claim(b, batch))
    for metric in TIMED:
        if metric == "latency_ms" and old.machine != new.machine:
            continue
        x, y = interval(a, metric), interval(b, metric)
        if x is None or y is None:
            continue
        if metric == "speedup" and a["reference"] != b["reference"]:
            why = f"its references differ: {a['reference']} and {b['reference']}"
            yield Change(name, metric, batch, x.value, y.value, None, INCOMPARABLE, why)
            continue
        yield timed(name, metric, batch, x, y, claim)


def timed(
    name: str, metric: str, batch: int, baseline: Interval, candidate: Interval, claim: float
) -> Change:
    """The relative change of a time or a ratio of times, from the interval in each run.

    ``claim``: the smallest relative difference that either run's noise lets it claim.
    """
    apart = _difference(_log(baseline), _log(candidate))
    ratio = exp_interval(apart) if apart else Interval(math.nan, math.nan, math.nan)
    moved = Interval(ratio.value - 1, ratio.low - 1, ratio.high - 1)
    return _judged(name, metric, batch, baseline.value, candidate.value, moved, claim=claim)


def _log(x: Interval) -> Interval:
    return Interval(*(math.log(end) if end > 0 else math.nan for end in (x.value, x.low, x.high)))


def _difference(a: Interval | None, b: Interval | None) -> Interval | None:
    """``b - a`` of two independent estimates; ends that are unknown stay so.

    Source: Zou and Donner, Statistics in Medicine 27 (2008), from the two intervals alone.
    """
    if a is None or b is None:
        return None
    value = b.value - a.value
    down = math.hypot(b.value - b.low, a.high - a.value)
    up = math.hypot(b.high - b.value, a.value - a.low)
    return Interval(value, value - down, value + up)


def _judged(
    name: str,
    metric: str,
    batch: int | None,
    x: float,
    y: float,
    moved: Interval | None,
    *,
    claim: float = 0.0,
    reason: str = "",
) -> Change:
    """A change with its verdict: what the interval shows, beyond the smallest claim."""
    known = QUANTITIES[metric]
    least = max(claim, known.claim)
    if moved is None or math.isnan(moved.value):
        return Change(name, metric, batch, x, y, None, UNDECIDED, reason or "not measured in both")
    if moved.value == 0 or x == y:
        return Change(name, metric, batch, x, y, moved, SAME, reason)
    ends = sorted((known.harm * moved.low, known.harm * moved.high))
    harm, (low, high) = known.harm * moved.value, ends
    if low > 0 and harm > least:
        verdict = WORSE
    elif high < 0 and -harm > least:
        verdict = BETTER
    elif -least <= harm <= least and (least > 0 or metric in EXACT):
        verdict = SAME
    else:
        verdict = UNDECIDED
    return Change(name, metric, batch, x, y, moved, verdict, reason)
