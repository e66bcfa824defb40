"""Refusals: which values of each axis ONNX Runtime's methods take, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping

from harness.axes import FLOAT, Axes, first_refusal
from harness.method import Method

_COMMON: Axes = {
    "io": (("float32",), "ONNX Runtime's quantizer leaves inputs and outputs in float"),
    "ranges": (("native",), "this quantbench version injects no ranges into ONNX Runtime"),
    "training": (("ptq",), "ONNX Runtime's quantizer does not train"),
    "epochs": ((0,), "ONNX Runtime's quantizer does not train"),
    "group_size": ((0,), "quantize_static and quantize_dynamic give int8 weights no groups"),
    "percentile": ((0.0,), "this quantbench version calibrates ONNX Runtime with minmax only"),
    "fusion": (
        (True,),
        "this quantbench version exports the ONNX form with batch norm folded",
    ),
}
_FLOAT: Axes = {
    **FLOAT,
    **_COMMON,
    "route": (("",), "there is one way to a float ONNX file"),
}
_INT8: Axes = {
    "weights": (("int8",), "this quantbench version builds ONNX Runtime's int8 weights only"),
    "granularity": (
        ("per-channel", "per-tensor"),
        "quantize_static and quantize_dynamic give int8 weights one scale per channel or per tensor",
    ),
    **_COMMON,
}
_AXES: Mapping[str, Axes] = {
    "fp32": {
        **_FLOAT,
        "weights": (("float32",), "fp32 is float32 throughout"),
        "activations": (("float32",), "fp32 is float32 throughout"),
        "keep_float": (((),), "fp32 leaves every layer in float"),
    },
    "fp16": {
        **_FLOAT,
        "weights": (("float16",), "fp16 is float16 throughout"),
        "activations": (("float16",), "fp16 is float16 throughout"),
    },
    "dynamic-int8": {
        **_INT8,
        "activations": (("uint8",), "quantize_dynamic quantizes activations to uint8 only"),
        "scales": (("dynamic",), "quantize_dynamic finds activation scales at run time"),
        "symmetric_activations": ((False,), "DynamicQuantizeLinear chooses a zero point itself"),
        "calibrator": (("none",), "quantize_dynamic calibrates nothing"),
        "samples": ((0,), "quantize_dynamic calibrates nothing"),
        "route": (("",), "quantize_dynamic has one way"),
    },
    "static-int8": {
        **_INT8,
        "activations": (
            ("uint8", "int8"),
            "this quantbench version builds ONNX Runtime's 8-bit activations only",
        ),
        "scales": (("static",), "static-int8 fixes activation scales by calibration"),
        "calibrator": (
            ("minmax",),
            "this quantbench version calibrates ONNX Runtime with minmax only (the entropy of "
            "quantize_static, with its 128 bins, keeps the same full range)",
        ),
        "route": (("qdq",), "this quantbench version builds the QDQ format only"),
    },
}
_NOT_BUILT: Mapping[str, str] = {
    "bf16": "ONNX Runtime's CPU provider has no bfloat16 convolution and no converter to bfloat16; "
    "use fp16 for half the size",
    "dynamic-int4": "this quantbench version does not build ONNX Runtime's 4-bit weights; "
    "use dynamic-int8",
    "static-int16x8": "this quantbench version does not build 16-bit activations for ONNX Runtime; "
    "use static-int8",
    "weight-only-int8": "this quantbench version does not build weight-only files for ONNX Runtime; "
    "use dynamic-int8",
    "weight-only-int4": "this quantbench version does not build weight-only files for ONNX Runtime; "
    "use dynamic-int8",
    "qat-int8": "ONNX Runtime's quantizer does not train; use static-int8",
    "as-is": "this quantbench version takes no ready ONNX file; use fp32, which keeps an ONNX form "
    "as it is",
}


def refusal(method: Method) -> str | None:
    """Why ONNX Runtime's tools cannot build ``method``, in one sentence, or None."""
    if method.name not in _AXES:
        return _NOT_BUILT[method.name]
    if refused := first_refusal(method, _AXES[method.name]):
        return refused
    if (
        method.name == "static-int8"
        and method.granularity == "per-channel"
        and not method.symmetric_weights
    ):
        # quantize_static writes the same file with and without WeightSymmetric
        return (
            "quantize_static makes per-channel weights symmetric whatever it is told; "
            "use symmetric_weights: true, or granularity: per-tensor"
        )
    return None
