"""Regression: a candidate run against a baseline, trial by trial and metric by metric.

A change is that of the candidate against the baseline, with a 95 % interval, and the interval alone
decides the verdict: ``better`` or ``worse`` where it excludes no change, ``same`` where it lies within
what nobody minds (`SAME`), ``undecided`` otherwise. What each interval allows for:

- size, coverage: nothing. The same file weighs the same; any change is one.
- SQNR: `SQNR_NOISE`, since kernels of two processors round differently; above `SQNR_MOST` only the
  order of float sums differs, and all is equal.
- quality and agreement: the test samples. Where both runs hold predictions of the same samples the
  difference is paired (Bonett and Price, or a bootstrap of scores that are no mean); else it is made
  of the two stored intervals.
- speed-ups: the intervals of both runs, and never less than two runs of the same differ by (`TWO_RUNS`)
  or the smallest claim of either run (1 %, or twice the half-width of its A/A control). Milliseconds
  are compared on one machine only, and with less trust: they are not paired within a round.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from quantbench.analysis.equivalence import smallest_claim
from quantbench.analysis.trial_table import records, reference_trial
from quantbench.errors import NotComparable
from quantbench.results import Results
from quantbench.spec import RAN, TIMED, Scenario
from quantbench.stats import STATISTICS, Interval, difference_interval, statistics
from quantbench.stats.statistics import FloatArray
from quantbench.units import METRICS, Better
from quantbench.units import Change as Unit

BETTER, SAME_AS, WORSE, UNDECIDED = "better", "same", "worse", "undecided"
MISSING, NEW = "missing", "new"
VERDICTS = (WORSE, MISSING, BETTER, NEW, UNDECIDED, SAME_AS)
"""In the order in which a reader wants them."""

STATUS = "status"
"""Stands where a metric does in the change of what became of a trial."""
"""Statuses of trials that have measurements."""

TWO_RUNS: Mapping[str, float] = {"speedup": 0.03, "latency_ms": 0.10}
"""What two complete runs of the same artifact on one machine differ by, as a share.

Speed-ups: 74 of 75 agree within it (docs/validation.md). Milliseconds: up to 9 % between published runs.
"""
SQNR_NOISE = 0.1
"""Decibels by which the same integers differ between kernels."""
SQNR_MOST = 100.0
"""Decibels above which outputs are equal but for the order of float sums."""

POINTS, PERCENT, DECIBELS = Unit.POINTS, Unit.PERCENT, Unit.DECIBELS
SAME: Mapping[str, float] = {POINTS: 0.005, PERCENT: 0.05, DECIBELS: 1.0}
"""A change whose interval lies within this is none: half a point, 5 %, 1 dB.

Of what is timed, within one and a half of `TWO_RUNS` where that is more.
"""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A metric that runs are compared by.

    ``unit``: `POINTS` and `DECIBELS` are differences, `PERCENT` is relative to the baseline.
    ``higher``: whether more is better. ``scenarios``: those it is read from.
    """

    unit: str
    higher: bool
    scenarios: tuple[str, ...]


QUANTITIES: Mapping[str, Quantity] = {
    spec.name: Quantity(spec.change, spec.better == Better.MORE, spec.scenarios)
    for spec in METRICS.values()
    if spec.change is not None
}


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one trial, or its status: what it was, what it is, and what that means.

    Parameters
    ----------
    trial : str
        What both runs know it by: ``model/backend/label/target``, with the seed where a run has several.
    metric, scenario, batch_size
        As in ``measurements.parquet``; metric `STATUS` for what became of the trial.
    baseline, candidate : float or None
        The metric's values, in its own unit.
    change : Interval or None
        Candidate against baseline, more than 0 where it rose: 0.005 is half a point where ``unit`` is
        `POINTS`, 5 per mille where it is `PERCENT`. None where there is nothing to compare.
    verdict : str
        One of `VERDICTS`.
    reason : str
        How it was judged, or why it could not be.
    traits : mapping
        The trial's ``model``, ``backend``, ``method`` and ``target``, which gates select by.
    """

    trial: str
    metric: str
    scenario: str
    batch_size: int | None
    baseline: float | None
    candidate: float | None
    change: Interval | None
    unit: str
    verdict: str
    reason: str
    traits: Mapping[str, str]

    @property
    def name(self) -> str:
        """The metric, with its batch size or scenario where that is not one sample a call."""
        if self.scenario == Scenario.OFFLINE:
            return f"{self.metric} offline"
        return f"{self.metric} @{self.batch_size}" if (self.batch_size or 1) > 1 else self.metric


def changes(baseline: Results, candidate: Results) -> tuple[Change, ...]:
    """Every trial of either run: its status, then its metrics.

    Raises
    ------
    NotComparable
        If the runs have no trial in common.
    """
    keys = _keys(baseline, candidate)
    before, after = _Side.of(baseline, keys[0]), _Side.of(candidate, keys[1])
    if not before.rows.keys() & after.rows.keys():
        raise NotComparable(
            f"{baseline.folder} and {candidate.folder} have no trial in common: trials are paired by "
            "model, backend, method with its axes, and target; run the same experiment twice"
        )
    found: list[Change] = []
    for key in dict.fromkeys([*before.rows, *after.rows]):
        status = _status(key, before.rows.get(key), after.rows.get(key))
        found.append(status)
        if _ran(before.rows.get(key)) and _ran(after.rows.get(key)):
            found += _metrics(status, before, after)
    return tuple(found)


# --- trials --------------------------------------------------------------------------------------

_Row = Mapping[str, Any]
_TRAITS = ("model", "backend", "method", "target")


def _keys(*runs: Results) -> list[dict[str, str]]:
    """Of each run, the name that its trials have in both."""
    plain = ["model", "backend", "label", "target"]
    several: set[tuple[str, ...]] = set()
    for run in runs:
        names = run.trials[plain].itertuples(index=False, name=None)
        several |= {name for name, count in Counter(names).items() if count > 1}
    found = []
    for run in runs:
        named = {}
        for row in records(run.trials):
            parts = tuple(str(row[name]) for name in plain)
            seed = (f"seed{row['seed']}",) if parts in several else ()
            named[str(row["trial"])] = "/".join((*parts, *seed))
        found.append(named)
    return found


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two runs, by the names that both know.

    ``rows``: the row of each trial. ``measured``: by name, metric, scenario, batch size and reference.
    ``places``: by name, every metric, scenario and batch size of it. ``answers``: predictions, by the name in the run itself. ``own``: the names in the run itself.
    """

    run: Results
    rows: Mapping[str, _Row]
    own: Mapping[str, str]
    measured: Mapping[tuple[str, str, str, int, str], _Row]
    places: Mapping[str, list[tuple[str, str, int]]]
    answers: Mapping[str, pd.DataFrame]

    @classmethod
    def of(cls, run: Results, keys: Mapping[str, str]) -> _Side:
        """A run with the names of `_keys`."""
        measured: dict[tuple[str, str, str, int, str], _Row] = {}
        places: dict[str, list[tuple[str, str, int]]] = {}
        for row in records(run.measurements):
            known = QUANTITIES.get(row["metric"])
            if known is None or row["scenario"] not in known.scenarios or row["trial"] not in keys:
                continue
            against = keys.get(row["reference"], "") if row["metric"] == "speedup" else ""
            batch = 0 if pd.isna(row["batch_size"]) or row["scenario"] not in TIMED else row["batch_size"]  # fmt: skip
            at = (
                0 if row["scenario"] == Scenario.OFFLINE else int(batch)
            )  # its best batch size may differ
            key = keys[row["trial"]]
            measured[key, row["metric"], row["scenario"], at, against] = row
            places.setdefault(key, []).append((row["metric"], row["scenario"], at))
        return cls(
            run,
            {keys[str(row["trial"])]: row for row in records(run.trials)},
            {key: name for name, key in keys.items()},
            measured,
            places,
            {str(n): own.sort_values("sample") for n, own in run.predictions.groupby("trial")},
        )

    @property
    def machines(self) -> set[str]:
        """Fingerprints of the machines that it was measured on."""
        return set(self.run.trials["machine"].dropna())

    def reference(self, key: str, last: str) -> str:
        """The trial that ratios are shown against, by the name that both know."""
        row = self.rows[key]
        named = reference_trial(self.run, str(row["model"]), str(row["target"]), last)
        return next((known for known, own in self.own.items() if own == named), "")

    def control(self, key: str, scenario: str, batch: int) -> Interval | None:
        """The A/A control of a trial's comparison; None where there is none."""
        place = (self.rows[key]["model"], self.rows[key]["target"])
        rows = self.run.measurements
        controls = rows[(rows["metric"] == "aa_control") & (rows["scenario"] == scenario)]
        for row in records(controls):
            own = next((k for k, name in self.own.items() if name == row["trial"]), "")
            here = own and (self.rows[own]["model"], self.rows[own]["target"]) == place
            if here and (scenario == Scenario.OFFLINE or row["batch_size"] == batch):
                return _interval(row)
        return None


def _ran(row: _Row | None) -> bool:
    return row is not None and row["status"] in RAN


def _status(key: str, before: _Row | None, after: _Row | None) -> Change:
    """What became of a trial."""
    verdict, reason = _fate(before, after)
    known = before or after or {}
    traits = {name: str(known[name]) for name in _TRAITS}
    return Change(key, STATUS, "", None, None, None, None, "", verdict, reason, traits)


def _fate(before: _Row | None, after: _Row | None) -> tuple[str, str]:
    if before is None:
        return NEW, f"only the candidate has it ({_told(after)})"
    if not _ran(before):
        if _ran(after):
            return NEW, f"the baseline has no measurement of it ({_told(before)})"
        return SAME_AS, f"not run in the baseline either ({_told(before)})"
    if after is None:
        return MISSING, "the candidate does not have it"
    if not _ran(after):
        return MISSING, _told(after)
    one, other = str(before["status"]), str(after["status"])
    if one == other:
        return SAME_AS, one
    if "ok" in (one, other):
        return WORSE if one == "ok" else BETTER, f"was {one}, is {_told(after)}"
    return UNDECIDED, f"was {one}, is {_told(after)}"


def _told(row: _Row | None) -> str:
    """Status and reason."""
    if row is None:
        return "absent"
    reason = row["reason"] if isinstance(row["reason"], str) else ""
    return f"{row['status']}: {reason}" if reason else str(row["status"])


# --- metrics -------------------------------------------------------------------------------------


def _metrics(trial: Change, before: _Side, after: _Side) -> Iterator[Change]:
    """The changes of a trial that both runs have measured; metrics that neither has are left out."""
    known = (side.places.get(trial.trial, ()) for side in (before, after))
    places = dict.fromkeys(place for own in known for place in own)
    for metric in QUANTITIES:
        for name, scenario, batch in places:
            if name == metric:
                found = _change(trial, metric, scenario, batch, before, after)
                if found is not None:
                    yield found


def _change(
    trial: Change, metric: str, scenario: str, batch: int, before: _Side, after: _Side
) -> Change | None:
    key, quantity, against = trial.trial, QUANTITIES[metric], ""
    if metric == "speedup":
        last = Scenario.OFFLINE if scenario == Scenario.OFFLINE else f"batch{batch}"
        named = [side.reference(key, last) for side in (before, after)]
        if key in named:
            return None  # of the reference itself the milliseconds speak
        both = [r for r in sorted(set(named)) if all(
            (key, metric, scenario, batch, r) in s.measured for s in (before, after)
        )]  # fmt: skip
        against = both[0] if both else named[0]
    one, other = (
        s.measured.get((key, metric, scenario, batch, against), {}) for s in (before, after)
    )
    values = (_value(one), _value(other))

    def told(interval: Interval | None, verdict: str, reason: str) -> Change:
        return Change(
            key, metric, scenario, batch or None, values[0], values[1], interval, quantity.unit,
            verdict, reason, trial.traits,
        )  # fmt: skip

    if values[0] is None and values[1] is None:
        return None
    if values[0] is None:
        return told(None, NEW, "the baseline has no value")
    if values[1] is None:
        if metric == "speedup" and len(set(named)) > 1:
            return told(
                None, UNDECIDED,
                f"not comparable: ratios are to {named[0]} in the baseline and to {named[1]} in the "
                "candidate, and no reference was timed in both; name one under 'reference:'",
            )  # fmt: skip
        return told(None, MISSING, _why(other) or "the candidate has no value")
    if metric == "latency_ms" and before.machines != after.machines:
        return told(None, UNDECIDED, "not comparable: the runs are of different machines")
    if metric in TWO_RUNS:
        if all(one[column] == other[column] for column in ("value", "low", "high", "n")):
            interval, reason = Interval(0.0, 0.0, 0.0), "the same measurement"
        else:
            controls = [side.control(key, scenario, batch) for side in (before, after)]
            interval = ratio_change(_interval(one), _interval(other), least(metric, controls))
            reason = f"against {against}" if against else "on the same machine"
    elif metric in ("quality", "agreement"):
        interval, reason = _score(metric, key, one, other, before, after)
    elif metric == "sqnr_db":
        a, b = (min(value, SQNR_MOST) for value in values if value is not None)
        interval = Interval(b - a, b - a - SQNR_NOISE, b - a + SQNR_NOISE)
        reason = f"within {SQNR_NOISE:g} dB it is rounding, above {SQNR_MOST:g} dB too"
    else:
        x = _exact(values[0], values[1], quantity.unit)
        interval, reason = Interval(x, x, x), "exact"
    return told(interval, verdict(interval, metric), reason)


def verdict(change: Interval, metric: str) -> str:
    """What an interval of a change says: one of `VERDICTS`.

    >>> verdict(Interval(-0.09, -0.12, -0.06), "speedup")
    'worse'
    >>> verdict(Interval(-0.09, -0.20, 0.03), "speedup")
    'undecided'
    """
    quantity = QUANTITIES[metric]
    if change.excludes(0.0):
        return BETTER if (change.value > 0) == quantity.higher else WORSE
    near = max(SAME[quantity.unit], 1.5 * TWO_RUNS.get(metric, 0.0))
    # of ratios 5 % more is as far as 1 / 1.05 less, so that the way back is the way there
    below = near / (1 + near) if quantity.unit == PERCENT else near
    return SAME_AS if change.low >= -below and change.high <= near else UNDECIDED


def least(metric: str, controls: Iterable[Interval | None]) -> float:
    """The smallest change of a timed metric that two runs may claim, given their A/A controls."""
    return max(TWO_RUNS[metric], *map(smallest_claim, controls))


def ratio_change(baseline: Interval, candidate: Interval, floor: float) -> Interval:
    """The relative change of a ratio (or of a time) between two runs.

    Parameters
    ----------
    baseline, candidate : Interval
        Both above 0. Their logarithms are compared: the way back is the way there.
    floor : float
        The interval reaches at least this far, as a share, to both sides; see `least`.

    >>> change = ratio_change(Interval(2.0, 1.98, 2.02), Interval(1.8, 1.78, 1.82), 0.03)
    >>> [round(100 * x, 1) for x in (change.value, change.low, change.high)]
    [-10.0, -12.6, -7.3]
    """
    found = difference_interval(_log(baseline), _log(candidate))
    least = math.log1p(floor)
    low, high = min(found.low, found.value - least), max(found.high, found.value + least)
    return Interval(*(math.expm1(x) for x in (found.value, low, high)))


def _log(x: Interval) -> Interval:
    return Interval(
        math.log(x.value), math.log(x.low) if x.low > 0 else -math.inf, math.log(x.high)
    )


def _exact(before: float, after: float, unit: str) -> float:
    if unit == PERCENT:
        return after / before - 1 if before else (math.inf if after else 0.0)
    return after - before


def _score(
    metric: str, key: str, one: _Row, other: _Row, before: _Side, after: _Side
) -> tuple[Interval, str]:
    """Change of a score, paired by sample where that is possible; and how it was found."""
    mine = [side.answers.get(side.own[key]) for side in (before, after)]
    paired = None
    if mine[0] is not None and mine[1] is not None and _same_samples(mine[0], mine[1]):
        if metric == "quality":
            paired = _lost(mine[0], mine[1], float(one["value"]), float(other["value"]))
        else:
            agreed = [
                _agreed(own, side.answers.get(str(row["reference"])))
                for own, side, row in zip(mine, (before, after), (one, other), strict=True)
            ]
            if agreed[0] is not None and agreed[1] is not None:
                paired = _drop(agreed[0], agreed[1])
    if paired is not None:
        return Interval(-paired.value, -paired.high, -paired.low), "the same test samples"
    unpaired = difference_interval(_interval(one), _interval(other))
    return unpaired, "not the same test samples in both runs: their intervals combined"


def _same_samples(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether both were asked the same: as many samples, with the same labels in the same order."""
    a, b = one["label"].to_numpy(), other["label"].to_numpy()
    return len(a) == len(b) and bool(np.array_equal(a, b, equal_nan=True))


def _agreed(own: pd.DataFrame | None, reference: pd.DataFrame | None) -> FloatArray | None:
    """Per sample, whether a trial answers as its float model; None where that is not known."""
    if own is None or reference is None or len(own) != len(reference):
        return None
    same = own["prediction"].to_numpy() == reference["prediction"].to_numpy()
    return np.asarray(same, dtype=np.float64)


def _lost(before: pd.DataFrame, after: pd.DataFrame, was: float, now: float) -> Interval | None:
    """What the score loses on the same samples; None where the score cannot be computed again."""
    one, other = (side["outcome"].to_numpy(dtype=np.float64) for side in (before, after))
    if not np.isnan(one).any() and not np.isnan(other).any():
        return _drop(one, other)
    first, second, label = (
        frame[column].to_numpy(dtype=np.float64)
        for frame, column in ((before, "prediction"), (after, "prediction"), (before, "label"))
    )
    if np.array_equal(first, second):
        return Interval(0.0, 0.0, 0.0)
    for statistic in STATISTICS.values():  # the one that gives the scores that are stored
        if math.isclose(float(statistic(first, label)), was, abs_tol=1e-9) and math.isclose(
            float(statistic(second, label)), now, abs_tol=1e-9
        ):
            return statistics.bootstrap_drop(statistic, first, second, label).interval
    return None


def _drop(one: FloatArray, other: FloatArray) -> Interval:
    """What a mean loses; exactly nothing where no sample changed."""
    if np.array_equal(one, other):
        return Interval(0.0, 0.0, 0.0)
    return statistics.paired_drop(one, other).interval


def _value(row: _Row) -> float | None:
    value = row.get("value")
    return None if value is None or pd.isna(value) else float(value)


def _interval(row: _Row) -> Interval:
    """A stored interval; ends that are not known are endless."""
    low, high = (
        end if row[name] is None or pd.isna(row[name]) else float(row[name])
        for name, end in (("low", -math.inf), ("high", math.inf))
    )
    return Interval(float(row["value"]), low, high)


def _why(row: _Row) -> str:
    return row["reason"] if isinstance(row.get("reason"), str) else ""
