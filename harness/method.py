"""Method: what is quantized and how, in words that every framework shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import BadInput, did_you_mean

# The values each axis may take. A backend refuses, with a reason, those it does not have.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "weights": ("float32", "float16", "bfloat16", "int8", "int4"),
    "activations": ("float32", "float16", "bfloat16", "int8", "uint8", "int16"),
    "io": ("float32", "int8", "uint8"),
    "scales": ("none", "dynamic", "static"),
    "granularity": ("none", "per-tensor", "per-channel", "group"),
    "calibrator": (
        "none", "minmax", "moving-average", "histogram", "percentile", "entropy", "mse", "mean-std",
    ),
    "ranges": ("native", "injected"),
    "training": ("ptq", "qat", "finetune"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Method:
    """One point in the space of quantization methods.

    Parameters
    ----------
    name : str
        The preset it started from.
    weights, activations, io : str
        Stored dtype of weights, of activations, and of the artifact's inputs and outputs.
    scales : str
        ``none`` (no integers), ``dynamic`` (activation scales found at run time) or ``static``.
    granularity : str
        One weight scale ``per-tensor``, ``per-channel``, or per ``group`` of ``group_size``.
    symmetric_weights, symmetric_activations : bool
        Whether the zero point is 0.
    calibrator : str
        How static ranges are estimated from calibration samples.
    ranges : str
        ``native`` (the framework's own calibrator) or ``injected`` (estimated by the harness).
    samples : int
        Calibration samples, chosen by ``seed``; 0 where nothing is calibrated.
    fusion : bool
        Whether modules are fused and batch norm folded before quantization.
    route : str
        Which of a framework's ways to the same method (``eager``, ``traced``, ``compiled``, ``fx``,
        ``qdq``, ``keras``...).
    training : str
        ``ptq`` (none), ``qat`` or ``finetune``.
    keep_float : tuple of str
        Canonical layer names (or ``*`` patterns) left in float.
    seed : int
        Seeds the choice of calibration samples and any training.
    """

    name: str
    weights: str = "float32"
    activations: str = "float32"
    io: str = "float32"
    scales: str = "none"
    granularity: str = "none"
    group_size: int = 0
    symmetric_weights: bool = True
    symmetric_activations: bool = False
    calibrator: str = "none"
    percentile: float = 0.0
    ranges: str = "native"
    samples: int = 0
    fusion: bool = True
    route: str = ""
    training: str = "ptq"
    epochs: int = 0
    keep_float: tuple[str, ...] = ()
    seed: int = 0

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized to integers."""
        return self.scales == "none" and self.weights.startswith(("float", "bfloat"))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it back."""
        return {**dataclasses.asdict(self), "keep_float": list(self.keep_float)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Method:
        """The inverse of `to_json`."""
        return cls(**{**data, "keep_float": tuple(data["keep_float"])})


# name is the preset; seed comes from the experiment's list of seeds
AXES: tuple[str, ...] = tuple(
    f.name for f in dataclasses.fields(Method) if f.name not in ("name", "seed")
)

_STATIC: Mapping[str, Any] = {
    "weights": "int8",
    "activations": "int8",
    "scales": "static",
    "granularity": "per-channel",
    "calibrator": "minmax",
    "samples": 256,
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {},
    "fp16": {"weights": "float16", "activations": "float16"},
    "bf16": {"weights": "bfloat16", "activations": "bfloat16"},
    "dynamic-int8": {"weights": "int8", "scales": "dynamic", "granularity": "per-channel", "activations": "int8"},
    "dynamic-int4": {"weights": "int4", "scales": "dynamic", "granularity": "per-channel", "activations": "int8"},
    "static-int8": _STATIC,
    "static-int16x8": {**_STATIC, "activations": "int16", "symmetric_activations": True},
    "weight-only-int8": {"weights": "int8", "granularity": "per-channel"},
    "weight-only-int4": {"weights": "int4", "granularity": "group", "group_size": 32},
    "qat-int8": {**_STATIC, "training": "qat", "epochs": 1},
    "as-is": {},
}  # fmt: skip


def preset(name: str, overrides: Mapping[str, Any] | None = None, *, seed: int = 0) -> Method:
    """The preset ``name`` with some axes overridden.

    Raises
    ------
    BadInput
        For an unknown preset or axis, or a value of the wrong kind; says which is nearest.

    >>> preset("static-int8", {"granularity": "per-tensor"}).granularity
    'per-tensor'
    """
    if name not in PRESETS:
        raise BadInput(f"unknown method '{name}'.{did_you_mean(name, PRESETS)}")
    axes = {**PRESETS[name], **(overrides or {})}
    for axis, value in axes.items():
        check_axis(axis, value)
    if "keep_float" in axes:
        axes["keep_float"] = tuple(axes["keep_float"])
    return Method(name=name, seed=seed, **axes)


def check_axis(axis: str, value: Any) -> None:
    """Raise `BadInput` unless ``value`` is one that ``axis`` can take."""
    if axis not in AXES:
        raise BadInput(f"unknown axis '{axis}'.{did_you_mean(axis, AXES)}")
    kind = type(getattr(_EXAMPLE, axis))
    if kind is tuple:
        good = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    elif kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        good = type(value) is kind
    if not good:
        wanted = {"tuple": "a list of layer names", "str": "a word", "bool": "true or false"}
        raise BadInput(
            f"axis '{axis}' takes {wanted.get(kind.__name__, 'a number')}, not {value!r}"
        )
    if axis in CHOICES and value not in CHOICES[axis]:
        raise BadInput(
            f"axis '{axis}' takes one of {', '.join(CHOICES[axis])}, not '{value}'."
            f"{did_you_mean(value, CHOICES[axis])}"
        )
    if kind in (int, float) and value < 0:
        raise BadInput(f"axis '{axis}' takes a number of at least 0, not {value!r}")


_EXAMPLE = Method("fp32")
