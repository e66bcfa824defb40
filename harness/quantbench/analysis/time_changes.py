"""Time changes: what two runs may say of a change in time, and where they may say nothing.

A run is one session on one machine, and its intervals know that session alone. Between sessions the
same file has another speed-up and other milliseconds (`SESSION_SD`), so that the change between two runs
has a part that neither run shows. On another machine ratios differ too, by a factor and not by noise:
-39 %, -33 % and +146 % were seen of the same files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from scipy import stats

from quantbench.analysis.equivalence import smallest_claim
from quantbench.spec import TIMED
from quantbench.stats import Interval, difference_interval, exp_interval
from quantbench.units import METRICS

TIMED_METRICS = frozenset(
    spec.name for spec in METRICS.values() if spec.change is not None and set(spec.scenarios) & {*TIMED}
)  # fmt: skip
"""Metrics that runs are compared by, and that a clock decides."""

SESSION_SD: Mapping[str, float] = {"speedup": 0.02, "latency_ms": 0.06}
"""Standard deviation of the logarithm between sessions of one machine, of the same file.

Of the published runs, which were all made on one machine, the pooled deviation of files that several
of them timed is 1.8 % in speed-ups and 5.8 % in milliseconds (`tests/harness/test_sessions.py` computes
both); against PyTorch's eager mode alone it is 2.4 %, against TFLite's float model 1.3 %.
"""
SURE = 0.99
"""How often the part of a change that sessions make lies within what is allowed for it.

Both runs have it, so its deviation is ``sqrt(2)`` times `SESSION_SD`. At 95 % one of forty unchanged
trials would be called worse in every comparison; at 99 %, and with the noise within the runs added, at
most one in a hundred is (simulated in `tests/harness/test_sessions.py`).
"""
TWO_RUNS: Mapping[str, float] = {
    metric: math.expm1(float(stats.norm.ppf((1 + SURE) / 2)) * math.sqrt(2) * sd)
    for metric, sd in SESSION_SD.items()
}
"""What two sessions may differ by, as a share: 7.6 % in speed-ups, 24 % in milliseconds.

``expm1(z sqrt(2) SESSION_SD)``, z the two-sided normal quantile of `SURE`.
"""

_HARDWARE = ("cpu", "architecture", "isa", "cores", "cpus")
_MOST_TOLD = 3


def least(controls: Iterable[Interval | None]) -> float:
    """The smallest change of time that may be claimed, as a share, given the A/A controls."""
    return max(map(smallest_claim, controls))


def ratio_change(
    baseline: Interval, candidate: Interval, *, floor: float, sessions: float = 0.0
) -> Interval:
    """The relative change of a ratio (or of a time) between two runs.

    Parameters
    ----------
    baseline, candidate : Interval
        Both above 0. Their logarithms are compared: the way back is the way there.
    floor : float
        The interval reaches at least this far, as a share, to both sides; see `least`.
    sessions : float
        What the two sessions differ by, as a share (`TWO_RUNS`). It is independent of the noise
        within each, so that the two are added as squares, side by side (as `difference_interval`).

    >>> change = ratio_change(Interval(2.0, 1.98, 2.02), Interval(1.8, 1.78, 1.82), floor=0.01, sessions=0.05)
    >>> [round(100 * x, 1) for x in (change.value, change.low, change.high)]
    [-10.0, -14.5, -5.3]
    """
    found, apart = difference_interval(_log(baseline), _log(candidate)), math.log1p(sessions)
    ends = (
        found.value,
        found.value - math.hypot(found.value - found.low, apart),
        found.value + math.hypot(found.high - found.value, apart),
    )
    ratio = at_least(exp_interval(Interval(*ends)), floor)
    return Interval(ratio.value - 1, ratio.low - 1, ratio.high - 1)


def at_least(ratio: Interval, floor: float) -> Interval:
    """A ratio whose interval reaches at least ``floor``, as a share, to both sides."""
    return Interval(
        ratio.value,
        min(ratio.low, ratio.value / (1 + floor)),
        max(ratio.high, ratio.value * (1 + floor)),
    )


def _log(x: Interval) -> Interval:
    return Interval(
        math.log(x.value), math.log(x.low) if x.low > 0 else -math.inf, math.log(x.high)
    )


def other_machine(
    fingerprints: tuple[str, str], baseline: Mapping[str, Any], candidate: Mapping[str, Any]
) -> str:
    """Why times of two runs are not comparable; empty where both were made on one machine.

    Parameters
    ----------
    fingerprints : tuple of str
        Of the machines that a trial was measured on: processor, software and environment.
    baseline, candidate : mapping
        ``machine.json`` of the runs, for what differs.
    """
    if fingerprints[0] == fingerprints[1] and fingerprints[0]:
        return ""
    if not all(fingerprints):
        return "not said on which machine it was timed"
    both = {key: (baseline.get(key), candidate.get(key)) for key in _HARDWARE}
    hardware = [f"{key} {_told(*values)}" for key, values in both.items() if values[0] != values[1]]
    packages = (baseline.get("packages") or {}, candidate.get("packages") or {})
    software = [
        f"{name} {packages[0].get(name, 'absent')} and {packages[1].get(name, 'absent')}"
        for name in dict.fromkeys([*packages[0], *packages[1]])
        if packages[0].get(name) != packages[1].get(name)
    ]
    if baseline.get("environment") != candidate.get("environment"):
        software.append("another environment")
    told = [*hardware, *software]
    more = f", {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    what = "with other software" if software and not hardware else "on different machines"
    listed = f" ({', '.join(told[:_MOST_TOLD])}{more})" if told else ""
    return f"timed {what}{listed}"


def _told(one: Any, other: Any) -> str:
    """Two values that differ; of lists, what is in one alone."""
    if isinstance(one, list) and isinstance(other, list):
        return _told(
            "/".join(x for x in one if x not in other) or "no more",
            "/".join(x for x in other if x not in one) or "no more",
        )
    return " and ".join("unknown" if value is None else str(value) for value in (one, other))
