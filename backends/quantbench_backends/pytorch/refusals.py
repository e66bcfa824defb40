"""Refusals: which values of each axis PyTorch's methods take by route, and why not the others."""

from __future__ import annotations

from collections.abc import Mapping

from quantbench.backend_api import FLOAT, Axes, first_refusal, missing_packages
from quantbench.spec import Method, Model
from quantbench_backends.pytorch import DEFAULTS, routes

_IO: Axes = {
    "io": (("float32",), "this quantbench version builds PyTorch models with float inputs only"),
}
_NOTHING_STATIC = "this method has no static ranges"
_COMMON: Axes = {
    **_IO,
    "ranges": (("native",), _NOTHING_STATIC),
    "percentile": ((0.0,), _NOTHING_STATIC),
    "sigmas": ((0.0,), _NOTHING_STATIC),
    "only": (((),), "this quantbench version singles out layers of static-int8 only"),
    "parts": (("both",), "this quantbench version takes static-int8 apart only"),
}
_NOT_TRAINED: Axes = {
    "training": (("ptq",), "this is post-training quantization"),
    "learned_scales": ((False,), "scales are learned in training only"),
}
_NOTHING_NARROW: Axes = {
    "int4_weights": (((),), "this quantbench version has no 4-bit layers on this route"),
    "int4_activations": (((),), "this quantbench version has no 4-bit layers on this route"),
}
_NOTHING_CALIBRATED: Axes = {
    "calibrator": (("none",), "this method calibrates nothing"),
    "samples": ((0,), "this method calibrates nothing"),
}
_NO_GROUPS: Axes = {
    "group_size": ((0,), "torch.ao has no groups of weights"),
    "granularity": (
        ("per-channel", "per-tensor"),
        "torch.ao has weight scales per tensor or per channel only",
    ),
}
_FLOAT: Axes = {
    **FLOAT,
    **_COMMON,
    "only": (((),), "a float method leaves every layer in float"),
    "parts": (("both",), "a float method leaves every layer in float"),
    "training": (("ptq", "finetune"), "a float method rounds nothing"),
    "learned_scales": ((False,), "a float method has no scales"),
    "group_size": ((0,), "a float method has no scales"),
    "keep_float": (((),), "a float method leaves every layer in float"),
    "int4_weights": (((),), "a float method leaves every layer in float"),
    "int4_activations": (((),), "a float method leaves every layer in float"),
}
_TORCH_AO: Axes = {
    **_IO,
    **_NO_GROUPS,
    "weights": (("int8", "int4"), "torch.ao's static quantization rounds weights to integers"),
    "activations": (
        ("uint8", "uint4"),
        "engine x86 has kernels for uint8 activations only, and leaves layers in float for other "
        "dtypes",
    ),
    "scales": (("static",), "this method has static activation scales"),
}
_PT2E: Axes = {
    **_IO,
    **_NOTHING_NARROW,
    "weights": (("int8",), "this quantbench version lowers int8 weights to oneDNN only"),
    "activations": (("uint8",), "this quantbench version lowers uint8 activations only"),
    "scales": (("static",), "this method has static activation scales"),
    "granularity": (
        ("per-channel",),
        "torchao's X86InductorQuantizer gives weights one scale per channel",
    ),
    "group_size": ((0,), "torchao's X86InductorQuantizer gives weights one scale per channel"),
    "symmetric_weights": (
        (True,),
        "torchao's X86InductorQuantizer fixes the zero point of weights at 0",
    ),
    "symmetric_activations": (
        (False,),
        "this quantbench version leaves torchao's activations their zero points",
    ),
    "fusion": ((True,), "prepare_pt2e always folds batch norm"),
    "learned_scales": ((False,), "torchao's fake quantization learns no scales"),
}
_LINEAR: Axes = {
    **_COMMON,
    **_NOT_TRAINED,
    **_NOTHING_CALIBRATED,
    "fusion": ((True,), "quantizing linear layers fuses nothing, so nothing can be switched off"),
    "int4_activations": (((),), "this quantbench version has no 4-bit layers on this route"),
}
_TORCHAO: Axes = {
    **_LINEAR,
    "symmetric_activations": ((False,), "this method does not calibrate activations"),
    "activations": (("float32",), "weights alone are quantized"),
    "scales": (("none",), "weights alone are quantized"),
}
_BITSANDBYTES: Axes = {
    **_TORCHAO,
    "symmetric_weights": ((True,), "bitsandbytes fixes the zero point of weights at 0"),
    "int4_weights": (((),), "this quantbench version gives bitsandbytes one format for a model"),
}
_DYNAMIC: Axes = {
    **_COMMON,
    **_NOT_TRAINED,
    **_NOTHING_CALIBRATED,
    **_NO_GROUPS,
    **_NOTHING_NARROW,
    "weights": (("int8",), "this quantbench version builds dynamic quantization with int8 only"),
    "activations": (("uint8",), "the dynamic kernels quantize activations to uint8"),
    "scales": (("dynamic",), "dynamic quantization finds activation scales at run time"),
    "symmetric_activations": ((False,), "the dynamic kernels choose a zero point themselves"),
    "fusion": ((True,), "quantize_dynamic fuses nothing, so there is nothing to switch off"),
}
_OWN_CALIBRATORS = ("histogram", "minmax", "moving-average")
_HARNESS_CALIBRATORS = ("minmax", "moving-average", "percentile", "entropy", "mse", "mean-std")
_TRAINING: Axes = {
    "training": (("qat",), "qat-int8 is trained with fake quantization"),
    "calibrator": (
        ("moving-average", "minmax"),
        "this quantbench version trains with running minima and maxima only",
    ),
    "ranges": (("native",), "training with fake quantization goes on to adapt the ranges itself"),
    "percentile": ((0.0,), "training with fake quantization goes on to adapt the ranges itself"),
    "sigmas": ((0.0,), "training with fake quantization goes on to adapt the ranges itself"),
    "only": (((),), "this quantbench version singles out layers of static-int8 only"),
    "parts": (("both",), "this quantbench version takes static-int8 apart only"),
}
_STUBS_ONLY = "eager mode has floats only outside the stubs that the model itself places"
_EAGER: Axes = {"keep_float": (((),), _STUBS_ONLY), "only": (((),), _STUBS_ONLY)}
_BY_ROUTE: Mapping[tuple[str, str], Axes] = {
    **{
        (name, route): {
            **_FLOAT,
            "weights": ((dtype,), f"{name} is {dtype} throughout"),
            "activations": ((dtype,), f"{name} is {dtype} throughout"),
        }
        for name, dtype in (("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16"))
        for route in ("eager", "traced", "compiled", *(["stubs"] if name == "fp32" else []))
    },
    ("dynamic-int8", "eager"): _DYNAMIC,
    ("dynamic-int8", "fx"): _DYNAMIC,
    **{
        ("dynamic-int8", route): {
            **_LINEAR,
            **_NOTHING_NARROW,
            "weights": (("int8",), "this quantbench version builds dynamic quantization with int8 only"),
            "activations": (
                ("uint8",),
                "torchao's activations are unsigned with a zero point on the CPU",
            ),
            "scales": (("dynamic",), "dynamic quantization finds activation scales at run time"),
            "granularity": (
                ("per-channel",),
                "this quantbench version builds torchao's default, one weight scale per channel",
            ),
            "group_size": (
                (0,),
                "this quantbench version builds torchao's default, one weight scale per channel",
            ),
            "symmetric_weights": ((True,), "torchao fixes the zero point of int8 weights at 0"),
            "symmetric_activations": (
                (False,),
                "torchao's activations are unsigned with a zero point on the CPU",
            ),
        }
        for route in ("torchao", "torchao-compiled")
    },
    ("static-int8", "fx"): {**_TORCH_AO, **_NOT_TRAINED},
    ("static-int8", "eager"): {**_TORCH_AO, **_NOT_TRAINED, **_EAGER},
    ("static-int8", "pt2e"): {
        **_PT2E,
        **_NOT_TRAINED,
        "parts": (
            ("both",),
            "this quantbench version takes apart what torch.ao's routes build, fx and eager",
        ),
    },
    ("qat-int8", "fx"): {**_TORCH_AO, **_TRAINING},
    ("qat-int8", "eager"): {**_TORCH_AO, **_TRAINING, **_EAGER},
    ("qat-int8", "pt2e"): {**_PT2E, **_TRAINING},
    **{
        ("weight-only-int8", route): {
            **_TORCHAO,
            "weights": (("int8",), "weight-only-int8 has int8 weights"),
            "granularity": (
                ("per-channel", "group"),
                "this quantbench version has torchao's scales per channel and per group only",
            ),
            "symmetric_weights": ((True,), "torchao fixes the zero point of int8 weights at 0"),
        }
        for route in ("torchao", "torchao-compiled")
    },
    ("weight-only-int8", "bitsandbytes"): {
        **_BITSANDBYTES,
        "weights": (("int8",), "weight-only-int8 has int8 weights"),
        "granularity": (("per-channel",), "bitsandbytes has one scale per channel for int8"),
        "group_size": ((0,), "bitsandbytes has one scale per channel for int8"),
    },
    **{
        ("weight-only-int4", route): {
            **_TORCHAO,
            "weights": (("int4",), "this quantbench version builds torchao's int4 only"),
            "granularity": (("group",), "torchao's CPU kernel for int4 takes groups of weights"),
            "group_size": ((32, 64, 128, 256), "torchao's CPU kernel for int4 takes groups of such sizes"),
            "symmetric_weights": (
                (False,),
                "torchao's CPU kernel for int4 has a zero point in every group",
            ),
            "int4_weights": (((),), "every weight has 4 bits"),
        }
        for route in ("torchao", "torchao-compiled")
    },
    ("weight-only-int4", "bitsandbytes"): {
        **_BITSANDBYTES,
        "weights": (("nf4",), "this quantbench version builds bitsandbytes' nf4 only"),
        "granularity": (("group",), "bitsandbytes' 4-bit formats have blocks of weights"),
        "group_size": ((64,), "this quantbench version builds bitsandbytes' default blocks of 64"),
    },
}  # fmt: skip
_NOT_BUILT: Mapping[str, str] = {
    "dynamic-int4": "torchao's kernel for 4-bit weights and dynamic activations on the CPU, "
    "da8w4_linear_cpu, is not in its wheel; use weight-only-int4",
    "static-int16x8": "PyTorch has no int16 activations; use static-int8",
    "as-is": "a PyTorch model is built from its weights, not from a ready file; use fp32",
}


_JUDGED = (
    "fusion", "symmetric_weights", "symmetric_activations", "keep_float", "only", "parts", "calibrator",
    "percentile", "sigmas", "ranges", "samples", "int4_weights", "int4_activations", "learned_scales",
    "group_size",
)  # fmt: skip
"""Axes that are free on some route, or that the code below judges."""


def refusal(model: Model, method: Method) -> str | None:
    """Why PyTorch cannot build ``model`` with ``method``, in one sentence, or None."""
    if "torch" not in model.forms:
        return f"model '{model.name}' has no torch form; use a backend that takes its other forms"
    if method.name in _NOT_BUILT:
        return _NOT_BUILT[method.name]
    built = [r for name, r in _BY_ROUTE if name == method.name]
    if route(method) not in built:
        return (
            f"route is {method.route}, but PyTorch builds {method.name} in other ways; "
            f"use route: {' or '.join(built)}"
        )
    if refused := first_refusal(method, _BY_ROUTE[method.name, route(method)], _JUDGED):
        return refused
    static = method.scales == "static" and method.training == "ptq"
    if static and (refused := _refuse_ranges(method)):
        return refused
    stored = routes.named(route(method)).suffix(method)
    if method.is_float and not method.fusion and stored == routes.WEIGHTS:
        return (
            f"the {route(method)} route runs the float modules as they are and fuses none before; "
            "use fusion: true, or route: traced, where freezing folds batch norm"
        )
    narrow = method.weights == "int4" or method.int4_weights
    if narrow and not method.symmetric_weights and method.scales == "static":
        return (
            "this quantbench version holds 4-bit weights of torch.ao around zero only; "
            "use symmetric_weights: true"
        )
    if method.learned_scales and method.symmetric_activations:
        return (
            "symmetric_activations is true, but PyTorch's learned scales then lose the zero point "
            "of unsigned activations; use symmetric_activations: false"
        )
    return _refuse_form(model, method)


def _refuse_ranges(method: Method) -> str | None:
    """Why the ranges of activations cannot be found as the method says, or None."""
    injected = method.ranges == "injected"
    known = _HARNESS_CALIBRATORS if injected else _OWN_CALIBRATORS
    if method.calibrator not in known and injected:
        return (
            f"calibrator is {method.calibrator}, but this quantbench version estimates injected "
            f"ranges in other ways; use calibrator: {' or '.join(known)}, or ranges: native"
        )
    if method.calibrator not in known:
        other = ", or ranges: injected" if method.calibrator in _HARNESS_CALIBRATORS else ""
        return (
            f"calibrator is {method.calibrator}, but it is not one of torch.ao's observers, which "
            f"estimate native ranges; use calibrator: {' or '.join(known)}{other}"
        )
    for axis, calibrator in (("percentile", "percentile"), ("sigmas", "mean-std")):
        value = getattr(method, axis)
        if value and method.calibrator != calibrator:
            return (
                f"{axis} is {value}, but calibrator {method.calibrator} has no such setting in "
                f"PyTorch; use calibrator: {calibrator} with ranges: injected, or {axis}: 0"
            )
    return None


def _refuse_form(model: Model, method: Method) -> str | None:
    own = route(method)
    if form_of(method) not in model.forms:
        return (
            f"model '{model.name}' has no 'torch-eager' form with stubs, where eager mode begins "
            f"and ends; use route: {'eager' if method.is_float else 'fx'}"
        )
    if own == "bitsandbytes" and missing_packages(("bitsandbytes",)):
        return (
            "bitsandbytes is not installed; use route: torchao, "
            "or pip install 'quantbench[bitsandbytes]'"
        )
    free = [spec.name for spec in model.inputs if None in spec.shape[1:]]
    if free and routes.named(own).compiled:
        return f"inputs {free} have a free length, but code is compiled for one; use route: eager"
    return None


def route(method: Method) -> str:
    """The method's route, or PyTorch's default one where it names none."""
    return method.route or str(DEFAULTS[method.name]["route"])


def form_of(method: Method) -> str:
    """The form that the method's route starts from."""
    stubs = route(method) == ("stubs" if method.is_float else "eager")
    return "torch-eager" if stubs and method.scales != "dynamic" else "torch"
