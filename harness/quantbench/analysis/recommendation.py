"""Advice: which trial to ship, the Pareto front, and what a choice gains; pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pandas as pd

from quantbench.analysis.constraints import OBJECTIVES, Constraints, drop_limit, size_limit
from quantbench.analysis.equivalence import any_overlap, round_times, same_speed, smallest_claim
from quantbench.analysis.trial_table import (
    Row,
    batch_sizes,
    control,
    number,
    records,
    rows_of,
    trial_frame,
    word,
)
from quantbench.errors import BadInput, did_you_mean
from quantbench.results import Results
from quantbench.spec import Scenario, Status
from quantbench.stats import Interval, Times
from quantbench.units import size

OUTPUTS_DIFFER = "outputs-differ"
WITHOUT_LIMITS = Constraints(max_drop=math.inf)


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A trial that is better by the objective but may not be shipped, and why."""

    trial: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ship for one model on one target.

    Parameters
    ----------
    trial : str or None
        None where no trial qualifies.
    reason : str
        Why this one, or why none; one sentence.
    batch_size : int or None
        What the objective was measured at; None where each trial counts at its own best.
    ties : tuple of str
        Allowed trials that cannot be told from the best within noise; ``trial`` is the smallest
        of them and itself not listed.
    passed_over : tuple of PassedOver
        Measured trials ahead of ``trial`` that are not allowed, best first.
    allowed : tuple of str
        The trials that qualified, best by the objective first.
    front : tuple of str
        Those of them that no other one beats in both the objective and quality, in that order.
    """

    model: str
    target: str
    trial: str | None
    reason: str
    batch_size: int | None = None
    ties: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    allowed: tuple[str, ...] = ()
    front: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gain:
    """Speed-up of a trial over one float trial; ``versus`` says in words which one that is."""

    reference: str
    versus: str
    speedup: Interval
    verdict: str


# --- the Pareto front ----------------------------------------------------------------------------


def pareto(
    frame: pd.DataFrame,
    lower: Sequence[str] = ("latency_ms",),
    higher: Sequence[str] = ("quality",),
) -> pd.Series[bool]:
    """Which rows no other row beats: as good in every column and better in one.

    Parameters
    ----------
    frame : DataFrame
        A row with a null in any of the columns is never on the front.
    lower, higher : sequence of str
        Columns where less, and where more, is better.

    Returns
    -------
    Series of bool, with the index of ``frame``

    >>> f = pd.DataFrame({"latency_ms": [1.0, 2.0, 3.0], "quality": [0.8, 0.9, 0.85]})
    >>> list(pareto(f))
    [True, True, False]
    """
    costs = [
        (*(float(row[c]) for c in lower), *(-float(row[c]) for c in higher))
        for row in records(frame)
    ]
    return pd.Series(unbeaten(costs), frame.index, dtype=bool)


def unbeaten(costs: Sequence[tuple[float, ...]]) -> list[bool]:
    """Which of ``costs`` no other beats: as low in every place and lower in one."""
    known = [i for i, cost in enumerate(costs) if not any(math.isnan(c) for c in cost)]
    front: list[tuple[float, ...]] = []
    found = [False] * len(costs)
    # what beats a cost comes before it in this order, and so does one of the front that beats it
    for i in sorted(known, key=lambda i: costs[i]):
        found[i] = not any(
            other != costs[i] and all(o <= mine for o, mine in zip(other, costs[i], strict=True))
            for other in front
        )
        if found[i] and (not front or front[-1] != costs[i]):
            front.append(costs[i])
    return found


# --- what is allowed -----------------------------------------------------------------------------


def refusal(row: Row, limits: Constraints) -> str | None:
    """Why a measured trial may not be shipped, or None.

    The loss is judged by its one-sided 95 % upper bound, so that too few test samples speak
    against a trial, not for it.
    """
    if row["status"] != Status.OK:
        return f"its status is {row['status']}"
    flags, batch = row.get("flags"), number(row["batch_size"])
    differ = {OUTPUTS_DIFFER, "" if math.isnan(batch) else f"{OUTPUTS_DIFFER}-at-batch-{batch:.0f}"}
    if flags is not None and differ & set(flags):
        return "the outputs that were timed differ from those that were scored"
    bound, drop = float(row["quality_drop_bound"]), float(row["quality_drop"])
    if math.isnan(bound):
        return "its loss of quality was not measured"
    if bound > limits.max_drop:
        limit = drop_limit(limits.max_drop)
        if math.isnan(drop) or drop > limits.max_drop:
            return f"loses {100 * drop:.2f} points, more than the {limit} allowed"
        return (
            f"measured loss {100 * drop:.2f} points, but the test samples cannot rule out "
            f"{100 * bound:.2f} (limit {limit})"
        )
    if limits.max_size_bytes is None:
        return None
    own, limit = float(row["size_bytes"]), size_limit(limits.max_size_bytes)
    if math.isnan(own):
        return "its size is not known"
    return (
        None
        if own <= limits.max_size_bytes
        else f"takes {size(own)}, more than the {limit} allowed"
    )


# --- the choice ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standings:
    """The trials of one model on one target by one objective, best first.

    Parameters
    ----------
    objective : str
        One of `quantbench.analysis.constraints.OBJECTIVES`.
    batch_size : int or None
        None where each trial counts at its own best.
    rows : tuple of Row
        Rows of `quantbench.analysis.trial_table.trial_frame` that have a value, which is ``cost`` (less is better).
    same : callable
        Whether two of the rows tie within noise.
    """

    model: str
    target: str
    objective: str
    batch_size: int | None
    rows: tuple[Row, ...]
    same: Callable[[Row, Row], bool] = field(repr=False)

    def contenders(self) -> dict[str, tuple[str, ...]]:
        """Each trial that is the best under some limits, with the ones behind it that tie with it.

        Whatever the limits, what `choose` takes is among these: no trial beats them in the
        objective, loss and size at once.
        """
        fit = [row for row in self.rows if refusal(row, WITHOUT_LIMITS) is None]
        costs = [(*_order(row), float(row["quality_drop_bound"])) for row in fit]
        return {
            str(row["trial"]): tuple(
                str(other["trial"]) for other in fit[i + 1 :] if self.same(row, other)
            )
            for i, (row, best) in enumerate(zip(fit, unbeaten(costs), strict=True))
            if best
        }


def _order(row: Row) -> tuple[float, float, float]:
    """What standings are sorted by: of equals, the smaller one, then the faster one."""
    return (float(row["cost"]), _last(row["size_bytes"]), _last(row["latency_ms"]))


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def standings(
    results: Results, objective: str = "latency", batch_size: int | None = None
) -> Iterator[Standings]:
    """Every model and target of a run, in the order of the trials.

    Parameters
    ----------
    batch_size : int, optional
        As in `quantbench.analysis.constraints.Constraints`.
    """
    sizes, wanted = batch_sizes(results), OBJECTIVES[objective]
    at_best = objective == "throughput" and batch_size is None
    batch = batch_size if batch_size is not None else (sizes[0] if sizes else None)
    frame = trial_frame(results, batch)
    others = [trial_frame(results, size) for size in sizes[1:]] if at_best else []

    @cache
    def times(size: float, offline: bool) -> Times:
        return round_times(results.samples, size, offline=offline)

    frame, *others = (_needed(known) for known in (frame, *others))
    for (model, target), here in frame.groupby(["model", "target"], sort=False):
        metric, rows = wanted.metric, list(records(here))
        if at_best and here["offline_throughput_per_s"].notna().any():
            metric = "offline_throughput_per_s"
            rows = [{**row, "batch_size": row["offline_batch_size"]} for row in rows]
        elif at_best:
            rows = _at_best([here, *(other.loc[here.index] for other in others)], metric)
        sign = -1 if wanted.largest else 1
        rows = [{**row, "cost": sign * row[metric]} for row in rows if not math.isnan(row[metric])]
        rows.sort(key=lambda row: (*_order(row), _last(row["quality_drop_bound"])))
        same = _same(results, str(model), str(target), metric, times)
        yield Standings(
            str(model), str(target), objective, None if at_best else batch, tuple(rows), same
        )


def _needed(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that a choice looks at: rows of few values are made quickly."""
    measured = [f"{metric}{end}" for metric in _COMPARED for end in ("", "_low", "_high")]
    return frame[[*_IDENTITY, *(column for column in measured if column in frame)]]


_IDENTITY = ("trial", "model", "target", "status", "flags", "batch_size", "offline_batch_size")
_COMPARED = (
    "latency_ms", "speedup", "throughput_per_s", "energy_net_j", "offline_throughput_per_s",
    "offline_speedup", "size_bytes", "quality", "quality_drop", "quality_drop_bound",
)  # fmt: skip


def _at_best(frames: Sequence[pd.DataFrame], metric: str) -> list[dict[str, Any]]:
    """The row of each trial at the batch size where ``metric`` is highest."""
    best: dict[str, dict[str, Any]] = {}
    for row in (row for frame in frames for row in records(frame)):
        other = best.setdefault(str(row["trial"]), row)
        if not row[metric] <= other[metric] and not math.isnan(row[metric]):
            best[str(row["trial"])] = row
    return list(best.values())


def _same(
    results: Results, model: str, target: str, metric: str, times: Callable[[float, bool], Times]
) -> Callable[[Row, Row], bool]:
    """Whether two rows of a place tie by ``metric``: paired by round where they share rounds."""
    offline = metric.startswith("offline")

    @cache
    def claim(batch: float) -> float:
        where = {"offline": True} if offline else {"batch_size": int(batch)}
        return smallest_claim(control(results, model, target, **where))

    def same(a: Row, b: Row) -> bool:
        if metric == "size_bytes":
            return bool(a[metric] == b[metric])
        together = offline or a["batch_size"] == b["batch_size"]
        if metric == "energy_net_j" or not together:
            return bool(a[metric] == b[metric]) or any_overlap(a, b, (metric,))
        batch = 0.0 if offline else float(a["batch_size"])
        return same_speed(a, b, claim(batch), times(batch, offline), metric)

    return same


def recommend(results: Results, limits: Constraints | None = None) -> list[Choice]:
    """What to ship, one choice per model and target, in the order of the trials.

    Raises
    ------
    BadInput
        For an unknown target or model (says which is nearest), or a batch size that was not timed.
    """
    limits = limits or Constraints()
    for name, wanted in (("target", limits.target), ("model", limits.model)):
        there = [str(value) for value in results.trials[name].unique()]
        if wanted is not None and wanted not in there:
            raise BadInput(
                f"no trial has the {name} '{wanted}'; the run has {', '.join(there) or 'none'}."
                f"{did_you_mean(wanted, there)}"
            )
    sizes = batch_sizes(results)
    if limits.batch_size is not None and limits.batch_size not in sizes:
        timed = ", ".join(map(str, sizes)) or "none"
        raise BadInput(f"batch size {limits.batch_size} was not timed; timed: {timed}")
    return [
        choose(place, limits)
        for place in standings(results, limits.objective, limits.batch_size)
        if limits.target in (None, place.target) and limits.model in (None, place.model)
    ]


def choose(place: Standings, limits: Constraints) -> Choice:
    """What to ship of the trials of one model on one target; their objective is that of ``limits``.

    The best by the objective of those that are allowed, or the smallest of those that tie with it.
    """
    judged = [(row, refusal(row, limits)) for row in place.rows]
    allowed = [row for row, refused in judged if refused is None]
    if not allowed:
        return Choice(
            place.model, place.target, None, _why_none(place, limits), place.batch_size,
            passed_over=tuple(PassedOver(str(row["trial"]), str(why)) for row, why in judged),
        )  # fmt: skip
    equal = [row for row in allowed if row is allowed[0] or place.same(allowed[0], row)]
    # the first of them in the order of the standings
    chosen = min(equal, key=lambda row: _last(row["size_bytes"]))
    front = unbeaten([(float(row["cost"]), -float(row["quality"])) for row in allowed])
    return Choice(
        place.model,
        place.target,
        str(chosen["trial"]),
        _why(limits, len(allowed), len(equal)),
        place.batch_size,
        ties=tuple(str(row["trial"]) for row in equal if row is not chosen),
        passed_over=tuple(
            PassedOver(str(row["trial"]), why)
            for row, why in judged
            if why is not None and row["cost"] < chosen["cost"]
        ),
        allowed=tuple(str(row["trial"]) for row in allowed),
        front=tuple(
            str(row["trial"]) for row, unbeat in zip(allowed, front, strict=True) if unbeat
        ),
    )


def _why(limits: Constraints, allowed: int, equal: int) -> str:
    if allowed == 1:
        return f"the only measured trial within {limits.limits}"
    if equal > 1:
        by = "the lowest latency" if limits.objective == "size" else "the smallest file"
        return f"{by} of {equal} that {limits.wanted.tie} of {allowed} within {limits.limits}"
    return f"{limits.wanted.best} of {allowed} trials within {limits.limits}"


def _why_none(place: Standings, limits: Constraints) -> str:
    count = len(place.rows)
    if count:
        return f"none of {count} measured trials is within {limits.limits}"
    if limits.objective == "energy":
        return "no trial has an energy: this run did not measure it"
    return "no trial was measured to the end"


def gains(
    results: Results, trial: str, batch_size: int | None = None, frame: pd.DataFrame | None = None
) -> list[Gain]:
    """Speed-ups of ``trial`` over the reference, and over the fastest fp32 that people could use.

    Those are the fastest fp32 of the reference's backend (traced, compiled...) and the fastest of
    the trial's own backend; only speed-ups that were measured, each float trial once.

    Parameters
    ----------
    batch_size : int, optional
        The smallest that was timed by default.
    frame : DataFrame, optional
        `quantbench.analysis.trial_table.trial_frame` at that batch size, where it is known.
    """
    batch = batch_size if batch_size is not None else next(iter(batch_sizes(results)), None)
    frame = trial_frame(results, batch) if frame is None else frame
    rows = rows_of(frame)
    mine = rows.get(trial)
    if mine is None:
        raise BadInput(f"no trial '{trial}'.{did_you_mean(trial, frame['trial'])}")
    here = frame[(frame["model"] == mine["model"]) & (frame["target"] == mine["target"])]
    # no speed-up is relative to a fine-tuned float: it is another model
    plain = (here["method"] == "fp32") & (here["training"] == "ptq")
    floats = here[plain & (here["status"] == Status.OK)].dropna(subset="latency_ms")
    measured = results.measurements
    measured = measured[(measured["trial"] == trial) & (measured["metric"] == "speedup")]
    speedups = {
        str(row["reference"]): row
        for row in records(measured)
        if number(row["batch_size"]) == batch
        and row["scenario"] != Scenario.OFFLINE
        and not math.isnan(number(row["value"]))
    }

    def fastest(backend: str) -> str | None:
        own = floats[floats["backend"] == backend]
        return str(own.loc[own["latency_ms"].idxmin(), "trial"]) if len(own) else None

    wanted: dict[str, str] = {}
    reference = rows.get(word(mine["reference"]))
    if reference is not None:
        wanted[str(reference["trial"])] = "the reference"
        if quickest := fastest(str(reference["backend"])):
            wanted.setdefault(quickest, f"the fastest float of {reference['backend']}")
    if own := fastest(str(mine["backend"])):
        wanted.setdefault(own, f"the fastest float of {mine['backend']}")
    return [
        Gain(
            name,
            versus,
            Interval(*(number(speedups[name][key]) for key in ("value", "low", "high"))),
            word(speedups[name]["verdict"]),
        )
        for name, versus in wanted.items()
        if name != trial and name in speedups
    ]
