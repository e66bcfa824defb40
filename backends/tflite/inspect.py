"""What a TFLite file holds, and what LiteRT executes of it. Needs LiteRT, never TensorFlow."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import BadArtifact
from harness.protocol import Operation, Record

# --- the file ------------------------------------------------------------------------------------


def read_file(path: Path) -> Any:
    """The file as a ``ModelT`` of LiteRT's schema; raises `BadArtifact` where it is none."""
    data = path.read_bytes()
    try:
        if data[4:8] != b"TFL3":
            raise ValueError("no TFL3 mark")
        return parse(data)
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise BadArtifact(f"{path} is not a TFLite file ({error}); build it again") from error


def parse(data: bytes) -> Any:
    """The content of a TFLite file as a ``ModelT``."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data)


def record(path: Path) -> Record:
    """Payload bytes of the constants by dtype, each buffer once, and operators by name."""
    model = read_file(path)
    weights: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    seen = {0}  # buffer 0 is the empty one of all tensors that are computed
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.buffer not in seen:
                seen.add(tensor.buffer)
                weights[dtype_name(tensor.type)] += _size(model.buffers[tensor.buffer])
        operators.update(operator_name(model, op.opcodeIndex) for op in graph.operators)
    return Record(
        weight_bytes={name: size for name, size in sorted(weights.items()) if size},
        operators=dict(sorted(operators.items())),
    )


def dtype_name(tensor_type: int) -> str:
    """NumPy's name of a schema ``TensorType``, e.g. ``int8``."""
    return _names("TensorType")[tensor_type].lower()


@cache
def _names(enum: str) -> Mapping[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {v: k for k, v in vars(getattr(schema, enum)).items() if isinstance(v, int)}


def _size(buffer: Any) -> int:
    # files above 2 GB hold payloads behind the flatbuffer, at `offset`
    return int(buffer.size or 0) if buffer.data is None else len(buffer.data)


def operator_name(model: Any, opcode: int) -> str:
    """The schema's name of an operator code, or the custom operator's own."""
    code = model.operatorCodes[opcode]
    # the first field has 8 bits, the later one took over above 127
    name = _names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return code.customCode.decode() if name == "CUSTOM" else name


# --- the execution -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class _Node:
    """One node: its operands by position (None where an optional one is left out)."""

    name: str
    kind: str
    inputs: tuple[_Tensor | None, ...]
    output: _Tensor

    def operand(self, index: int) -> _Tensor:
        tensor = self.inputs[index]
        assert tensor is not None  # noqa: S101 - for the type checker: never an optional operand
        return tensor


def executed(interpreter: Any, kernels: str) -> tuple[Operation, ...]:
    """What an interpreter executes in one inference, node by node; call it after an invoke.

    Empty where the graph branches or loops: LiteRT does not show how often a subgraph ran.

    Parameters
    ----------
    interpreter : ai_edge_litert.interpreter.Interpreter
        Allocated for one sample and invoked once, so that every shape is known.
    kernels : str
        Which kernels run the nodes that no delegate took: ``builtin`` or ``reference``.
    """
    nodes = interpreter._get_ops_details()
    if any(node["op_name"] in _CONTROL_FLOW for node in nodes):
        return ()
    taken = delegated(nodes)
    return tuple(
        _operation(_node(interpreter, node), "xnnpack" if node["index"] in taken else kernels)
        for node in nodes
        if node["op_name"] != "DELEGATE"
    )


def delegated(nodes: list[dict[str, Any]]) -> frozenset[int]:
    """Indices of the nodes that a delegate took over.

    LiteRT keeps those nodes in its list and adds one ``DELEGATE`` per partition, of which it
    shows the inputs and outputs: the nodes taken are those between.
    """
    producer = {int(t): n for n in nodes if n["op_name"] != "DELEGATE" for t in n["outputs"]}
    taken: set[int] = set()
    for partition in (node for node in nodes if node["op_name"] == "DELEGATE"):
        border = {int(tensor) for tensor in partition["inputs"]}
        todo = [int(tensor) for tensor in partition["outputs"]]
        while todo:
            tensor = todo.pop()
            node = producer.get(tensor)
            if tensor not in border and node is not None and node["index"] not in taken:
                taken.add(node["index"])
                todo.extend(int(t) for t in node["inputs"])
    return frozenset(taken)


def _node(interpreter: Any, node: dict[str, Any]) -> _Node:
    def tensor(index: int) -> _Tensor | None:
        if index < 0:
            return None
        details = interpreter._get_tensor_details(index, subgraph_index=0)
        return _Tensor(tuple(int(n) for n in details["shape"]), np.dtype(details["dtype"]))

    first = int(node["outputs"][0])
    output = tensor(first)
    assert output is not None  # noqa: S101 - for the type checker: outputs are never optional
    return _Node(
        name=interpreter._get_tensor_details(first, subgraph_index=0)["name"],
        kind=node["op_name"],
        inputs=tuple(tensor(int(index)) for index in node["inputs"]),
        output=output,
    )


def _operation(node: _Node, engine: str) -> Operation:
    if node.kind not in _MACS:
        return Operation(node.name, node.kind, 0, False, engine)
    macs, weights = _MACS[node.kind](node)
    # int8 weights beside a float input are no exception: LiteRT's hybrid kernels and XNNPACK's
    # quantize the input first and multiply integers (tests/backends/test_tflite_specifics.py
    # measures it). Weights behind a DEQUANTIZE are float here.
    return Operation(node.name, node.kind, macs, weights.dtype.kind in "iu", engine)


def _conv(node: _Node) -> tuple[int, _Tensor]:
    weights = node.operand(1)  # [out, height, width, in / groups]
    return node.output.elements * math.prod(weights.shape[1:]), weights


def _depthwise(node: _Node) -> tuple[int, _Tensor]:
    weights = node.operand(1)  # [1, height, width, channels]
    return node.output.elements * weights.shape[1] * weights.shape[2], weights


def _conv_3d(node: _Node) -> tuple[int, _Tensor]:
    weights = node.operand(1)  # [depth, height, width, in, out]
    return node.output.elements * math.prod(weights.shape[:4]), weights


def _transpose_conv(node: _Node) -> tuple[int, _Tensor]:
    weights = node.operand(1)  # [out, height, width, in]; every input element meets all of it
    return node.operand(2).elements * math.prod(weights.shape[:3]), weights


def _fully_connected(node: _Node) -> tuple[int, _Tensor]:
    weights = node.operand(1)  # [out, in]
    return node.output.elements * weights.shape[-1], weights


def _batch_matmul(node: _Node) -> tuple[int, _Tensor]:
    left = node.operand(0)  # [..., rows, K] or, transposed, [..., K, rows]
    inner = left.shape[-2] * left.shape[-1] // node.output.shape[-2]
    return node.output.elements * inner, node.operand(1)


def _recurrent(*operands: int) -> Callable[[_Node], tuple[int, _Tensor]]:
    """Every weight matrix meets every time step once; ``operands`` are their positions."""

    def count(node: _Node) -> tuple[int, _Tensor]:
        matrices = [m for i in operands if (m := _optional(node, i)) is not None]
        steps = node.operand(0).elements // node.operand(0).shape[-1]
        return steps * sum(m.elements for m in matrices), matrices[0]

    return count


def _optional(node: _Node, index: int) -> _Tensor | None:
    return node.inputs[index] if index < len(node.inputs) else None


_CONTROL_FLOW = ("WHILE", "IF", "CALL", "CALL_ONCE")
_MACS: Mapping[str, Callable[[_Node], tuple[int, _Tensor]]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _conv_3d,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(*range(1, 9), 16),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent(1, 2),
}
