"""Record: what an ONNX file holds, read back from the file alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from quantbench.backend_api import (
    ACTIVATION,
    BIAS,
    DEQUANTIZE,
    INPUT,
    MULTIPLY,
    OTHER,
    OUTPUT,
    QUANTIZE,
    WEIGHT,
    NodeRecord,
    Record,
    TensorRecord,
)
from quantbench.backend_api.artifact_record import CONSTANT
from quantbench.spec import Array
from quantbench_backends.onnx_files import graph, quantization_parameters, shapes
from quantbench_backends.onnx_files.graph import Graph
from quantbench_backends.onnx_files.layers import owner
from quantbench_backends.onnx_files.nodes import QUANTIZED, Node, macs, role_of
from quantbench_backends.onnx_files.quantization_parameters import Scale

WhyFloat = Callable[[Graph, NodeProto, str, str], str]
"""Why a runtime computes a node that multiplies in float, in one sentence; empty where it does not.

It is given the graph, the node, and what the file says of it: its dtype, and that of its weights.
"""

_FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)
# positions of weights and of the bias among a node's inputs
_WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,), "ConvTranspose": (1,), "ConvInteger": (1,), "QLinearConv": (3,),
    "Gemm": (1,), "QGemm": (3,), "MatMul": (0, 1), "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3), "DynamicQuantizeMatMul": (1,), "MatMulNBits": (1,),
    "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "DynamicQuantizeLSTM": (1, 2),
    "Attention": (1,), "Einsum": (0, 1), "Gather": (0,),
}  # fmt: skip
_BIASES: Mapping[str, int] = {
    "Conv": 2, "ConvTranspose": 2, "QLinearConv": 8, "Gemm": 2, "QGemm": 6, "LSTM": 3, "GRU": 3,
    "RNN": 3, "DynamicQuantizeLSTM": 3, "DynamicQuantizeMatMul": 4, "MatMulNBits": 5,
    "Attention": 2,
}  # fmt: skip
_FUNCTIONS = ("Relu", "Clip")
# what a layer's output passes before the next layer, the bias of a product included
_AFTER = (*_FUNCTIONS, "QuantizeLinear", "DequantizeLinear", "Cast", "Mul", "Add")
_NAMED = re.compile(r"([A-Za-z]+)(?:_\d+)?_output_\d+(?:_quantized)?$")
# PyTorch's exporter gives such names to the weight and the bias that it folded batch norm into
_FOLDED = re.compile(r"onnx::Conv_\d+(?:_quantized)?$")


@dataclass(frozen=True, slots=True)
class Owned:
    """What a constant is to a node that multiplies (or looks up) with it."""

    role: str
    node: NodeProto


def record(path: Path, layers: tuple[str, ...], why_float: WhyFloat) -> Record:
    """Every constant (initializers and Constant nodes), every computed tensor, every node.

    ``layers`` are the names to attach; ``why_float`` knows the runtime that the file is for.
    """
    tensors: list[TensorRecord] = []
    nodes: list[NodeRecord] = []
    for found in graph.of_model(onnx.load(path)):
        known = quantization_parameters.of_nodes(found.proto.node, found.values)
        owned = dict(_owned(found))
        constants = {name: _constant(found, name, known, owned, layers) for name in found.constants}
        tensors += _tensors(found, known, constants, _passed_on(found, layers))
        for node in found.proto.node:
            plain = _node(found, node, known, owned, constants, layers)
            multiplies = plain.role == MULTIPLY
            reason = why_float(found, node, plain.dtype, plain.weight_dtype) if multiplies else ""
            nodes.append(replace(plain, reason=reason))
    return Record(tuple(tensors), tuple(nodes))


def payload_bytes(tensor: TensorProto) -> int:
    """Bytes of the values, two to a byte where they have four bits."""
    count: int = prod(tensor.dims)
    if tensor.data_type in _FOUR_BITS:
        return (count + 1) // 2
    itemsize: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return count * itemsize


# --- weights and layers ---------------------------------------------------------------------------


def _owned(found: Graph) -> Iterator[tuple[str, Owned]]:
    """Weights and biases by name; what is left are scales, shapes, tables."""
    for node in found.proto.node:
        places = [(WEIGHT, position) for position in _WEIGHTS.get(node.op_type, ())]
        places += [(BIAS, _BIASES[node.op_type])] if node.op_type in _BIASES else []
        for role, position in places:
            name = found.origin(node.input[position]) if position < len(node.input) else ""
            # what is gathered may also be a shape
            if name and not (node.op_type == "Gather" and len(found.constants[name].dims) < 2):
                yield name, Owned(role, node)
        if node.op_type == "Add":
            for name, other in (node.input, reversed(node.input)):
                source, product = found.origin(name), _product(found, other)
                if source and product is not None and _is_vector(found.constants[source]):
                    yield source, Owned(BIAS, product)


def _product(found: Graph, name: str) -> NodeProto | None:
    """The node with weights whose result a tensor is, maybe cast and scaled."""
    node = found.producers.get(name)
    while node is not None and node.op_type in ("Cast", "Mul"):
        node = found.producers.get(node.input[0])
    return node if node is not None and role_of(node.op_type) == MULTIPLY else None


def _is_vector(tensor: TensorProto) -> bool:
    return bool(prod(tensor.dims) == max(tensor.dims, default=1))


def layer_of(node: NodeProto, layers: tuple[str, ...]) -> str:
    """The layer that a node computes, by its name or, where layers are nodes, what it was made of."""
    found = owner(node.name, layers)
    made_of = (name for name in layers if node.name.startswith(f"{name}_"))
    return found or max(made_of, key=len, default="")


def _passed_on(found: Graph, layers: tuple[str, ...]) -> dict[str, str]:
    """Tensors that hold a layer's output, each with the layer.

    Also rescaled, with its bias added, after its activation function, as integers and as floats.
    """
    layer: dict[str, str] = {}
    for node in found.proto.node:
        own = ""
        if role_of(node.op_type) == MULTIPLY:
            own = layer_of(node, layers)
        elif node.op_type in _AFTER:
            computed = [n for n in node.input if not found.origin(n) and n in found.producers]
            sources = {layer[name] for name in computed if name in layer}
            scaled = node.op_type == "Mul" and _product(found, node.output[0]) is not None
            if len(sources) == 1 and (len(computed) == 1 or scaled):
                (own,) = sources
        if own:
            layer.update(dict.fromkeys(node.output, own))
    return layer


# --- tensors --------------------------------------------------------------------------------------


def _tensors(
    found: Graph,
    known: Mapping[str, Scale],
    constants: Mapping[str, TensorRecord],
    layer: Mapping[str, str],
) -> Iterator[TensorRecord]:
    """Inputs, constants, then what the nodes compute, in the file's order."""
    ends = {value.name for value in found.proto.output} if found.outermost else set()
    for value in found.proto.input:
        if value.name not in constants:
            yield _computed(found, value.name, INPUT if found.outermost else ACTIVATION, known)
    yield from constants.values()
    for node in found.proto.node:
        for name in node.output:
            if name and name not in constants:
                role = OUTPUT if name in ends else ACTIVATION
                yield replace(_computed(found, name, role, known), layer=layer.get(name, ""))


def _constant(
    found: Graph,
    name: str,
    known: Mapping[str, Scale],
    owned: Mapping[str, Owned],
    layers: tuple[str, ...],
) -> TensorRecord:
    tensor, scale = found.constants[name], known.get(name)
    to = owned.get(name)
    plain = TensorRecord(
        name=name,
        role=to.role if to else CONSTANT,
        dtype=shapes.dtype(tensor.data_type),
        shape=tuple(tensor.dims),
        bytes=payload_bytes(tensor),
        layer=layer_of(to.node, layers) if to else "",
    )
    if scale is None:
        return plain
    if scale.bits:  # packed in bytes
        plain = replace(plain, dtype=f"int{scale.bits}", shape=scale.shape)
    values = numpy_helper.to_array(tensor) if scale.values is None else scale.values
    return _with_scale(plain, scale, weight_ends(values, plain.dtype, scale.zero_point))


def _computed(found: Graph, name: str, role: str, known: Mapping[str, Scale]) -> TensorRecord:
    tensor = found.free.get(name)
    if tensor is None:
        return TensorRecord(name, role, "")
    plain = TensorRecord(name, role, tensor.dtype, tensor.shape)
    if name not in known or tensor.dtype not in QUANTIZED:
        return plain
    return _with_scale(plain, known[name], activation_ends(found, name, tensor.dtype, known[name]))


def _with_scale(plain: TensorRecord, scale: Scale, ends: tuple[int, int]) -> TensorRecord:
    axis = scale.axis % len(plain.shape) if scale.axis is not None and plain.shape else None
    if axis is not None and len(scale.scale) == 1 != plain.shape[axis]:
        axis = None  # a list of one scale
    return replace(
        plain, scale=scale.scale, zero_point=scale.zero_point, qmin=ends[0], qmax=ends[1],
        axis=axis, group_size=scale.group_size,
    )  # fmt: skip


def weight_ends(values: Array, dtype: str, zero_point: tuple[int, ...]) -> tuple[int, int]:
    """The least and largest integer of a quantizer of weights, as far as its results tell.

    A symmetric grid lacks its least integer where no value has it: the scale is then the largest
    magnitude over the largest integer, and 127 is reached in every channel, but never -128. A QAT
    stores 4 bits in bytes: there every value is one of -8..7.
    """
    low, high = whole(dtype)
    if dtype == "int32":  # a bias
        return low, high
    integers = values.astype(np.int64)
    least, most = (int(integers.min()), int(integers.max())) if integers.size else (low, high)
    if dtype == "int8" and integers.any() and least >= -8 and most <= 7:
        low, high = -8, 7
    middle = (low + high + 1) // 2
    symmetric = all(point == middle for point in zero_point)
    return (low + 1 if symmetric and least > low else low), high


def activation_ends(found: Graph, name: str, dtype: str, scale: Scale) -> tuple[int, int]:
    """All integers of the dtype, which QuantizeLinear saturates at, or those of a Clip before it."""
    low, high = whole(dtype)
    node = found.producers.get(name)
    clip = (
        found.producers.get(node.input[0]) if node is not None and len(scale.scale) == 1 else None
    )
    if node is None or clip is None or node.op_type != "QuantizeLinear" or clip.op_type != "Clip":
        return low, high
    limits = [found.values(end) for end in clip.input[1:]]
    points = [
        None if limit is None else round(float(limit.item()) / scale.scale[0]) + scale.zero_point[0]
        for limit in (*limits, None, None)
    ]
    least, most = points[:2]
    return (
        low if least is None else max(low, least),
        high if most is None else min(high, most),
    )


def whole(dtype: str) -> tuple[int, int]:
    """The least and largest integer of a dtype.

    >>> whole("uint4"), whole("int16")
    ((0, 15), (-32768, 32767))
    """
    bits = int(dtype.lstrip("uint"))
    low = 0 if dtype.startswith("u") else -(1 << (bits - 1))
    return low, low + (1 << bits) - 1


# --- nodes ----------------------------------------------------------------------------------------


def _node(
    found: Graph,
    node: NodeProto,
    known: Mapping[str, Scale],
    owned: Mapping[str, Owned],
    constants: Mapping[str, TensorRecord],
    layers: tuple[str, ...],
) -> NodeRecord:
    weights = [
        constants[name] for name, to in owned.items() if to.node is node and to.role == WEIGHT
    ]
    plain = found.with_operands(node, found.free)
    role = plain.role if plain else role_of(node.op_type)
    dtype, how = _computes(found, node, plain, known)
    return NodeRecord(
        name=node.name or node.output[0],
        kind=node.op_type,
        role=role,
        dtype=dtype,
        scales=how,
        macs=_macs(found, node) if role == MULTIPLY else 0,
        weights=sum(weight.elements for weight in weights),
        weight_dtype=weights[0].dtype if weights else "",
        layer=layer_of(node, layers) if weights or role == MULTIPLY else "",
        fused=tuple(_fused(found, node)),
    )


def _computes(
    found: Graph, node: NodeProto, plain: Node | None, known: Mapping[str, Scale]
) -> tuple[str, str]:
    """The dtype that a node computes in, and how the scales of its activations are found."""
    if plain is None:
        return "", "none"
    dtype = _between_pairs(found, node, plain.role) or plain.dtype
    if plain.finds_scales:
        return dtype, "dynamic"
    if dtype not in QUANTIZED and plain.role not in (QUANTIZE, DEQUANTIZE):
        return dtype, "none"
    integers = [name for name in node.input if name in known and name not in found.constants]
    # sums of integers are cast to floats where no scale was known
    summed = node.op_type == "Cast"
    at_run_time = summed or any(not known[name].scale for name in integers)
    return dtype, "dynamic" if at_run_time else "static"


def _between_pairs(found: Graph, node: NodeProto, role: str) -> str:
    """The integers that a node of floats computes on in QDQ format; ``""`` where it does not.

    A multiplication does where activations and weights are dequantized integers, anything else
    where its outputs become integers again too.
    """
    if role not in (MULTIPLY, OTHER):
        return ""
    weights = _WEIGHTS.get(node.op_type, ()) if role == MULTIPLY else ()
    read = [
        found.dequantized(name)
        for position, name in enumerate(node.input)
        if name and (position in weights or not found.origin(name))
    ]
    activations = [name for name in node.input if name and not found.origin(name)]
    if not activations or any(t is None or t.dtype not in QUANTIZED for t in read):
        return ""
    if role == OTHER:
        readers = [reader for name in node.output for reader in found.readers_of(name)]
        if not readers or any(reader.op_type != "QuantizeLinear" for reader in readers):
            return ""
    first = found.dequantized(activations[0])
    return first.dtype if first else ""


def _macs(found: Graph, node: NodeProto) -> int | None:
    """Multiply-accumulates of one sample; None where a shape is free, or for an Einsum."""
    counted = found.with_operands(node, found.single)
    if counted is None or node.op_type == "Einsum":
        return None
    if any(shapes.FREE in tensor.shape for tensor in (*counted.inputs, *counted.outputs)):
        return None
    samples = [
        found.single[value.name].shape[0]
        for value in found.proto.input
        if value.name not in found.constants and found.single[value.name].shape
    ]
    return macs(counted) // max(samples[:1], default=1)


def _fused(found: Graph, node: NodeProto) -> Iterator[str]:
    """What the names show: of folded weights, and of a result that is named after another node."""
    role = role_of(node.op_type)
    if role == MULTIPLY:
        places = (*_WEIGHTS.get(node.op_type, ()), _BIASES.get(node.op_type, len(node.input)))
        names = [found.origin(node.input[p]) for p in places if p < len(node.input)]
        if names and all(_FOLDED.match(name) for name in names):
            yield "BatchNormalization"
    named = _NAMED.search(node.output[0]) if node.output and role in (MULTIPLY, OTHER) else None
    if named and named[1] in _FUNCTIONS and named[1] != node.op_type:
        yield named[1]
