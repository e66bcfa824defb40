"""Equivalence: which trials cannot be told apart by what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from quantbench.analysis.trial_table import MeasuredTrial
from quantbench.spec import Scenario
from quantbench.stats import (
    Interval,
    Times,
    bursts,
    exp_interval,
    log_times,
    paired,
    rounds_interval,
)

NEAR = 1.25
"""Trials whose values differ by more are told apart without a look at their rounds."""
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
        Smaller relative differences are called none (`smallest_claim`).
    times : Times, optional
        Of the rounds in which both were timed. Their ratio, paired by round, then decides: they
        are the same where its interval holds 1.
    metric : str
        Latency, or a throughput.

    Without rounds they can be told apart where their intervals are disjoint: those of the speed-up
    over the same reference, or of the metric where a speed-up is missing. That is a stricter
    demand than a 5 % test: a tie may be called where the rounds would show a small difference.
    """
    x, y = a.value(metric), b.value(metric)
    if max(x, y) >= NEAR * min(x, y):
        times = None
    pairs = paired(times, a.trial, b.trial) if times else []
    if pairs:
        ratio = exp_interval(rounds_interval(pairs))
        return abs(ratio.value - 1) <= claim or not ratio.excludes(1.0)
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
