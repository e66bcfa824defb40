"""Weights of 4 or 8 bits in groups: ONNX Runtime's MatMulNBits, for matrix products only."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from onnx import ModelProto
from onnxruntime.quantization import matmul_nbits_quantizer
from onnxruntime.quantization.onnx_model import ONNXModel

from quantbench.errors import BadInput
from quantbench.spec import Method
from quantbench_backends.onnx_files import INTEGER_GROUPS, layers

EXACT = 0  # activations in float32

logging.getLogger().setLevel(logging.WARNING)  # importing it makes every library log more


def accuracy_level(method: Method) -> int:
    """What MatMulNBits is told of activations: float32 is what weight-only means."""
    return INTEGER_GROUPS if method.scales == "dynamic" else EXACT


def quantized(model: ModelProto, method: Method, choice: layers.Choice) -> ModelProto:
    """The model with MatMulNBits for every matrix product with constant weights.

    The last group of a row is filled up with zeros where the group size does not divide it.

    Raises
    ------
    BadInput
        If ``int4_weights`` names no matrix product.
    """
    kept = with_gemm(choice.nodes(model, "keep_float"))
    narrow = with_gemm(choice.nodes(model, "int4_weights"))
    products = ONNXModel(model)
    products.replace_gemm_with_matmul()
    model = products.model
    names = [node.name for node in model.graph.node if node.op_type == "MatMul"]
    if narrow and not set(narrow) & set(names):
        raise BadInput(
            f"int4_weights: {list(method.int4_weights)} name no linear layer, and ONNX Runtime "
            "has 4-bit weights for those only; name a linear layer"
        )
    if method.weights == "int4":
        return _with_bits(4, model, method, kept)
    model = _with_bits(8, model, method, [*kept, *narrow])
    wide = [name for name in names if name not in narrow]
    return _with_bits(4, model, method, [*kept, *wide]) if narrow else model


def with_gemm(names: Iterable[str]) -> list[str]:
    """The names, and those of the MatMul that the quantizer makes of each Gemm."""
    return [made for name in names for made in (name, f"{name}_MatMul")]


def _with_bits(bits: int, model: ModelProto, method: Method, excluded: list[str]) -> ModelProto:
    quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
        model,
        bits=bits,
        block_size=method.group_size,
        is_symmetric=method.symmetric_weights,
        accuracy_level=accuracy_level(method),
        nodes_to_exclude=excluded,
    )
    quantizer.process()
    done: ModelProto = quantizer.model.model
    return done
