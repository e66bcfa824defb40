"""Session: a PyTorch module loaded on a target, with input buffers of its own."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.jit._fuser import optimized_execution

from quantbench.backend_api import Artifact
from quantbench.errors import BadArtifact, BadInput, TargetNotApplied
from quantbench.spec import Array, Target, TensorSpec, check_inputs, decode, encode
from quantbench.system import locate
from quantbench_backends.pytorch import exported, routes, weight_only
from quantbench_backends.pytorch.archive import deprecated_torchscript

Call = Callable[..., Any]
_UNREADABLE = (RuntimeError, ValueError, OSError, KeyError, zipfile.BadZipFile)


class PyTorchSession:
    """See `quantbench.backend_api.protocol.Session`."""

    def __init__(
        self,
        artifact: Artifact,
        target: Target,
        batch_size: int,
        call: Call,
        arguments: list[Tensor],
        effective: Mapping[str, str],
    ) -> None:
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        self.effective = effective
        self.call = call
        self.arguments = arguments
        self._artifact = artifact
        self._batch_size = batch_size
        self._cuda = target.device == "cuda"
        self._results: Any = None

    def bind(self, inputs: Mapping[str, Array]) -> None:
        """Convert the task's arrays and copy them to the device; not timed. Raises `BadInput`."""
        check_inputs(self._artifact.task_inputs, inputs, self._batch_size)
        for i, (task, stored) in enumerate(
            zip(self._artifact.task_inputs, self.inputs, strict=True)
        ):
            encoded = encode(inputs[task.name], task, stored)
            if encoded.shape != self.arguments[i].shape:  # an axis of free length
                self.arguments[i] = self.arguments[i].new_zeros(encoded.shape)
            # a copy first: torch warns about views of arrays that NumPy guards against writing
            self.arguments[i].copy_(torch.from_numpy(encoded.copy()))

    def run(self) -> None:
        """One inference; timed; returns when the outputs are complete on the device."""
        with torch.inference_mode():
            self._results = self.call(*self.arguments)
        if self._cuda:
            torch.cuda.synchronize()

    def read(self) -> Mapping[str, Array]:
        """Outputs of the last run on the host, float, in the task's layout; not timed."""
        if self._results is None:
            raise BadInput("nothing to read: call run() first")
        one = isinstance(self._results, Tensor)
        results: Sequence[Tensor] = (self._results,) if one else tuple(self._results)
        return {
            task.name: decode(_to_numpy(result), task, stored)
            for result, task, stored in zip(
                results, self._artifact.task_outputs, self.outputs, strict=True
            )
        }


def load(artifact: Artifact, target: Target, batch_size: int) -> PyTorchSession:
    """Apply ``target``, read the artifact and compile it where its route says so."""
    if artifact.runtime != "pytorch":
        raise BadArtifact(f"artifact {artifact.path} is for runtime '{artifact.runtime}'")
    effective = apply(target, artifact)
    module = read_module(artifact, target)
    arguments = buffers(artifact.inputs, artifact.details["precision"], target, batch_size)
    if routes.of(artifact).compiled:
        call = compiled(module, arguments, target)
    else:
        call = module if target.optimize else unoptimized(module)
    return PyTorchSession(artifact, target, batch_size, call, arguments, effective)


def apply(target: Target, artifact: Artifact) -> dict[str, str]:
    """Set what the target asks for; what torch then reports.

    Raises
    ------
    TargetNotApplied
        If torch reports something else than was set.
    """
    torch.set_num_threads(target.threads)
    if torch.get_num_interop_threads() != 1:
        try:
            torch.set_num_interop_threads(1)
        except RuntimeError as error:
            raise TargetNotApplied(
                "inter-op threads were fixed before this artifact was loaded; use a new process"
            ) from error
    if torch.get_num_threads() != target.threads:
        raise TargetNotApplied(
            f"torch runs {torch.get_num_threads()} threads, not {target.threads}"
        )
    capability = torch.backends.cpu.get_cpu_capability()
    if target.isa == "avx2" and capability != "AVX2":
        raise TargetNotApplied(f"torch's kernels are for {capability}, not capped to AVX2")
    torch.set_flush_denormal(False)
    effective = {
        "device": target.device,
        "threads": str(torch.get_num_threads()),
        "interop_threads": str(torch.get_num_interop_threads()),
        "isa": capability,
        "onednn_max_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "native"),
        "flush_denormal": "off",
        "route": artifact.details["route"],
        "precision": artifact.details["precision"],
        "graph_optimization": _graph_optimization(artifact, target),
    }
    engine = artifact.details["engine"]
    if engine != "none":
        if engine not in torch.backends.quantized.supported_engines:
            raise TargetNotApplied(f"this torch has no quantized engine '{engine}'")
        torch.backends.quantized.engine = engine
        effective["quantized_engine"] = torch.backends.quantized.engine
    if target.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        effective["tf32"] = "off"
        effective["gpu"] = torch.cuda.get_device_name()
    return effective


def _graph_optimization(artifact: Artifact, target: Target) -> str:
    if routes.of(artifact).compiled:
        if not target.optimize:
            raise TargetNotApplied("compiled routes cannot run without graph optimization")
        return "inductor, frozen"
    if artifact.path.suffix == routes.PROGRAM:
        return "none: an exported program runs operator by operator"
    if artifact.path.suffix == routes.WEIGHTS:
        return "none: eager mode has no graph"
    return "torchscript" if target.optimize else "off"


def read_module(artifact: Artifact, target: Target) -> nn.Module:
    """The module on the target's device, in evaluation mode.

    Raises
    ------
    BadArtifact
        If a file cannot be read, or the weights do not fit the architecture.
    """
    locator = artifact.details.get("architecture")
    try:
        if artifact.path.suffix == routes.PROGRAM:
            return exported.read(artifact.path, artifact.details["imports"]).to(target.device)
        if artifact.path.suffix == routes.SCRIPT:
            return _read_torchscript(artifact.path, target)
        module: nn.Module = locate(artifact.details["architecture"])().eval()
        if routes.of(artifact).packed:
            return weight_only.unpacked(module, safetensors.torch.load_file(artifact.path))
        module = module.to(getattr(torch, artifact.details["precision"]))
        safetensors.torch.load_model(module, artifact.path)
        return module.to(target.device).requires_grad_(False)
    except (*_UNREADABLE, safetensors.SafetensorError) as error:
        problem = " ".join(str(error).split())[:300]
        raise BadArtifact(
            f"artifact {artifact.path} cannot be read by torch {torch.__version__} ({problem}); "
            "delete its folder and run again to rebuild it"
        ) from error
    except (ImportError, AttributeError) as error:
        raise BadArtifact(
            f"artifact {artifact.path} needs the architecture {locator}, which cannot be "
            f"imported ({error})"
        ) from error


def _read_torchscript(path: Path, target: Target) -> nn.Module:
    with deprecated_torchscript():
        script: nn.Module = torch.jit.load(path, map_location=target.device)  # type: ignore[no-untyped-call]
    return script.eval()


def buffers(
    specs: Sequence[TensorSpec], precision: str, target: Target, batch_size: int
) -> list[Tensor]:
    """Zeros for each input, floats in ``precision``; length 1 along axes of free length."""
    made = []
    for spec in specs:
        shape = (batch_size, *(1 if n is None else n for n in spec.shape[1:]))
        floating = np.issubdtype(np.dtype(spec.dtype), np.floating)
        dtype = getattr(torch, precision if floating else spec.dtype)
        made.append(torch.zeros(shape, dtype=dtype, device=target.device))
    return made


def unoptimized(module: nn.Module) -> Call:
    """``module`` with TorchScript's graph passes switched off; the same as is in eager mode."""

    def call(*arguments: Tensor) -> Any:
        with optimized_execution(False):
            return module(*arguments)

    return call


def compiled(
    module: nn.Module,
    arguments: Sequence[Tensor],
    target: Target,
    backend: str | Call = "inductor",
) -> Call:
    """``module`` compiled for exactly these arguments, called until nothing is left to compile."""
    if not target.optimize:
        raise TargetNotApplied("compiled routes cannot run without graph optimization")
    import torch._inductor.config as inductor

    with (
        deprecated_torchscript(),  # inductor defines a few scripted modules of its own
        warnings.catch_warnings(action="ignore", category=UserWarning),  # about its own lowering
        torch.inference_mode(),
        inductor.patch(freezing=True, compile_threads=1),
    ):
        call: Call = torch.compile(module, dynamic=False, backend=backend)
        call(*arguments)
        with torch.compiler.set_stance("fail_on_recompile"):
            call(*arguments)
    return call


def _to_numpy(result: Tensor) -> Array:
    result = result.detach().cpu()
    array: Array = (result.float() if result.is_floating_point() else result).numpy()
    return array
