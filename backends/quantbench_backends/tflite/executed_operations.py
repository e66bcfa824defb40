"""Executed: what LiteRT does of a file in one inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quantbench.backend_api import CAST, DEQUANTIZE, INPUT, OTHER, Operation
from quantbench_backends.tflite.mac_counts import Node, Operand

VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
"""Operators whose output is the memory of their input (measured: LiteRT 2.3's own kernels)."""
_CONTROL_FLOW = ("WHILE", "IF", "CALL", "CALL_ONCE")


def executed(interpreter: Any, kernels: str, shaped: Any) -> tuple[Operation, ...]:
    """What an interpreter executes in one inference, node by node; call it after an invoke.

    Empty where the graph branches or loops: LiteRT does not show how often a subgraph ran. A
    DEQUANTIZE of a constant is done once, when the file is loaded, and is no conversion here.

    Parameters
    ----------
    interpreter : ai_edge_litert.interpreter.Interpreter
        Allocated for one sample; tells the nodes, and which of them a delegate took.
    kernels : str
        Which kernels run the nodes that no delegate took: ``builtin`` or ``reference``.
    shaped : ai_edge_litert.interpreter.Interpreter
        Tells shapes, after one invoke: of the same file without delegates. Of tensors inside a delegate,
        whose shapes depend on the input's, LiteRT goes on showing those that the file was converted with.
    """
    nodes = interpreter._get_ops_details()
    if any(node["op_name"] in _CONTROL_FLOW for node in nodes):
        return ()
    taken = delegated(nodes)
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    found = []
    for tensor in interpreter.get_input_details():
        size = _size(shaped, int(tensor["index"]))
        dtype = np.dtype(tensor["dtype"]).name
        written = {str(tensor["index"]): size}
        found.append(Operation(tensor["name"], "input", 0, dtype, role=INPUT, writes=written))
    # a tensor that is computed -> the one in whose memory it is
    computed = {name: name for operation in found for name in operation.writes}
    for node in own:
        engine = "xnnpack" if node["index"] in taken else kernels
        operation = _operation(shaped, node, engine, computed)
        computed |= {name: name for name in operation.writes}
        if node["op_name"] in VIEWS and operation.reads:
            computed[str(node["outputs"][0])] = operation.reads[0]
        found.append(operation)
    return tuple(found)


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


def _operation(
    shaped: Any, node: dict[str, Any], engine: str, computed: Mapping[str, str]
) -> Operation:
    """A node as executed.

    ``computed`` are the tensors written before it, with whose memory they are; all others are
    constants.
    """
    inputs = tuple(_operand(shaped, int(i)) if i >= 0 else None for i in node["inputs"])
    first = int(node["outputs"][0])
    known = Node(node["op_name"], inputs, _operand(shaped, first))
    reads = tuple(computed[str(i)] for i in node["inputs"] if str(i) in computed)
    dtype, scales = known.computes
    constant = known.role in (DEQUANTIZE, CAST) and not reads
    view = node["op_name"] in VIEWS and bool(reads)
    outputs = () if constant or view else node["outputs"]
    return Operation(
        name=shaped._get_tensor_details(first, subgraph_index=0)["name"],
        kind=known.kind,
        macs=known.macs,
        dtype=dtype,
        engine=engine,
        role=OTHER if constant else known.role,
        scales=scales,
        weights=sum(w.elements for w in known.weights) if len(reads) < 2 else 0,
        reads=reads,
        writes={str(i): _size(shaped, int(i)) for i in outputs},
    )


def _operand(interpreter: Any, index: int) -> Operand:
    details = interpreter._get_tensor_details(index, subgraph_index=0)
    return Operand(tuple(int(n) for n in details["shape"]), np.dtype(details["dtype"]).name)


def _size(interpreter: Any, index: int) -> int:
    operand = _operand(interpreter, index)
    return operand.elements * np.dtype(operand.dtype).itemsize
