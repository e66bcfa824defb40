"""Job: a function for a worker process, its limits, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """A function call for a worker process.

    Parameters
    ----------
    name : str
        Unique within a run; names the job's files.
    function : callable
        Of a module that the worker can import; ``arguments`` are its keywords, JSON only.
    environment : mapping
        Variables set before the worker starts, over `COMMON_ENVIRONMENT`.
    affinity : tuple of int
        CPUs to pin to; empty for none.
    time_limit_s, memory_mb : float
        Beyond these the worker is killed: ``timeout``, ``out-of-memory``.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    affinity: tuple[int, ...] = ()
    time_limit_s: float = 600.0
    memory_mb: float = 8000.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: ``ok`` with a value, or another status with a one-line reason.

    ``killed``: somebody else sent SIGKILL; the job may be tried again. ``mendable``: the reason
    says what the user can do about it.
    """

    status: str
    reason: str
    value: Any
    seconds: float
    killed: bool = False
    mendable: bool = False

    @property
    def again(self) -> bool:
        """Whether the same command should try it again: something else than the job was at fault."""
        return self.killed or self.mendable
