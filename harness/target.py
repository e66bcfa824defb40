"""Target: the hardware and settings that a session runs on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The same for every process that scores or times, whatever its runtime. glibc returns freed
# memory to the kernel at once by default; PyTorch fp32 at batch 32 is 2x slower for it.
COMMON_ENVIRONMENT: Mapping[str, str] = {
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "PYTHONHASHSEED": "0",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


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


def usable_cpus() -> tuple[int, ...]:
    """The CPUs this process may run on."""
    return tuple(sorted(os.sched_getaffinity(0)))


def physical_cores() -> int:
    """Physical cores among the usable CPUs (one hardware thread each)."""
    cores = set()
    for cpu in usable_cpus():
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:  # noqa: PTH123
                cores.add(file.read().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


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


def no_gpu() -> str | None:
    """Why no CUDA GPU can be used here, or None where the driver shows one; imports no framework."""
    if os.path.exists("/proc/driver/nvidia/gpus"):  # noqa: PTH110
        return None
    return "no NVIDIA GPU on this machine (no driver loaded); run on one that has a GPU"
