"""OnnxRuntime: runs .onnx files with ONNX Runtime, NumPy and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from quantbench.backend_api import Artifact, Operation, Session, TimedOperation
from quantbench.spec import Arrays, Method, Target
from quantbench.system import no_gpu


class OnnxRuntime:
    """ONNX Runtime's CPU provider, or its CUDA provider where there is a GPU."""

    name = "onnxruntime"

    def refuse(self, target: Target, method: Method) -> str | None:
        """Why this target cannot run ONNX files, or None."""
        if target.isa != "native":
            return (
                f"ONNX Runtime cannot be capped to {target.isa}: MLAS takes the best kernels of "
                "the CPU at hand; use isa: native, or run on an older CPU"
            )
        if target.kernels != "default":
            return (
                "ONNX Runtime has no reference kernels; "
                "use kernels: default, or LiteRT's reference kernels with tflite"
            )
        if target.device == "cuda":
            return no_gpu() or _cpu_wheel()
        return None

    def environment(self, target: Target) -> Mapping[str, str]:
        """Nothing: every setting is an option of the session."""
        return {}

    def load(self, artifact: Artifact, target: Target, batch_size: int) -> Session:
        """Load for ``batch_size`` samples a call.

        Raises
        ------
        BadArtifact
            If ONNX Runtime cannot read the file.
        BadInput
            If the file has a fixed batch of another size.
        TargetNotApplied
            If threads or device are not those of the target.
        """
        from quantbench_backends.onnxruntime import session

        return session.load(artifact, target, batch_size)

    def operations(
        self, artifact: Artifact, target: Target, inputs: Arrays
    ) -> tuple[Operation, ...]:
        """What one inference of one sample executes, from ONNX Runtime's own profile."""
        from quantbench_backends.onnxruntime.executed_operations import operations

        return operations(artifact, target, inputs)

    def profile(
        self, artifact: Artifact, target: Target, inputs: Arrays, seconds: float
    ) -> tuple[TimedOperation, ...]:
        """The time of each operator, from ONNX Runtime's own profiler."""
        from quantbench_backends.onnxruntime import profile

        return profile.profile(artifact, target, inputs, seconds)


def _cpu_wheel() -> str | None:
    try:
        metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return "the installed onnxruntime is the CPU-only wheel; pip install onnxruntime-gpu"
    return None
