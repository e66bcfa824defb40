"""Losses: how much quality may be lost, at any confidence, over seeds, and of many candidates at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from quantbench.stats.statistics import Z95, Z95_ONE_SIDED, Interval

ERROR = 0.05
"""How often a loss above the limit may be taken for one within it."""
POWER = 0.8
"""How often a method that loses nothing is to be shown to."""


@cache
def critical(level: int, freedom: int = 0) -> float:
    """The quantile of a one-sided bound that errs once in ``level / 0.05``.

    Parameters
    ----------
    level : int
        How many bounds share the 5 %.
    freedom : int
        Degrees of freedom of Student's t; 0 for a normal error.

    >>> round(critical(1), 3), round(critical(40), 3), round(critical(1, 4), 3)
    (1.645, 3.023, 2.132)
    """
    if freedom:
        return float(stats.t.isf(ERROR / level, freedom))
    return Z95_ONE_SIDED if level == 1 else float(stats.norm.isf(ERROR / level))


@dataclass(frozen=True, slots=True)
class Loss:
    """What is lost against a reference on the same samples, in the unit of the metric.

    Parameters
    ----------
    value : float
        The estimate.
    centre, error : float
        Centre and standard error of its bounds: of Bonett and Price the centre is not the estimate.
    between : float
        Standard error of the mean over seeds; 0 for one file.
    seeds : int
        How many it is the mean of.
    """

    value: float
    centre: float
    error: float
    between: float = 0.0
    seeds: int = 1

    @classmethod
    def of(cls, drop: Interval, bound: float) -> Loss:
        """From a drop with its two-sided interval, and its one-sided 95 % bound.

        Both ends lie on one normal error: what is between them is 0.315 of it. A bootstrap's are
        continued from its bound with the slope between the two.
        """
        error = (drop.high - bound) / (Z95 - Z95_ONE_SIDED)
        if math.isfinite(error) and error > 0:
            return cls(drop.value, bound - Z95_ONE_SIDED * error, error)
        known = drop.value if math.isfinite(drop.value) else bound
        return cls(known, known, max(0.0, bound - known) / Z95_ONE_SIDED)

    @property
    def certain(self) -> bool:
        """Whether nothing about it is estimated, as of the reference itself."""
        return self.error == self.between == 0

    @property
    def interval(self) -> Interval:
        """The two-sided 95 % interval."""
        t = float(stats.t.ppf(0.975, self.seeds - 1)) if self.between else 0.0
        half = self._half(Z95, t)
        return Interval(
            self.value, min(self.value, self.centre - half), max(self.value, self.centre + half)
        )

    def bound(self, level: int = 1) -> float:
        """The one-sided upper bound with an error of 5 % shared by ``level`` bounds."""
        t = critical(level, self.seeds - 1) if self.between else 0.0
        return self.centre + self._half(critical(level), t)

    def _half(self, z: float, t: float) -> float:
        # a root of squares and not math.hypot: the page's script computes the same to the last bit
        samples, seeds = z * self.error, t * self.between
        return math.sqrt(samples * samples + seeds * seeds)

    def most(self, limit: float, judged: int) -> int:
        """By how many bounds the 5 % may be shared so that this one stays within ``limit``; at most ``judged``."""
        low, high = 0, judged
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.bound(middle) <= limit else (low, middle - 1)
        return low


def over_losses(losses: Sequence[Loss]) -> Loss:
    """The mean loss over seeds that were judged on the same samples, from what is known of each.

    The samples' error of the mean is at most the mean of their errors, and is taken as that (seeds
    err on the same samples); the seeds' own is Student's t. `quantbench.stats.statistics.over_seeds`
    is narrower, and needs every answer.

    >>> round(over_losses([Loss(0.001, 0.001, 0.002), Loss(0.003, 0.003, 0.002)]).bound(), 5)
    0.00912
    """
    values = np.array([loss.value for loss in losses])
    return Loss(
        float(values.mean()),
        float(np.mean([loss.centre for loss in losses])),
        float(np.mean([loss.error for loss in losses])),
        float(values.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0,
        len(losses),
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """Which of several losses are shown to be within a limit: ``within``, in their order.

    ``level``: by how many the 5 % was shared where the others were not shown to be.
    """

    within: tuple[bool, ...]
    level: int


def shown_within(losses: Sequence[Loss], limit: float) -> Shown:
    """Which losses are within ``limit``, so that 5 % is the chance of one mistake or more in all.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979): the surest of m must hold with 5 % / m, the
    next with 5 % / (m - 1), and so on until one does not.

    >>> sure, unsure = Loss(0.0, 0.0, 0.001), Loss(0.006, 0.006, 0.0022)
    >>> shown_within([unsure, sure], 0.01), shown_within([unsure, unsure], 0.01)
    (Shown(within=(True, True), level=1), Shown(within=(False, False), level=2))
    """
    judged = len(losses)
    most = [loss.most(limit, judged) for loss in losses]
    within = [False] * judged
    for done, i in enumerate(sorted(range(judged), key=lambda i: -most[i])):
        if most[i] < judged - done:
            return Shown(tuple(within), judged - done)
        within[i] = True
    return Shown(tuple(within), 1)


# --- what samples can resolve ---------------------------------------------------------------------


def least_limit(n: int, level: int = 1) -> float:
    """The smallest limit that ``n`` samples can ever show of a share, though no answer changes.

    The bound of `quantbench.stats.statistics.bonett_price` without a discordant sample.

    >>> round(100 * least_limit(200), 2)
    1.15
    """
    return critical(level) * math.sqrt(2) / (n + 2)


def samples_needed(limit: float, discordance: float, level: int = 1, *, share: bool = True) -> int:
    """How many samples show, 4 times of 5, that a method which loses nothing is within ``limit``.

    Parameters
    ----------
    discordance : float
        Share of samples that one alone of the two has right; of scores that are no shares, the
        variance of a sample's difference.
    level : int
        How many bounds share the 5 %.
    share : bool
        Whether a sample is right or wrong; `least_limit` then holds too.

    Source: Connor, Biometrics 43 (1987), for McNemar's test, with a one-sided error.

    >>> samples_needed(0.01, 0.02), samples_needed(0.01, 0.0)
    (1235, 231)
    """
    spread = critical(level) * math.sqrt(discordance)
    spread += float(stats.norm.ppf(POWER)) * math.sqrt(max(0.0, discordance - limit * limit))
    fewest = critical(level) * math.sqrt(2) / limit - 2 if share else 2
    return max(2, math.ceil(fewest), math.ceil(spread * spread / (limit * limit)))


def resolvable(n: int, discordance: float, level: int = 1, *, share: bool = True) -> float:
    """The smallest limit that `samples_needed` says ``n`` samples show; in the unit of the loss.

    >>> 0.0110 < resolvable(1000, 0.02) < 0.0112
    True
    """
    low, high = 0.0, 1.0
    while samples_needed(high, discordance, level, share=share) > n and high < 1e9:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        fits = middle > 0 and samples_needed(middle, discordance, level, share=share) <= n
        low, high = (low, middle) if fits else (middle, high)
    return high
