"""Refusals: which values of each axis ONNX Runtime's methods take, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping

from quantbench.backend_api import FLOAT, Axes, first_refusal, word
from quantbench.spec import Method

_COMMON: Axes = {
    "io": (("float32",), "ONNX Runtime's quantizer leaves inputs and outputs in float"),
}
_WHOLE: Axes = {
    "only": (((),), "this quantbench version tries layers alone in static methods only"),
    "parts": (("both",), "this quantbench version takes static methods apart only"),
}
_UNTRAINED: Axes = {
    "training": (("ptq",), "this method quantizes after training, and qat-int8 is trained"),
    "learned_scales": ((False,), "nothing is trained"),
}
_FOLDED: Axes = {
    "fusion": ((True,), "ONNX Runtime folds batch norm when it loads float convolutions"),
}
_UNCALIBRATED: Axes = {
    "ranges": (("native",), "this method calibrates nothing"),
    "sigmas": ((0.0,), "this method calibrates nothing"),
    "calibrator": (("none",), "this method calibrates nothing"),
    "percentile": ((0.0,), "this method calibrates nothing"),
    "samples": ((0,), "this method calibrates nothing"),
}
_FLOAT: Axes = {
    **FLOAT,
    **_COMMON,
    "only": (((),), "a float method quantizes nothing"),
    "parts": (("both",), "a float method quantizes nothing"),
    **_FOLDED,
    **_UNCALIBRATED,
    "training": (("ptq", "finetune"), "a float method is trained in float"),
    "learned_scales": ((False,), "a float method has no scales"),
    "group_size": ((0,), "a float method has no scales"),
    "int4_weights": (((),), "a float method has no integers"),
    "int4_activations": (((),), "a float method has no integers"),
    "route": (("",), "there is one way to a float ONNX file"),
}
_UNGROUPED: Axes = {
    "weights": (("int8",), "the weights of this method are int8"),
    "granularity": (
        ("per-channel", "per-tensor"),
        "quantize_static and quantize_dynamic give int8 weights one scale per channel or per tensor",
    ),
    "group_size": ((0,), "quantize_static and quantize_dynamic give int8 weights no groups"),
}
_STATIC: Axes = {
    **_COMMON,
    **_UNTRAINED,
    **_UNGROUPED,
    "weights": (("int8", "int4"), "the weights of this method are integers"),
    "scales": (("static",), "this method fixes activation scales by calibration"),
    "calibrator": (
        ("minmax", "moving-average", "percentile", "entropy", "mse", "mean-std"),
        "neither quantize_static nor this quantbench version estimates ranges so",
    ),
}
_GROUPED: Axes = {
    **_COMMON,
    **_WHOLE,
    **_UNTRAINED,
    **_FOLDED,
    **_UNCALIBRATED,
    "granularity": (
        ("group",),
        "MatMulNBits has one scale per group of weights, and no groups longer than 256",
    ),
    "group_size": (
        (16, 32, 64, 128, 256),
        "MatMulNBits has groups whose size is a power of two from 16 to 256",
    ),
    "route": (("",), "this quantbench version builds the operator MatMulNBits only"),
}
_WEIGHT_ONLY: Axes = {
    **_GROUPED,
    "activations": (("float32",), "weight-only methods leave activations in float"),
    "scales": (("none",), "weight-only methods leave activations in float"),
    "symmetric_activations": ((False,), "weight-only methods leave activations in float"),
    "int4_activations": (((),), "weight-only methods leave activations in float"),
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
        **_COMMON,
        **_WHOLE,
        **_UNTRAINED,
        **_UNGROUPED,
        **_UNCALIBRATED,
        "activations": (("uint8",), "quantize_dynamic quantizes activations to uint8 only"),
        "int4_weights": (((),), "quantize_dynamic packs no 4-bit weights"),
        "int4_activations": (((),), "quantize_dynamic quantizes activations to uint8 only"),
        "scales": (("dynamic",), "quantize_dynamic finds activation scales at run time"),
        "symmetric_activations": ((False,), "DynamicQuantizeLinear chooses a zero point itself"),
        "route": (("",), "quantize_dynamic is the one way"),
    },
    "dynamic-int4": {
        **_GROUPED,
        "weights": (("int4",), "the weights of this method are int4"),
        "activations": (("int8",), "MatMulNBits multiplies int8 activations or float ones"),
        "int4_weights": (((),), "the weights of this method are int4"),
        "int4_activations": (((),), "MatMulNBits multiplies int8 activations or float ones"),
        "scales": (("dynamic",), "MatMulNBits finds activation scales at run time"),
        "symmetric_activations": ((True,), "MatMulNBits gives its activations no zero point"),
    },
    "static-int8": {
        **_STATIC,
        "activations": (
            ("uint8", "int8", "uint4", "int4"),
            "static-int8 has activations of up to 8 bits, and static-int16x8 those of 16",
        ),
        "route": (("qdq", "qoperator"), "quantize_static has two formats"),
    },
    "static-int16x8": {
        **_STATIC,
        "activations": (
            ("int16", "uint16"),
            "static-int16x8 has 16-bit activations, and static-int8 those of up to 8",
        ),
        "route": (("qdq",), "only the QDQ format of quantize_static has 16-bit activations"),
    },
    "weight-only-int8": {
        **_WEIGHT_ONLY,
        "weights": (("int8",), "the weights of this method are int8"),
    },
    "weight-only-int4": {
        **_WEIGHT_ONLY,
        "weights": (("int4",), "the weights of this method are int4"),
        "int4_weights": (((),), "the weights of this method are int4"),
    },
    "qat-int8": {
        **_COMMON,
        **_WHOLE,
        "ranges": (("native",), "the ranges of this method are trained"),
        "sigmas": ((0.0,), "the ranges of this method are trained"),
        **_UNGROUPED,
        "weights": (("int8", "int4"), "PyTorch trains weights of 8 and of 4 bits"),
        "activations": (
            ("uint8", "uint4"),
            "PyTorch trains for kernels that take uint8 activations",
        ),
        "scales": (("static",), "this method fixes activation scales by calibration"),
        "calibrator": (
            ("moving-average", "minmax"),
            "this quantbench version trains with running minima and maxima only",
        ),
        "percentile": ((0.0,), "torch.ao has no percentile observer"),
        "route": (("fx",), "this quantbench version exports QAT of FX graph mode only"),
        "training": (("qat",), "qat-int8 is trained with fake quantization"),
    },
}
_NOT_BUILT: Mapping[str, str] = {
    "bf16": "ONNX Runtime's CPU provider has no bfloat16 convolution and no converter to bfloat16; "
    "use fp16 for half the size",
}


_JUDGED = (
    "fusion", "symmetric_weights", "symmetric_activations", "keep_float", "only", "parts", "percentile",
    "sigmas", "ranges", "samples", "int4_weights", "int4_activations", "learned_scales",
)  # fmt: skip
"""Axes that are free for some preset, or that the code below judges."""


def refusal(method: Method) -> str | None:
    """Why ONNX Runtime's tools cannot build ``method``, in one sentence, or None."""
    if method.name not in _AXES:
        return _NOT_BUILT[method.name]
    return (
        first_refusal(method, _AXES[method.name], _JUDGED)
        or _calibrator(method)
        or _percentile(method)
        or _format(method)
        or _learned(method)
    )


def _calibrator(method: Method) -> str | None:
    if method.ranges == "native" and method.calibrator in ("mse", "mean-std"):
        return (
            f"calibrator is {method.calibrator}, but quantize_static estimates ranges by minmax, "
            "moving-average, percentile and entropy only; use ranges: injected"
        )
    if method.sigmas and method.calibrator != "mean-std":
        return (
            f"sigmas is {method.sigmas:g}, but calibrator is {method.calibrator}; "
            "use calibrator: mean-std, or leave sigmas out"
        )
    return None


def _percentile(method: Method) -> str | None:
    if method.percentile and method.calibrator != "percentile":
        return (
            f"percentile is {method.percentile:g}, but calibrator is {method.calibrator}; "
            "use calibrator: percentile, or leave percentile out"
        )
    if method.percentile and not 50 < method.percentile < 100:
        return (
            f"percentile is {method.percentile:g}, but it is a share of 100; use percentile: 99.9"
        )
    return None


def _format(method: Method) -> str | None:
    for axis, whole in (("only", ()), ("parts", "both")):
        value = getattr(method, axis)
        if method.route == "qoperator" and value != whole:
            return (
                f"{axis} is {word(value)}, but operators of this format take integers and give "
                "integers; use route: qdq"
            )
    if method.route == "qoperator" and _has_4_bits(method):
        return (
            "route is qoperator, but this format of quantize_static has no 4-bit tensors; "
            "use route: qdq"
        )
    return None


def _learned(method: Method) -> str | None:
    if method.learned_scales and method.symmetric_activations:
        return (
            "symmetric_activations is true, but PyTorch's learned scales then lose the zero point "
            "of unsigned activations; use symmetric_activations: false"
        )
    return None


def simulated(method: Method) -> str:
    """Why no kernel executes ``method`` as it is, in one sentence; empty where kernels do."""
    if method.parts != "both":
        return (
            f"{method.parts} alone are integers, and no kernel multiplies integers with floats: they "
            "are dequantized and multiplied as floats"
        )
    if method.name == "static-int16x8":
        return (
            "ONNX Runtime's CPU provider has no kernel for 16-bit activations: it dequantizes "
            "everything and multiplies floats"
        )
    if method.scales == "static" and _has_4_bits(method):
        return (
            "ONNX Runtime's CPU provider has no kernel that multiplies calibrated 4-bit integers: "
            "it runs those layers with floats or 8-bit integers"
        )
    return ""


def _has_4_bits(method: Method) -> bool:
    named = method.int4_weights or method.int4_activations
    return bool(named) or "int4" in (method.weights, method.activations.removeprefix("u"))
