"""Equivalence: which trials cannot be told apart by what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from quantbench.analysis.float_twins import kind
from quantbench.analysis.trial_table import MeasuredTrial
from quantbench.results import TrialRow
from quantbench.spec import Scenario
from quantbench.stats import (
    Interval,
    Times,
    bursts,
    log_times,
    paired,
    rounds_interval,
)

SMALLEST_CLAIM = 0.01
"""No difference in time under 1 %, or under twice the A/A half-width, is called a difference."""
OVERLAP: Mapping[str, tuple[str, ...]] = {
    "latency_ms": ("speedup", "latency_ms"),
    "throughput_per_s": ("speedup", "throughput_per_s"),
    "offline_throughput_per_s": ("offline_speedup", "offline_throughput_per_s"),
}
"""Per metric, whose intervals are compared without rounds: ratios to one reference come first."""


def smallest_claim(aa: Interval | None) -> float:
    """The relative difference in time below which nothing is claimed, as `latency_verdict` has it."""
    known = aa is not None and math.isfinite(aa.half_width)
    return max(SMALLEST_CLAIM, 2 * aa.half_width) if aa is not None and known else SMALLEST_CLAIM


def round_times(samples: pd.DataFrame, batch_size: float | None, *, offline: bool = False) -> Times:
    """Times by round of all that was timed at a batch size, or offline.

    Parameters
    ----------
    samples : DataFrame
        `quantbench.results.schema.SAMPLES`.
    """
    if offline:
        return log_times(bursts(samples[samples["scenario"] == Scenario.OFFLINE]))
    timed = samples["scenario"].isin((Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM))
    return log_times(bursts(samples[timed & (samples["batch_size"] == batch_size)]))


def claim_of(
    a: MeasuredTrial, b: MeasuredTrial, control: TrialRow | None, aa: Interval | None
) -> float:
    """The relative difference in time below which two trials are the same.

    Parameters
    ----------
    control : TrialRow or None
        The trial that was timed twice.
    aa : Interval or None
        Its A/A control. It speaks of its own kind of artifact alone, one backend's run one way:
        what eager PyTorch varies by says nothing of two files of LiteRT. Of a pair without a
        control of its kind, `SMALLEST_CLAIM` and the pair's own rounds decide.
    """
    kinds = {kind(a), kind(b)}
    return smallest_claim(aa if control is not None and kind(control) in kinds else None)


def same_speed(
    a: MeasuredTrial,
    b: MeasuredTrial,
    claim: float,
    times: Times | None = None,
    metric: str = "latency_ms",
) -> bool:
    """Whether two trials cannot be told apart by their time.

    Parameters
    ----------
    claim : float
        Smaller relative differences are called none (`claim_of`).
    times : Times, optional
        Of the rounds in which both were timed. Their ratio, paired by round, then decides: they
        are the same where its interval, which knows the spread between generations, holds 1.
    metric : str
        Latency, or a throughput.

    What is further apart, all else equal, is never the same where the nearer is not.

    Without rounds they can be told apart where their intervals are disjoint: those of the speed-up
    over the same reference, or of the metric where a speed-up is missing. That is a stricter
    demand than a 5 % test: a tie may be called where the rounds would show a small difference.
    """
    pairs = paired(times, a.trial, b.trial) if times else []
    if pairs:
        ratio = rounds_interval(pairs)
        return abs(ratio.value) <= math.log1p(claim) or not ratio.excludes(0.0)
    x, y = a.value(metric), b.value(metric)
    if max(x, y) <= (1 + claim) * min(x, y):
        return True
    return any_overlap(a, b, OVERLAP[metric])


def any_overlap(a: MeasuredTrial, b: MeasuredTrial, metrics: tuple[str, ...]) -> bool:
    """Whether the intervals of two trials overlap, by the first of ``metrics`` that both have."""
    for metric in metrics:
        one, two = a.interval(metric), b.interval(metric)
        if (
            one
            and two
            and not any(math.isnan(end) for end in (one.low, one.high, two.low, two.high))
        ):
            return one.low <= two.high and two.low <= one.high
    return False
