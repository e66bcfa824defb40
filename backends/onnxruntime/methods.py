"""Methods: each one as the documentation of ONNX Runtime's quantizer builds it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from backends.onnxruntime.form import fixed_batch
from harness.method import Method
from harness.tensors import Array, Arrays

CALIBRATION_BATCH = 32
ACTIVATIONS = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}

# the nodes of layers to keep in float, in the graph that is about to be quantized
Kept = Callable[[ModelProto], list[str]]
Build = Callable[[ModelProto, Method, Kept, Arrays, Path], None]

onnxruntime.set_default_logger_severity(3)  # its sessions log graph rewrites as warnings


def fp32(model: ModelProto, method: Method, kept: Kept, samples: Arrays, path: Path) -> None:
    """The form as it is."""
    onnx.save(model, path)


def fp16(model: ModelProto, method: Method, kept: Kept, samples: Arrays, path: Path) -> None:
    """Weights and graph in float16, inputs and outputs in float32."""
    half = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept(model))
    onnx.save(half, path)


def dynamic_int8(
    model: ModelProto, method: Method, kept: Kept, samples: Arrays, path: Path
) -> None:
    """Int8 weights; activations are quantized to uint8 by each operator at run time.

    ``per_channel`` reaches matrix products and LSTM; ConvInteger has one weight scale always.
    """
    with tempfile.TemporaryDirectory() as temporary:
        prepared = prepare(model, Path(temporary))
        names = kept(onnx.load(prepared))
        quantize_dynamic(
            prepared,
            path,
            per_channel=method.granularity == "per-channel",
            weight_type=QuantType.QInt8,
            # Gemm is replaced by a MatMul of this name before the list is looked at
            nodes_to_exclude=names + [f"{name}_MatMul" for name in names],
            extra_options={"WeightSymmetric": method.symmetric_weights},
        )


def static_int8(model: ModelProto, method: Method, kept: Kept, samples: Arrays, path: Path) -> None:
    """Int8 weights and 8-bit activations with calibrated scales, as QDQ pairs.

    Symmetric uint8 activations have their zero point in the middle, at 128.
    """
    with tempfile.TemporaryDirectory() as temporary:
        prepared = prepare(model, Path(temporary))
        quantize_static(
            prepared,
            path,
            Batches(samples, fixed_batch(model) or CALIBRATION_BATCH),
            quant_format=QuantFormat.QDQ,
            per_channel=method.granularity == "per-channel",
            activation_type=ACTIVATIONS[method.activations],
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept(onnx.load(prepared)),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": method.symmetric_activations,
                "WeightSymmetric": method.symmetric_weights,
            },
        )


METHODS: Mapping[str, Build] = {
    "fp32": fp32,
    "fp16": fp16,
    "dynamic-int8": dynamic_int8,
    "static-int8": static_int8,
}


def prepare(model: ModelProto, folder: Path) -> Path:
    """ONNX Runtime's own pre-processing: basic graph optimization, then shape inference.

    Symbolic shape inference is skipped: it needs sympy, fails on transformers, and the quantized
    graph is the same without.
    """
    source, prepared = folder / "float.onnx", folder / "prepared.onnx"
    onnx.save(model, source)
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Calibration samples (arrays [n, ...] by the file's input names), some at a time."""

    def __init__(self, samples: Arrays, size: int) -> None:
        self._batches = self._split(samples, size)

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, or None after the last."""
        return next(self._batches, None)

    @staticmethod
    def _split(samples: Arrays, size: int) -> Iterator[dict[str, Array]]:
        count = len(next(iter(samples.values())))
        for start in range(0, count, size):
            yield {name: array[start : start + size] for name, array in samples.items()}
