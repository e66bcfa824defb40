"""Target: the hardware and settings that a session runs on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantbench.system import physical_cores, usable_cpus


@dataclass(frozen=True, slots=True)
class Target:
    """A device with the settings under which it runs.

    Parameters
    ----------
    name : str
        Name in the experiment, the results and the report.
    device : str
        ``cpu`` or ``cuda``.
    threads : int
        Threads of one inference, given explicitly to every runtime.
    affinity : tuple of int
        CPUs the process is pinned to; empty for no pin.
    isa : str
        ``native``, or ``avx2``: the instruction set that kernels are capped to. A cap changes the
        choice of kernels only, not caches and clock: it emulates an older machine, roughly.
    kernels : str
        ``default``, or ``reference``: the runtime's plain loops, what a microcontroller computes.
    optimize : bool
        Whether the runtime may optimize the graph; off only to show what optimization does.
    environment : mapping
        Further environment variables, set before the runtime is imported.
    """

    name: str
    device: str = "cpu"
    threads: int = 1
    affinity: tuple[int, ...] = ()
    isa: str = "native"
    kernels: str = "default"
    optimize: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = "local"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it back."""
        return {
            **dataclasses.asdict(self),
            "affinity": list(self.affinity),
            "environment": dict(self.environment),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """The inverse of `to_json`."""
        return cls(**{**data, "affinity": tuple(data["affinity"])})


def presets() -> dict[str, Target]:
    """The targets that an experiment can name without declaring them.

    One-thread targets are pinned to the last usable CPU, so that the harness has another.
    """
    last = (usable_cpus()[-1],)
    return {
        target.name: target
        for target in (
            Target("cpu-1", affinity=last),
            Target("cpu-all", threads=physical_cores()),
            Target("cpu-avx2", affinity=last, isa="avx2"),
            Target("cpu-reference", affinity=last, kernels="reference"),
            Target("cuda", device="cuda"),
        )
    }


def target_warnings(target: Target) -> list[str]:
    """Plain-language doubts about a target on this machine."""
    cores = physical_cores()
    if target.device != "cpu" or target.threads == 1:
        return []
    if target.threads > cores:
        return [
            f"The target wants {target.threads} threads and this machine has {cores} "
            f"core{'' if cores == 1 else 's'} for them: threads wait for each other."
        ]
    if target.threads == cores:
        return [
            "The target takes every core: the system's own work and the harness have none left, "
            "so its times vary more than those on fewer threads."
        ]
    return []
