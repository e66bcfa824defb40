"""Refusal: why a method cannot be built by TFLiteConverter, in one sentence with a way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.axes import Axes, first_refusal
from harness.method import AXES, Method

_ROUTE = ("keras", "")
_FLOAT: Mapping[str, tuple[Any, ...]] = {"route": _ROUTE}
_INT8: Mapping[str, tuple[Any, ...]] = {
    "route": _ROUTE,
    "weights": ("int8",),
    "activations": ("int8",),
    "granularity": ("per-channel", "per-tensor"),
}
# The values each preset can be built with; an axis that is not here has its plain default only.
BUILT: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "fp32": _FLOAT,
    "fp16": {**_FLOAT, "weights": ("float16",)},
    "dynamic-int8": {**_INT8, "scales": ("dynamic",)},
    "static-int8": {
        **_INT8,
        "scales": ("static",),
        "io": ("int8", "uint8", "float32"),
        "calibrator": ("minmax",),
    },
}

_NOT_BUILT: Mapping[str, str] = {
    "bf16": "TFLite has no bfloat16 on the CPU: TFLiteConverter leaves every weight in float32; "
    "use fp16 for half the size",
    "dynamic-int4": "TFLiteConverter has no int4 post-training quantization; use dynamic-int8",
    "weight-only-int4": "TFLiteConverter has no int4 post-training quantization; use dynamic-int8",
    "weight-only-int8": "TFLiteConverter quantizes weights alone only as dynamic range, where "
    "activations become int8 at run time; use dynamic-int8",
    "static-int16x8": "this version of quantbench does not build TFLite's 16x8; "
    "use static-int8, or fp16 where int8 loses too much quality",
    "qat-int8": "this version of quantbench does not train Keras models for quantization; "
    "use static-int8",
    "as-is": "this version of quantbench builds TFLite files from a model's Keras form and takes "
    f"no ready file; use one of {', '.join(BUILT)}",
}

_NOTHING_CALIBRATED = "this method calibrates nothing"
_NOT_GROUPED = "TFLite's int8 weights have one scale per channel or per tensor, none per group"
_REASONS: Mapping[str, str] = {
    "weights": "the preset fixes how TFLiteConverter stores weights",
    "activations": "the preset fixes what LiteRT computes with",
    "io": "TFLiteConverter gives integer inputs and outputs to static-int8 only",
    "scales": "the preset fixes where TFLite's activation scales come from",
    "granularity": _NOT_GROUPED,
    "group_size": _NOT_GROUPED,
    "symmetric_weights": "TFLite's int8 specification fixes the zero point of weights at 0",
    "symmetric_activations": "TFLite's int8 activations always have a free zero point",
    "calibrator": "TFLiteConverter calibrates by minimum and maximum only",
    "percentile": "TFLiteConverter calibrates by minimum and maximum only",
    "ranges": "this version of quantbench injects no ranges into TFLiteConverter",
    "samples": _NOTHING_CALIBRATED,
    "fusion": "TFLiteConverter always folds batch norm and fuses activations",
    "route": "this version of quantbench reaches TFLiteConverter from the Keras form only",
    "training": "this version of quantbench does not train Keras models",
    "epochs": "this version of quantbench does not train Keras models",
    "keep_float": "TFLiteConverter quantizes the whole model, and this version of quantbench does "
    "not use its QuantizationDebugger to leave layers out",
}
_OWN_REASONS: Mapping[tuple[str, str], str] = {
    ("fp32", "granularity"): "nothing is quantized",
    ("fp16", "granularity"): "nothing is quantized to integers",
    ("fp16", "activations"): "LiteRT's CPU kernels turn float16 weights into float32 when loading "
    "and compute in float32",
    ("static-int8", "activations"): "TFLite's full-integer kernels take signed 8-bit activations",
    **{
        (name, axis): _NOTHING_CALIBRATED
        for name in ("fp32", "fp16", "dynamic-int8")
        for axis in ("calibrator", "percentile", "ranges")
    },
}
_EXAMPLE = Method("fp32")


def refusal(method: Method) -> str | None:
    """Why TFLiteConverter, as this backend uses it, cannot build ``method``; None where it can."""
    if method.name not in BUILT:
        known = f"tflite builds {', '.join(BUILT)}; use one of them"
        return _NOT_BUILT.get(method.name, known)
    return first_refusal(method, _axes(method.name))


def _axes(name: str) -> Axes:
    """Every axis of a preset with the values TFLiteConverter takes and why not the others."""
    return {
        axis: (
            BUILT[name].get(axis, (getattr(_EXAMPLE, axis),)),
            _OWN_REASONS.get((name, axis), _REASONS[axis]),
        )
        for axis in AXES
        if (axis, name) != ("samples", "static-int8")
    }
