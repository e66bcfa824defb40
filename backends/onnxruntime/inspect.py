"""Record: what an ONNX file holds, read back from the file alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, TensorProto, helper

from harness.protocol import Record

_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)


def record(path: Path) -> Record:
    """Bytes of constants (initializers and Constant nodes) by dtype, and operators by type."""
    weights: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    for graph in graphs(onnx.load(path).graph):
        operators.update(node.op_type for node in graph.node)
        groups = in_groups(graph)
        for tensor in constants(graph):
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            weights[groups.get(tensor.name, dtype.name)] += payload_bytes(tensor)
    return Record(weight_bytes=dict(weights), operators=dict(operators))


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and, recursively, the bodies of its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def constants(graph: GraphProto) -> Iterator[TensorProto]:
    """Initializers and the values of Constant nodes."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (a.t for a in node.attribute if a.type == AttributeProto.TENSOR)


def in_groups(graph: GraphProto) -> dict[str, str]:
    """Weights of MatMulNBits by name, each with its dtype: stored as bytes, whatever their bits."""
    return {
        node.input[1]: f"int{attribute.i}"
        for node in graph.node
        if node.op_type == "MatMulNBits"
        for attribute in node.attribute
        if attribute.name == "bits"
    }


def payload_bytes(tensor: TensorProto) -> int:
    """Bytes of the values, two to a byte where they have four bits."""
    count: int = prod(tensor.dims)
    if tensor.data_type in _FOUR_BITS:
        return (count + 1) // 2
    itemsize: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return count * itemsize
