"""Recommendation: which trial to ship, the Pareto front, and what a choice gains; pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import pandas as pd

from quantbench.analysis.constraints import OBJECTIVES, Constraints, drop_limit, size_limit
from quantbench.analysis.equivalence import any_overlap, round_times, same_speed, smallest_claim
from quantbench.analysis.trial_table import MeasuredTrial, batch_sizes, control, trial_rows
from quantbench.errors import BadInput, did_you_mean
from quantbench.results import Measurement, Results, rows
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
    columns = [*(frame[c].astype(float) for c in lower), *(-frame[c].astype(float) for c in higher)]
    costs = list(zip(*columns, strict=True))
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


def refusal(row: MeasuredTrial, limits: Constraints) -> str | None:
    """Why a measured trial may not be shipped, or None.

    The loss is judged by its one-sided 95 % upper bound, so that too few test samples speak
    against a trial, not for it.
    """
    if row.status != Status.OK:
        return f"its status is {row.status}"
    if {OUTPUTS_DIFFER, f"{OUTPUTS_DIFFER}-at-batch-{row.batch_size}"} & set(row.flags):
        return "the outputs that were timed differ from those that were scored"
    bound, drop = row.value("quality_drop_bound"), row.value("quality_drop")
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
    own, limit = row.value("size_bytes"), size_limit(limits.max_size_bytes)
    if math.isnan(own):
        return "its size is not known"
    return (
        None
        if own <= limits.max_size_bytes
        else f"takes {size(own)}, more than the {limit} allowed"
    )


# --- the choice ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """A trial among others by one objective; ``cost``: less is better."""

    row: MeasuredTrial
    cost: float

    @property
    def order(self) -> tuple[float, float, float]:
        """What standings are sorted by: of equals, the smaller one, then the faster one."""
        return (self.cost, _last(self.row.value("size_bytes")), _last(self.row.value("latency_ms")))

    @property
    def bound(self) -> float:
        """The most that it may lose, by its one-sided 95 % bound."""
        return self.row.value("quality_drop_bound")


@dataclass(frozen=True, slots=True)
class Standings:
    """The trials of one model on one target by one objective, best first.

    Parameters
    ----------
    objective : str
        One of `quantbench.analysis.constraints.OBJECTIVES`.
    batch_size : int or None
        None where each trial counts at its own best.
    places : tuple of Standing
        The trials that have a value.
    same : callable
        Whether two trials tie within noise.
    """

    model: str
    target: str
    objective: str
    batch_size: int | None
    places: tuple[Standing, ...]
    same: Callable[[MeasuredTrial, MeasuredTrial], bool] = field(repr=False)

    def contenders(self) -> dict[str, tuple[str, ...]]:
        """Each trial that is the best under some limits, with the ones behind it that tie with it.

        Whatever the limits, what `choose` takes is among these: no trial beats them in the
        objective, loss and size at once.
        """
        fit = [one for one in self.places if refusal(one.row, WITHOUT_LIMITS) is None]
        best = unbeaten([(*one.order, one.bound) for one in fit])
        return {
            one.row.trial: tuple(
                other.row.trial for other in fit[i + 1 :] if self.same(one.row, other.row)
            )
            for i, one in enumerate(fit)
            if best[i]
        }


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
    trials = trial_rows(results, batch)
    others = [trial_rows(results, size) for size in sizes[1:]] if at_best else []

    @cache
    def times(size: float, offline: bool) -> Times:
        return round_times(results.samples, size, offline=offline)

    for model, target in dict.fromkeys((row.model, row.target) for row in trials):
        metric, here = wanted.metric, [t for t in trials if (t.model, t.target) == (model, target)]
        if at_best and any(row.of("offline_throughput_per_s").known for row in here):
            metric = "offline_throughput_per_s"
            here = [replace(row, batch_size=row.offline_batch_size) for row in here]
        elif at_best:
            names = {row.trial for row in here}
            here = _at_best(
                [row for known in (trials, *others) for row in known if row.trial in names], metric
            )
        sign = -1 if wanted.largest else 1
        known = [Standing(row, sign * row.value(metric)) for row in here if row.of(metric).known]
        known.sort(key=lambda one: (*one.order, _last(one.bound)))
        same = _same(results, model, target, metric, times)
        yield Standings(model, target, objective, None if at_best else batch, tuple(known), same)


def _at_best(trials: Iterable[MeasuredTrial], metric: str) -> list[MeasuredTrial]:
    """Each trial at the batch size where ``metric`` is highest."""
    best: dict[str, MeasuredTrial] = {}
    for row in trials:
        other = best.setdefault(row.trial, row)
        if not row.value(metric) <= other.value(metric) and row.of(metric).known:
            best[row.trial] = row
    return list(best.values())


def _same(
    results: Results, model: str, target: str, metric: str, times: Callable[[float, bool], Times]
) -> Callable[[MeasuredTrial, MeasuredTrial], bool]:
    """Whether two trials of a place tie by ``metric``: paired by round where they share rounds."""
    offline = metric.startswith("offline")

    @cache
    def claim(batch: float) -> float:
        where = {"offline": True} if offline else {"batch_size": int(batch)}
        return smallest_claim(control(results, model, target, **where))

    def same(a: MeasuredTrial, b: MeasuredTrial) -> bool:
        equal = a.value(metric) == b.value(metric)
        if metric == "size_bytes":
            return equal
        if metric == "energy_net_j" or not (offline or a.batch_size == b.batch_size):
            return equal or any_overlap(a, b, (metric,))
        batch = 0 if offline else a.batch_size or 0
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
    judged = [(one, refusal(one.row, limits)) for one in place.places]
    allowed = [one for one, refused in judged if refused is None]
    if not allowed:
        return Choice(
            place.model, place.target, None, _why_none(place, limits), place.batch_size,
            passed_over=tuple(PassedOver(one.row.trial, str(why)) for one, why in judged),
        )  # fmt: skip
    best = allowed[0]
    equal = [one for one in allowed if one is best or place.same(best.row, one.row)]
    # the first of them in the order of the standings
    chosen = min(equal, key=lambda one: _last(one.row.value("size_bytes")))
    front = unbeaten([(one.cost, -one.row.value("quality")) for one in allowed])
    return Choice(
        place.model,
        place.target,
        chosen.row.trial,
        _why(limits, len(allowed), len(equal)),
        place.batch_size,
        ties=tuple(one.row.trial for one in equal if one is not chosen),
        passed_over=tuple(
            PassedOver(one.row.trial, why)
            for one, why in judged
            if why is not None and one.cost < chosen.cost
        ),
        allowed=tuple(one.row.trial for one in allowed),
        front=tuple(one.row.trial for one, unbeat in zip(allowed, front, strict=True) if unbeat),
    )


def _why(limits: Constraints, allowed: int, equal: int) -> str:
    if allowed == 1:
        return f"the only measured trial within {limits.limits}"
    if equal > 1:
        by = "the lowest latency" if limits.objective == "size" else "the smallest file"
        return f"{by} of {equal} that {limits.wanted.tie} of {allowed} within {limits.limits}"
    return f"{limits.wanted.best} of {allowed} trials within {limits.limits}"


def _why_none(place: Standings, limits: Constraints) -> str:
    count = len(place.places)
    if count:
        return f"none of {count} measured trials is within {limits.limits}"
    if limits.objective == "energy":
        return "no trial has an energy: this run did not measure it"
    return "no trial was measured to the end"


def gains(
    results: Results,
    trial: str,
    batch_size: int | None = None,
    trials: Sequence[MeasuredTrial] | None = None,
) -> list[Gain]:
    """Speed-ups of ``trial`` over the reference, and over the fastest fp32 that people could use.

    Those are the fastest fp32 of the reference's backend (traced, compiled...) and the fastest of
    the trial's own backend; only speed-ups that were measured, each float trial once.

    Parameters
    ----------
    batch_size : int, optional
        The smallest that was timed by default.
    trials : sequence of MeasuredTrial, optional
        Those of its model and target at that batch size, where they are known.
    """
    batch = batch_size if batch_size is not None else next(iter(batch_sizes(results)), None)
    by_name = {row.trial: row for row in trials or trial_rows(results, batch)}
    mine = by_name.get(trial)
    if mine is None:
        raise BadInput(f"no trial '{trial}'.{did_you_mean(trial, by_name)}")
    floats = [
        row
        for row in by_name.values()
        if (row.model, row.target) == (mine.model, mine.target)
        # no speed-up is relative to a fine-tuned float: it is another model
        and (row.method, row.training, row.status) == ("fp32", "ptq", Status.OK)
        and row.of("latency_ms").known
    ]
    measured = results.measurements
    measured = measured[(measured["trial"] == trial) & (measured["metric"] == "speedup")]
    speedups = {
        row.reference: row
        for row in rows(Measurement, measured)
        if row.batch_size == batch and row.scenario != Scenario.OFFLINE and row.known
    }

    def fastest(backend: str) -> str | None:
        own = [row for row in floats if row.backend == backend]
        best = min(own, key=lambda row: row.value("latency_ms"), default=None)
        return best.trial if best else None

    wanted: dict[str, str] = {}
    reference = by_name.get(mine.reference)
    if reference is not None:
        wanted[reference.trial] = "the reference"
        if quickest := fastest(reference.backend):
            wanted.setdefault(quickest, f"the fastest float of {reference.backend}")
    if own := fastest(mine.backend):
        wanted.setdefault(own, f"the fastest float of {mine.backend}")
    return [
        Gain(name, versus, found, speedups[name].verdict)
        for name, versus in wanted.items()
        if name != trial and name in speedups and (found := speedups[name].interval)
    ]
