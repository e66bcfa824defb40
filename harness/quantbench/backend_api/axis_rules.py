"""Axis rules: what each axis of a method can be in one framework, and the refusal of anything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from quantbench.spec import PRESETS, RECIPE, Method

# axis -> (the values that work, why the others do not)
Axes = Mapping[str, tuple[tuple[Any, ...], str]]

# true in every framework: a method without integers has nothing to scale or calibrate
FLOAT: Axes = {
    "scales": (("none",), "a float method has no scales"),
    "granularity": (("none",), "a float method has no scales"),
    "symmetric_weights": ((True,), "a float method has no zero points"),
    "symmetric_activations": ((False,), "a float method has no zero points"),
    "calibrator": (("none",), "a float method calibrates nothing"),
    "samples": ((0,), "a float method calibrates nothing"),
}


def first_refusal(method: Method, axes: Axes, judged: Collection[str] = ()) -> str | None:
    """Why an axis of ``method`` is not among the values in ``axes``, in one sentence, or None.

    Static scales without calibration samples, and a training recipe where nothing is trained (or
    none where something is), are refused too. An empty route is the default one. An axis that is
    neither in ``axes`` nor ``judged`` by the backend's own code is one that it does not know: it must
    be as the preset has it.

    >>> from quantbench.spec.method import preset
    >>> first_refusal(preset("fp32", {"granularity": "group"}), FLOAT)
    'granularity is group, but a float method has no scales; use granularity: none'
    """
    for axis, (allowed, why) in axes.items():
        value = getattr(method, axis)
        if value not in allowed and not (axis == "route" and not value):
            shown = [word(one) for one in allowed if one != "" or len(allowed) == 1]
            return f"{axis} is {word(value)}, but {why}; use {axis}: {' or '.join(shown)}"
    usual = {f.name: f.default for f in dataclasses.fields(method)} | dict(PRESETS[method.name])
    for axis in usual.keys() - {*axes, *judged, *RECIPE, "name", "seed", "training", "route"}:
        value = getattr(method, axis)
        if value != usual[axis]:
            return (
                f"{axis} is {word(value)}, and this backend does not know the axis; "
                f"use {axis}: {word(usual[axis])}"
            )
    if method.scales == "static" and method.samples == 0:
        return f"{method.name} needs calibration samples; use samples: 256"
    return _recipe(method)


def _recipe(method: Method) -> str | None:
    """Why the axes of training do not fit together, or None."""
    if method.training == "ptq":
        for axis in RECIPE:
            value = getattr(method, axis)
            if value not in (0, 0.0, "none"):
                return (
                    f"{axis} is {word(value)}, but nothing is trained; use training: qat or "
                    "finetune, or leave it out"
                )
        return None
    if (method.training == "finetune") != method.is_float:
        return f"training is {method.training}, but {method.name} is " + (
            "a float method; use training: finetune"
            if method.is_float
            else "not; use training: qat, or fp32 with training: finetune"
        )
    for axis, least in (("epochs", "1"), ("batch_size", "64"), ("learning_rate", "0.005")):
        if not getattr(method, axis):
            return f"{axis} is 0, so that nothing would be trained; use {axis}: {least}"
    for axis, usual in (("optimizer", "sgd"), ("schedule", "cosine")):
        if getattr(method, axis) == "none":
            return f"{axis} is none, but something is trained; use {axis}: {usual}"
    return None


def word(value: Any) -> str:
    """An axis value as it is written in an experiment.

    >>> word(True), word(("conv1", "fc")), word("")
    ('true', '[conv1, fc]', 'no route')
    """
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    if value == "":
        return "no route"
    return str(value).lower() if isinstance(value, bool) else str(value)
