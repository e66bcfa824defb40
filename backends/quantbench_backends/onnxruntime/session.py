"""OnnxSession: an ONNX file loaded by ONNX Runtime, with buffers bound to its inputs and outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import onnxruntime as ort

from quantbench.backend_api import Artifact
from quantbench.errors import BadArtifact, BadInput, TargetNotApplied
from quantbench.spec import Array, Arrays, Target, TensorSpec, check_inputs, decode, encode
from quantbench_backends.onnx_files import in_order

_SPINNING = "session.intra_op.allow_spinning"
_PROVIDERS: Mapping[str, Any] = {
    "cpu": ("CPUExecutionProvider",),
    # without this option float32 would be multiplied with TF32's 10-bit mantissa
    "cuda": (("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"),
}


def options(target: Target) -> ort.SessionOptions:
    """The target's settings, each given explicitly."""
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = target.threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.add_session_config_entry(_SPINNING, "1")
    chosen.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    chosen.graph_optimization_level = (
        level.ORT_ENABLE_ALL if target.optimize else level.ORT_DISABLE_ALL
    )
    return chosen


def open_file(
    artifact: Artifact,
    target: Target,
    chosen: ort.SessionOptions,
    without: tuple[str, ...] = (),
) -> ort.InferenceSession:
    """ONNX Runtime's session of the artifact's file, ``without`` some of its graph optimizers.

    Raises
    ------
    BadArtifact
        If ONNX Runtime cannot read the file.
    """
    if target.device == "cuda":
        ort.preload_dlls()
    try:
        return ort.InferenceSession(
            str(artifact.path),
            chosen,
            providers=list(_PROVIDERS[target.device]),
            disabled_optimizers=[*without, *_disabled(artifact)] or None,
        )
    except Exception as error:  # its exceptions have no common base class
        raise BadArtifact(
            f"ONNX Runtime cannot load {artifact.path}: {' '.join(str(error).split())}"
        ) from error


def _disabled(artifact: Artifact) -> tuple[str, ...]:
    """Optimizers that the artifact must be loaded without."""
    return tuple(artifact.details.get("disabled_optimizers", "").split())


def load(artifact: Artifact, target: Target, batch_size: int) -> OnnxSession:
    """See `quantbench.backend_api.protocol.Runtime.load`."""
    before = _threads()
    session = open_file(artifact, target, options(target))
    effective = {
        **_verify(session, target, created=len(_threads() - before)),
        "disabled_optimizers": " ".join(_disabled(artifact)) or "none",
    }
    return OnnxSession(artifact, session, target.device, batch_size, effective)


class OnnxSession:
    """One inference session with input and output buffers for one batch size."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    effective: Mapping[str, str]

    def __init__(
        self,
        artifact: Artifact,
        session: ort.InferenceSession,
        device: str,
        batch_size: int,
        effective: Mapping[str, str],
    ) -> None:
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        self.effective = effective
        self._task_inputs = artifact.task_inputs
        self._task_outputs = artifact.task_outputs
        self._session = session
        self._device = device
        self._batch_size = batch_size
        found = session.get_inputs()
        for value in found:
            if value.shape and isinstance(value.shape[0], int) and value.shape[0] != batch_size:
                raise BadInput(
                    f"{artifact.path} takes {value.shape[0]} samples a call, not {batch_size}; "
                    "export it with a dynamic batch"
                )
        self._input_names = list(in_order(self.inputs, [value.name for value in found]))
        self._output_names = list(
            in_order(self.outputs, [value.name for value in session.get_outputs()])
        )
        self._in: list[ort.OrtValue] = []
        self._out: list[ort.OrtValue] = []
        self._binding = session.io_binding()

    def feed(self, inputs: Arrays) -> dict[str, Array]:
        """The task's arrays as the file stores them, by the file's own names; raises `BadInput`."""
        check_inputs(self._task_inputs, inputs, self._batch_size)
        specs = zip(self._input_names, self._task_inputs, self.inputs, strict=True)
        return {own: encode(inputs[task.name], task, stored) for own, task, stored in specs}

    def bind(self, inputs: Mapping[str, Array]) -> None:
        """Copy the task's arrays into the session's buffers. Raises `BadInput`."""
        feed = self.feed(inputs)
        if [array.shape for array in feed.values()] != [tuple(v.shape()) for v in self._in]:
            self._allocate(feed)
        for value, array in zip(self._in, feed.values(), strict=True):
            value.update_inplace(array)

    def run(self) -> None:
        """One inference, from the bound buffers into the bound buffers."""
        self._session.run_with_iobinding(self._binding)

    def read(self) -> Mapping[str, Array]:
        """Outputs of the last run, in the task's layout and dtype."""
        specs = zip(self._out, self._task_outputs, self.outputs, strict=True)
        return {task.name: decode(value.numpy(), task, stored) for value, task, stored in specs}

    def _allocate(self, feed: Arrays) -> None:
        """New buffers for inputs of these shapes, and for the outputs that they lead to."""
        self._binding = self._session.io_binding()
        self._in = [self._buffer(array.shape, str(array.dtype)) for array in feed.values()]
        self._out = [
            self._buffer(shape, spec.dtype)
            for shape, spec in zip(self._output_shapes(feed), self.outputs, strict=True)
        ]
        for name, value in zip(self._input_names, self._in, strict=True):
            self._binding.bind_ortvalue_input(name, value)
        for name, value in zip(self._output_names, self._out, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def _output_shapes(self, feed: Arrays) -> list[tuple[int, ...]]:
        shapes = [(self._batch_size, *spec.shape[1:]) for spec in self.outputs]
        fixed = [tuple(n for n in shape if n is not None) for shape in shapes]
        if fixed == shapes:
            return fixed
        # only an inference tells free lengths
        return [array.shape for array in self._session.run(self._output_names, feed)]

    def _buffer(self, shape: tuple[int, ...], dtype: str) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self._device, 0)


def _verify(session: ort.InferenceSession, target: Target, created: int) -> Mapping[str, str]:
    """Settings as they took effect.

    The caller is one of the threads of an inference; the session starts the others when it loads.
    CUDA starts threads of its own, so that they are counted on the CPU only.
    """
    chosen = session.get_session_options()
    provider = session.get_providers()[0]
    if target.device == "cpu" and created != target.threads - 1:
        raise TargetNotApplied(
            f"ONNX Runtime runs on {created + 1} threads, but {target.name} asks for "
            f"{target.threads}"
        )
    if provider != ("CUDAExecutionProvider" if target.device == "cuda" else "CPUExecutionProvider"):
        raise TargetNotApplied(
            f"ONNX Runtime runs on {provider}, but {target.name} asks for {target.device}; "
            "install the CUDA and cuDNN libraries of onnxruntime-gpu"
        )
    return {
        "threads": str(created + 1 if target.device == "cpu" else chosen.intra_op_num_threads),
        "spinning": chosen.get_session_config_entry(_SPINNING),
        "providers": " ".join(session.get_providers()),
        "graph_optimization": chosen.graph_optimization_level.name,
        "execution_mode": chosen.execution_mode.name,
    }


def _threads() -> frozenset[str]:
    """Ids of this process's threads."""
    return frozenset(os.listdir("/proc/self/task"))  # noqa: PTH208 - a list of names is wanted
