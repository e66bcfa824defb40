"""Stored: float weights of the models that were trained here, as safetensors files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quantbench.spec import Array


def state(path: Path) -> dict[str, Array]:
    """Weights by torch name, float32."""
    from safetensors.numpy import load_file

    return {name: np.asarray(array) for name, array in load_file(path).items()}
