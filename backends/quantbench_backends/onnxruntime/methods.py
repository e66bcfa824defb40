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
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from quantbench.errors import BadInput
from quantbench.spec import Method
from quantbench_backends.onnx_files import form, layers, shapes
from quantbench_backends.onnxruntime import calibration, overrides, partial_qdq, weight_only
from quantbench_backends.onnxruntime.calibration import Given

CALIBRATION_BATCH = 32
ANY_RANGE = (0.0, 1.0)  # of activations that stay float
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

Build = Callable[[ModelProto, Method, layers.Choice, Given, Path], None]

onnxruntime.set_default_logger_severity(3)  # its sessions log graph rewrites as warnings


def as_it_is(
    model: ModelProto, method: Method, choice: layers.Choice, given: Given, path: Path
) -> None:
    """The form as it is: of fp32, and of a QAT, whose form is quantized already."""
    onnx.save(model, path)


def fp16(
    model: ModelProto, method: Method, choice: layers.Choice, given: Given, path: Path
) -> None:
    """Weights and graph in float16, inputs and outputs in float32."""
    kept = choice.nodes(model, "keep_float")
    onnx.save(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept), path)


def dynamic_int8(
    model: ModelProto, method: Method, choice: layers.Choice, given: Given, path: Path
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


def n_bits(
    model: ModelProto, method: Method, choice: layers.Choice, given: Given, path: Path
) -> None:
    """Matrix products with weights of 4 or 8 bits in groups; convolutions stay float."""
    with tempfile.TemporaryDirectory() as temporary:
        prepared = onnx.load(prepare(model, Path(temporary)))
    onnx.save(weight_only.quantized(prepared, method, choice), path)


def static(
    model: ModelProto, method: Method, choice: layers.Choice, given: Given, path: Path
) -> None:
    """Weights of 8 (or 4) bits and activations of 8 (4, 16) bits with calibrated scales.

    Symmetric unsigned activations have their zero point in the middle.

    Raises
    ------
    BadInput
        If ranges are to be injected and one is missing.
    """
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        prepared = prepare(model, Path(temporary), fuse=method.fusion)
        graph = onnx.load(prepared)
        batches = calibration.Batches(given.samples, form.fixed_batch(model) or CALIBRATION_BATCH)
        ranges = None
        uncalibrated = method.parts == "weights"
        if method.ranges == "injected" or method.calibrator == "entropy" or uncalibrated:
            ranges = prepared.with_name("ranges.json")
            needed = quantized_tensors(prepared, graph, method, choice)
            found = given.ranges
            if uncalibrated:
                found = dict.fromkeys(needed.values(), ANY_RANGE)
            elif method.ranges == "native":
                found = calibration.entropy(prepared, needed.values(), batches)
            calibration.save(ranges, needed, found)
        quantize(prepared, graph, method, choice, path, batches, ranges)
    if method.parts != "both":
        take_apart(path, graph, method.parts)


def take_apart(path: Path, graph: ModelProto, part: str) -> None:
    """Leave integers of one part alone in the quantized file made of ``graph``."""
    quantized = onnx.load(path)
    if part == "weights":
        partial_qdq.weights_alone(quantized.graph)
    else:
        constants = {tensor.name: tensor for tensor in graph.graph.initializer}
        partial_qdq.activations_alone(quantized.graph, constants)
    onnx.save(quantized, path)


def quantize(
    prepared: Path,
    graph: ModelProto,
    method: Method,
    choice: layers.Choice,
    path: Path,
    batches: calibration.Batches | None,
    ranges: Path | None,
) -> None:
    """Call `quantize_static`; with ``ranges``, a cache of minmax, nothing is calibrated."""
    calibrator, calibrating = calibration.options(method)
    alone = only_nodes(graph, method, choice)
    apart = {} if method.parts == "both" else {"QuantizeBias": False}
    if method.parts == "weights":
        # which would be lost with the pair that does their work
        apart["QDQKeepRemovableActivations"] = True
    quantize_static(
        prepared,
        path,
        batches,
        quant_format=FORMATS[method.route or "qdq"],
        per_channel=method.granularity == "per-channel",
        activation_type=ACTIVATIONS[method.activations],
        weight_type=WEIGHTS[method.weights],
        nodes_to_quantize=alone,
        nodes_to_exclude=choice.nodes(graph, "keep_float"),
        calibrate_method=CalibrationMethod.MinMax if ranges else calibrator,
        calibration_cache_path=ranges,
        extra_options={
            "ActivationSymmetric": method.symmetric_activations,
            "WeightSymmetric": method.symmetric_weights,
            "TensorQuantOverrides": overrides.of(graph, method, choice),
            **apart,
            **calibrating,
        },
    )


def only_nodes(graph: ModelProto, method: Method, choice: layers.Choice) -> list[str]:
    """The nodes of the layers named by ``only``, with their activation functions; else none.

    Raises
    ------
    BadInput
        If there is none that `quantize_static` quantizes in these layers.
    """
    named = set(choice.nodes(graph, "only"))
    found = []
    for node in graph.graph.node:
        if node.name in named and node.op_type in overrides.MULTIPLIERS:
            found.append(node.name)
            # a layer's output is quantized behind its activation function, as in the whole model
            if (after := overrides.activation(graph, node)) is not None:
                found.append(after.name)
    if method.only and not found:
        raise BadInput(
            f"only: {list(method.only)} name no convolution or linear layer, and quantize_static "
            "has integer weights for those only; name one"
        )
    return found


def quantized_tensors(
    prepared: Path, graph: ModelProto, method: Method, choice: layers.Choice
) -> dict[str, str]:
    """Activations whose range `quantize_static` needs, each with the one whose range it takes.

    Which they are is asked of the quantizer: it is run with the same range for all. The range of what
    an activation function alone reads is that of the function's output.
    """
    floats = [name for name, t in shapes.inferred(graph).items() if t.dtype == "float32"]
    tried, ranges = prepared.with_name("tried.onnx"), prepared.with_name("tried.json")
    calibration.save(ranges, {name: name for name in floats}, dict.fromkeys(floats, ANY_RANGE))
    quantize(prepared, graph, method, choice, tried, None, ranges)
    scales = {tensor.name for tensor in onnx.load(tried).graph.initializer}
    constants = {tensor.name for tensor in graph.graph.initializer}
    # a softmax always has the range from 0 to 1
    known = {node.output[0] for node in graph.graph.node if node.op_type == "Softmax"}
    chosen = {
        name for name in floats if f"{name}_scale" in scales and name not in {*constants, *known}
    }
    sources = {name: _after_function(graph, name) for name in floats}
    # the quantizer also asks for what it then removes together with the activation function
    return {n: source for n, source in sources.items() if n in chosen or source in chosen}


def _after_function(graph: ModelProto, name: str) -> str:
    """The output of the activation function that alone reads a tensor; else the tensor."""
    readers = [node for node in graph.graph.node if name in node.input]
    alone = len(readers) == 1 and readers[0].op_type in ("Relu", "Clip")
    return readers[0].output[0] if alone else name


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
