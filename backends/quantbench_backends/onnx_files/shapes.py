"""Shapes: dtype and shape of every tensor of an ONNX file, without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)
from onnx.reference import ReferenceEvaluator

from quantbench_backends.onnx_files.nodes import Tensor

FREE = -1
_SMALL = 1024  # elements of a constant that may be part of a shape
_KEPT = ("DequantizeLinear", "QuantizeLinear")
_MICROSOFT = "com.microsoft"
# ONNX Runtime's own operators, which ONNX infers no shapes of: a standard operator whose output has
# the same shape, and the positions of the inputs that it takes
_LIKE: Mapping[str, tuple[str, Sequence[int]]] = {
    "QuantizeLinear": ("QuantizeLinear", (0, 1, 2)),
    "DequantizeLinear": ("DequantizeLinear", (0, 1, 2)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearSigmoid": ("Identity", (0,)),
    "QLinearLeakyRelu": ("Identity", (0,)),
    "QLinearSoftmax": ("Identity", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearConcat": ("Concat", range(2, 1000, 3)),
    "QGemm": ("Gemm", (0, 3)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "DynamicQuantizeLSTM": ("LSTM", (0, 1, 2)),
}
# attributes that the standard operators do not have
_OWN = frozenset({"channels_last", "opset"})


def inferred(model: ModelProto, batch: int | None = None) -> dict[str, Tensor]:
    """Tensors of the outermost graph by name, `FREE` for lengths that are free or unknown.

    ``batch``: the length of the first axis of every input where the file leaves it free. Tensors
    behind an operator that nobody knows are missing.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    if batch:
        _set_batch(graph, batch)
    _fold(copy)
    _standardize(graph)
    found = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    known = {v.name: _tensor(v) for v in (*found.value_info, *found.input, *found.output)}
    known |= {t.name: Tensor(dtype(t.data_type), tuple(t.dims)) for t in graph.initializer}
    return {name: tensor for name, tensor in known.items() if tensor is not None}


def _set_batch(graph: GraphProto, batch: int) -> None:
    """Give the free first length of the inputs a number, wherever its name stands."""
    constants = {tensor.name for tensor in graph.initializer}
    firsts = (v.type.tensor_type.shape.dim[:1] for v in graph.input if v.name not in constants)
    names = {first.dim_param for dims in firsts for first in dims if first.dim_param}
    for value in (*graph.input, *graph.value_info, *graph.output):
        for length in value.type.tensor_type.shape.dim:
            if length.dim_param in names:
                length.dim_value = batch


def dtype(kind: int) -> str:
    """NumPy's name of an ONNX dtype."""
    return str(helper.tensor_dtype_to_np_dtype(kind).name)


def _tensor(value: ValueInfoProto) -> Tensor | None:
    own = value.type.tensor_type
    if not own.elem_type or not own.HasField("shape"):
        return None
    lengths = (d.dim_value if d.HasField("dim_value") else FREE for d in own.shape.dim)
    return Tensor(dtype(own.elem_type), tuple(lengths))


def _fold(model: ModelProto) -> None:
    """Compute small constants that nodes make of constants: shapes are often written so."""
    graph = model.graph
    small = [tensor for tensor in graph.initializer if prod(tensor.dims) <= _SMALL]
    known = {tensor.name for tensor in small}
    chosen: list[NodeProto] = []
    left: list[NodeProto] = []
    for node in graph.node:
        whole = node.op_type == "Constant" or (node.input and known.issuperset(node.input))
        if whole and node.op_type not in _KEPT and not any(a.HasField("g") for a in node.attribute):
            chosen.append(node)
            known.update(node.output)
        else:
            left.append(node)
    names = [name for node in chosen for name in node.output]
    if not names:
        return
    folded = helper.make_graph(chosen, "constants", [], [_untyped(n) for n in names], small)
    alone = helper.make_model(folded, opset_imports=model.opset_import)
    values = ReferenceEvaluator(alone).run(names, {})
    graph.initializer.extend(map(numpy_helper.from_array, values, names))
    del graph.node[:]
    graph.node.extend(left)


def _untyped(name: str) -> ValueInfoProto:
    return ValueInfoProto(name=name)


def _standardize(graph: GraphProto) -> None:
    """Write ONNX Runtime's operators as the standard ones whose outputs have the same shapes."""
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            _product(graph, node)
        elif node.domain == _MICROSOFT and node.op_type in _LIKE:
            kind, positions = _LIKE[node.op_type]
            taken = [node.input[i] for i in positions if i < len(node.input)]
            kept = [a for a in node.attribute if a.name not in _OWN]
            outputs = list(node.output)
            node.Clear()
            node.CopyFrom(helper.make_node(kind, taken, outputs))
            node.attribute.extend(kept)


def _product(graph: GraphProto, node: NodeProto) -> None:
    sizes = {a.name: a.i for a in node.attribute}
    weights, source = f"{node.output[0]}_weights", node.input[0]
    value = helper.make_tensor_value_info(weights, TensorProto.FLOAT, [sizes["K"], sizes["N"]])
    graph.input.append(value)
    outputs = list(node.output)
    node.Clear()
    node.CopyFrom(helper.make_node("MatMul", [source, weights], outputs))
