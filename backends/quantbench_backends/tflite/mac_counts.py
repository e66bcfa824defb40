"""Mac counts: how many each operator has, from the shapes of its operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quantbench.backend_api import (
    CAST,
    DEQUANTIZE,
    MULTIPLY,
    OTHER,
    QUANTIZE,
    REQUANTIZE,
    is_integer,
)


@dataclass(frozen=True, slots=True)
class Operand:
    """Shape and stored dtype (NumPy's name, or ``int4``) of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: its operands by position (None where an optional one is left out)."""

    kind: str
    inputs: tuple[Operand | None, ...]
    output: Operand

    def operand(self, index: int) -> Operand:
        """An operand that is never optional."""
        operand = self.inputs[index]
        assert operand is not None  # noqa: S101 - for the type checker
        return operand

    @property
    def multiplies(self) -> bool:
        """Whether it has multiply-accumulates."""
        return self.kind in _MACS

    @property
    def macs(self) -> int:
        """Multiply-accumulates; 0 for operators that have none."""
        return _MACS[self.kind](self)[0] if self.multiplies else 0

    @property
    def weights(self) -> tuple[Operand, ...]:
        """What it multiplies its activations by."""
        return _MACS[self.kind](self)[1] if self.multiplies else ()

    @property
    def activations(self) -> Operand:
        """What it multiplies its weights by."""
        return self.operand(2 if self.kind == "TRANSPOSE_CONV" else 0)

    @property
    def computes(self) -> tuple[str, str]:
        """The dtype that it computes in, and how scales of activations are found.

        int8 weights beside a float input are no exception: LiteRT's hybrid kernels and XNNPACK's
        quantize the input first and multiply integers (tests/backends/test_tflite_specifics.py
        measures it). Weights behind a DEQUANTIZE are float here.
        """
        if not self.multiplies:
            return self.output.dtype, "static" if is_integer(self.output.dtype) else "none"
        fed, weights = self.activations.dtype, self.weights[0].dtype
        if is_integer(fed):
            return fed, "static"
        return ("int8", "dynamic") if is_integer(weights) else (fed, "none")

    @property
    def role(self) -> str:
        """As in `quantbench.backend_api.artifact_record`."""
        if self.multiplies:
            return MULTIPLY
        fed = self.inputs[0].dtype if self.inputs and self.inputs[0] else ""
        if self.kind == "QUANTIZE":
            return REQUANTIZE if is_integer(fed) else QUANTIZE
        if self.kind == "DEQUANTIZE":
            return DEQUANTIZE if is_integer(fed) else CAST
        both = (fed, self.output.dtype)
        return CAST if self.kind == "CAST" and all(d.startswith("float") for d in both) else OTHER


def _conv(node: Node) -> tuple[int, tuple[Operand, ...]]:
    weights = node.operand(1)  # [out, height, width, in / groups]
    return node.output.elements * math.prod(weights.shape[1:]), (weights,)


def _depthwise(node: Node) -> tuple[int, tuple[Operand, ...]]:
    weights = node.operand(1)  # [1, height, width, channels]
    return node.output.elements * weights.shape[1] * weights.shape[2], (weights,)


def _conv_3d(node: Node) -> tuple[int, tuple[Operand, ...]]:
    weights = node.operand(1)  # [depth, height, width, in, out]
    return node.output.elements * math.prod(weights.shape[:4]), (weights,)


def _transpose_conv(node: Node) -> tuple[int, tuple[Operand, ...]]:
    weights = node.operand(1)  # [out, height, width, in]; every input element meets all of it
    return node.operand(2).elements * math.prod(weights.shape[:3]), (weights,)


def _fully_connected(node: Node) -> tuple[int, tuple[Operand, ...]]:
    weights = node.operand(1)  # [out, in]
    return node.output.elements * weights.shape[-1], (weights,)


def _batch_matmul(node: Node) -> tuple[int, tuple[Operand, ...]]:
    left = node.operand(0)  # [..., rows, K] or, transposed, [..., K, rows]
    inner = left.shape[-2] * left.shape[-1] // node.output.shape[-2]
    return node.output.elements * inner, (node.operand(1),)


def _recurrent(*operands: int) -> Callable[[Node], tuple[int, tuple[Operand, ...]]]:
    """Every weight matrix meets every time step once; ``operands`` are their positions."""

    def count(node: Node) -> tuple[int, tuple[Operand, ...]]:
        matrices = [m for i in operands if (m := _optional(node, i)) is not None]
        steps = node.operand(0).elements // node.operand(0).shape[-1]
        return steps * sum(m.elements for m in matrices), tuple(matrices)

    return count


def _optional(node: Node, index: int) -> Operand | None:
    return node.inputs[index] if index < len(node.inputs) else None


_MACS: Mapping[str, Callable[[Node], tuple[int, tuple[Operand, ...]]]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _conv_3d,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(*range(1, 9), 16),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent(1, 2),
}
