"""Refusal: why a method cannot be built on a route, in one sentence with a way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbench.backend_api import Axes, first_refusal
from quantbench.spec import AXES, RECIPE, Method

ANY = None
"""Stands for any value of an axis: of numbers and of lists of layers."""
Values = Mapping[str, tuple[Any, ...] | None]

NATIVE = ("minmax", "moving-average")
"""LiteRT Quantizer's own calibrators."""
_TRAINED: Values = {"training": ("ptq", "finetune"), **dict.fromkeys(RECIPE)}
_STATIC: Values = {
    "scales": ("static",),
    "granularity": ("per-channel", "per-tensor"),
    "samples": ANY,
    "keep_float": ANY,
}
_LITERT_STATIC: Values = {
    **_STATIC,
    "weights": ("int8", "int4"),
    "calibrator": ("minmax", "moving-average", "percentile", "entropy", "mse", "mean-std"),
    "percentile": ANY,
    "sigmas": ANY,
    "ranges": ("native", "injected"),
    "int4_weights": ANY,
    "only": ANY,
    "parts": ("both", "weights"),
}
_LITERT_DYNAMIC: Values = {
    "activations": ("int8",),
    "scales": ("dynamic",),
    "keep_float": ANY,
}
_LITERT_WEIGHTS: Values = {
    "granularity": ("per-channel", "per-tensor"),
    "symmetric_weights": (True, False),
    "keep_float": ANY,
}
_LITERT: Mapping[str, Values] = {
    "fp16": {"weights": ("float16",), "keep_float": ANY},
    "dynamic-int8": {
        **_LITERT_DYNAMIC,
        "weights": ("int8",),
        "granularity": ("per-channel", "per-tensor"),
        "int4_weights": ANY,
    },
    "dynamic-int4": {
        **_LITERT_DYNAMIC,
        "weights": ("int4",),
        "granularity": ("per-channel", "per-tensor", "group"),
        "group_size": (0, 32, 64, 128, 256),
    },
    "static-int8": {
        **_LITERT_STATIC,
        "activations": ("int8",),
        "io": ("int8", "uint8", "float32"),
        "symmetric_activations": (False, True),
    },
    "static-int16x8": {
        **_LITERT_STATIC,
        "activations": ("int16",),
        "symmetric_activations": (True,),
    },
    "weight-only-int8": {**_LITERT_WEIGHTS, "weights": ("int8",), "int4_weights": ANY},
    "weight-only-int4": {**_LITERT_WEIGHTS, "weights": ("int4",)},
}
# The values each preset can be built with, by route; an axis that is not here has its plain
# default only.
BUILT: Mapping[str, Mapping[str, Values]] = {
    "keras": {
        "fp32": _TRAINED,
        "fp16": {**_TRAINED, "weights": ("float16",)},
        "dynamic-int8": {
            "weights": ("int8",),
            "activations": ("int8",),
            "scales": ("dynamic",),
            "granularity": ("per-channel", "per-tensor"),
        },
        "static-int8": {
            **_STATIC,
            "weights": ("int8",),
            "activations": ("int8",),
            "io": ("int8", "uint8", "float32"),
            "calibrator": ("minmax",),
            "only": ANY,
        },
        "static-int16x8": {
            **_STATIC,
            "weights": ("int8",),
            "activations": ("int16",),
            "symmetric_activations": (True,),
            "calibrator": ("minmax",),
            "keep_float": ((),),
        },
        "qat-int8": {
            **_STATIC,
            **dict.fromkeys(RECIPE),
            "weights": ("int8",),
            "activations": ("int8",),
            "io": ("int8", "uint8", "float32"),
            "calibrator": ("minmax", "moving-average"),
            "training": ("qat",),
            "keep_float": ((),),
        },
    },
    "litert-keras": {**_LITERT, "fp16": {**_LITERT["fp16"], **_TRAINED}},
    "litert-torch": {"fp32": {}, **_LITERT},
}

KERAS, LITERT_KERAS, LITERT_TORCH = BUILT
ROUTES: Mapping[str, str] = {KERAS: "keras", LITERT_KERAS: "keras", LITERT_TORCH: "tflite"}
"""Route -> the form that it starts from."""
DEFAULT_ROUTES: Mapping[str, str] = {
    **dict.fromkeys(BUILT[LITERT_KERAS], LITERT_KERAS),
    **dict.fromkeys(BUILT[KERAS], KERAS),
}

_WEIGHTS_ALONE = (
    "TFLiteConverter quantizes weights alone only as dynamic range, where activations become int8 "
    "at run time"
)
_NO_INT4 = "TFLiteConverter has no int4 post-training quantization"
_NOT_BUILT: Mapping[str, str] = {
    "bf16": "TFLite has no bfloat16 on the CPU: TFLiteConverter leaves every weight in float32; "
    "use fp16 for half the size",
}
_NOT_ON_ROUTE: Mapping[tuple[str, str], str] = {
    (KERAS, "weight-only-int8"): _WEIGHTS_ALONE,
    (KERAS, "weight-only-int4"): _NO_INT4,
    (KERAS, "dynamic-int4"): _NO_INT4,
    (LITERT_KERAS, "fp32"): "nothing is quantized by LiteRT Quantizer there",
    (LITERT_KERAS, "qat-int8"): "LiteRT Quantizer has no quantization-aware training",
    (LITERT_TORCH, "qat-int8"): "LiteRT Quantizer has no quantization-aware training",
}

_PRESET = "the preset fixes it in TFLite"
_NOTHING_CALIBRATED = "this method calibrates nothing"
_NOT_STATIC = "this method has no static scales of activations"
_NOT_TRAINED = "this version of quantbench trains fp32, fp16 and qat-int8 on the Keras form only"
_REASONS: Mapping[str, str] = {
    "weights": _PRESET,
    "activations": _PRESET,
    "io": "integer inputs and outputs need static int8 scales",
    "scales": _PRESET,
    "granularity": "LiteRT has scales per group for dynamic-int4 only",
    "group_size": "LiteRT has scales per group for dynamic-int4 only, of 32, 64, 128 or 256",
    "symmetric_weights": "TFLite's integer kernels fix the zero point of weights at 0",
    "symmetric_activations": _NOT_STATIC,
    "calibrator": _NOTHING_CALIBRATED,
    "percentile": _NOTHING_CALIBRATED,
    "sigmas": _NOTHING_CALIBRATED,
    "only": "this version of quantbench tries layers alone in static methods only",
    "parts": "this version of quantbench takes static methods apart only",
    "ranges": _NOTHING_CALIBRATED,
    "samples": _NOTHING_CALIBRATED,
    "fusion": "the converters always fold batch norm and fuse activations",
    "learned_scales": "TensorFlow's Model Optimization Toolkit trains no scales",
    "keep_float": "nothing is quantized",
    "int4_weights": "4-bit weights are among 8-bit ones only",
    "int4_activations": "LiteRT has no 4-bit activations",
    "training": _NOT_TRAINED,
    **dict.fromkeys(RECIPE, _NOT_TRAINED),
}
_MINMAX = "TFLiteConverter calibrates by minimum and maximum only"
_AVERAGES = "ranges are minimum and maximum or their moving average only"
_BETWEEN = (
    "TFLiteConverter quantizes every layer between fake-quantized tensors, whether it was trained "
    "so or not"
)
_OWN_RANGES = (
    "TFLiteConverter calibrates by itself, and this version of quantbench injects ranges through "
    "LiteRT Quantizer alone"
)
_DEBUGGER = "TFLiteConverter leaves layers out of calibrated int8 only"
_OWN_REASONS: Mapping[tuple[str, str], str] = {
    ("fp32", "granularity"): "nothing is quantized",
    ("fp16", "granularity"): "nothing is quantized to integers",
    ("fp16", "activations"): "LiteRT's CPU kernels turn float16 weights into float32 when loading "
    "and compute in float32",
    ("static-int8", "activations"): "TFLite's full-integer kernels take signed 8-bit activations",
    ("static-int8", "symmetric_activations"): "TFLiteConverter's int8 activations always have a "
    "free zero point",
    ("qat-int8", "symmetric_activations"): "tfmot's int8 activations always have a free zero point",
    ("static-int16x8", "symmetric_activations"): "TFLite's int16 kernels fix the zero point of "
    "activations at 0",
    **{
        (name, "parts"): "LiteRT has no kernels for integer activations with float weights"
        for name in ("static-int8", "static-int16x8")
    },
    ("static-int16x8", "io"): "this version of quantbench gives 16x8 files float32 inputs and "
    "outputs",
    **{("qat-int8", axis): _BETWEEN for axis in ("keep_float", "only", "parts")},
    ("qat-int8", "ranges"): "the preset fixes that its ranges are trained",
    ("qat-int8", "training"): "the preset fixes it: static-int8 is the same without training",
    **{
        (name, axis): _AVERAGES
        for name in ("static-int8", "static-int16x8", "qat-int8")
        for axis in ("calibrator", "percentile", "sigmas")
    },
}
_KERAS_REASONS: Mapping[tuple[str, str], str] = {
    **{
        (name, axis): _MINMAX
        for name in ("static-int8", "static-int16x8")
        for axis in ("calibrator", "percentile", "sigmas")
    },
    ("static-int16x8", "only"): _DEBUGGER,
    ("fp16", "keep_float"): _DEBUGGER,
    ("dynamic-int8", "keep_float"): _DEBUGGER,
    ("static-int16x8", "keep_float"): _DEBUGGER,
    **{(name, "int4_weights"): _NO_INT4 for name in BUILT[KERAS]},
}
_EXAMPLE = Method("fp32")


def route_of(method: Method) -> str:
    """The method's route, its default where it names none."""
    return method.route or DEFAULT_ROUTES.get(method.name, KERAS)


def refusal(method: Method) -> str | None:
    """Why ``method`` cannot be built on its route; None where it can."""
    if method.name in _NOT_BUILT:
        return _NOT_BUILT[method.name]
    route, name = route_of(method), method.name
    if route not in BUILT:
        routes = ", ".join(r for r in BUILT if name in BUILT[r])
        return (
            f"route is {route}, which this version of quantbench does not have for TFLite; "
            f"use route: {routes.replace(', ', ' or ')}"
        )
    if name not in BUILT[route]:
        why = _NOT_ON_ROUTE[route, name]
        return f"route is {route}, but {why}; use route: {DEFAULT_ROUTES[name]}"
    if route == KERAS and name in _LITERT and method.scales == "static":
        for axis, plain, why in (
            ("ranges", "native", _OWN_RANGES),
            ("parts", "both", _WEIGHTS_ALONE),
        ):
            # activations alone are refused on every route
            if getattr(method, axis) not in (plain, "activations"):
                return f"{axis} is {getattr(method, axis)}, but {why}; use route: {LITERT_KERAS}"
    if reason := first_refusal(method, _axes(route, name), _free(route, name)):
        return reason
    if reason := _calibrator(method):
        return reason
    if (method.granularity == "group") != bool(method.group_size):
        return (
            f"granularity is {method.granularity}, but group_size is {method.group_size}; "
            "use granularity: group with group_size: 32, 64, 128 or 256"
        )
    if method.keep_float and method.io == "uint8" and route == KERAS:
        return (
            "io is uint8, but TFLiteConverter gives int8 or float32 where it leaves layers out; "
            "use io: int8"
        )
    return None


def _calibrator(method: Method) -> str | None:
    """Why a calibrator does not fit the method's ranges or its settings; None where it does."""
    chosen = method.calibrator
    if method.ranges == "native" and chosen not in ("none", *NATIVE):
        return f"calibrator is {chosen}, but {_AVERAGES}; use ranges: injected"
    for axis, owner in (("percentile", "percentile"), ("sigmas", "mean-std")):
        value = getattr(method, axis)
        if value and chosen != owner:
            return f"{axis} is {value:g}, but calibrator is {chosen}; use calibrator: {owner}"
    if method.percentile > 100:
        return (
            f"percentile is {method.percentile:g}, but a calibrator keeps at most 100; "
            "use percentile: 99.99"
        )
    return None


def _axes(route: str, name: str) -> Axes:
    """Every limited axis of a preset on a route with the values there and why not the others."""
    values = BUILT[route][name]
    known = {axis: values.get(axis, (getattr(_EXAMPLE, axis),)) for axis in AXES if axis != "route"}
    return {axis: (v, _why(route, name, axis)) for axis, v in known.items() if v is not ANY}


def _free(route: str, name: str) -> tuple[str, ...]:
    """Axes that may be anything there."""
    return tuple(axis for axis, values in BUILT[route][name].items() if values is ANY)


def _why(route: str, name: str, axis: str) -> str:
    own = _OWN_REASONS.get((name, axis), _REASONS[axis])
    return _KERAS_REASONS.get((name, axis), own) if route == KERAS else own
