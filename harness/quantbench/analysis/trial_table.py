"""Frame: a run as one row per trial, with the trials it is relative to."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from quantbench.results import Results
from quantbench.spec import Scenario
from quantbench.stats import Interval
from quantbench.units import METRICS as SPECS

Row = Mapping[str, Any]

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
    rows = results.measurements
    latencies = rows[(rows["metric"] == "latency_ms") & (rows["scenario"] != Scenario.OFFLINE)]
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
    trials, rows = results.trials, results.measurements
    here = set(trials.loc[(trials["model"] == model) & (trials["target"] == target), "trial"])
    control = rows.loc[(rows["metric"] == "aa_control") & rows["trial"].isin(here), "trial"]
    if len(control):
        return str(control.iloc[0])
    drops = rows.loc[(rows["metric"] == "quality_drop") & rows["trial"].isin(here), "reference"]
    against = drops.dropna()
    return str(against.mode().iloc[0]) if len(against) else None


def trial_frame(results: Results, batch_size: int | None = None) -> pd.DataFrame:
    """One row per trial, with its measurements as columns.

    Parameters
    ----------
    batch_size : int, optional
        Of the timed metrics; the smallest that was timed by default.

    Returns
    -------
    DataFrame
        The columns of ``trials``, then for each of `METRICS` its value (null where not measured)
        and the same name with ``_low``, ``_high``, ``_n``, ``_verdict``, ``_unit`` and
        ``_reason``; ``batch_size``; ``reference`` (the trial that ``speedup`` is relative to) and
        ``is_reference``. The drop of a trial that drops are measured against is 0. Where the
        one-sided bound is missing, ``quality_drop_bound`` is the upper end of the drop's interval.
    """
    sizes = batch_sizes(results)
    batch = batch_size if batch_size is not None else (sizes[0] if sizes else None)
    frame = results.trials.reset_index(drop=True).copy()
    frame["batch_size"] = batch
    at_batch, offline = (_references(results, last) for last in (f"batch{batch}", Scenario.OFFLINE))
    frame["reference"] = [at_batch[trial] for trial in frame["trial"]]
    frame["is_reference"] = frame["trial"] == frame["reference"]
    found = _rows_by_trial(results, (at_batch, offline), batch)
    columns: dict[str, list[Any]] = {}
    at_best = [found.get((t, "offline_throughput_per_s"), {}) for t in frame["trial"]]
    columns["offline_batch_size"] = [number(row.get("batch_size")) for row in at_best]
    for metric in METRICS:
        rows = [found.get((trial, metric), {}) for trial in frame["trial"]]
        for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high"), ("_n", "n")):
            columns[metric + suffix] = [number(row.get(key)) for row in rows]
        for suffix, key in (("_verdict", "verdict"), ("_reason", "reason"), ("_unit", "unit")):
            columns[metric + suffix] = [word(row.get(key)) for row in rows]
    frame = pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)
    unknown = frame["quality_drop_bound"].isna()
    frame.loc[unknown, "quality_drop_bound"] = frame.loc[unknown, "quality_drop_high"]
    drops = results.measurements[results.measurements["metric"] == "quality_drop"]
    itself = frame["trial"].isin(drops["reference"].dropna()) | frame["is_reference"]
    itself &= frame["quality"].notna() & frame["quality_drop"].isna()
    for column in ("quality_drop", "quality_drop_low", "quality_drop_high", "quality_drop_bound"):
        frame.loc[itself, column] = 0.0
    return frame


def _references(results: Results, last: str) -> dict[str, str | None]:
    """The reference of each trial in its place's comparison of that name."""
    columns = (results.trials[name] for name in ("trial", "model", "target"))
    rows = list(zip(*columns, strict=True))
    places = dict.fromkeys((model, target) for _, model, target in rows)
    known = {place: reference_trial(results, *place, last) for place in places}
    return {str(trial): known[model, target] for trial, model, target in rows}


def _rows_by_trial(
    results: Results,
    references: tuple[Mapping[str, str | None], Mapping[str, str | None]],
    batch: int | None,
) -> dict[tuple[str, str], dict[str, Any]]:
    """The measurement of each (trial, metric): of its scenario, batch size and reference.

    ``references``: of each trial, at the batch size and offline.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in records(results.measurements):
        trial, metric = str(row["trial"]), str(row["metric"])
        scenario = (
            TIMED
            if row["scenario"] in (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM)
            else row["scenario"]
        )
        if scenario == Scenario.OFFLINE and (known := f"offline_{metric}") in METRICS:
            metric = known
        if METRICS.get(metric) != scenario:
            continue
        if scenario in (TIMED, Scenario.ENERGY) and number(row["batch_size"]) != batch:
            continue
        wanted = references[scenario == Scenario.OFFLINE].get(trial)
        if metric.endswith("speedup") and word(row["reference"]) not in ("", wanted):
            continue
        found.setdefault((trial, metric), row)
    return found


def records(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows as mappings from column to value."""
    names = [str(name) for name in frame.columns]
    for values in frame.itertuples(index=False, name=None):
        yield dict(zip(names, values, strict=True))


_ROWS: dict[int, tuple[weakref.ref[pd.DataFrame], Mapping[str, dict[str, Any]]]] = {}


def rows_of(frame: pd.DataFrame) -> Mapping[str, dict[str, Any]]:
    """The rows of a `trial_frame`, or of a part of one, by trial; read once for a frame.

    A frame has some 250 columns: to read one row of it again and again was half the time of a report.
    """
    key = id(frame)
    if key not in _ROWS or _ROWS[key][0]() is not frame:
        rows = {str(row["trial"]): row for row in records(frame)}
        _ROWS[key] = (weakref.ref(frame, lambda gone: _ROWS.pop(key, None)), rows)
    return _ROWS[key][1]


def number(value: Any) -> float:
    """A value of a frame as a float; not a number where it is null."""
    return math.nan if value is None or pd.isna(value) else float(value)


def word(value: Any) -> str:
    """A value of a frame as text; empty where it is null."""
    return "" if value is None or pd.isna(value) else str(value)


def interval(row: Mapping[str, Any], metric: str) -> Interval | None:
    """A metric of one row of `trial_frame`; None where it was not measured.

    Ends that are unknown are not a number.
    """
    value = number(row[metric])
    if math.isnan(value):
        return None
    return Interval(value, number(row[f"{metric}_low"]), number(row[f"{metric}_high"]))


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
    trials, rows = results.trials, results.measurements
    here = set(trials.loc[(trials["model"] == model) & (trials["target"] == target), "trial"])
    sizes = batch_sizes(results)
    batch = batch_size if batch_size is not None else (sizes[0] if sizes else None)
    controls = rows[
        (rows["metric"] == "aa_control") & ((rows["scenario"] == Scenario.OFFLINE) == offline)
    ]
    for row in records(controls):
        same_batch = offline or batch is None or number(row["batch_size"]) == batch
        if row["trial"] in here and same_batch:
            found = Interval(*(number(row[key]) for key in ("value", "low", "high")))
            return None if math.isnan(found.value) else found
    return None
