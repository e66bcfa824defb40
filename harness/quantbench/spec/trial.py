"""Trial: one model, backend, method, target and seed, and what it may use."""

from __future__ import annotations

from dataclasses import dataclass

from quantbench.spec.method import Method
from quantbench.spec.target import Target


@dataclass(frozen=True, slots=True)
class Trial:
    """One model x backend x method x target x seed."""

    model: str
    backend: str
    method: Method
    label: str
    target: Target
    seed: int
    several_seeds: bool = False

    @property
    def id(self) -> str:
        """Readable and unique within an experiment: ``digits/tflite/static-int8/cpu-1``."""
        parts = [self.model, self.backend, self.label, self.target.name]
        return "/".join([*parts, f"seed{self.seed}"] if self.several_seeds else parts)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one trial may use before it is stopped: seconds per phase, MB resident."""

    train_s: float = 3600.0
    build_s: float = 900.0
    score_s: float = 1800.0
    start_s: float = 300.0
    memory_mb: float = 8000.0
