"""Overrides: what `quantize_static` is told about single tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnx import ModelProto, NodeProto
from onnxruntime.quantization import QuantType

from quantbench.spec import Method
from quantbench_backends.onnx_files import layers

WEIGHT = 1  # position of the weights among a node's inputs
MULTIPLIERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What has weights and is quantized."""
_ACTIVATIONS = ("Relu", "Clip")  # quantized together with what they follow


def of(
    model: ModelProto, method: Method, choice: layers.Choice
) -> Mapping[str, list[dict[str, Any]]]:
    """Overrides by tensor: 4-bit weights and outputs of layers, asymmetric weights per channel.

    The QDQ format makes weights per channel symmetric unless it is told otherwise for each tensor.
    """
    narrow = set(choice.nodes(model, "int4_weights"))
    gives_narrow = set(choice.nodes(model, "int4_activations"))
    kept = set(choice.nodes(model, "keep_float"))
    alone = set(choice.nodes(model, "only"))
    constants = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, list[dict[str, Any]]] = {}
    for node in model.graph.node:
        if node.op_type not in MULTIPLIERS or node.name in kept:
            continue
        if alone and node.name not in alone:
            continue
        weight, told = node.input[WEIGHT], _weight(node, method)
        if node.name in narrow:
            told["quant_type"] = QuantType.QInt4
        if weight in constants and ("quant_type" in told or told.get("symmetric") is False):
            found[weight] = [told]
        if node.name in gives_narrow:
            signed = method.activations.startswith("int")
            kind = QuantType.QInt4 if signed else QuantType.QUInt4
            told = {"quant_type": kind, "symmetric": method.symmetric_activations}
            found[_output(model, node)] = [told]
    return found


def _output(model: ModelProto, node: NodeProto) -> str:
    """The tensor that is quantized after a node: that of its activation function, if it has one."""
    last = activation(model, node) or node
    name: str = last.output[0]
    return name


def activation(model: ModelProto, node: NodeProto) -> NodeProto | None:
    """The activation function that alone reads a node's output, and is quantized with it."""
    readers = [reader for reader in model.graph.node if node.output[0] in reader.input]
    alone: NodeProto | None = readers[0] if len(readers) == 1 else None
    return alone if alone is not None and alone.op_type in _ACTIVATIONS else None


def _weight(node: NodeProto, method: Method) -> dict[str, Any]:
    if method.granularity != "per-channel":
        return {}
    return {"axis": _channels(node), "symmetric": method.symmetric_weights}


def _channels(node: NodeProto) -> int:
    """The axis of a node's weights that has a scale for each of its elements."""
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return 0 if node.op_type == "Conv" else 1
