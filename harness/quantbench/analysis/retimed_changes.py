"""Retimed changes: times of two runs, judged by their artifacts timed in the same rounds on one machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from quantbench.analysis.compare import (
    MISSING,
    NOT_COMPARABLE,
    PERCENT,
    SAME,
    STATUS,
    Change,
    verdict,
)
from quantbench.analysis.time_changes import TIMED_METRICS, at_least, least
from quantbench.runs import Retimed
from quantbench.spec import Scenario
from quantbench.stats import Interval


def with_retimed(changes: Iterable[Change], retimed: Sequence[Retimed]) -> tuple[Change, ...]:
    """The changes of two runs, those of time replaced by what was timed again.

    Of each trial that was, ``latency_ms`` is the candidate's artifact against the baseline's, and
    ``speedup`` the baseline's time over the candidate's, 1 before: the same rounds, for gates of either.
    What was measured in the runs themselves is not judged: times at other batch sizes are left as
    they are, and offline throughput is not comparable.
    """
    again: dict[str, list[Retimed]] = {}
    for one in retimed:
        again.setdefault(one.trial, []).append(one)
    return tuple(_replaced(changes, again))


def _replaced(
    changes: Iterable[Change], again: Mapping[str, Sequence[Retimed]]
) -> Iterator[Change]:
    for change in changes:
        own = again.get(change.trial, ())
        if change.metric == STATUS:
            yield change
            yield from (found for one in own for found in _judged(change, one))
        elif own and change.metric in TIMED_METRICS:
            if change.scenario == Scenario.OFFLINE:
                told = "offline throughput is not timed again"
                yield replace(change, change=None, verdict=NOT_COMPARABLE, reason=told)
            elif (change.batch_size or 1) not in {one.batch_size for one in own}:
                yield change
        else:
            yield change


def _judged(status: Change, one: Retimed) -> Iterator[Change]:
    """The time and the speed-up of a trial whose artifacts were timed again."""
    scenario = Scenario.SINGLE_STREAM if one.batch_size == 1 else Scenario.MULTI_STREAM
    gain = None if one.ratio is None else _inverse(one.ratio)
    shown = (None, None) if gain is None else (1.0, gain.value)
    for metric, ratio, (before, after) in (
        ("speedup", gain, shown),
        ("latency_ms", one.ratio, (one.baseline_ms, one.candidate_ms)),
    ):
        change = replace(
            status, metric=metric, scenario=scenario, batch_size=one.batch_size, baseline=before,
            candidate=after, unit=PERCENT, reason=one.reason, change=None,
            verdict=MISSING if one.lost else NOT_COMPARABLE,
        )  # fmt: skip
        if ratio is not None:
            found = ratio if one.control is None else at_least(ratio, least([one.control]))
            relative = Interval(found.value - 1, found.low - 1, found.high - 1)
            judged = verdict(relative, metric, near=SAME[PERCENT])
            change = replace(change, change=relative, verdict=judged)
        yield change


def _inverse(ratio: Interval) -> Interval:
    return Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low if ratio.low > 0 else math.inf)
