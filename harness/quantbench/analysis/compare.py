"""Compare: a candidate run against a baseline, trial by trial and metric by metric.

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

import numpy as np
import pandas as pd

from quantbench.analysis.equivalence import smallest_claim
from quantbench.analysis.trial_table import reference_trial
from quantbench.errors import NotComparable
from quantbench.results import Measurement, Results, TrialRow, rows
from quantbench.spec import RAN, TIMED, Scenario, Status
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

TWO_RUNS: Mapping[str, float] = {"speedup": 0.03, "latency_ms": 0.10}
"""What two complete runs of the same artifact on one machine differ by, as a share.

How many speed-ups of the published runs agree within it, and how far milliseconds are apart: docs/validation.md.
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
    if not before.trials.keys() & after.trials.keys():
        raise NotComparable(
            f"{baseline.folder} and {candidate.folder} have no trial in common: trials are paired by "
            "model, backend, method with its axes, and target; run the same experiment twice"
        )
    found: list[Change] = []
    for key in dict.fromkeys([*before.trials, *after.trials]):
        status = _status(key, before.trials.get(key), after.trials.get(key))
        found.append(status)
        if _ran(before.trials.get(key)) and _ran(after.trials.get(key)):
            found += _metrics(status, before, after)
    return tuple(found)


# --- trials --------------------------------------------------------------------------------------


def _keys(*runs: Results) -> list[dict[str, str]]:
    """Of each run, the name that its trials have in both."""
    trials = [rows(TrialRow, run.trials) for run in runs]
    several = {name for own in trials for name, n in Counter(map(_plain, own)).items() if n > 1}
    return [
        {
            row.trial: "/".join((*_plain(row), *([f"seed{row.seed}"] * (_plain(row) in several))))
            for row in own
        }
        for own in trials
    ]


def _plain(row: TrialRow) -> tuple[str, str, str, str]:
    return (row.model, row.backend, row.label, row.target)


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two runs, by the names that both know.

    ``trials``: the row of each. ``measured``: by name, metric, scenario, batch size and reference.
    ``places``: by name, every metric, scenario and batch size of it. ``answers``: predictions, by the name in the run itself. ``own``: the names in the run itself.
    """

    run: Results
    trials: Mapping[str, TrialRow]
    own: Mapping[str, str]
    measured: Mapping[tuple[str, str, str, int, str], Measurement]
    places: Mapping[str, list[tuple[str, str, int]]]
    answers: Mapping[str, pd.DataFrame]

    @classmethod
    def of(cls, run: Results, keys: Mapping[str, str]) -> _Side:
        """A run with the names of `_keys`."""
        measured: dict[tuple[str, str, str, int, str], Measurement] = {}
        places: dict[str, list[tuple[str, str, int]]] = {}
        for row in rows(Measurement, run.measurements):
            known = QUANTITIES.get(row.metric)
            if known is None or row.scenario not in known.scenarios or row.trial not in keys:
                continue
            against = keys.get(row.reference, "") if row.metric == "speedup" else ""
            # of scores there is one, and offline its best batch size may differ
            timed = row.scenario in TIMED and row.scenario != Scenario.OFFLINE
            at = (row.batch_size or 0) if timed else 0
            key = keys[row.trial]
            measured[key, row.metric, row.scenario, at, against] = row
            places.setdefault(key, []).append((row.metric, row.scenario, at))
        return cls(
            run,
            {keys[row.trial]: row for row in rows(TrialRow, run.trials)},
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
        row = self.trials[key]
        named = reference_trial(self.run, row.model, row.target, last)
        return next((known for known, own in self.own.items() if own == named), "")

    def control(self, key: str, scenario: str, batch: int) -> Interval | None:
        """The A/A control of a trial's comparison; None where there is none."""
        place = _place(self.trials[key])
        measured = self.run.measurements
        controls = measured[
            (measured["metric"] == "aa_control") & (measured["scenario"] == scenario)
        ]
        for row in rows(Measurement, controls):
            own = next((k for k, name in self.own.items() if name == row.trial), "")
            here = own and _place(self.trials[own]) == place
            if here and (scenario == Scenario.OFFLINE or row.batch_size == batch):
                return _interval(row)
        return None


def _place(row: TrialRow) -> tuple[str, str]:
    return (row.model, row.target)


def _ran(row: TrialRow | None) -> bool:
    return row is not None and row.status in RAN


def _status(key: str, before: TrialRow | None, after: TrialRow | None) -> Change:
    """What became of a trial."""
    verdict, reason = _fate(before, after)
    known = before or after
    traits = {name: str(getattr(known, name)) for name in ("model", "backend", "method", "target")}
    return Change(key, STATUS, "", None, None, None, None, "", verdict, reason, traits)


def _fate(before: TrialRow | None, after: TrialRow | None) -> tuple[str, str]:
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
    one, other = before.status, after.status
    if one == other:
        return SAME_AS, one
    if Status.OK in (one, other):
        return WORSE if one == Status.OK else BETTER, f"was {one}, is {_told(after)}"
    return UNDECIDED, f"was {one}, is {_told(after)}"


def _told(row: TrialRow | None) -> str:
    """Status and reason."""
    if row is None:
        return "absent"
    return f"{row.status}: {row.reason}" if row.reason else row.status


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
        s.measured.get((key, metric, scenario, batch, against), Measurement())
        for s in (before, after)
    )
    values = tuple(m.value if m.known else None for m in (one, other))

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
        return told(None, MISSING, other.reason or "the candidate has no value")
    if metric == "latency_ms" and before.machines != after.machines:
        return told(None, UNDECIDED, "not comparable: the runs are of different machines")
    if metric in TWO_RUNS:
        if (one.interval, one.n) == (other.interval, other.n):
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
    metric: str, key: str, one: Measurement, other: Measurement, before: _Side, after: _Side
) -> tuple[Interval, str]:
    """Change of a score, paired by sample where that is possible; and how it was found."""
    mine = [side.answers.get(side.own[key]) for side in (before, after)]
    paired = None
    if mine[0] is not None and mine[1] is not None and _same_samples(mine[0], mine[1]):
        if metric == "quality":
            paired = _lost(mine[0], mine[1], one.value, other.value)
        else:
            agreed = [
                _agreed(own, side.answers.get(row.reference))
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


def _interval(row: Measurement) -> Interval:
    """A stored interval; ends that are not known are endless."""
    low = -math.inf if math.isnan(row.low) else row.low
    high = math.inf if math.isnan(row.high) else row.high
    return Interval(row.value, low, high)
