"""Asking: every refusal of a backend, asked for in a process that imports nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from quantbench.backend_api import (
    Backend,
    Quantizer,
)
from quantbench.spec import (
    AXES,
    PRESETS,
    Method,
    preset,
)
from quantbench.spec.method import CHOICES
from quantbench.system import locate
from tests.backends.samples import SAMPLES

CALIBRATION = 32


def every_reason(backend: Backend) -> dict[str, str]:
    """Refusals of every preset, each with every value of every axis, as the backend gives them."""
    quantizer: Quantizer = locate(backend.quantizer)()
    values: dict[str, tuple[Any, ...]] = {
        **CHOICES,
        "group_size": (32,),
        "symmetric_weights": (True, False),
        "symmetric_activations": (True, False),
        "percentile": (99.9,),
        "sigmas": (3.0,),
        "samples": (0, 8),
        "fusion": (True, False),
        "route": (
            "eager",
            "traced",
            "compiled",
            "fx",
            "pt2e",
            "stubs",
            "torchao",
            "bitsandbytes",
            "qdq",
            "qoperator",
            "keras",
            "litert-keras",
            "litert-torch",
            "other",
        ),
        "epochs": (1,),
        "batch_size": (32,),
        "train_samples": (100,),
        "learning_rate": (0.1,),
        "freeze_batchnorm": (1,),
        "learned_scales": (True,),
        "keep_float": (("first",),),
        "only": (("first",),),
        "int4_weights": (("first",),),
        "int4_activations": (("first",),),
    }
    assert set(values) == set(AXES)
    reasons = {}
    for name in PRESETS:
        for axis, choices in values.items():
            for value in choices:
                method = method_of(backend, name, {axis: value})
                if reason := quantizer.refuse(SAMPLES["conv"].model, method):
                    reasons[f"{name} {axis}={value}"] = reason
    return reasons


def method_of(backend: Backend, name: str, axes: Mapping[str, Any]) -> Method:
    """A preset as the backend builds it where nobody says otherwise, but for ``axes``."""
    method = preset(name, backend.axes(name, axes))
    few = {"samples": CALIBRATION} if method.samples > CALIBRATION else {}
    if method.training != "ptq":
        few |= {"batch_size": CALIBRATION, "learning_rate": 1e-4}
    few = {axis: value for axis, value in few.items() if axis not in axes}
    return dataclasses.replace(method, **few)
