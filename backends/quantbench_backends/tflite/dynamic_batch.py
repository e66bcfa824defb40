"""Batch: files that were converted for one sample, made to take any number."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from quantbench.spec import Array
from quantbench_backends.tflite.flatbuffer import operator_name, parse

SAMPLES = 3
TOLERANCE = 1e-3  # of the largest output; kernels sum in another order for another batch


def for_any_batch(content: bytes) -> bytes:
    """The file with a free first axis, where it then gives for each sample what it gave for one.

    Converters write the batch into constants, and a file that is resized all the same may compute
    something else without a word: a slice ``[0:1]`` takes the first sample for all. So the file is
    compared with itself, and left as it is, for one sample a call, where the two differ.
    """
    file: Any = parse(content)
    graph = file.subgraphs[0]
    for operator in graph.operators:
        kind = operator_name(file, operator.opcodeIndex)
        if kind == "RESHAPE":
            _free_reshape(file, operator)
        elif kind == "STRIDED_SLICE":
            _free_slice(file, operator)
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[index]
        if tensor.shape is not None and len(tensor.shape) and tensor.shape[0] == 1:
            tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)
    freed = bytes(flatbuffer_utils.convert_object_to_bytearray(file))
    return freed if _same_for_each(freed) else content


def _free_reshape(file: Any, operator: Any) -> None:
    buffer = _buffer(file, operator, 1)
    shape = _integers(buffer)
    if shape is not None and shape.size and shape[0] == 1 and -1 not in shape:
        shape[0] = -1
        buffer.data = np.frombuffer(shape.tobytes(), np.uint8)


def _free_slice(file: Any, operator: Any) -> None:
    begin, end, strides = (_integers(_buffer(file, operator, i)) for i in (1, 2, 3))
    if begin is None or end is None or strides is None:
        return
    if (begin[0], end[0], strides[0]) == (0, 1, 1):
        operator.builtinOptions.beginMask |= 1
        operator.builtinOptions.endMask |= 1


def _buffer(file: Any, operator: Any, position: int) -> Any:
    return file.buffers[file.subgraphs[0].tensors[operator.inputs[position]].buffer]


def _integers(buffer: Any) -> Array | None:
    return None if buffer.data is None else np.frombuffer(bytes(buffer.data), np.int32).copy()


def _same_for_each(content: bytes) -> bool:
    """Whether a batch gives what its samples give one by one, on inputs from a seed."""
    rng = np.random.default_rng(0)
    inputs = [
        _drawn(rng, np.dtype(tensor["dtype"]), (SAMPLES, *tensor["shape"][1:]))
        for tensor in Interpreter(model_content=content, num_threads=1).get_input_details()
    ]
    try:
        single = [_run(content, [array[i : i + 1] for array in inputs]) for i in range(SAMPLES)]
        together = _run(content, inputs)
    except (RuntimeError, ValueError):
        return False
    return all(
        array.shape == wanted.shape
        and np.abs(array - wanted).max() <= TOLERANCE * np.abs(wanted).max()
        for array, wanted in zip(
            together, map(np.concatenate, zip(*single, strict=True)), strict=True
        )
    )


def _drawn(rng: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _run(content: bytes, inputs: list[Array]) -> list[Array]:
    made = Interpreter(model_content=content, num_threads=1)
    details = made.get_input_details()
    for tensor, array in zip(details, inputs, strict=True):
        made.resize_tensor_input(tensor["index"], array.shape)
    made.allocate_tensors()
    for tensor, array in zip(details, inputs, strict=True):
        made.set_tensor(tensor["index"], array)
    made.invoke()
    return [made.get_tensor(t["index"]).astype(np.float64) for t in made.get_output_details()]
