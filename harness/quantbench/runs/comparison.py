"""Comparison: the artifacts of one model on one target that are timed interleaved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantbench.execution import Job
from quantbench.spec import Scenario, Target

CONTROL = "@control"
"""Stands after the reference's name at its second place in the comparison."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One artifact of a comparison, under the name its samples are stored by.

    ``job``: what times it; None where it was timed before. ``is_float``: whether it is in fp32 as it was trained, so that ratios are formed against it.
    """

    name: str
    job: Job | None = None
    batch_size: int = 1
    is_float: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is timed interleaved: all at one batch size, or each at its best where ``offline``.

    ``confirms``: at one batch size, after something of it was chosen by its time.
    """

    model: str
    target: Target
    contenders: tuple[Contender, ...]
    reference: str
    offline: bool = False
    confirms: bool = False

    @property
    def scenario(self) -> Scenario:
        """One sample a call, several, or each at its best."""
        if self.offline:
            return Scenario.OFFLINE
        if self.confirms:
            return Scenario.CONFIRMATION
        several = max(self.batch_sizes.values()) > 1
        return Scenario.MULTI_STREAM if several else Scenario.SINGLE_STREAM

    @property
    def batch_sizes(self) -> Mapping[str, int]:
        """Samples per call, by name."""
        return {c.name: c.batch_size for c in self.contenders}

    @property
    def floats(self) -> tuple[str, ...]:
        """Names of those in fp32 as they were trained, the A/A control left out."""
        return tuple(c.name for c in self.contenders if c.is_float and c.name != self.control)

    @property
    def id(self) -> str:
        """Readable and unique within a run: ``digits/cpu-1/batch8``, ``digits/cpu-1/offline``."""
        return f"{self.model}/{self.target.name}/{self.name}"

    @property
    def name(self) -> str:
        """Unique among those of a model on a target: ``batch8``, ``offline``, ``confirmation``."""
        if self.offline or self.confirms:
            return self.scenario
        return f"batch{self.contenders[0].batch_size}"

    @property
    def control(self) -> str:
        """Name of the A/A control."""
        return f"{self.reference}{CONTROL}"
