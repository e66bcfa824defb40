"""Method: what is quantized and how, in words that every framework shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbench.errors import BadInput, did_you_mean
from quantbench.spec.status import Division

# The values each axis may take. A backend refuses, with a reason, those it does not have.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "weights": ("float32", "float16", "bfloat16", "int8", "int4", "nf4"),
    "activations": (
        "float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int4", "uint4",
    ),
    "io": ("float32", "int8", "uint8"),
    "scales": ("none", "dynamic", "static"),
    "granularity": ("none", "per-tensor", "per-channel", "group"),
    "calibrator": (
        "none", "minmax", "moving-average", "histogram", "percentile", "entropy", "mse", "mean-std",
    ),
    "ranges": ("native", "injected"),
    "parts": ("both", "weights", "activations"),
    "training": ("ptq", "qat", "finetune"),
    "optimizer": ("none", "sgd", "adam"),
    "schedule": ("none", "constant", "linear", "cosine"),
    "augmentation": ("none", "flip", "crop-flip"),
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
    percentile, sigmas : float
        Of calibrator ``percentile``: how much of the values is inside, both sides together, in
        percent. Of ``mean-std``: how many standard deviations on each side of the mean. 0 where the
        calibrator has no such setting, or for its default.
    ranges : str
        ``native`` (the framework's own calibrator) or ``injected`` (estimated by the harness).
    samples : int
        Calibration samples, chosen by ``seed``; 0 where nothing is calibrated.
    fusion : bool
        Whether modules are fused and batch norm folded before quantization.
    route : str
        Which of a framework's ways to the same method (``eager``, ``traced``, ``compiled``, ``fx``,
        ``qdq``, ``keras``...).
    keep_float : tuple of str
        Canonical layer names (or ``*`` patterns) left in float.
    only : tuple of str
        Canonical layer names (or patterns): nothing else is quantized, neither other layers nor what
        lies between. Empty for everything. What a sensitivity analysis is made of.
    parts : str
        Of what is quantized: ``both`` weights and activations, or one alone. One alone is executed
        by no kernel, and so ``simulated``.
    int4_weights, int4_activations : tuple of str
        Layer names (or patterns) whose weights, or whose outputs, get 4 bits instead of what
        ``weights`` and ``activations`` say: mixed precision.
    training : str
        ``ptq`` (none), ``qat`` (with fake quantization) or ``finetune`` (in float, the control).
    epochs, batch_size, train_samples : int
        How long, how many at a time, and how many training samples (chosen by ``seed``; 0: all).
    optimizer, learning_rate, schedule : str, float, str
        ``sgd`` has momentum 0.9. The schedule runs from ``learning_rate`` over all steps:
        ``constant``, ``linear`` to 0 or ``cosine`` to 0.
    augmentation : str
        ``flip`` (images left to right) or ``crop-flip`` (padded by 4, cropped, flipped), seeded.
    freeze_batchnorm : int
        The epoch, from 0, from which batch-norm statistics are frozen; ``epochs`` for never.
    learned_scales : bool
        Whether QAT trains the scales too (LSQ).
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
    sigmas: float = 0.0
    ranges: str = "native"
    samples: int = 0
    fusion: bool = True
    route: str = ""
    keep_float: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    parts: str = "both"
    int4_weights: tuple[str, ...] = ()
    int4_activations: tuple[str, ...] = ()
    training: str = "ptq"
    epochs: int = 0
    batch_size: int = 0
    train_samples: int = 0
    optimizer: str = "none"
    learning_rate: float = 0.0
    schedule: str = "none"
    augmentation: str = "none"
    freeze_batchnorm: int = 0
    learned_scales: bool = False
    seed: int = 0

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized to integers."""
        return self.scales == "none" and self.weights.startswith(("float", "bfloat"))

    @property
    def division(self) -> Division | None:
        """What it makes an artifact from; None of a file that was ready: nobody says how it was made."""
        return division_of(self.name, self.training)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it back."""
        return {**dataclasses.asdict(self), **{name: list(getattr(self, name)) for name in LISTS}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Method:
        """The inverse of `to_json`."""
        return cls(**{**data, **{name: tuple(data[name]) for name in LISTS}})


AS_IS = "as-is"
"""The preset of files that are run as they are."""


def division_of(name: str, training: str) -> Division | None:
    """The division of a method that started from the preset ``name``; ``training``: of its axes."""
    if name == AS_IS:
        return None
    return Division.CLOSED if training == "ptq" else Division.OPEN


# axes whose value is itself a list: of layer names
LISTS = ("keep_float", "only", "int4_weights", "int4_activations")
# axes that say how a model is trained, with what they are where an experiment trains and says no more
RECIPE: Mapping[str, Any] = {
    "epochs": 1,
    "batch_size": 64,
    "train_samples": 0,
    "optimizer": "sgd",
    "learning_rate": 0.005,
    "schedule": "cosine",
    "augmentation": "none",
    "freeze_batchnorm": 0,
}

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
    "qat-int8": {**_STATIC, "training": "qat"},
    AS_IS: {},
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
    if axes.get("training", "ptq") != "ptq":
        axes = {**RECIPE, **axes}
    for axis, value in axes.items():
        check_axis(axis, value)
    axes |= {axis: tuple(axes[axis]) for axis in LISTS if axis in axes}
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
