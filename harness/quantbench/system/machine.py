"""Machine: what a run was measured on, and what about it makes numbers doubtful."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from quantbench.system.cpu import physical_cores, usable_cpus
from quantbench.system.environment import COMMON_ENVIRONMENT

PACKAGES = (
    "quantbench", "numpy", "torch", "torchao", "bitsandbytes", "tensorflow", "tf-keras",
    "tensorflow-model-optimization", "ai-edge-litert", "litert-quantizer", "litert-torch",
    "onnx", "onnx-ir", "onnxruntime",
)  # fmt: skip


# what decides which quantized kernels exist
_ISA = (
    "sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """The machine as ``machine.json`` holds it; ``fingerprint`` covers what timings depend on."""
    info = _cpuinfo()
    packages = installed_packages()
    flags = [flag for flag in _ISA if flag in info["flags"]]
    lasting = {
        "cpu": info["model"],
        "isa": flags,
        "cores": physical_cores(),
        "cpus": len(usable_cpus()),
        "architecture": platform.machine(),
        "packages": packages,
        "environment": dict(COMMON_ENVIRONMENT),
    }
    fingerprint = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:12]
    virtual = virtualization()
    return {
        **lasting,
        "fingerprint": fingerprint,
        "caches": _caches(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        or "none visible",
        "transparent_hugepage": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "virtualization": virtual,
        "load_average": list(os.getloadavg()),
        "git_commit": _git_commit(),
        "warnings": warnings(virtual),
    }


def installed_packages() -> dict[str, str]:
    """Versions of the packages that results depend on, those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def package_versions(*names: str) -> dict[str, str]:
    """Versions of distributions by name, sorted; empty for one that is not installed."""
    found = {}
    for name in sorted(set(names)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def warnings(virtual: str) -> list[str]:
    """Plain-language doubts about this machine, worst first."""
    found = []
    load, cpus = os.getloadavg()[0], len(usable_cpus())
    if load > 0.5 * cpus:
        found.append(
            f"Other work is running (load average {load:.1f} on {cpus} CPUs): "
            "absolute times are inflated; trust the ratios."
        )
    if virtual != "none":
        found.append(
            f"This is a virtual machine ({virtual}): neighbours may slow it without a trace. "
            "Ratios come from interleaved rounds and tolerate that; milliseconds may not repeat."
        )
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor and governor != "performance":
        found.append(
            f"The frequency governor is '{governor}': clock speed changes with load; "
            "set it to 'performance' for steadier numbers."
        )
    if cpus < 2:
        found.append("Only one CPU: the harness itself disturbs what it measures.")
    return found


def virtualization() -> str:
    """The hypervisor's name as the CPU or the firmware tells it, or ``none``."""
    vendor = _read("/sys/class/dmi/id/sys_vendor") or ""
    if "hypervisor" in _cpuinfo()["flags"]:
        return vendor or "hypervisor flag set"
    return "container" if Path("/.dockerenv").exists() else "none"


def _cpuinfo() -> dict[str, Any]:
    model, flags = platform.processor() or platform.machine(), set()
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            model = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
    return {"model": model, "flags": flags}


def _caches() -> Mapping[str, str]:
    caches = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = _read(folder / "level"), _read(folder / "type")
        if level and kind:
            caches[f"L{level} {kind}"] = _read(folder / "size") or "?"
    return caches


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _git_commit() -> str | None:
    """Commit of the quantbench source tree, with ``+changes``; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "-uno"])
    try:
        commit, changes = (
            subprocess.run(  # noqa: S603 - git with fixed arguments
                c, cwd=root, capture_output=True, text=True, timeout=10, check=True
            ).stdout
            for c in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.strip() + ("+changes" if changes.strip() else "")
