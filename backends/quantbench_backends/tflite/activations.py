"""Activations: what the tensors of a TFLite file hold, as floats, by LiteRT's own kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantbench.backend_api import Artifact, See
from quantbench.errors import BadInput
from quantbench.spec import Array, Arrays, encode
from quantbench_backends.tflite.artifact_record import BLOCKWISE
from quantbench_backends.tflite.flatbuffer import read_file

AT_ONCE = 32
"""Samples a call, where the file takes any number."""


def activations(artifact: Artifact, inputs: Arrays, see: See) -> None:
    """Show every batch of every tensor that can be read; see `quantbench.backend_api.Transparent`.

    XNNPACK computes several operators in one and keeps nothing in between, so that the kernels are
    those of a target without graph optimization. First axis the samples, all else in one.

    Raises
    ------
    BadInput
        For weights in groups, whose scales those kernels misread.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    (graph, *_) = (file := read_file(artifact.path)).subgraphs
    quantized = (tensor.quantization for part in file.subgraphs for tensor in part.tensors)
    if any(q is not None and q.detailsType == BLOCKWISE for q in quantized):
        raise BadInput(
            "LiteRT's own kernels take the scales of groups for those of channels, and XNNPACK keeps "
            "no tensor in between; use granularity: per-channel"
        )
    running = Interpreter(
        model_path=str(artifact.path), num_threads=1, experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    indices = [int(index) for index in artifact.details["inputs"].split()]
    computed = [int(i) for operator in graph.operators for i in operator.outputs if i >= 0]
    stored = {
        index: encode(inputs[task.name], task, own)
        for index, task, own in zip(indices, artifact.task_inputs, artifact.inputs, strict=True)
    }
    free = all(spec.shape[0] is None for spec in artifact.inputs)
    size, total, ready = AT_ONCE if free else 1, len(next(iter(stored.values()))), 0
    for start in range(0, total, size):
        batch = {index: array[start : start + size] for index, array in stored.items()}
        count = min(size, total - start)
        if count != ready:
            for index, array in batch.items():
                running.resize_tensor_input(index, array.shape)
            running.allocate_tensors()
            known = {tensor["index"]: tensor for tensor in running.get_tensor_details()}
            ready = count
        running.reset_all_variables()  # what a recurrent layer remembers
        for index, array in batch.items():
            running.set_tensor(index, array)
        running.invoke()
        for index in computed:
            values = _floats(running.get_tensor(index), known[index]["quantization_parameters"])
            if values is not None and values.size and values.size % count == 0:
                see(known[index]["name"], values.reshape(count, -1))


def _floats(values: Array, quantization: Any) -> Array | None:
    """Real values; None for integers that stand for none."""
    if np.issubdtype(values.dtype, np.floating):
        return values.astype(np.float32)
    if len(quantization["scales"]) != 1:
        return None
    (step,), (zero,) = quantization["scales"], quantization["zero_points"]
    return np.asarray((values.astype(np.float32) - zero) * np.float32(step))
