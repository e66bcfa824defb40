"""LiteRTRuntime: runs .tflite files with the LiteRT interpreter, NumPy and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from quantbench.backend_api import Artifact, Operation, TimedOperation
from quantbench.errors import BadArtifact, TargetNotApplied
from quantbench.spec import Array, Arrays, Method, Target, TensorSpec, check_inputs, decode, encode
from quantbench_backends.tflite.executed_operations import delegated, executed


class LiteRTRuntime:
    """XNNPACK where it has kernels and LiteRT's own elsewhere, or its reference kernels."""

    name = "tflite"

    def refuse(self, target: Target, method: Method) -> str | None:
        """Why this target cannot run TFLite files, or None."""
        if target.device == "cuda":
            return (
                "the LiteRT interpreter has no CUDA kernels; "
                "use a cpu target, or a backend that runs on cuda"
            )
        if target.isa != "native":
            return (
                f"LiteRT cannot be capped to {target.isa}: XNNPACK takes the best kernels of the "
                "CPU at hand; use isa: native, or run on an older CPU"
            )
        if target.kernels == "reference" and target.threads > 1:
            return "LiteRT's reference kernels use one thread; use threads: 1"
        if method.granularity == "group" and (target.kernels == "reference" or not target.optimize):
            # 18 dB of signal to noise with XNNPACK become 0 dB
            return (
                "LiteRT's own kernels take the scales of 4-bit groups for those of channels; "
                "use a target that leaves them to XNNPACK, or granularity: per-channel"
            )
        return None

    def environment(self, target: Target) -> Mapping[str, str]:
        """Nothing: every setting is an argument of the interpreter."""
        return {}

    def load(self, artifact: Artifact, target: Target, batch_size: int) -> LiteRTSession:
        """Load for ``batch_size`` samples a call: an interpreter with its tensors allocated.

        Whether threads and kernels are those of the target is asked by `LiteRTSession.effective`.

        Raises
        ------
        BadArtifact
            If LiteRT cannot read the file, or cannot run it on ``batch_size`` samples.
        """
        before = _threads()
        interpreter = _interpreter(artifact, target)
        inputs = _indices(artifact, "inputs") or _all(interpreter.get_input_details())
        outputs = _indices(artifact, "outputs") or _all(interpreter.get_output_details())
        fixed = [spec for spec in artifact.inputs if spec.shape[0] not in (None, batch_size)]
        if fixed:
            # resized all the same, it might compute something else
            raise BadArtifact(
                f"{artifact.path} was converted for {fixed[0].shape[0]} sample(s) a call, not for "
                f"{batch_size} samples a call; use batch_sizes: [{fixed[0].shape[0]}]"
            )
        try:
            for index, spec in zip(inputs, artifact.inputs, strict=True):
                interpreter.resize_tensor_input(index, _shape(interpreter, index, spec, batch_size))
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BadArtifact(
                f"LiteRT cannot prepare {artifact.path} for {batch_size} samples a call: "
                f"{_line(error)}"
            ) from error
        created = len(_threads() - before)
        return LiteRTSession(artifact, interpreter, inputs, outputs, batch_size, target, created)

    def operations(
        self, artifact: Artifact, target: Target, inputs: Arrays
    ) -> tuple[Operation, ...]:
        """What one inference of one sample executes; empty for graphs with loops (see `executed`)."""
        session = shaped = self._invoked(artifact, target, inputs)
        if delegated(session.interpreter._get_ops_details()):
            shaped = self._invoked(artifact, replace(target, optimize=False), inputs)
        return executed(session.interpreter, _own_kernels(target), shaped.interpreter)

    def profile(
        self, artifact: Artifact, target: Target, inputs: Arrays, seconds: float
    ) -> tuple[TimedOperation, ...]:
        """The time of each operator, from the profiler of LiteRT's compiled models.

        The interpreter has none: see `ProfiledModel`, and `prefix_times` for files with state.
        """
        from quantbench_backends.tflite import prefix_times
        from quantbench_backends.tflite.compiled_model import ProfiledModel
        from quantbench_backends.tflite.profile import profile

        operations = self.operations(artifact, target, inputs)
        session = self.load(artifact, target, 1)
        session.bind(inputs)  # checks them
        arrays = [
            encode(inputs[task.name], task, stored)
            for task, stored in zip(artifact.task_inputs, artifact.inputs, strict=True)
        ]
        own = _own_kernels(target)
        mode = "delegate" if target.optimize and own == "builtin" else own
        shapes, indices = [array.shape for array in arrays], session.input_indices
        if prefix_times.has_state(artifact.path):
            return prefix_times.prefix_times(
                artifact.path, lambda content: _opened(target, model_content=content),
                dict(zip(indices, arrays, strict=True)), seconds, operations, own,
                alone=target.threads == 1,
            )  # fmt: skip
        with ProfiledModel(artifact.path, mode, target.threads, shapes, indices) as model:
            return profile(model, arrays, seconds, operations, own)

    def _invoked(self, artifact: Artifact, target: Target, inputs: Arrays) -> LiteRTSession:
        session = self.load(artifact, target, 1)
        session.bind(inputs)
        session.run()
        return session


class LiteRTSession:
    """One interpreter, allocated for one batch size."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(
        self,
        artifact: Artifact,
        interpreter: Any,
        input_indices: tuple[int, ...],
        output_indices: tuple[int, ...],
        batch_size: int,
        target: Target,
        created: int,
    ) -> None:
        self.interpreter = interpreter
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        self._target = target
        self._created = created
        self._artifact = artifact
        self.input_indices = input_indices
        self._output_indices = output_indices
        self._batch_size = batch_size

    @cached_property
    def effective(self) -> Mapping[str, str]:
        """Settings as they took effect; reading the graph for it takes as long as loading.

        Raises
        ------
        TargetNotApplied
            If threads or kernels are not those of the target.
        """
        return _verify(self.interpreter, self._target, self._created)

    def bind(self, inputs: Mapping[str, Array]) -> None:
        """Copy the task's arrays, quantized, into the interpreter; forget recurrent state."""
        tasks = self._artifact.task_inputs
        check_inputs(tasks, inputs, self._batch_size)
        for index, task, stored in zip(self.input_indices, tasks, self.inputs, strict=True):
            self.interpreter.set_tensor(index, encode(inputs[task.name], task, stored))
        self.interpreter.reset_all_variables()

    def run(self) -> None:
        """One ``invoke``."""
        self.interpreter.invoke()

    def read(self) -> Mapping[str, Array]:
        """Outputs of the last run in the task's layout and dtype, by the task's names."""
        arrays = {}
        for index, task, stored in zip(
            self._output_indices, self._artifact.task_outputs, self.outputs, strict=True
        ):
            array = self.interpreter.get_tensor(index)
            if len(array) != self._batch_size:
                raise BadArtifact(
                    f"{self._artifact.path} gives {len(array)} samples of '{task.name}' for "
                    f"{self._batch_size}: its batch size is fixed; use batch_sizes: [{len(array)}]"
                )
            arrays[task.name] = decode(array, task, stored)
        return arrays


def _own_kernels(target: Target) -> str:
    """The kernels that run what no delegate takes."""
    return "reference" if target.kernels == "reference" else "builtin"


def _interpreter(artifact: Artifact, target: Target) -> Any:
    try:
        return _opened(target, model_path=str(artifact.path))
    except (ValueError, RuntimeError) as error:
        raise BadArtifact(
            f"LiteRT cannot read {artifact.path} ({_line(error)}); "
            "delete its folder and run again to rebuild it"
        ) from error


def _opened(target: Target, **source: Any) -> Any:
    """An interpreter of a file (``model_path``) or of its content (``model_content``)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if target.kernels == "reference":
        resolver = OpResolverType.BUILTIN_REF
    elif target.optimize:
        resolver = OpResolverType.AUTO
    else:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(num_threads=target.threads, experimental_op_resolver_type=resolver, **source)


def _indices(artifact: Artifact, key: str) -> tuple[int, ...]:
    return tuple(int(index) for index in artifact.details.get(key, "").split())


def _all(details: list[dict[str, Any]]) -> tuple[int, ...]:
    return tuple(int(tensor["index"]) for tensor in details)


def _shape(interpreter: Any, index: int, spec: TensorSpec, batch_size: int) -> list[int]:
    """The stored shape with the batch filled in; other free axes as the file has them."""
    current = interpreter._get_tensor_details(index, subgraph_index=0)["shape"]
    rest = zip(spec.shape[1:], current[1:], strict=True)
    return [batch_size, *(int(have if want is None else want) for want, have in rest)]


def _verify(interpreter: Any, target: Target, created: int) -> Mapping[str, str]:
    """Settings as they took effect.

    LiteRT reports no thread count. XNNPACK starts its pool while tensors are allocated, the caller
    being one of its threads, so that the threads that were created meanwhile tell.
    """
    nodes = interpreter._get_ops_details()
    taken, own = delegated(nodes), _own_kernels(target)
    total = sum(node["op_name"] != "DELEGATE" for node in nodes)
    if taken and (own == "reference" or not target.optimize):
        raise TargetNotApplied(
            f"LiteRT delegated {len(taken)} nodes although {target.name} says no"
        )
    if (taken or target.threads == 1) and created != target.threads - 1:
        raise TargetNotApplied(
            f"LiteRT runs on {created + 1} threads, but {target.name} asks for {target.threads}"
        )
    return {
        "threads": str(target.threads),
        "kernels": "xnnpack" if taken else own,
        "delegated_nodes": f"{len(taken)} of {total}",
        "other_nodes": own,
    }


def _threads() -> frozenset[str]:
    """Ids of this process's threads."""
    return frozenset(os.listdir("/proc/self/task"))  # noqa: PTH208 - a list of names is wanted


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
