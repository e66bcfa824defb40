"""Refusals: which values of each axis PyTorch's methods take, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping

from backends.pytorch import DEFAULTS
from harness.axes import FLOAT, Axes, first_refusal
from harness.method import Method
from harness.model import Model

_COMMON: Axes = {
    "io": (("float32",), "this quantbench version builds PyTorch models with float inputs only"),
    "ranges": (("native",), "this quantbench version injects no ranges into PyTorch yet"),
    "training": (("ptq",), "this quantbench version does not train in PyTorch yet"),
    "epochs": ((0,), "nothing is trained"),
    "group_size": ((0,), "torch.ao has no groups of weights"),
    "percentile": ((0.0,), "torch.ao has no percentile observer"),
}
_FLOAT: Axes = {
    **FLOAT,
    **_COMMON,
    "keep_float": (((),), "a float method leaves every layer in float"),
    "route": (
        ("eager", "traced", "compiled"),
        "this quantbench version runs a float model in one of three ways",
    ),
}
_AXES: Mapping[str, Axes] = {
    "fp32": {
        **_FLOAT,
        "weights": (("float32",), "fp32 is float32 throughout"),
        "activations": (("float32",), "fp32 is float32 throughout"),
    },
    "fp16": {
        **_FLOAT,
        "weights": (("float16",), "fp16 is float16 throughout"),
        "activations": (("float16",), "fp16 is float16 throughout"),
    },
    "bf16": {
        **_FLOAT,
        "weights": (("bfloat16",), "bf16 is bfloat16 throughout"),
        "activations": (("bfloat16",), "bf16 is bfloat16 throughout"),
    },
    "dynamic-int8": {
        **_COMMON,
        "weights": (("int8",), "this quantbench version builds quantize_dynamic with qint8 only"),
        "activations": (("uint8",), "the dynamic kernels quantize activations to uint8"),
        "scales": (("dynamic",), "quantize_dynamic finds activation scales at run time"),
        "granularity": (
            ("per-tensor", "per-channel"),
            "torch.ao has weight scales per tensor or per channel only",
        ),
        "symmetric_activations": ((False,), "the dynamic kernels choose a zero point themselves"),
        "calibrator": (("none",), "quantize_dynamic calibrates nothing"),
        "samples": ((0,), "quantize_dynamic calibrates nothing"),
        "fusion": ((True,), "quantize_dynamic fuses nothing, so there is nothing to switch off"),
        "route": (("eager",), "this quantbench version builds eager-mode quantize_dynamic only"),
    },
    "static-int8": {
        **_COMMON,
        "weights": (("int8",), "engine x86 has kernels for int8 weights only"),
        "activations": (
            ("uint8",),
            "engine x86 has kernels for uint8 activations only, and FX leaves layers in float "
            "for other dtypes",
        ),
        "scales": (("static",), "static-int8 fixes activation scales by calibration"),
        "granularity": (
            ("per-channel", "per-tensor"),
            "torch.ao has weight scales per tensor or per channel only",
        ),
        "calibrator": (
            ("histogram", "minmax", "moving-average"),
            "FX estimates static ranges with one of torch.ao's observers",
        ),
        "route": (("fx",), "this quantbench version builds FX graph mode only"),
    },
}
_NOT_BUILT: Mapping[str, str] = {
    "dynamic-int4": "torch.ao's quantize_dynamic has no int4 and leaves the layers in float; "
    "use dynamic-int8",
    "static-int16x8": "torch.ao has no int16 activations; use static-int8",
    "weight-only-int8": "this quantbench version does not build it for PyTorch; use dynamic-int8",
    "weight-only-int4": "this quantbench version does not build it for PyTorch; use dynamic-int8",
    "qat-int8": "this quantbench version does not train in PyTorch; use static-int8",
    "as-is": "a PyTorch model is built from its weights, not from a ready file; use fp32",
}


def refusal(model: Model, method: Method) -> str | None:
    """Why PyTorch cannot build ``model`` with ``method``, in one sentence, or None."""
    if "torch" not in model.forms:
        return f"model '{model.name}' has no torch form; use a backend that takes its other forms"
    if method.name not in _AXES:
        return _NOT_BUILT[method.name]
    if refused := first_refusal(method, _AXES[method.name]):
        return refused
    if method.is_float and not method.fusion and route(method) != "traced":
        return (
            f"the {route(method)} route runs the float modules as they are and fuses none before; "
            "use fusion: true, or route: traced, where freezing folds batch norm"
        )
    return _refuse_compilation(model) if route(method) == "compiled" else None


def route(method: Method) -> str:
    """The method's route, or PyTorch's default one where it names none."""
    return method.route or str(DEFAULTS[method.name]["route"])


def _refuse_compilation(model: Model) -> str | None:
    free = [spec.name for spec in model.inputs if None in spec.shape[1:]]
    if free:
        return f"inputs {free} have a free length, but code is compiled for one; use route: eager"
    return None
