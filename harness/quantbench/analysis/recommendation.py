"""Recommendation: which trial to ship, and the Pareto front; pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import pandas as pd

from quantbench.analysis.constraints import OBJECTIVES, Constraints, drop_limit, size_limit
from quantbench.analysis.equivalence import any_overlap, claim_of, round_times, same_speed
from quantbench.analysis.seeds import OUTPUTS_DIFFER, pooled
from quantbench.analysis.trial_table import MeasuredTrial, batch_sizes, control_row, trial_rows
from quantbench.errors import BadInput, did_you_mean
from quantbench.results import Results, TrialRow, trial_row
from quantbench.spec import Status
from quantbench.stats import Interval, Loss, Times, shown_within
from quantbench.units import size

WITHOUT_LIMITS = Constraints(max_drop=math.inf)
SAME_SIZE = 0.01
"""Files whose sizes differ by no more are of one size."""
HOLM = ", by Holm's correction for {} losses judged"
"""Ends the reason of a choice."""


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
        of them, or of those within 1 % of the smallest the one whose loss has the least bound, and
        itself not listed.
    passed_over : tuple of PassedOver
        Measured trials ahead of ``trial`` that are not allowed, best first.
    allowed : tuple of str
        The trials that qualified, best by the objective first.
    front : tuple of str
        Those of them that no other one beats in both the objective and quality, in that order.
    judged : int
        How many losses were judged together.

    Of trials that differ by seed alone, one stands for all (`quantbench.analysis.seeds.pooled`); the
    others are named nowhere here.
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
    judged: int = 0


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


@dataclass(frozen=True, slots=True)
class Judged:
    """The losses of several trials against one limit, judged together (`quantbench.stats.shown_within`).

    Parameters
    ----------
    count : int
        How many were judged; the one that losses are relative to is not.
    level : int
        By how many the 5 % was shared where the others were not shown to be within the limit.
    within : frozenset of str
        The trials whose loss is.
    """

    count: int
    level: int
    within: frozenset[str]

    @classmethod
    def of(cls, trials: Iterable[MeasuredTrial], max_drop: float) -> Judged:
        """Of the trials that may be shipped and have a loss."""
        known = {
            row.trial: loss
            for row in trials
            if _broken(row) is None and (loss := row.loss) is not None
        }
        sure = frozenset(name for name, loss in known.items() if loss.certain)
        judged = {name: loss for name, loss in known.items() if name not in sure}
        shown = shown_within(list(judged.values()), max_drop)
        within = (name for name, is_so in zip(judged, shown.within, strict=True) if is_so)
        return cls(len(judged), shown.level, sure | frozenset(within))


def _broken(row: MeasuredTrial) -> str | None:
    """Why a trial is not what it says, or None."""
    if row.status != Status.OK:
        return f"its status is {row.status}"
    if {OUTPUTS_DIFFER, f"{OUTPUTS_DIFFER}-at-batch-{row.batch_size}"} & set(row.flags):
        return "the outputs that were timed differ from those that were scored"
    return None


def refusal(row: MeasuredTrial, limits: Constraints, judged: Judged | None = None) -> str | None:
    """Why a measured trial may not be shipped, or None.

    The loss is judged by its one-sided upper bound, so that too few test samples speak against a
    trial, not for it: the one of 95 %, or of ``judged`` together with others.
    """
    judged = judged or Judged.of([row], limits.max_drop)
    if broken := _broken(row):
        return broken
    loss = row.loss
    if loss is None:
        return "its loss of quality was not measured"
    if row.trial not in judged.within:
        return _too_much(loss, limits.max_drop, judged)
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


def _too_much(loss: Loss, max_drop: float, judged: Judged) -> str:
    limit, over = drop_limit(max_drop), mean_of(loss)
    if loss.value > max_drop:
        return f"loses {100 * loss.value:.2f} points{over}, more than the {limit} allowed"
    among = "" if judged.count < 2 else f", judged with {judged.count} trials"
    return (
        f"measured loss {100 * loss.value:.2f} points{over}, but the test samples cannot rule out "
        f"{100 * loss.bound(judged.level):.2f} (limit {limit}{among})"
    )


def mean_of(loss: Loss) -> str:
    """Whether a loss is a mean, in words that follow it."""
    return f" over {loss.seeds} seeds" if loss.seeds > 1 else ""


# --- the choice ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """A trial among others by one objective; ``cost``: less is better."""

    row: MeasuredTrial
    cost: float

    @property
    def order(self) -> tuple[float, float, float]:
        """What standings are sorted by: of equals, the smaller one, then the faster one."""
        return (self.cost, self.size, _last(self.row.value("latency_ms")))

    @property
    def bound(self) -> float:
        """The most that it may lose, by its one-sided 95 % bound; infinite where that is not known."""
        return _last(self.row.value("quality_drop_bound"))

    @property
    def size(self) -> float:
        """Bytes; infinite where they are not known."""
        return _last(self.row.value("size_bytes"))


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

    def judged(self, limits: Constraints) -> Judged:
        """The losses of all of them together."""
        return Judged.of((one.row for one in self.places), limits.max_drop)

    def contenders(self) -> dict[str, tuple[str, ...]]:
        """Each trial that is the best under some limits, with the ones behind it that tie with it.

        Whatever the limits, what `choose` takes is among these: no trial beats them in the
        objective, size and the bounds of the loss at every confidence at once.
        """
        fit = [one for one in self.places if refusal(one.row, WITHOUT_LIMITS) is None]
        best = unbeaten([(*one.order, *_doubt(one.row)) for one in fit])
        return {
            one.row.trial: tuple(
                other.row.trial for other in fit[i + 1 :] if self.same(one.row, other.row)
            )
            for i, one in enumerate(fit)
            if best[i]
        }


def _doubt(row: MeasuredTrial) -> tuple[float, ...]:
    """What is lower in every place has a lower bound of its loss at every confidence."""
    loss = row.loss or Loss(math.inf, math.inf, math.inf)
    # Student's t of fewer seeds is wider
    return (loss.centre, loss.error, loss.between, -loss.seeds if loss.between else -math.inf)


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
    trials, *others = (
        [row for row in pooled(trial_rows(results, size)) if row.is_candidate]
        for size in (batch, *(sizes[1:] if at_best else ()))
    )

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
        known.sort(key=lambda one: (*one.order, one.bound))
        same = _same(results, here, metric, times)
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
    results: Results,
    here: Sequence[MeasuredTrial],
    metric: str,
    times: Callable[[float, bool], Times],
) -> Callable[[MeasuredTrial, MeasuredTrial], bool]:
    """Whether two trials of a place tie by ``metric``: paired by round where they share rounds."""
    offline = metric.startswith("offline")

    @cache
    def controlled(batch: float) -> tuple[TrialRow | None, Interval | None]:
        where = {"offline": True} if offline else {"batch_size": int(batch)}
        known = control_row(results, here[0].model, here[0].target, **where)
        return (
            (None, None)
            if known is None
            else (trial_row(results.trials, known.trial), known.interval)
        )

    def same(a: MeasuredTrial, b: MeasuredTrial) -> bool:
        if metric == "size_bytes":
            return same_size(a.value(metric), b.value(metric))
        equal = a.value(metric) == b.value(metric)
        if metric == "energy_net_j" or not (offline or a.batch_size == b.batch_size):
            return equal or any_overlap(a, b, (metric,))
        batch = 0 if offline else a.batch_size or 0
        claim = claim_of(a, b, *controlled(batch))
        return same_speed(a, b, claim, times(batch, offline), metric)

    return same


def same_size(a: float, b: float) -> bool:
    """Whether two sizes differ by no more than `SAME_SIZE`.

    >>> same_size(309_000.0, 310_000.0), same_size(309_000.0, 313_000.0)
    (True, False)
    """
    return max(a, b) <= (1 + SAME_SIZE) * min(a, b)


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

    The best by the objective of those that are allowed, or the smallest of those that tie with it;
    of files of that size the one whose loss has the least bound.
    """
    together = place.judged(limits)
    judged = [(one, refusal(one.row, limits, together)) for one in place.places]
    allowed = [one for one, refused in judged if refused is None]
    if not allowed:
        return Choice(
            place.model, place.target, None, _why_none(place, limits), place.batch_size,
            passed_over=tuple(PassedOver(one.row.trial, str(why)) for one, why in judged),
            judged=together.count,
        )  # fmt: skip
    best = allowed[0]
    equal = [one for one in allowed if one is best or place.same(best.row, one.row)]
    least = min(one.size for one in equal)
    small = [one for one in equal if same_size(one.size, least)]
    # the first of them in the order of the standings
    chosen = min(small, key=lambda one: one.bound)
    front = unbeaten([(one.cost, -one.row.value("quality")) for one in allowed])
    return Choice(
        place.model,
        place.target,
        chosen.row.trial,
        _why(limits, len(allowed), len(equal), len(small), together.count),
        place.batch_size,
        ties=tuple(one.row.trial for one in equal if one is not chosen),
        passed_over=tuple(
            PassedOver(one.row.trial, why)
            for one, why in judged
            if why is not None and one.cost < chosen.cost
        ),
        allowed=tuple(one.row.trial for one in allowed),
        front=tuple(one.row.trial for one, unbeat in zip(allowed, front, strict=True) if unbeat),
        judged=together.count,
    )


def _why(limits: Constraints, allowed: int, equal: int, small: int, judged: int) -> str:
    together = HOLM.format(judged) if judged > 1 else ""
    if allowed == 1:
        return f"the only measured trial within {limits.limits}{together}"
    if equal == 1:
        return f"{limits.wanted.best} of {allowed} trials within {limits.limits}{together}"
    by = "the smallest file of"
    if small > 1:
        by = f"the least bound of loss of {small} files of one size, of"
    if small == equal:
        by = "the least bound of loss of"
    return f"{by} {equal} that {limits.wanted.tie} of {allowed} within {limits.limits}{together}"


def _why_none(place: Standings, limits: Constraints) -> str:
    count = len(place.places)
    if count:
        return f"none of {count} measured trials is within {limits.limits}"
    if limits.objective == "energy":
        return "no trial has an energy: this run did not measure it"
    return "no trial was measured to the end"
