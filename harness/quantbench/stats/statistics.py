"""Statistics: intervals, tests and verdicts for paired latencies and paired quality.

Formulas and their evidence: docs/measuring.md. All functions are pure and take NumPy arrays.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from quantbench.spec import Verdict

FloatArray = NDArray[np.float64]

CLASS_SAMPLES = 50
"""Fewer samples say nothing about a class."""
EQUAL = 0.02
"""Speed-ups whose interval lies within this of 1 are called equal."""
MOST_GENERATIONS = 1000
"""More are nobody's plan."""
Z95 = 1.959963984540054  # two-sided 95 %
Z95_ONE_SIDED = 1.6448536269514722


@dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate with its 95 % confidence interval, in the unit of the estimate."""

    value: float
    low: float
    high: float

    def excludes(self, x: float) -> bool:
        """Whether ``x`` lies outside the interval."""
        return not self.low <= x <= self.high

    @property
    def half_width(self) -> float:
        """Half of ``high - low``."""
        return (self.high - self.low) / 2


class TooFewObservations(ValueError):
    """The sample is too small for the interval asked for."""


def difference_interval(first: Interval, second: Interval) -> Interval:
    """``second - first`` of two independent estimates, from their intervals.

    Square-and-add: each side is the root of the squared distances to the ends that work in that
    direction; exact for normal errors, and asymmetric where the intervals are.
    Source: Zou and Donner, Statistics in Medicine 27 (2008); of two Wilson intervals, Newcombe,
    Statistics in Medicine 17 (1998), method 10.

    >>> difference_interval(Interval(1.0, 0.7, 1.3), Interval(3.0, 2.6, 3.4))
    Interval(value=2.0, low=1.5, high=2.5)
    """
    value = second.value - first.value
    return Interval(
        value,
        value - math.hypot(second.value - second.low, first.high - first.value),
        value + math.hypot(second.high - second.value, first.value - first.low),
    )


# --- quality -------------------------------------------------------------------------------------


def wilson(successes: int, n: int) -> Interval:
    """95 % interval of a share (Wilson 1927); ``value`` is the plain share.

    >>> i = wilson(174, 200)
    >>> round(i.low, 4), round(i.high, 4)
    (0.8163, 0.9097)
    """
    if n < 1:
        raise TooFewObservations("a share needs at least one observation")
    share, z2 = successes / n, Z95 * Z95
    centre = (successes + z2 / 2) / (n + z2)
    half = Z95 * math.sqrt(successes * (n - successes) / n + z2 / 4) / (n + z2)
    return Interval(share, min(share, centre - half), max(share, centre + half))


def mean_interval(x: FloatArray) -> Interval:
    """Normal 95 % interval of the mean of ``x``, float64 [n]; of one sample it has no ends."""
    mean = float(x.mean())
    half = Z95 * float(x.std(ddof=1)) / math.sqrt(len(x)) if len(x) > 1 else math.inf
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class PairedDrop:
    """Quality lost against a reference on the same samples.

    ``interval``: the drop (reference minus candidate) with its two-sided 95 % interval;
    ``upper``: one-sided 95 % upper bound, which non-inferiority is judged by;
    ``p``: two-sided p-value of no difference.
    """

    interval: Interval
    upper: float
    p: float
    n: int


def bonett_price(lost: int, won: int, n: int) -> PairedDrop:
    """Drop in accuracy from discordant counts.

    Parameters
    ----------
    lost, won : int
        Samples that only the reference, and only the candidate, has right.
    n : int
        All samples.

    Source: Bonett and Price, JEBS 37 (2012), adjusted Wald interval of a paired difference;
    p: McNemar's test, mid-p (Fagerland et al., BMC MRM 13:91).

    >>> d = bonett_price(109, 87, 10_000)
    >>> [round(100 * x, 2) for x in (d.interval.value, d.interval.low, d.interval.high, d.upper)]
    [0.22, -0.06, 0.5, 0.45]
    """
    if n < 1:
        raise TooFewObservations("a paired drop needs at least one sample")
    p1, p2 = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    centre = p1 - p2
    error = math.sqrt((p1 + p2 - centre**2) / (n + 2))
    drop = (lost - won) / n
    return PairedDrop(
        Interval(drop, min(drop, centre - Z95 * error), max(drop, centre + Z95 * error)),
        centre + Z95_ONE_SIDED * error,
        mcnemar_mid_p(lost, won),
        n,
    )


def mcnemar_mid_p(lost: int, won: int) -> float:
    """Two-sided mid-p value of McNemar's test; 1 where the counts are equal."""
    if lost == won:
        return 1.0
    few, pairs = min(lost, won), lost + won
    return float(2 * stats.binom.cdf(few, pairs, 0.5) - stats.binom.pmf(few, pairs, 0.5))


def paired_drop(reference: FloatArray, candidate: FloatArray) -> PairedDrop:
    """Drop in the mean of per-sample outcomes.

    Parameters
    ----------
    reference, candidate : float64 [n]
        Outcomes of the same samples. Where all are 0 or 1, `bonett_price`; else the normal
        interval of the mean difference.
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"not paired: {reference.shape} against {candidate.shape}")
    binary = bool(np.isin(reference, (0, 1)).all() and np.isin(candidate, (0, 1)).all())
    if binary:
        lost = int(((reference == 1) & (candidate == 0)).sum())
        won = int(((reference == 0) & (candidate == 1)).sum())
        return bonett_price(lost, won, len(reference))
    difference = reference - candidate
    n = len(difference)
    if n < 2:
        raise TooFewObservations("a mean difference needs at least two samples")
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(n)
    p = 1.0 if error == 0 else float(2 * stats.norm.sf(abs(mean) / error))
    return PairedDrop(
        Interval(mean, mean - Z95 * error, mean + Z95 * error), mean + Z95_ONE_SIDED * error, p, n
    )


RESAMPLES = 9999
_AT_ONCE = 500  # resamples held in memory


def bootstrap(
    statistic: Callable[..., FloatArray], prediction: FloatArray, label: FloatArray
) -> Interval:
    """95 % interval of a score that is no mean over samples: bias-corrected and accelerated.

    Parameters
    ----------
    statistic
        ``(prediction, label, axis) -> score``.
    prediction, label : float64 [n]
        Resampled together, with a fixed seed.

    Source: Efron, JASA 82 (1987), by `scipy.stats.bootstrap`.
    """
    return _ends(float(statistic(prediction, label)), _resample(statistic, (prediction, label)))


def bootstrap_drop(
    statistic: Callable[..., FloatArray],
    reference: FloatArray,
    candidate: FloatArray,
    label: FloatArray,
) -> PairedDrop:
    """What a score loses against a reference on the same samples; see `bootstrap`.

    p: twice the smaller share of resamples on one side of no difference (Davison and Hinkley,
    Bootstrap Methods, 1997, section 4.4).
    """

    def lost(full: FloatArray, own: FloatArray, right: FloatArray, axis: int = -1) -> FloatArray:
        return np.asarray(statistic(full, right, axis) - statistic(own, right, axis))

    arrays, value = (reference, candidate, label), float(lost(reference, candidate, label))
    found = _resample(lost, arrays)
    drawn = found.bootstrap_distribution
    sides = (drawn <= 0).sum(), (drawn >= 0).sum()
    p = min(1.0, 2 * (min(sides) + 1) / (len(drawn) + 1))
    one_sided = _ends(value, _resample(lost, arrays, level=0.90, known=found)).high
    return PairedDrop(_ends(value, found), one_sided, p, len(label))


def _resample(
    statistic: Callable[..., FloatArray],
    arrays: tuple[FloatArray, ...],
    level: float = 0.95,
    known: Any = None,
) -> Any:
    """Resamples of all arrays together; of ``known`` ones only the interval of another level."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples that are all alike, which `_ends` knows
        return stats.bootstrap(
            arrays, statistic, paired=True, vectorized=True, batch=_AT_ONCE, method="BCa",
            n_resamples=0 if known is not None else RESAMPLES, bootstrap_result=known,
            confidence_level=level, rng=np.random.default_rng(0),
        )  # fmt: skip


def _ends(value: float, found: Any) -> Interval:
    low, high = (float(end) for end in found.confidence_interval)
    if math.isnan(low) or math.isnan(high):  # nothing varies
        low = high = value
    return Interval(value, min(low, value), max(high, value))


@dataclass(frozen=True, slots=True)
class ClassDrop:
    """What one class loses: ``label``, its drop, and its p-value after Holm's correction.

    ``classes``: how many have samples enough to be judged.
    """

    label: int
    drop: PairedDrop
    p: float
    classes: int


def class_drops(
    reference: FloatArray, candidate: FloatArray, labels: FloatArray
) -> tuple[ClassDrop, ...]:
    """The paired drop of every class that has `CLASS_SAMPLES` samples.

    Parameters
    ----------
    reference, candidate : float64 [n]
        Outcomes, 0 or 1, of the same samples.
    labels : [n]
        The class of each sample.
    """
    known, counts = np.unique(labels, return_counts=True)
    judged = [label for label, n in zip(known, counts, strict=True) if n >= CLASS_SAMPLES]
    drops = [paired_drop(reference[labels == k], candidate[labels == k]) for k in judged]
    adjusted = holm([drop.p for drop in drops])
    return tuple(
        ClassDrop(int(label), drop, p, len(judged))
        for label, drop, p in zip(judged, drops, adjusted, strict=True)
    )


def worst_class(
    reference: FloatArray, candidate: FloatArray, labels: FloatArray
) -> ClassDrop | None:
    """The first of `class_drops` with the largest drop; None where no class has samples enough.

    Its interval is `simultaneous_drop` over the classes: the largest of k drops is large by chance too,
    and the interval of one class alone would hold the truth in as few as 68 % of cases where there are
    10 classes, 2 % where there are 100 (simulated).
    """
    found = class_drops(reference, candidate, labels)
    if not found:
        return None
    worst = max(found, key=lambda one: one.drop.interval.value)
    own = reference[labels == worst.label] - candidate[labels == worst.label]
    interval = simultaneous_drop(int((own > 0).sum()), int((own < 0).sum()), len(own), len(found))
    return replace(worst, drop=replace(worst.drop, interval=interval))


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Interval of a share that never covers less than ``level`` (Clopper and Pearson 1934).

    >>> i = clopper_pearson(174, 200)
    >>> round(i.low, 4), round(i.high, 4)
    (0.8153, 0.9133)
    """
    out = (1 - level) / 2
    low = float(stats.beta.ppf(out, successes, n - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - out, successes + 1, n - successes)) if successes < n else 1.0
    return Interval(successes / n, low, high)


def simultaneous_drop(lost: int, won: int, n: int, family: int) -> Interval:
    """Drop in accuracy of one of several classes; all their intervals hold together in 95 %.

    Parameters
    ----------
    lost, won, n : int
        As in `bonett_price`, of the samples of this class.
    family : int
        How many classes there are.

    The intervals of the two shares, Clopper and Pearson's at Bonferroni's level ``1 - 0.05 / family``,
    put together by square-and-add with the correlation of two cells of a table. At such levels the
    normal tails of Bonett and Price's interval are too short where few samples change.
    Source: Zou and Donner, Statistics in Medicine 27 (2008), with correlation.

    >>> d = simultaneous_drop(12, 0, 100, 10)
    >>> round(d.value, 3), round(d.low, 3), round(d.high, 3)
    (0.12, 0.026, 0.237)
    """
    level = 1 - 0.05 / family
    one, other = clopper_pearson(lost, n, level), clopper_pearson(won, n, level)
    apart = math.sqrt((n - lost) * (n - won))
    together = math.sqrt(lost * won) / apart if apart else 0.0

    def far(a: float, b: float) -> float:
        return math.sqrt(a * a + b * b + 2 * together * a * b)

    drop = one.value - other.value
    return Interval(
        drop,
        drop - far(one.value - one.low, other.high - other.value),
        drop + far(one.high - one.value, other.value - other.low),
    )


def over_seeds(outcomes: FloatArray) -> PairedDrop:
    """Mean over samples and seeds, for outcomes or for their differences.

    Parameters
    ----------
    outcomes : float64 [seeds, n]
        Of the same samples in every row; at least two seeds.

    The samples' error (of their means over seeds; normal) and the seeds' (of their means over
    samples; Student's t) are added as squares. The seeds' part holds some of the samples' error
    again, which errs to the safe side. Source: two-way random effects without the correction for
    the residual, Brennan, Generalizability Theory (2001), section 4.4.

    >>> d = over_seeds(np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0]]))
    >>> d.interval.value, d.n
    (0.625, 4)
    """
    seeds, n = outcomes.shape
    if seeds < 2 or n < 2:
        raise TooFewObservations("a mean over seeds needs at least two seeds and two samples")
    mean = float(outcomes.mean())
    samples = float(outcomes.mean(0).std(ddof=1)) / math.sqrt(n)
    between = float(outcomes.mean(1).std(ddof=1)) / math.sqrt(seeds)

    def half(probability: float) -> float:
        z, t = stats.norm.ppf(probability), stats.t.ppf(probability, seeds - 1)
        return math.hypot(float(z) * samples, float(t) * between)

    error = math.hypot(samples, between)
    p = 1.0 if error == 0 else float(2 * stats.t.sf(abs(mean) / error, seeds - 1))
    return PairedDrop(
        Interval(mean, mean - half(0.975), mean + half(0.975)), mean + half(0.95), p, n
    )


def over_scores(scores: FloatArray) -> PairedDrop:
    """Mean of the scores of several seeds, or of differences, with Student's t interval.

    Parameters
    ----------
    scores : float64 [seeds]
        At least two. The samples' own error is not in it.
    """
    k = len(scores)
    if k < 2:
        raise TooFewObservations("a mean over seeds needs at least two seeds")
    mean, error = float(scores.mean()), float(scores.std(ddof=1)) / math.sqrt(k)
    half, upper = (error * float(stats.t.ppf(q, k - 1)) for q in (0.975, 0.95))
    p = float(2 * stats.t.sf(abs(mean) / error, k - 1)) if error > 0 else 1.0
    return PairedDrop(Interval(mean, mean - half, mean + half), mean + upper, p, k)


def quality_verdict(drop: PairedDrop, margin: float) -> Verdict:
    """``keeps`` if the one-sided upper bound stays under ``margin``; ``loses`` if surely above.

    ``margin`` in the unit of the drop. ``loses`` needs the two-sided lower bound above it.
    """
    if drop.upper < margin:
        return Verdict.KEEPS
    return Verdict.LOSES if drop.interval.low > margin else Verdict.UNDECIDED


# --- latency -------------------------------------------------------------------------------------


@cache
def order_statistic_ranks(n: int, confidence: float = 0.95) -> tuple[int, int]:
    """1-based ranks (low, high) of the distribution-free interval of a median.

    ``low`` is the largest j with ``2 P(Bin(n, 1/2) <= j - 1) <= 1 - confidence``.
    Source: Hahn and Meeker, Statistical Intervals (1991), section 5.2.

    >>> [order_statistic_ranks(n) for n in (15, 21, 31, 35)]
    [(4, 12), (6, 16), (10, 22), (12, 24)]
    """
    j = 0
    while 2 * stats.binom.cdf(j, n, 0.5) <= 1 - confidence:
        j += 1
    if j == 0:
        raise TooFewObservations(f"{n} observations cannot bound a median at {confidence:.0%}")
    return j, n + 1 - j


@cache
def bounding_rank(n: int, confidence: float = 0.95) -> int:
    """Which of ``n`` independent values, counted from the largest, bounds their median from above.

    The largest r with ``P(Bin(n, 1/2) <= r - 1) <= 1 - confidence``; 0 where n is too small.
    Source: Hahn and Meeker, Statistical Intervals (1991), section 5.2.

    >>> [bounding_rank(n) for n in (4, 5, 8, 20)]
    [0, 1, 2, 6]
    """
    rank = 0
    while stats.binom.cdf(rank, n, 0.5) <= 1 - confidence:
        rank += 1
    return rank


@dataclass(frozen=True, slots=True)
class Tail:
    """A percentile of calls: ``value`` of half of all processes, which is at most ``high``.

    ``confidence``: that it is; ``rank``: which generation's percentile ``high`` is, counted from the
    largest. With too few generations ``high`` is infinite, and both are 0.
    """

    value: float
    high: float
    confidence: float
    rank: int


def percentile_of_processes(generations: Sequence[FloatArray], percentile: float) -> Tail:
    """The percentile of a process's calls, and an upper bound of it, over fresh processes.

    Parameters
    ----------
    generations : sequence of float64 [calls]
        Times of single calls, one array per generation.
    percentile : float
        In (0, 1); of n calls it is the ceil(percentile n)-th in order.

    Calls of one burst and bursts of one process share a state, so that they are no sample of calls;
    processes are one of processes. The percentile of each generation is taken as it is, and their
    median is bounded by an order statistic of them, whatever the dependence within each.
    """
    found = np.sort([np.quantile(g, percentile, method="inverted_cdf") for g in generations])
    rank, value = bounding_rank(len(found)), float(np.median(found))
    if not rank:
        return Tail(value, math.inf, 0.0, 0)
    sure = 1 - float(stats.binom.cdf(rank - 1, len(found), 0.5))
    return Tail(value, float(found[-rank]), sure, rank)


def lag1(x: FloatArray) -> float:
    """Lag-1 autocorrelation of ``x`` winsorised at 3 MAD, with the 1/n bias added back."""
    centre = np.median(x)
    mad = np.median(np.abs(x - centre))
    if mad == 0 or len(x) < 3:
        return 0.0
    clipped = np.clip(x, centre - 3 * 1.4826 * mad, centre + 3 * 1.4826 * mad)
    d = clipped - clipped.mean()
    power = float((d * d).sum())
    return float((d[1:] * d[:-1]).sum() / power + 1 / len(x)) if power > 0 else 0.0


def within_interval(x: FloatArray) -> Interval:
    """Median of rounds with its order-statistic interval, widened for autocorrelation.

    Both sides are multiplied by ``sqrt((1 + r) / (1 - r))``, r the lag-1 autocorrelation in
    [0, 0.9]. Fewer than 6 rounds bound nothing: the interval is then infinite.
    """
    middle = float(np.median(x))
    try:
        low, high = order_statistic_ranks(len(x))
    except TooFewObservations:
        return Interval(middle, -math.inf, math.inf)
    ordered = np.sort(x)
    r = min(max(lag1(x), 0.0), 0.9)
    factor = math.sqrt((1 + r) / (1 - r))
    return Interval(
        middle,
        middle - factor * (middle - float(ordered[low - 1])),
        middle + factor * (float(ordered[high - 1]) - middle),
    )


def between_interval(medians: FloatArray) -> Interval:
    """Mean of generation medians with Student's t interval; infinite for a single generation."""
    k, mean = len(medians), float(medians.mean())
    if k < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(0.975, k - 1) * medians.std(ddof=1) / math.sqrt(k))
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class Rounds(Sequence[FloatArray]):
    """Values of rounds (log ratios, log times), generation by generation.

    Parameters
    ----------
    generations : tuple of float64 [rounds]
        The values of each generation.
    sessions : tuple of int
        The session of each generation; empty where all are of one.
    """

    generations: tuple[FloatArray, ...]
    sessions: tuple[int, ...] = ()

    @overload
    def __getitem__(self, index: int) -> FloatArray: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[FloatArray, ...]: ...
    def __getitem__(self, index: int | slice) -> FloatArray | tuple[FloatArray, ...]:
        return self.generations[index]

    def __len__(self) -> int:
        return len(self.generations)

    @property
    def by_session(self) -> list[list[FloatArray]]:
        """The generations of each session, in order."""
        found: dict[int, list[FloatArray]] = {}
        for session, values in zip(self.sessions or (0,) * len(self), self, strict=True):
            found.setdefault(session, []).append(values)
        return [found[session] for session in sorted(found)]


def _session_values(generations: Sequence[FloatArray]) -> FloatArray:
    """The median of all rounds of each session; of one value where there is one session."""
    sessions = generations.by_session if isinstance(generations, Rounds) else [generations]
    return np.array([np.median(np.concatenate(list(own))) for own in sessions])


def rounds_interval(generations: Sequence[FloatArray]) -> Interval:
    """Interval of a quantity observed in rounds of several generations, and of several sessions.

    Parameters
    ----------
    generations : sequence of float64 [rounds], or Rounds
        The value of each round (a log ratio, a log time), one array per generation.

    Returns
    -------
    Interval
        Of one session: the median of all rounds; its interval is the hull of the between-generation
        t interval and the within-round order-statistic interval, so that it holds the estimate.
        With one generation only the rounds speak, and the spread between processes is unknown.
        Of several: the mean of the sessions' medians; the hull of that and of the t interval between
        sessions. What one session differs from another by, one session cannot know.
    """
    rounds = np.concatenate([np.asarray(g, dtype=np.float64) for g in generations])
    within = within_interval(rounds)
    between = between_interval(np.array([np.median(g) for g in generations]))
    known = [i for i in (within, between) if math.isfinite(i.low)]
    sessions = _session_values(generations)
    value = within.value
    if len(sessions) > 1:
        known.append(between_interval(sessions))
        value = float(sessions.mean())
    if not known:
        return Interval(value, -math.inf, math.inf)
    return Interval(
        value, min(value, *(i.low for i in known)), max(value, *(i.high for i in known))
    )


def exp_interval(interval: Interval) -> Interval:
    """The interval of ``exp(x)`` from that of ``x``; infinite ends become 0 and infinity."""
    high = math.exp(interval.high) if math.isfinite(interval.high) else math.inf
    return Interval(math.exp(interval.value), math.exp(interval.low), high)


def rounds_p_value(generations: Sequence[FloatArray]) -> float:
    """p-value of a zero median: the largest of the sign test on rounds, t on generations, on sessions."""
    rounds = np.concatenate([np.asarray(g, dtype=np.float64) for g in generations])
    above, below = int((rounds > 0).sum()), int((rounds < 0).sum())
    if above + below == 0:
        return 1.0
    sign = float(stats.binomtest(above, above + below).pvalue)
    medians = np.array([np.median(g) for g in generations])
    if len(medians) < 2:
        return 1.0
    found = [sign]
    for levels in (medians, _session_values(generations)):
        if len(levels) > 1 and levels.std() > 0:
            found.append(float(stats.ttest_1samp(levels, 0.0).pvalue))
    return max(found)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = worst
    return adjusted


def latency_verdict(speedup: Interval, p_adjusted: float, noise: float) -> Verdict:
    """What may be said about a speed-up.

    Parameters
    ----------
    speedup : Interval
        Ratio of reference time to candidate time.
    p_adjusted : float
        Holm-adjusted p-value over the comparison.
    noise : float
        Half-width of the A/A control's ratio; nothing is claimed below ``max(1 %, 2 noise)``.
    """
    floor = max(0.01, 2 * noise)
    if speedup.excludes(1.0) and abs(speedup.value - 1) > floor and p_adjusted < 0.05:
        return Verdict.FASTER if speedup.value > 1 else Verdict.SLOWER
    equal = speedup.low >= 1 - EQUAL and speedup.high <= 1 + EQUAL
    return Verdict.EQUAL if equal else Verdict.UNDECIDED


def generations_to_decide(generations: Sequence[FloatArray], noise: float) -> int | None:
    """About how many more generations would let `latency_verdict` decide; None where none would.

    Parameters
    ----------
    generations : sequence of float64 [rounds]
        Log ratios, one array per generation.
    noise : float
        As in `latency_verdict`.

    The interval has to shrink until it excludes 1, or, where the difference is under the floor of
    what may be claimed, until it lies within 2 % of 1. Its width falls with the root of the number
    of generations: ``N = K (h / target)^2``, h the half-width of now.
    """
    found = rounds_interval(generations)
    floor = max(0.01, 2 * noise)
    if abs(math.exp(found.value) - 1) > floor:
        target = abs(found.value)
    else:
        target = min(math.log(1 + EQUAL) - found.value, found.value - math.log(1 - EQUAL))
    if target <= 0 or not math.isfinite(found.half_width):
        return None
    needed = math.ceil(len(generations) * (found.half_width / target) ** 2)
    return max(1, needed - len(generations)) if needed <= MOST_GENERATIONS else None
