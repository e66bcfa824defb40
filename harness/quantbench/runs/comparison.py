"""Comparison: the artifacts of one model on one target that are timed interleaved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantbench.execution import Job
from quantbench.spec import Target

SINGLE_STREAM, MULTI_STREAM, OFFLINE = "single-stream", "multi-stream", "offline"
"""MLPerf Inference's words: one sample a call; several; as many a call as is best for throughput."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One artifact of a comparison, under the name its samples are stored by."""

    name: str
    job: Job
    batch_size: int = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is timed interleaved: all at one batch size, or each at its best where ``offline``."""

    model: str
    target: Target
    contenders: tuple[Contender, ...]
    reference: str
    offline: bool = False

    @property
    def scenario(self) -> str:
        """One of `SINGLE_STREAM`, `MULTI_STREAM` and `OFFLINE`."""
        if self.offline:
            return OFFLINE
        return MULTI_STREAM if max(self.batch_sizes.values()) > 1 else SINGLE_STREAM

    @property
    def batch_sizes(self) -> Mapping[str, int]:
        """Samples per call, by name."""
        return {c.name: c.batch_size for c in self.contenders}

    @property
    def id(self) -> str:
        """Readable and unique within a run: ``digits/cpu-1/batch8``, ``digits/cpu-1/offline``."""
        last = OFFLINE if self.offline else f"batch{self.contenders[0].batch_size}"
        return f"{self.model}/{self.target.name}/{last}"

    @property
    def control(self) -> str:
        """Name of the A/A control."""
        return f"{self.reference}@control"
