"""Trial table: a run as one row per trial with its measurements, typed or as a frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from quantbench.results import Measurement, Results, TrialRow, rows
from quantbench.spec import Scenario, Spread
from quantbench.stats import Interval, Loss
from quantbench.units import METRICS as SPECS

TIMED = "timed"
"""Stands for `Scenario.SINGLE_STREAM` and `Scenario.MULTI_STREAM`: one sample a call, or several."""
# What `trial_frame` makes columns of, and the scenario they come from (the peak of memory, say,
# is also known of scoring and timing); a metric that no trial has is a column of nulls.
METRICS: Mapping[str, str] = {
    **{
        spec.column: TIMED if spec.scenarios[0] == Scenario.SINGLE_STREAM else spec.scenarios[0]
        for spec in SPECS.values() if spec.column
    },
    **dict.fromkeys(("offline_throughput_per_s", "offline_speedup"), Scenario.OFFLINE),
}  # fmt: skip


def batch_sizes(results: Results) -> list[int]:
    """Batch sizes that were timed, ascending."""
    known = results.measurements
    latencies = known[(known["metric"] == "latency_ms") & (known["scenario"] != Scenario.OFFLINE)]
    return sorted({int(size) for size in latencies["batch_size"].dropna()})


def reference_trial(
    results: Results, model: str, target: str, last: str | None = None
) -> str | None:
    """The fp32 trial that speed-ups of a comparison are relative to, or None where there is none.

    As the run names it for the comparison ``last`` (``batch1``, ``offline``; the first of the place
    by default); a run that does not is asked for its A/A control, then for what its losses are
    relative to.
    """
    named = [r for r in results.references if (r.model, r.target) == (model, target)]
    if named:
        return next((r.trial for r in named if r.comparison == last), named[0].trial)
    trials, known = results.trials, results.measurements
    here = set(trials.loc[(trials["model"] == model) & (trials["target"] == target), "trial"])
    control = known.loc[(known["metric"] == "aa_control") & known["trial"].isin(here), "trial"]
    if len(control):
        return str(control.iloc[0])
    drops = known.loc[(known["metric"] == "quality_drop") & known["trial"].isin(here), "reference"]
    against = drops.dropna()
    return str(against.mode().iloc[0]) if len(against) else None


@dataclass(frozen=True, slots=True)
class Pool:
    """Trials that differ by seed alone, and so are one candidate (`quantbench.analysis.seeds`).

    Parameters
    ----------
    pick : str
        The trial that stands for all of them.
    losses : mapping
        The loss of each seed that was judged.
    left_out : int
        How many may not be shipped, or have no loss.
    loss : Loss or None
        Over the seeds that were judged; None where none was.
    """

    pick: str
    losses: Mapping[int, float]
    left_out: int
    loss: Loss | None


@dataclass(frozen=True, slots=True)
class MeasuredTrial(TrialRow):
    """A trial with what was measured of it at one batch size.

    Parameters
    ----------
    batch_size : int or None
        Of the timed metrics.
    reference : str
        The trial that ``speedup`` is relative to; empty where there is none.
    metrics : mapping
        The measurement of each of `METRICS` that it has.
    pool : Pool or None
        The trials that differ from it by seed alone, itself among them, where they are pooled.
    """

    batch_size: int | None = None
    reference: str = ""
    metrics: Mapping[str, Measurement] = field(default_factory=dict, repr=False)
    pool: Pool | None = field(default=None, repr=False)

    @property
    def is_candidate(self) -> bool:
        """Whether it may be chosen: another seed does not stand for it."""
        return self.pool is None or self.pool.pick == self.trial

    @property
    def loss(self) -> Loss | None:
        """What it loses, over the seeds that it stands for; None where that was not measured."""
        if self.pool is not None and self.is_candidate:
            return self.pool.loss
        drop, bound = self.of("quality_drop"), self.value("quality_drop_bound")
        if math.isnan(bound):
            return None
        return Loss.of(Interval(drop.value, drop.low, drop.high), bound)

    @property
    def is_reference(self) -> bool:
        """Whether the others are compared with it."""
        return self.trial == self.reference

    @property
    def offline_batch_size(self) -> int | None:
        """The batch size that suits it best, where several were timed as an offline comparison."""
        return self.of("offline_throughput_per_s").batch_size

    def of(self, metric: str) -> Measurement:
        """A measurement; an unknown value where there is none."""
        return self.metrics.get(metric, _NOTHING)

    def value(self, metric: str) -> float:
        """A measured value; not a number where there is none."""
        return self.of(metric).value

    def interval(self, metric: str) -> Interval | None:
        """A measured value with its ends; None where there is none."""
        return self.of(metric).interval

    def about(self, metric: str) -> bool:
        """Whether a value is known and its interval is not, though the metric has one."""
        found = self.of(metric)
        spec = SPECS.get(found.metric)
        has = spec is not None and spec.spread == Spread.CONFIDENCE
        return has and found.known and math.isnan(found.low) and math.isnan(found.high)


_NOTHING = Measurement()


def trial_rows(results: Results, batch_size: int | None = None) -> tuple[MeasuredTrial, ...]:
    """One row per trial, in the order of the run.

    Parameters
    ----------
    batch_size : int, optional
        Of the timed metrics; the smallest that was timed by default.

    The drop of a trial that drops are measured against is 0. Where the one-sided bound is missing,
    ``quality_drop_bound`` is the upper end of the drop's interval.
    """
    sizes = batch_sizes(results)
    batch = batch_size if batch_size is not None else (sizes[0] if sizes else None)
    trials = rows(TrialRow, results.trials)
    at_batch, offline = (
        _references(results, trials, last) for last in (f"batch{batch}", Scenario.OFFLINE)
    )
    measured = rows(Measurement, results.measurements)
    found = _by_trial(measured, (at_batch, offline), batch)
    against = {m.reference for m in measured if m.metric == "quality_drop"}
    return tuple(
        MeasuredTrial(
            **{one.name: getattr(trial, one.name) for one in dataclasses.fields(trial)},
            batch_size=batch,
            reference=(reference := at_batch[trial.trial] or ""),
            metrics=_with_losses(
                found.get(trial.trial, {}), trial.trial in against or trial.trial == reference
            ),
        )
        for trial in trials
    )


def _with_losses(found: dict[str, Measurement], itself: bool) -> dict[str, Measurement]:
    """Measurements with the loss of what losses are relative to, and with a bound of each loss."""
    metrics = dict(found)
    drop, bound = (metrics.get(name, _NOTHING) for name in ("quality_drop", "quality_drop_bound"))
    if not bound.known:
        metrics["quality_drop_bound"] = dataclasses.replace(bound, value=drop.high)
    if itself and "quality" in metrics and metrics["quality"].known and not drop.known:
        metrics["quality_drop"] = dataclasses.replace(drop, value=0.0, low=0.0, high=0.0)
        metrics["quality_drop_bound"] = dataclasses.replace(bound, value=0.0)
    return metrics


def trial_frame(results: Results, batch_size: int | None = None) -> pd.DataFrame:
    """`trial_rows` as a frame, for figures and for a reader's own.

    Returns
    -------
    DataFrame
        The columns of ``trials``, then for each of `METRICS` its value (null where not measured)
        and the same name with ``_low``, ``_high``, ``_n``, ``_verdict``, ``_unit`` and
        ``_reason``; ``batch_size``; ``reference`` (the trial that ``speedup`` is relative to) and
        ``is_reference``.
    """
    return frame_of(results, trial_rows(results, batch_size))


def frame_of(results: Results, trials: Sequence[MeasuredTrial]) -> pd.DataFrame:
    """`trial_frame` of rows that are known already: all of a run, in its order."""
    frame = results.trials.reset_index(drop=True).copy()
    frame["batch_size"] = trials[0].batch_size if trials else None
    frame["reference"] = [trial.reference or None for trial in trials]
    frame["is_reference"] = [trial.is_reference for trial in trials]
    columns: dict[str, list[Any]] = {
        "offline_batch_size": [_number(trial.offline_batch_size) for trial in trials]
    }
    for metric in METRICS:
        found = [trial.of(metric) for trial in trials]
        columns[metric] = [m.value for m in found]
        columns[f"{metric}_low"] = [m.low for m in found]
        columns[f"{metric}_high"] = [m.high for m in found]
        columns[f"{metric}_n"] = [_number(m.n) for m in found]
        columns[f"{metric}_verdict"] = [m.verdict for m in found]
        columns[f"{metric}_reason"] = [m.reason for m in found]
        columns[f"{metric}_unit"] = [m.unit for m in found]
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def _number(value: int | None) -> float:
    return math.nan if value is None else float(value)


def _references(results: Results, trials: Iterable[TrialRow], last: str) -> dict[str, str | None]:
    """The reference of each trial in its place's comparison of that name."""
    trials = list(trials)
    places = dict.fromkeys((trial.model, trial.target) for trial in trials)
    known = {place: reference_trial(results, *place, last) for place in places}
    return {trial.trial: known[trial.model, trial.target] for trial in trials}


def _by_trial(
    measured: Iterable[Measurement],
    references: tuple[Mapping[str, str | None], Mapping[str, str | None]],
    batch: int | None,
) -> dict[str, dict[str, Measurement]]:
    """The measurements of each trial by metric: of its scenario, batch size and reference.

    ``references``: of each trial, at the batch size and offline.
    """
    found: dict[str, dict[str, Measurement]] = {}
    for row in measured:
        metric = row.metric
        scenario = (
            TIMED
            if row.scenario in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM)
            else row.scenario
        )
        if scenario == Scenario.OFFLINE and (known := f"offline_{metric}") in METRICS:
            metric = known
        if METRICS.get(metric) != scenario:
            continue
        if scenario in (TIMED, Scenario.ENERGY) and row.batch_size not in {batch} - {None}:
            continue
        wanted = references[scenario == Scenario.OFFLINE].get(row.trial)
        if metric.endswith("speedup") and row.reference not in ("", wanted):
            continue
        found.setdefault(row.trial, {}).setdefault(metric, row)
    return found


def control(
    results: Results,
    model: str,
    target: str,
    batch_size: int | None = None,
    *,
    offline: bool = False,
) -> Interval | None:
    """The A/A control of a comparison: the reference against itself, as a ratio of times.

    Of the smallest batch size by default; ``offline``: of each at its best, whatever its size.
    """
    found = control_row(results, model, target, batch_size, offline=offline)
    return None if found is None else found.interval


def control_row(
    results: Results,
    model: str,
    target: str,
    batch_size: int | None = None,
    *,
    offline: bool = False,
) -> Measurement | None:
    """The row of `control`, which names the trial that was timed twice."""
    here = {
        t.trial for t in rows(TrialRow, results.trials) if (t.model, t.target) == (model, target)
    }
    sizes = batch_sizes(results)
    batch = batch_size if batch_size is not None else (sizes[0] if sizes else None)
    controls = results.measurements[results.measurements["metric"] == "aa_control"]
    for row in rows(Measurement, controls):
        same = offline or batch is None or row.batch_size == batch
        if row.trial in here and (row.scenario == Scenario.OFFLINE) == offline and same:
            return row
    return None
