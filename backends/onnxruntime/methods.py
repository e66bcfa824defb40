"""Methods: each one as the documentation of ONNX Runtime's quantizer builds it."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from backends.onnxruntime import calibration, overrides, weight_only
from backends.onnxruntime.form import fixed_batch
from backends.onnxruntime.layers import Choice
from harness.errors import BadInput
from harness.method import Method
from harness.tensors import Arrays

CALIBRATION_BATCH = 32
PER_CHANNEL = ("MatMul", "Gemm", "LSTM")  # what quantize_dynamic gives a scale per channel
FORMATS = {"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}
WEIGHTS = {"int8": QuantType.QInt8, "int4": QuantType.QInt4}
ACTIVATIONS = {
    "uint4": QuantType.QUInt4,
    "int4": QuantType.QInt4,
    "uint8": QuantType.QUInt8,
    "int8": QuantType.QInt8,
    "uint16": QuantType.QUInt16,
    "int16": QuantType.QInt16,
}

Build = Callable[[ModelProto, Method, Choice, Arrays, Path], None]

onnxruntime.set_default_logger_severity(3)  # its sessions log graph rewrites as warnings


def as_it_is(
    model: ModelProto, method: Method, choice: Choice, samples: Arrays, path: Path
) -> None:
    """The form as it is: of fp32, and of a QAT, whose form is quantized already."""
    onnx.save(model, path)


def fp16(model: ModelProto, method: Method, choice: Choice, samples: Arrays, path: Path) -> None:
    """Weights and graph in float16, inputs and outputs in float32."""
    kept = choice.nodes(model, "keep_float")
    onnx.save(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept), path)


def dynamic_int8(
    model: ModelProto, method: Method, choice: Choice, samples: Arrays, path: Path
) -> None:
    """Int8 weights; activations are quantized to uint8 by each operator at run time.

    ``per_channel`` reaches matrix products and LSTM; ConvInteger has one weight scale always.

    Raises
    ------
    BadInput
        If scales per channel are asked for, and there is nothing that can have them.
    """
    per_channel = method.granularity == "per-channel"
    with tempfile.TemporaryDirectory() as temporary:
        prepared = prepare(model, Path(temporary), fuse=method.fusion)
        graph = onnx.load(prepared)
        kept = choice.nodes(graph, "keep_float")
        if per_channel and not any(node.op_type in PER_CHANNEL for node in graph.graph.node):
            raise BadInput(
                "granularity is per-channel, but ConvInteger has one weight scale, and the model "
                "has no linear or LSTM layer; use granularity: per-tensor"
            )
        quantize_dynamic(
            prepared,
            path,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=weight_only.with_gemm(kept),
            extra_options={"WeightSymmetric": method.symmetric_weights},
        )


def n_bits(model: ModelProto, method: Method, choice: Choice, samples: Arrays, path: Path) -> None:
    """Matrix products with weights of 4 or 8 bits in groups; convolutions stay float."""
    with tempfile.TemporaryDirectory() as temporary:
        prepared = onnx.load(prepare(model, Path(temporary)))
    onnx.save(weight_only.quantized(prepared, method, choice), path)


def static(model: ModelProto, method: Method, choice: Choice, samples: Arrays, path: Path) -> None:
    """Weights of 8 (or 4) bits and activations of 8 (4, 16) bits with calibrated scales.

    Symmetric unsigned activations have their zero point in the middle.
    """
    calibrator, calibrating = calibration.options(method)
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        prepared = prepare(model, Path(temporary), fuse=method.fusion)
        graph = onnx.load(prepared)
        quantize_static(
            prepared,
            path,
            calibration.Batches(samples, fixed_batch(model) or CALIBRATION_BATCH),
            quant_format=FORMATS[method.route or "qdq"],
            per_channel=method.granularity == "per-channel",
            activation_type=ACTIVATIONS[method.activations],
            weight_type=WEIGHTS[method.weights],
            nodes_to_exclude=choice.nodes(graph, "keep_float"),
            calibrate_method=calibrator,
            extra_options={
                "ActivationSymmetric": method.symmetric_activations,
                "WeightSymmetric": method.symmetric_weights,
                "TensorQuantOverrides": overrides.of(graph, method, choice),
                **calibrating,
            },
        )


METHODS: Mapping[str, Build] = {
    "fp32": as_it_is,
    "fp16": fp16,
    "dynamic-int8": dynamic_int8,
    "dynamic-int4": n_bits,
    "static-int8": static,
    "static-int16x8": static,
    "weight-only-int8": n_bits,
    "weight-only-int4": n_bits,
    "qat-int8": as_it_is,
}


def prepare(model: ModelProto, folder: Path, *, fuse: bool = True) -> Path:
    """ONNX Runtime's own pre-processing: basic graph optimization, then shape inference.

    Without ``fuse`` no optimization: it folds batch norm. Symbolic shape inference is skipped: it
    needs sympy, fails on transformers, and the quantized graph is the same without.
    """
    source, prepared = folder / "float.onnx", folder / "prepared.onnx"
    onnx.save(model, source)
    quant_pre_process(source, prepared, skip_symbolic_shape=True, skip_optimization=not fuse)
    return prepared
