"""Nodes: what a node of an ONNX graph does, from its kind and its operands' dtypes and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from quantbench.backend_api import CAST, DEQUANTIZE, MULTIPLY, OTHER, QUANTIZE

CONVOLUTIONS = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "NhwcConv", "QLinearConv", "ConvInteger"}
)
_TRANSPOSED = frozenset({"ConvTranspose", "ConvTransposeWithDynamicPads", "QLinearConvTranspose"})
PRODUCTS = frozenset(
    {
        "MatMul", "FusedMatMul", "TransposeMatMul", "Gemm", "FusedGemm", "QGemm", "QLinearMatMul",
        "MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
        "MatMulNBits",
    }
)  # fmt: skip
RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})
_ATTENTION = frozenset({"Attention", "MultiHeadAttention"})
_UNCOUNTED = frozenset({"Einsum"})
_MULTIPLIERS = CONVOLUTIONS | _TRANSPOSED | PRODUCTS | RECURRENT | _ATTENTION | _UNCOUNTED

INTEGER_GROUPS = 4
"""The ``accuracy_level`` with which MatMulNBits quantizes its activations."""
QUANTIZED = frozenset({"int4", "uint4", "int8", "uint8", "int16", "uint16"})
"""Dtypes of quantized activations and weights; wider integers are indices, shapes and sums."""
# float tensors go in and out; they are quantized to uint8 inside
_QUANTIZE_INSIDE = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
# the operand that says the dtype, where the first is a scale or a condition
_OPERAND = {"QLinearConcat": 2, "Where": 1}
_ROLES = {
    "QuantizeLinear": QUANTIZE,
    "DynamicQuantizeLinear": QUANTIZE,
    "DequantizeLinear": DEQUANTIZE,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Dtype (NumPy's name) and shape of one operand."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One node with its operands. Absent optional inputs are left out of ``inputs``.

    ``provider`` executes it, where that is known; ``accuracy_level`` is an attribute of MatMulNBits.
    """

    name: str
    kind: str
    provider: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    accuracy_level: int = 0

    @property
    def dtype(self) -> str:
        """The dtype it computes in: the one that is multiplied, else the first operand's."""
        if self.kind in _QUANTIZE_INSIDE:
            return "uint8"
        if self._quantizes_groups:
            return "int8"
        operands = self.inputs[_OPERAND.get(self.kind, 0) :] or self.outputs
        return operands[0].dtype if operands else ""

    @property
    def finds_scales(self) -> bool:
        """Whether it finds the scales of its activations itself, at run time."""
        inside = self._quantizes_groups or self.kind in _QUANTIZE_INSIDE
        return inside or self.kind == "DynamicQuantizeLinear"

    @property
    def _quantizes_groups(self) -> bool:
        return self.kind == "MatMulNBits" and self.accuracy_level == INTEGER_GROUPS

    @property
    def role(self) -> str:
        """A role of `quantbench.backend_api.artifact_record`; from the sums of integers to floats is a dequantization."""
        if self.kind == "Cast" and self.inputs and self.outputs:
            source, target = self.inputs[0].dtype, self.outputs[0].dtype
            if "float" in target and "float" in source:
                return CAST
            return DEQUANTIZE if "float" in target and source == "int32" else OTHER
        return role_of(self.kind)


def role_of(kind: str) -> str:
    """The role of a kind of node; of a cast, `Node.role` knows more."""
    return MULTIPLY if kind in _MULTIPLIERS else _ROLES.get(kind, OTHER)


def macs(node: Node) -> int:
    """Multiply-accumulates of a node, from its shapes; 0 for operators that have none.

    Einsum has no count: its equation is not among the shapes.
    """
    if node.kind in CONVOLUTIONS:
        # weights [out, in / groups, *kernel] in every layout of the activations
        return prod(node.outputs[0].shape) * prod(kernel(node)[1:])
    if node.kind in _TRANSPOSED:
        return prod(node.inputs[0].shape) * prod(kernel(node)[1:])
    if node.kind in PRODUCTS:
        return prod(node.outputs[0].shape) * _depth(node)
    if node.kind in RECURRENT:
        steps, batch, _ = node.inputs[0].shape
        return steps * batch * sum(prod(weights.shape) for weights in node.inputs[1:3])
    if node.kind == "Attention":
        return _attention(node)
    if node.kind == "MultiHeadAttention":
        (batch, length, width), keys, values = (tensor.shape for tensor in node.inputs[:3])
        return batch * length * keys[1] * (width + values[-1])
    return 0


def kernel(node: Node) -> tuple[int, ...]:
    """Shape of a convolution's weights: its second operand with axes for a kernel."""
    return next(tensor.shape for tensor in node.inputs[1:] if len(tensor.shape) > 2)


def _depth(node: Node) -> int:
    """Length of the axis that a matrix product sums over, transposed or not."""
    left, out = node.inputs[0].shape, node.outputs[0].shape
    if len(left) < 2 or len(out) < 2:
        return left[-1]
    return left[-2] * left[-1] // out[-2]


def _attention(node: Node) -> int:
    """Projection to queries, keys and values [in, 3 * width], and the two products of attention."""
    (batch, length, _), weights = node.inputs[0].shape, node.inputs[1].shape
    width = node.outputs[0].shape[-1]
    return batch * length * prod(weights) + 2 * batch * length * length * width
