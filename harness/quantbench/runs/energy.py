"""Energy: joules per inference from the machine's own counters, net of idle, or a reason why not.

Never estimated from a power rating. A window is many seconds of inference back to back, because
counters tell of the whole socket and are coarse; idle windows of the same length tell what it takes
anyway. Variants are measured in turn, in a new seeded order each time.
Source: MLPerf Tiny rules (windows of 10 s); https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from quantbench.execution import Ending
from quantbench.runs.comparison import Comparison
from quantbench.runs.interleaved_timing import warm_workers
from quantbench.system import machine

POWERCAP = Path("/sys/class/powercap")
SHORTEST_S = 10.0
"""Shorter windows are below what counters resolve."""
BUSY = 0.05
"""Load of other work, as a share of the CPUs, beyond which a socket's energy is not ours."""
REASONS: Mapping[str, str] = {
    "not-asked": "precision has no energy_window_s",
    "no-powercap": "the kernel shows no energy counters (/sys/class/powercap)",
    "virtual-machine": "a virtual machine has no energy counters",
    "permission-denied": "energy counters are for root alone; run: chmod a+r "
    "/sys/class/powercap/*/energy_uj",
    "shared-socket": "other work is running, and counters tell of the whole socket",
    "window-too-short": f"energy_window_s is below {SHORTEST_S:g}",
    "counter-stuck": "the counters did not move in a window",
    "no-nvml": "energy of a CUDA device is read with nvidia-ml-py, which is not installed",
}
"""Reason codes of rows without a value, in words."""
MENDABLE = frozenset({"permission-denied", "shared-socket", "no-nvml"})


class Meter(Protocol):
    """Energy counters that only rise."""

    @property
    def domains(self) -> tuple[str, ...]:
        """What is counted, such as ``package-0`` and ``dram``."""
        ...

    def read(self) -> tuple[int, ...]:
        """Microjoules of each domain since some moment."""
        ...

    def spent(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Joules of all domains between two readings."""
        ...


class NoMeter(Exception):
    """Energy cannot be measured; the argument is a reason code of `REASONS`."""


@dataclass(frozen=True, slots=True)
class Rapl:
    """Counters of packages and their memory: Intel's RAPL, and AMD's under the same driver.

    Parameters
    ----------
    domains : tuple of str
    files : tuple of Path
        ``energy_uj`` of each domain.
    ranges : tuple of int
        Where each counter starts again from 0, microjoules.
    """

    domains: tuple[str, ...]
    files: tuple[Path, ...]
    ranges: tuple[int, ...]

    @classmethod
    def find(cls, root: Path = POWERCAP, virtual: str | None = None) -> Rapl:
        """The machine's counters; raises `NoMeter`.

        Packages count their cores; of what lies inside, only memory is beside them.
        """
        found = []
        for zone in sorted(root.glob("intel-rapl:*")):
            name = (zone / "name").read_text(encoding="ascii").strip()
            if name.startswith("package") or name == "dram":
                most = int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
                found.append((f"{name} ({zone.name})", zone / "energy_uj", most))
        if not found:
            known = machine.virtualization() if virtual is None else virtual
            raise NoMeter("no-powercap" if known == "none" else "virtual-machine")
        if not all(os.access(path, os.R_OK) for _, path, _ in found):
            raise NoMeter("permission-denied")
        names, files, ranges = zip(*found, strict=True)
        return cls(names, files, ranges)

    def read(self) -> tuple[int, ...]:
        """Microjoules of each domain."""
        return tuple(int(path.read_text(encoding="ascii")) for path in self.files)

    def spent(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Joules between two readings, a counter having started again at most once."""
        total = 0
        for start, end, most in zip(before, after, self.ranges, strict=True):
            total += end - start if end >= start else end - start + most
        return total / 1e6


@dataclass(frozen=True, slots=True)
class Nvml:
    """The total energy counter of the first CUDA device (NVML, Volta and later)."""

    domains: tuple[str, ...]

    @classmethod
    def find(cls) -> Nvml:
        """The device's counter; raises `NoMeter`."""
        try:
            import pynvml

            pynvml.nvmlInit()
            device = pynvml.nvmlDeviceGetHandleByIndex(0)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(device)
            return cls((str(pynvml.nvmlDeviceGetName(device)),))
        except Exception as error:  # no module, no driver, no device, no counter
            raise NoMeter("no-nvml") from error

    def read(self) -> tuple[int, ...]:
        """Microjoules of the device."""
        import pynvml

        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        return (int(pynvml.nvmlDeviceGetTotalEnergyConsumption(device)) * 1000,)

    def spent(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Joules between two readings."""
        return sum(b - a for a, b in zip(before, after, strict=True)) / 1e6


def meter(device: str, window_s: float) -> Meter:
    """The meter of a device; raises `NoMeter`."""
    if not window_s:
        raise NoMeter("not-asked")
    if window_s < SHORTEST_S:
        raise NoMeter("window-too-short")
    found: Meter = Nvml.find() if device == "cuda" else Rapl.find()
    if os.getloadavg()[0] > BUSY * (os.cpu_count() or 1) and device != "cuda":
        raise NoMeter("shared-socket")
    return found


@dataclass(frozen=True, slots=True)
class Window:
    """One window of one contender: ``joules`` in ``seconds``, of which idling takes ``idle_w``."""

    name: str
    joules: float
    seconds: float
    inferences: int
    idle_w: float

    @property
    def per_inference(self) -> float:
        """Joules of one inference, idle power included."""
        return self.joules / self.inferences

    @property
    def net(self) -> float:
        """Joules of one inference beyond what the machine takes anyway."""
        return (self.joules - self.idle_w * self.seconds) / self.inferences


def measure(
    comparison: Comparison,
    meter: Meter,
    *,
    windows: int,
    window_s: float,
    seed: int,
    scratch: Path,
    on_window: Callable[[str], None] = lambda name: None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Window]:
    """Windows of every contender but the control, in turn, an idle one before each turn.

    Raises
    ------
    NoMeter
        ``counter-stuck`` if a window took nothing.
    """
    rng = np.random.default_rng([seed, zlib.crc32(comparison.id.encode())])
    names = [c.name for c in comparison.contenders if c.name != comparison.control]
    found: list[Window] = []
    with warm_workers(comparison, names, scratch) as (workers, failures):
        for _ in range(windows):
            before, started = meter.read(), time.monotonic()
            sleep(window_s)
            idle = meter.spent(before, meter.read()) / (time.monotonic() - started)
            for name in rng.permutation([n for n in workers if n not in failures]):
                on_window(name)
                before = meter.read()
                answer = workers[name].ask(f"work {window_s}", window_s)
                joules = meter.spent(before, meter.read())
                if isinstance(answer, Ending):
                    failures[name] = answer
                    continue
                if joules <= 0:
                    raise NoMeter("counter-stuck")
                count = int(answer["calls"]) * comparison.batch_sizes[name]
                found.append(Window(name, joules, float(answer["seconds"]), count, idle))
    return found
