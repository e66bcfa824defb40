"""Constraints: what a trial may cost to be shipped, and what is wanted of it; as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from quantbench.errors import BadInput, did_you_mean
from quantbench.units import METRICS, Better, Wish


@dataclass(frozen=True, slots=True)
class Objective(Wish):
    """Something to make small, or large; ``metric``: the one of `quantbench.units.METRICS`."""

    metric: str

    @property
    def largest(self) -> bool:
        """Whether more is better."""
        return METRICS[self.metric].better == Better.MORE


OBJECTIVES: Mapping[str, Objective] = {
    wish.name: Objective(wish.name, wish.best, wish.tie, wish.ahead, spec.name)
    for spec in sorted(METRICS.values(), key=lambda spec: spec.name != "latency_ms")
    if (wish := spec.wish)
}
"""By name, the latency first: it is what is asked for by default."""

LARGEST_DROP = 0.01


@dataclass(frozen=True, slots=True)
class Constraints:
    """What is allowed, what is wanted, and where.

    Parameters
    ----------
    max_drop : float
        Largest allowed loss of quality against the float reference, in the unit of the metric (0.01
        is one percentage point), judged by the one-sided 95 % bound of the loss.
    max_size_bytes : float, optional
        Largest allowed size of all files needed at run time.
    objective : str
        One of `OBJECTIVES`.
    batch_size : int, optional
        The smallest that was timed by default; for throughput, each trial at its best.
    target, model : str, optional
        Only these.

    Raises
    ------
    BadInput
        For an unknown objective (with the nearest known one), or a limit below 0.
    """

    max_drop: float = LARGEST_DROP
    max_size_bytes: float | None = None
    objective: str = "latency"
    batch_size: int | None = None
    target: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise BadInput(
                f"unknown objective '{self.objective}': it is one of {', '.join(OBJECTIVES)}."
                f"{did_you_mean(self.objective, OBJECTIVES)}"
            )
        if not self.max_drop >= 0:
            raise BadInput(f"the largest drop is 0 or more, not {self.max_drop:g}")
        if self.max_size_bytes is not None and not self.max_size_bytes > 0:
            raise BadInput(f"the largest size is above 0, not {self.max_size_bytes:g}")

    @property
    def wanted(self) -> Objective:
        """The objective."""
        return OBJECTIVES[self.objective]

    @property
    def limits(self) -> str:
        """What binds a choice: "the allowed loss", or "the allowed loss and size"."""
        return "the allowed loss" + ("" if self.max_size_bytes is None else " and size")


def drop_limit(max_drop: float) -> str:
    """An allowed loss in words.

    >>> drop_limit(0.01), drop_limit(0.005)
    ('1 point', '0.5 points')
    """
    return f"{100 * max_drop:g} point" + ("" if max_drop == 0.01 else "s")


def size_limit(max_size_bytes: float) -> str:
    """An allowed size, as `parse_size` reads it.

    >>> size_limit(2e6), size_limit(512_300)
    ('2 MB', '512.3 kB')
    """
    for unit, scale in _SCALES.items():
        if max_size_bytes >= scale:
            return f"{max_size_bytes / scale:g} {unit}"
    return f"{max_size_bytes:g} B"


_SCALES: Mapping[str, float] = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}
_BINARY: Mapping[str, float] = {"GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10}


def parse_drop(text: str) -> float:
    """A loss of quality as a share: percentage points with ``pp``, or a fraction.

    Raises
    ------
    BadInput
        For anything else; says what would do.

    >>> parse_drop("0.5pp"), parse_drop("0.005")
    (0.005, 0.005)
    """
    number, points, rest = text.strip().partition("pp")
    try:
        drop = float(number) / (100 if points else 1)
    except ValueError:
        drop = -1.0
    if rest or not 0 <= drop < 1:
        raise BadInput(f"--max-drop takes 0.5pp or a fraction such as 0.005, not '{text}'")
    return drop


def parse_size(text: str) -> float:
    """Bytes: ``2MB``, ``500kB``, ``1.5MiB``, or a plain number of them.

    Raises
    ------
    BadInput
        For anything else; says what would do.

    >>> parse_size("2MB"), parse_size("500 kB"), parse_size("1MiB"), parse_size("800000")
    (2000000.0, 500000.0, 1048576.0, 800000.0)
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z]*)\s*", text)
    scales = {unit.lower(): scale for unit, scale in {**_SCALES, **_BINARY}.items()}
    scale = scales.get(found.group(2).lower() or "b") if found else None
    if found is None or scale is None or float(found.group(1)) <= 0:
        raise BadInput(f"--max-size takes bytes such as 500kB, 2MB or 1.5MiB, not '{text}'")
    return float(found.group(1)) * scale
