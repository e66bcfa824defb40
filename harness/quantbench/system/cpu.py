"""CPU: which processors this process may use, and whether the machine has a GPU."""

from __future__ import annotations

import os


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


def no_gpu() -> str | None:
    """Why no CUDA GPU can be used here, or None where the driver shows one; imports no framework."""
    if os.path.exists("/proc/driver/nvidia/gpus"):  # noqa: PTH110
        return None
    return "no NVIDIA GPU on this machine (no driver loaded); run on one that has a GPU"
