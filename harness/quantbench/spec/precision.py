"""Precision: how much measuring a run does, as named settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Precision:
    """Settings of the clock phase (docs/measuring.md gives the reasons).

    Parameters
    ----------
    generations, max_generations : int
        Fresh processes per artifact: at least, and at most.
    rounds : int
        Rounds per generation; in a round every artifact is timed once, in random order.
    width : float
        Wanted relative width of the 95 % interval of every ratio.
    time_limit_s : float
        Seconds of clock phase per artifact after which no further generation starts.
    warmup_s : float
        Shortest warm-up; from 0.5 s on it also goes on until the times are steady.
    burst_ms : float
        Timed calls of one burst, together.
    memory_processes : int
        Fresh processes per artifact that memory and start-up are measured in.
    energy_window_s : float
        Seconds of inference whose energy is counted together, 10 or more; 0 for no energy.
    energy_windows : int
        Windows per artifact.
    """

    name: str
    generations: int = 5
    max_generations: int = 20
    rounds: int = 7
    width: float = 0.02
    time_limit_s: float = 30.0
    warmup_s: float = 0.5
    burst_ms: float = 50.0
    memory_processes: int = 3
    energy_window_s: float = 0.0
    energy_windows: int = 5

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> Precision:
        """Of a run's description; what an older one does not say is as it is today."""
        protocol = run.get("protocol") or {}
        known = {f.name: protocol[f.name] for f in fields(cls) if f.name in protocol}
        return cls(**{"name": str(run.get("precision")), **known})


PRECISIONS: Mapping[str, Precision] = {
    "preview": Precision("preview", max_generations=5, warmup_s=0.1, memory_processes=1),
    "standard": Precision("standard"),
}
