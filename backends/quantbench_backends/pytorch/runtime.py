"""Runtime: loads PyTorch artifacts on a target; importing this module imports no framework."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from quantbench.backend_api import Artifact, Operation, Session
from quantbench.errors import TargetNotApplied
from quantbench.spec import Arrays, Method, Target
from quantbench.system import no_gpu
from quantbench_backends.pytorch import routes

# Each of PyTorch's kernel libraries reads a variable of its own.
AVX2_CAPS: Mapping[str, str] = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


class PyTorchRuntime:
    """Runs modules from safetensors (eager or compiled) and TorchScript archives."""

    name = "pytorch"

    def refuse(self, target: Target, method: Method) -> str | None:
        """Why this target cannot run artifacts of this method, or None; imports no framework."""
        if target.kernels == "reference":
            return "PyTorch has no reference kernels to choose; use kernels: default"
        if target.device == "cuda":
            return _refuse_cuda(target, method)
        if target.device != "cpu":
            return f"this quantbench version runs PyTorch on cpu or cuda, not on '{target.device}'"
        x86 = platform.machine() in ("x86_64", "AMD64")
        if target.isa not in ("native", "avx2"):
            return f"PyTorch's kernels can be capped to avx2, not to '{target.isa}'; use isa: avx2"
        if target.isa == "avx2" and not (x86 and "avx2" in cpu_flags()):
            return "this CPU has no AVX2, so that kernels cannot be capped to it; use isa: native"
        route = routes.named(method.route)
        if method.scales != "none" and route.kernels and not x86:
            return "engine x86 and oneDNN's int8 need an x86 CPU; use a float method here"
        if route.kernels == routes.ONEDNN and (target.isa != "native" or not _has_vnni()):
            return (
                "oneDNN's sums of 8-bit products saturate without VNNI instructions; "
                "use route: fx, whose activations have 7 bits"
            )
        if route.compiled:
            return _refuse_compilation(target)
        return None

    def environment(self, target: Target) -> Mapping[str, str]:
        """Variables that must be set before torch is imported; the parent sets them."""
        return {
            "OMP_NUM_THREADS": str(target.threads),
            "MKL_NUM_THREADS": str(target.threads),
            # more would start a pool of compiler processes as soon as inductor is imported
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "TORCHINDUCTOR_FREEZING": "1",
            # inductor runs what it compiled under another cap of the instruction set, and aborts or
            # computes NaN (torch 2.13): what it keeps is kept for each
            "TORCHINDUCTOR_CACHE_DIR": compiled_folder(target.isa),
            **(AVX2_CAPS if target.isa == "avx2" else {}),
        }

    def load(self, artifact: Artifact, target: Target, batch_size: int) -> Session:
        """Load for ``batch_size`` samples a call; what is compiled is compiled here.

        Raises
        ------
        BadArtifact
            If torch cannot read the file, or the architecture cannot be built.
        TargetNotApplied
            If threads, the instruction set or the absence of optimization did not take effect.
        """
        _check_environment(target)
        from quantbench_backends.pytorch import session

        return session.load(artifact, target, batch_size)

    def operations(
        self, artifact: Artifact, target: Target, inputs: Arrays
    ) -> tuple[Operation, ...]:
        """What one inference of batch size 1 really executes.

        Eager modules and TorchScript: each operator that reaches PyTorch's dispatcher, in order.
        Compiled routes: each operator that the compiled code calls, and one entry for the code
        that inductor generated itself, with the multiply-accumulates that remain.
        """
        _check_environment(target)
        from quantbench_backends.pytorch import executed_operations

        return executed_operations.operations(artifact, target, inputs)


def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux shows them; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in text.splitlines() if line.startswith("flags"))
    return frozenset(next(flags, "").split())


def compiled_folder(isa: str) -> str:
    """Where inductor keeps what it compiled for an instruction set."""
    return str(Path(tempfile.gettempdir()) / f"quantbench-inductor-{os.getuid()}-{isa}")


def _check_environment(target: Target) -> None:
    caps = AVX2_CAPS if target.isa == "avx2" else {}
    missing = [name for name, value in caps.items() if os.environ.get(name) != value]
    if missing:
        raise TargetNotApplied(
            f"isa avx2 needs {', '.join(missing)} in the environment before torch is imported; "
            "start the process with Runtime.environment(target)"
        )


def _refuse_cuda(target: Target, method: Method) -> str | None:
    if reason := no_gpu():
        return reason
    if target.isa != "native":
        return "an instruction set is a CPU's; use isa: native with device: cuda"
    if not method.is_float:
        if method.scales == "none":
            return "this quantbench version runs weight-only models on a CPU only; use device: cpu"
        return f"torch.ao's int8 kernels are CPU only; run {method.name} with device: cpu"
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None  # a missing package is reported with its install command
    if version.endswith("+cpu"):
        return f"torch {version} is built without CUDA; install a CUDA build of torch"
    return _refuse_compilation(target) if routes.named(method.route).compiled else None


def _has_vnni() -> bool:
    return any("vnni" in flag for flag in cpu_flags())


def _refuse_compilation(target: Target) -> str | None:
    if not target.optimize:
        return "compiling is an optimization of the graph; use route: eager with optimize: false"
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++")
    if not any(map(shutil.which, compilers)):
        return "torch.compile needs a C++ compiler (g++); install one, or use route: eager"
    return None
