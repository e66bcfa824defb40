"""Float fallbacks: why a node of an ONNX file is, or will be, computed in float, where its graph tells.

What the CPU provider does was read from optimized graphs of ONNX Runtime 1.31; the tests compare.
"""

from __future__ import annotations

from onnx import NodeProto

from quantbench_backends.onnx_files import QUANTIZED, graph

_FOUR_BITS = ("int4", "uint4")
# of these the quantizers make no integers
_NEVER = ("GRU", "RNN", "Einsum", "Attention", "MultiHeadAttention")


def why_float(found: graph.Graph, node: NodeProto, dtype: str, weight_dtype: str) -> str:
    """Why a node that multiplies does so in float, in a file with integers; empty where it does not.

    ``dtype`` and ``weight_dtype`` are what the file says: in QDQ format a node of integers is one of
    floats between a DequantizeLinear and a QuantizeLinear, and stays that where no kernel fits.
    """
    if dtype not in QUANTIZED:
        return _left_in_float(found, node)
    if found.dequantized(node.input[0]) is None:  # an operator that takes integers
        return ""
    if dtype in ("int16", "uint16"):
        return "ONNX Runtime's CPU provider has no kernel for 16-bit activations"
    if dtype in _FOUR_BITS or weight_dtype in _FOUR_BITS:
        return "ONNX Runtime's CPU provider has no kernel that multiplies calibrated 4-bit integers"
    if node.op_type == "ConvTranspose":
        return "ONNX Runtime's CPU provider has no integer ConvTranspose"
    if node.op_type == "Conv" and not _quantizers(found, node.output[0]):
        return (
            "its output is not quantized, and ONNX Runtime has no convolution that takes integers "
            "and gives floats"
        )
    if dtype == "int8" and _is_shared(found, node):
        return (
            "its input or output is read more than once: ONNX Runtime on x86 turns int8 activations "
            "into uint8 where they are read once, and multiplies the others as floats; ARM "
            "multiplies int8"
        )
    return ""


def _left_in_float(found: graph.Graph, node: NodeProto) -> str:
    kinds = {other.op_type for other in found.proto.node}
    if node.op_type in _NEVER and kinds & {"DequantizeLinear", "DynamicQuantizeLinear"}:
        return f"ONNX Runtime's quantizer makes no integers of {node.op_type}"
    if node.op_type == "ConvTranspose" and "DynamicQuantizeLinear" in kinds:
        return "ONNX Runtime has no ConvTranspose of integers whose scales are found at run time"
    if node.op_type == "LSTM" and "DequantizeLinear" in kinds:
        return "ONNX Runtime has an LSTM of integers for scales found at run time only"
    if "MatMulNBits" in kinds and node.op_type not in ("MatMul", "MatMulNBits"):
        return "ONNX Runtime has weights in groups for matrix products only (MatMulNBits)"
    return ""


def _quantizers(found: graph.Graph, name: str) -> list[NodeProto]:
    return [reader for reader in found.readers_of(name) if reader.op_type == "QuantizeLinear"]


def _is_shared(found: graph.Graph, node: NodeProto) -> bool:
    """Whether what is quantized beside the node has several readers; an output of the graph is one."""
    ends = {value.name for value in found.proto.output}
    integers = [found.producers[node.input[0]].input[0]]
    integers += [quantize.output[0] for quantize in _quantizers(found, node.output[0])]
    for name in integers:
        floats = [r.output[0] for r in found.readers_of(name) if r.op_type == "DequantizeLinear"]
        readers = sum(len(found.readers_of(tensor)) for tensor in floats)
        if readers + len(ends.intersection(floats)) > 1:
            return True
    return False
