"""Qdq constants: weights and biases stored in a graph as the QDQ format of `quantize_static` stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from quantbench.spec import Array

_MULTIPLIERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True)
class Weight:
    """Integers with their scales: one, or one for each element of ``axis``."""

    values: Array
    scale: Array
    zero_point: Array
    axis: int

    def transposed(self) -> Weight:
        """The same of a matrix with its axes swapped."""
        return Weight(self.values.T, self.scale, self.zero_point, 1 - self.axis)


def store(graph: GraphProto, weights: Mapping[str, Weight]) -> None:
    """Replace float ``weights`` by integers that are dequantized, and the biases beside them.

    A bias becomes int32 with the input's scale times the weight's, which is what ONNX Runtime needs
    to run the layer on integers.
    """
    constants = _constants(graph)
    producers = {output: node for node in graph.node for output in node.output}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type in _MULTIPLIERS:
            source = producers.get(node.input[1])
            swapped = source is not None and source.op_type == "Transpose"
            weight = weights.get(source.input[0] if source and swapped else node.input[1])
            if weight is not None:
                stored = weight.transposed() if swapped else weight
                nodes.append(_dequantized(graph, f"{node.name}_weight", stored))
                node.input[1] = nodes[-1].output[0]
                scale = _scale(producers.get(node.input[0]), constants)
                if len(node.input) > 2 and scale is not None:
                    bias = _bias(constants[node.input[2]], scale * weight.scale)
                    nodes.append(_dequantized(graph, f"{node.name}_bias", bias))
                    node.input[2] = nodes[-1].output[0]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)


def _bias(values: Array, scale: Array) -> Weight:
    integers = np.clip(np.rint(values.astype(np.float64) / scale), _INT32.min, _INT32.max)
    return Weight(integers.astype(np.int32), scale, np.zeros(scale.shape, np.int32), 0)


def _scale(node: NodeProto | None, constants: Mapping[str, Array]) -> Array | None:
    """The scale of a node that dequantizes."""
    return constants[node.input[1]] if node and node.op_type == "DequantizeLinear" else None


def _dequantized(graph: GraphProto, name: str, weight: Weight) -> NodeProto:
    """Store a tensor; returns the node that dequantizes it."""
    parts = {
        f"{name}_quantized": weight.values,
        f"{name}_scale": weight.scale,
        f"{name}_zero_point": weight.zero_point,
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(a).reshape(a.shape), n)
        for n, a in parts.items()
    )
    return helper.make_node(
        "DequantizeLinear", list(parts), [f"{name}_dequantized"], f"{name}_DequantizeLinear",
        axis=weight.axis,
    )  # fmt: skip


def _constants(graph: GraphProto) -> dict[str, Array]:
    """Constants by name, after those that are only cast have become constants themselves."""
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    left: list[NodeProto] = []
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            known[node.output[0]] = numpy_helper.to_array(attributes["value"].t)
        if node.op_type == "Cast" and node.input[0] in known:
            dtype = helper.tensor_dtype_to_np_dtype(attributes["to"].i)
            name = node.output[0]
            known[name] = known[node.input[0]].astype(dtype)
            graph.initializer.append(numpy_helper.from_array(known[name], name))
        else:
            left.append(node)
    del graph.node[:]
    graph.node.extend(left)
    return known


def drop_unused(graph: GraphProto) -> None:
    """Remove nodes and constants that nothing reads any more."""
    used = {output.name for output in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if used & set(node.output):
            kept.append(node)
            used.update(node.input)
    constants: list[TensorProto] = [t for t in graph.initializer if t.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
