"""Parts: a QDQ graph of which weights or activations alone are integers, the others floats again."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, TensorProto

from quantbench_backends.onnxruntime.qdq_constants import drop_unused

_QUANTIZED = "_quantized"


def weights_alone(graph: GraphProto) -> None:
    """Take the pairs of QuantizeLinear and DequantizeLinear out, whatever they are between."""
    sources = {node.output[0]: node.input[0] for node in graph.node if _is(node.op_type, "Q")}
    outputs = {value.name for value in graph.output}
    # what a name is replaced by: a pair's output by its input, unless that is the graph's
    instead: dict[str, str] = {}
    for node in graph.node:
        if _is(node.op_type, "D") and node.input[0] in sources:
            source, given = sources[node.input[0]], node.output[0]
            instead |= {source: given} if given in outputs else {given: source}
    kept = [
        node for node in graph.node
        if not _is(node.op_type, "Q")
        and not (_is(node.op_type, "D") and node.input[0] in sources)
    ]  # fmt: skip
    for node in kept:
        node.input[:] = [_followed(name, instead) for name in node.input]
        node.output[:] = [_followed(name, instead) for name in node.output]
    del graph.node[:]
    graph.node.extend(kept)
    drop_unused(graph)


def activations_alone(graph: GraphProto, floats: Mapping[str, TensorProto]) -> None:
    """Put the ``floats`` that the integers were made of in the place of dequantized constants."""
    integers = {tensor.name for tensor in graph.initializer}
    instead: dict[str, str] = {}
    for node in graph.node:
        name = node.input[0].removesuffix(_QUANTIZED) if node.input else ""
        if _is(node.op_type, "D") and node.input[0] in integers and name in floats:
            instead[node.output[0]] = name
    for node in graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
    graph.initializer.extend(floats[name] for name in sorted(set(instead.values()) - integers))
    drop_unused(graph)


def _is(kind: str, which: str) -> bool:
    return kind == {"Q": "QuantizeLinear", "D": "DequantizeLinear"}[which]


def _followed(name: str, instead: Mapping[str, str]) -> str:
    while name in instead:
        name = instead[name]
    return name
