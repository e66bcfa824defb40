"""Weights of the SavedModels, read once by TensorFlow and kept as safetensors."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors.numpy import save_file

from quantbench.errors import BadInput
from quantbench.spec import Array
from quantbench_experiments.models.mlperf import as_torch, file


def kws(folder: Path) -> Path:
    """Write the keyword spotter's weights by their torch names.

    Raises
    ------
    BadInput
        If TensorFlow, which alone reads this format, is not installed.
    """
    parts = (
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    )
    main, *_ = [file(f"kws/kws_ref_model/{part}") for part in parts]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise BadInput(
            "reading MLPerf Tiny's SavedModel needs TensorFlow; pip install 'quantbench[tflite]'"
        ) from error
    weights: dict[str, Array] = {}
    for variable in tf.saved_model.load(str(main.parent)).variables:
        layer, _, part = variable.name.partition("/")
        if layer.partition("_")[0] in ("conv2d", "batch", "depthwise", "dense"):
            weights |= as_torch(layer, part.partition(":")[0], variable.numpy())
    path = folder / "kws.safetensors"
    save_file({name: array.copy() for name, array in weights.items()}, path)
    return path
