"""Record: what a TFLite file holds, read back from the file alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import (
    ACTIVATION,
    BIAS,
    INPUT,
    MULTIPLY,
    OUTPUT,
    WEIGHT,
    NodeRecord,
    Record,
    TensorRecord,
    is_narrow,
)
from quantbench.backend_api.artifact_record import CONSTANT
from quantbench.spec import Array
from quantbench_backends.tflite import layers
from quantbench_backends.tflite.flatbuffer import (
    dtype_name,
    enum_names,
    operator_name,
    payload_bytes,
    read_file,
)
from quantbench_backends.tflite.mac_counts import Node, Operand

BIASES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED"), (2,)),
    "TRANSPOSE_CONV": (3,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (12, 13, 14, 15, 17),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (3,),
}
MATRICES: Mapping[str, tuple[int, ...]] = {
    **{kind: (position,) for kind, position in layers.WEIGHTS.items()},
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (*range(1, 9), 16),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
}
SMALL = 1024
"""Elements below which TFLiteConverter leaves weights of dynamic range in float."""
BLOCKWISE = 2  # of QuantizationDetails


def record(path: Path, known: Sequence[str] = ()) -> Record:
    """Every tensor and operator of a file; ``known`` are the layers to attach.

    Raises
    ------
    BadArtifact
        If it is no TFLite file.
    """
    file, content = read_file(path), path.read_bytes()
    owners = {
        output: layer
        for layer, operator in layers.operators(file, known).items()
        for output in operator.outputs
    }
    tensors: list[TensorRecord] = []
    nodes: list[NodeRecord] = []
    seen = {0}  # buffer 0 is the empty one of all tensors that are computed
    for graph in file.subgraphs:
        view = _Graph(file, content, graph, owners)
        tensors += [view.tensor(i, seen) for i in range(len(graph.tensors))]
        nodes += [view.node(operator) for operator in graph.operators]
    return Record(tuple(tensors), tuple(_with_reasons(nodes)))


@dataclass(slots=True)
class _Graph:
    """One subgraph, with what its tensors are used for."""

    file: Any
    content: bytes
    graph: Any
    owners: Mapping[str, str]
    _roles: dict[int, str] = field(default_factory=dict)
    _layers: dict[int, str] = field(default_factory=dict)
    _producer: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operator in self.graph.operators:
            for index in operator.outputs:
                self._producer[int(index)] = operator
        for operator in self.graph.operators:
            kind, layer = self.kind(operator), self.layer(operator)
            for role, positions in ((WEIGHT, MATRICES), (BIAS, BIASES)):
                for index in _at(operator.inputs, positions.get(kind, ())):
                    index = self.stored(index)
                    if self.values(index) is not None:
                        self._roles[index], self._layers[index] = role, layer
            for index in operator.outputs:
                self._layers[int(index)] = layer

    def kind(self, operator: Any) -> str:
        """The operator's type."""
        return operator_name(self.file, operator.opcodeIndex)

    def layer(self, operator: Any) -> str:
        """The layer that an operator computes; empty for none."""
        names = (self.graph.tensors[i].name.decode() for i in operator.outputs)
        return next((self.owners[name] for name in names if name in self.owners), "")

    def stored(self, index: int) -> int:
        """The constant behind a DEQUANTIZE, or the tensor itself."""
        operator = self._producer.get(index)
        if operator is not None and self.kind(operator) == "DEQUANTIZE":
            return int(operator.inputs[0])
        return index

    def values(self, index: int) -> Array | None:
        """A constant's payload as bytes; None for what is computed."""
        buffer = self.file.buffers[self.graph.tensors[index].buffer]
        if buffer.data is not None:
            return np.frombuffer(bytes(buffer.data), np.uint8)
        if not buffer.size:
            return None
        # behind the flatbuffer
        return np.frombuffer(self.content, np.uint8, buffer.size, buffer.offset)

    def tensor(self, index: int, seen: set[int]) -> TensorRecord:
        """A tensor's record; ``seen`` are the buffers that were counted."""
        tensor = self.graph.tensors[index]
        size = 0
        if tensor.buffer not in seen:
            seen.add(tensor.buffer)
            size = payload_bytes(self.file.buffers[tensor.buffer])
        dtype = dtype_name(tensor.type)
        scale, zero, axis, group = self._affine(tensor)
        grid = _grid(dtype, self.values(index)) if scale else (0, 0)
        return TensorRecord(
            name=tensor.name.decode(),
            role=self._role(index),
            dtype=dtype,
            shape=_shape(tensor, free=-1),
            bytes=size,
            scale=scale,
            zero_point=zero,
            qmin=grid[0],
            qmax=grid[1],
            axis=axis,
            group_size=group,
            layer=self._layers.get(index, ""),
        )

    def _role(self, index: int) -> str:
        if index in self._roles:
            return self._roles[index]
        if index in self.graph.inputs:
            return INPUT
        if index in self.graph.outputs:
            return OUTPUT
        return ACTIVATION if self.values(index) is None else CONSTANT

    def node(self, operator: Any) -> NodeRecord:
        """An operator's record."""
        kind = self.kind(operator)
        inputs = tuple(None if i < 0 else self._operand(int(i)) for i in operator.inputs)
        known = Node(kind, inputs, self._operand(int(operator.outputs[0])))
        dtype, scales = known.computes
        weights = [
            self.stored(i) for i in _at(operator.inputs, MATRICES.get(kind, ()))
        ]  # fmt: skip
        constant = [i for i in weights if self._roles.get(i) == WEIGHT]
        return NodeRecord(
            name=self.graph.tensors[operator.outputs[0]].name.decode(),
            kind=kind,
            role=known.role,
            dtype=dtype,
            scales=scales,
            macs=self._macs(operator, known),
            weights=sum(prod(self._operand(i).shape) for i in constant),
            weight_dtype=dtype_name(self.graph.tensors[constant[0]].type) if constant else "",
            layer=self.layer(operator),
            fused=tuple(self._fused(operator, known.role)),
        )

    def _affine(self, tensor: Any) -> tuple[tuple[float, ...], tuple[int, ...], int | None, int]:
        """Scales, zero points, the channels' axis and the size of groups; () for floats."""
        known = tensor.quantization
        if known is None:
            return (), (), None, 0
        if known.detailsType == BLOCKWISE:
            held = self.values(known.details.scales)
            assert held is not None  # noqa: S101 - for the type checker: scales are constants
            scales = held.view(np.float16).astype(np.float64)
            return tuple(scales.tolist()), (0,), None, int(known.details.blockSize)
        if known.scale is None or not len(known.scale):
            return (), (), None, 0
        points = () if known.zeroPoint is None else tuple(int(z) for z in known.zeroPoint)
        axis = int(known.quantizedDimension) if len(known.scale) > 1 else None
        return tuple(float(s) for s in known.scale), points, axis, 0

    def _macs(self, operator: Any, known: Node) -> int | None:
        """Multiply-accumulates of one sample; None where lengths are free, or in a loop's body."""
        if known.role != MULTIPLY:
            return 0
        operands = [i for i in (*operator.inputs, operator.outputs[0]) if i >= 0]
        shapes = [_shape(self.graph.tensors[i], free=-1) for i in operands]
        # the first free length is the number of samples
        if self.graph is not self.file.subgraphs[0] or any(-1 in shape[1:] for shape in shapes):
            return None
        return known.macs

    def _fused(self, operator: Any, role: str) -> Iterator[str]:
        """What the operator's options say, and a batch norm by its name, which the tensors keep."""
        used = (*operator.outputs, *(i for i in operator.inputs[1:] if i >= 0))
        names = [self.graph.tensors[i].name.decode() for i in used]
        if role == MULTIPLY and any("BatchNorm" in name for name in names):
            yield "BatchNormalization"
        activation = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        if activation:
            yield enum_names("ActivationFunctionType")[activation]

    def _operand(self, index: int) -> Operand:
        tensor = self.graph.tensors[index]
        return Operand(_shape(tensor, free=1), dtype_name(tensor.type))


def _at(indices: Sequence[Any], positions: Sequence[int]) -> Iterator[int]:
    """The tensors at some positions, those left out left out."""
    for position in positions:
        if position < len(indices) and indices[position] >= 0:
            yield int(indices[position])


def _shape(tensor: Any, *, free: int) -> tuple[int, ...]:
    """The shape with ``free`` for a free length; of a scalar ()."""
    if tensor.shape is None:
        return ()
    signature = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return tuple(free if n < 0 else int(n) for n in signature)


def _grid(dtype: str, values: Array | None) -> tuple[int, int]:
    """The integers that a tensor's quantizer gives.

    Constants: TFLite's specification keeps the lowest integer out of weights, so that they are
    symmetric, and tools that do otherwise use it; the values tell. What is computed: all integers.
    """
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    low, high = (
        (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    if values is None or low == 0 or dtype not in ("int8", "int4"):
        return low, high
    numbers = values.view(np.int8)
    if dtype == "int4":  # two to a byte
        numbers = np.concatenate([np.left_shift(numbers, 4) >> 4, numbers >> 4])
    return (low if numbers.min() == low else low + 1), high


def _with_reasons(nodes: Sequence[NodeRecord]) -> Iterator[NodeRecord]:
    """The nodes, those in float beside integer ones with the reason where it is a known rule."""
    dynamic = any(node.scales == "dynamic" for node in nodes)
    for node in nodes:
        small = node.role == MULTIPLY and 0 < node.weights < SMALL
        if dynamic and small and not is_narrow(node.weight_dtype):
            reason = f"the converter leaves weights of fewer than {SMALL:,} elements in float"
            yield replace(node, reason=reason)
        else:
            yield node
