"""Statistics: intervals, tests and verdicts for paired latencies and paired quality.

Formulas and their evidence: docs/measuring.md. All functions are pure and take NumPy arrays.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

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
    """The first of `class_drops` with the largest drop; None where no class has samples enough."""
    found = class_drops(reference, candidate, labels)
    return max(found, key=lambda one: one.drop.interval.value) if found else None


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


def early_stopping_rank(n: int, percentile: float, confidence: float = 0.99) -> int:
    """Which of ``n`` latencies, counted from the slowest, bounds their percentile from above.

    The largest t with ``P(Bin(n, 1 - percentile) <= t) <= 1 - confidence``; 0 where n is too small.
    Source: MLPerf Inference LoadGen, early_stopping.cc, with tolerance 0.

    >>> early_stopping_rank(1000, 0.90), early_stopping_rank(1000, 0.99), early_stopping_rank(661, 0.99)
    (78, 2, 0)
    """
    t = int(stats.binom.ppf(1 - confidence, n, 1 - percentile))
    while t > 0 and stats.binom.cdf(t, n, 1 - percentile) > 1 - confidence:
        t -= 1
    return t


@cache
def early_stopping_samples(percentile: float, confidence: float = 0.99) -> int:
    """The fewest latencies that bound a percentile.

    >>> [early_stopping_samples(p) for p in (0.5, 0.9, 0.95, 0.99)]
    [11, 64, 130, 662]
    """
    n = 1
    while not early_stopping_rank(n, percentile, confidence):
        n += 1
    return n


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


def rounds_interval(generations: Sequence[FloatArray]) -> Interval:
    """Interval of a quantity observed in rounds of several generations.

    Parameters
    ----------
    generations : sequence of float64 [rounds]
        The value of each round (a log ratio, a log time), one array per generation.

    Returns
    -------
    Interval
        The median of all rounds; its interval is the hull of the between-generation t interval
        and the within-round order-statistic interval, so that it holds the estimate. With one
        generation only the rounds speak, and the spread between processes is unknown.
    """
    rounds = np.concatenate([np.asarray(g, dtype=np.float64) for g in generations])
    within = within_interval(rounds)
    between = between_interval(np.array([np.median(g) for g in generations]))
    known = [i for i in (within, between) if math.isfinite(i.low)]
    if not known:
        return Interval(within.value, -math.inf, math.inf)
    return Interval(
        within.value,
        min(within.value, *(i.low for i in known)),
        max(within.value, *(i.high for i in known)),
    )


def exp_interval(interval: Interval) -> Interval:
    """The interval of ``exp(x)`` from that of ``x``; infinite ends become 0 and infinity."""
    high = math.exp(interval.high) if math.isfinite(interval.high) else math.inf
    return Interval(math.exp(interval.value), math.exp(interval.low), high)


def rounds_p_value(generations: Sequence[FloatArray]) -> float:
    """p-value of a zero median: the larger of the sign test on rounds and t on generations."""
    rounds = np.concatenate([np.asarray(g, dtype=np.float64) for g in generations])
    above, below = int((rounds > 0).sum()), int((rounds < 0).sum())
    if above + below == 0:
        return 1.0
    sign = float(stats.binomtest(above, above + below).pvalue)
    medians = np.array([np.median(g) for g in generations])
    if len(medians) < 2:
        return 1.0
    if medians.std() == 0:
        return sign
    return max(sign, float(stats.ttest_1samp(medians, 0.0).pvalue))


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
