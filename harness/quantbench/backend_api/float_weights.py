"""Weights: a model's float weights by canonical name, as they came or as a finetune left them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quantbench.errors import BadInput
from quantbench.spec import Arrays, Model
from quantbench.system import locate

FINETUNED = "weights.safetensors"


def state_of(model: Model) -> Arrays:
    """Float weights by canonical name.

    Those that a finetune left in ``model.trained`` where it names them canonically, else the
    model's own: a QAT keeps its state in files of its own.

    Raises
    ------
    BadInput
        If a weight holds NaN or infinity.
    DataMissing
        If the weights file is absent.
    """
    finetuned = Path(model.trained) / FINETUNED
    if model.trained and finetuned.exists():
        from safetensors.numpy import load_file

        state: Arrays = load_file(finetuned)
    elif not model.state:
        return {}
    else:
        state = locate(model.state)(locate(model.weights)())
    check_finite(f"weights of model '{model.name}'", state)
    return state


def weights_by_layer(model: Model) -> Arrays:
    """The float weights of two axes and more (no batch norm, no biases) by layer."""
    return {
        name.removesuffix(".weight"): array
        for name, array in state_of(model).items()
        if array.ndim > 1 and "weight" in name.rpartition(".")[2]
    }


def check_finite(what: str, arrays: Arrays) -> None:
    """Raise `BadInput` where a float array holds NaN or infinity."""
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise BadInput(f"{what}: '{name}' holds NaN or infinity; replace it with finite values")
