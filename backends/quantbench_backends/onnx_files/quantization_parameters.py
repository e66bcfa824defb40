"""Quantization parameters: which tensors of an ONNX file are quantized, and how, in every format that it may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from quantbench.spec import Array

Constant = Callable[[str], Array | None]
"""The values of a constant by name; None for what is computed, or for ``""``."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How integers stand for real numbers; no scale where it is found at run time.

    Parameters
    ----------
    scale, zero_point : tuple
        One, or one per channel or group.
    axis : int or None
        The axis of channels, -1 for the last.
    group_size, bits : int
        Of weights in groups, which are packed in bytes.
    values : Array or None
        The integers, where they are packed.
    """

    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int | None = None
    group_size: int = 0
    bits: int = 0
    shape: tuple[int, ...] = ()
    values: Array | None = None


OUT = -1
# Of operators that take integers: positions of a tensor (or `OUT`), of its scale, of its zero point,
# and the axis of its channels where it may have several scales.
_Operand = tuple[int, int, int, int | None]
_ONE_INPUT: tuple[_Operand, ...] = ((0, 1, 2, None), (OUT, 3, 4, None))
_TWO_INPUTS: tuple[_Operand, ...] = ((0, 1, 2, None), (3, 4, 5, None), (OUT, 6, 7, None))
_OPERANDS: Mapping[str, tuple[_Operand, ...]] = {
    "QuantizeLinear": ((OUT, 1, 2, 1),),
    "DequantizeLinear": ((0, 1, 2, 1),),
    "QLinearConv": ((0, 1, 2, None), (3, 4, 5, 0), (OUT, 6, 7, None)),
    "QLinearMatMul": ((0, 1, 2, None), (3, 4, 5, -1), (OUT, 6, 7, None)),
    "QGemm": ((0, 1, 2, None), (3, 4, 5, 1), (OUT, 7, 8, None)),
    "QLinearAdd": _TWO_INPUTS,
    "QLinearMul": _TWO_INPUTS,
    "QLinearSigmoid": _ONE_INPUT,
    "QLinearLeakyRelu": _ONE_INPUT,
    "QLinearSoftmax": _ONE_INPUT,
    "QLinearAveragePool": _ONE_INPUT,
    "QLinearGlobalAveragePool": _ONE_INPUT,
    "QLinearConcat": ((OUT, 0, 1, None),),
    "DynamicQuantizeMatMul": ((1, 2, 3, -1),),
    "DynamicQuantizeLSTM": ((1, 8, 9, -1), (2, 10, 11, -1)),
}
# positions of a bias, whose scale is the product of two others: of the input, of the weights
_BIASES: Mapping[str, tuple[int, int, int]] = {"QLinearConv": (8, 1, 4), "QGemm": (6, 1, 4)}
_INTEGER_PRODUCTS = ("ConvInteger", "MatMulInteger")
# operators that give the integers that they are given
_MOVERS = frozenset(
    {
        "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Pad",
        "MaxPool", "Split", "Identity", "Expand", "Resize", "DepthToSpace", "SpaceToDepth",
    }
)  # fmt: skip


def of_nodes(nodes: Sequence[NodeProto], constant: Constant) -> dict[str, Scale]:
    """Every quantized tensor by name; ``nodes`` in the order of execution."""
    found: dict[str, Scale] = dict(_of_integer_products(nodes, constant))
    for node in nodes:
        for name, scale in _of_node(node, constant):
            found.setdefault(name, scale)
        if node.op_type in _MOVERS and node.input[0] in found:
            found.update((name, found[node.input[0]]) for name in node.output)
    for node in reversed(nodes):  # a table of integers is dequantized after it was looked up in
        if node.op_type in _MOVERS and node.output[0] in found:
            found.setdefault(node.input[0], found[node.output[0]])
    return found


def _of_node(node: NodeProto, constant: Constant) -> Iterator[tuple[str, Scale]]:
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "MatMulNBits":
        yield node.input[1], _in_groups(node, attributes, constant)
    if node.op_type == "DynamicQuantizeLinear":
        yield node.output[0], Scale()
    for position, at_scale, at_zero, channels in _OPERANDS.get(node.op_type, ()):
        name = node.output[0] if position == OUT else _input(node, position)
        axis = channels
        if node.op_type == "QGemm" and position == 3:
            axis = 0 if attributes.get("transB") else 1
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            axis = attributes.get("axis", channels)
        scale, zero = constant(_input(node, at_scale)), constant(_input(node, at_zero))
        yield name, _scale(scale, zero, axis, attributes.get("block_size", 0))
    if node.op_type in _BIASES:
        bias, of_input, of_weights = _BIASES[node.op_type]
        left, right = (constant(_input(node, position)) for position in (of_input, of_weights))
        if _input(node, bias) and left is not None and right is not None:
            yield node.input[bias], _scale(left * right, None, 0)


def _of_integer_products(
    nodes: Sequence[NodeProto], constant: Constant
) -> Iterator[tuple[str, Scale]]:
    """Weights of operators that give sums of integers, whose scale is multiplied in afterwards."""
    producers = {name: node for node in nodes for name in node.output}
    readers = {name: node for node in nodes for name in node.input}
    for node in nodes:
        if node.op_type not in _INTEGER_PRODUCTS or constant(node.input[1]) is None:
            continue
        cast = readers.get(node.output[0])
        product = readers.get(cast.output[0]) if cast else None
        factors = producers.get(product.input[1]) if product else None
        scales = [constant(name) for name in factors.input] if factors else []
        scale = next((array for array in scales if array is not None), None)
        yield node.input[1], _scale(scale, constant(_input(node, 3)), -1)


def _in_groups(node: NodeProto, sizes: Mapping[str, int], constant: Constant) -> Scale:
    """Weights of MatMulNBits: unsigned integers in bytes, 0 in the middle unless it says otherwise.

    They are told as the signed integers that they stand for, so that the middle is 0.
    """
    bits, middle = sizes["bits"], 1 << (sizes["bits"] - 1)
    rows, groups = sizes["N"], -(-sizes["K"] // sizes["block_size"])
    packed, scale = constant(node.input[1]), constant(node.input[2])
    zero = constant(_input(node, 3))
    points = (
        np.zeros(rows * groups) if zero is None else _unpacked(zero, bits, rows, groups) - middle
    )
    values = None if packed is None else _unpacked(packed, bits, rows, groups * sizes["block_size"])
    return Scale(
        scale=() if scale is None else tuple(scale.ravel().tolist()),
        zero_point=tuple(int(point) for point in points.ravel()),
        group_size=sizes["block_size"],
        bits=bits,
        shape=(rows, sizes["K"]),
        values=None if values is None else values[:, : sizes["K"]] - middle,
    )


def _unpacked(packed: Array, bits: int, rows: int, columns: int) -> Array:
    """Integers [rows, columns] of bytes, the first in the lowest bits; a row starts a byte."""
    by_row = packed.reshape(rows, -1).astype(np.int64)
    if bits < 8:
        shifts = np.arange(0, 8, bits)
        by_row = ((by_row[..., None] >> shifts) & ((1 << bits) - 1)).reshape(rows, -1)
    return by_row[:, :columns]


def _scale(scale: Array | None, zero: Array | None, axis: int | None, block: int = 0) -> Scale:
    if scale is None:
        points = () if zero is None else tuple(int(z) for z in zero.ravel())
        return Scale(zero_point=points)
    points = (0,) * scale.size if zero is None else tuple(int(z) for z in zero.ravel())
    return Scale(
        scale=tuple(float(s) for s in scale.ravel()),
        zero_point=points,
        axis=axis if scale.ndim and not block else None,
        group_size=block,
    )


def _input(node: NodeProto, position: int) -> str:
    return node.input[position] if 0 <= position < len(node.input) else ""
