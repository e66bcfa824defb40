"""The user's own Keras models and TFLite files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from quantbench.errors import BadInput
from quantbench.experiment import OUTPUTS
from quantbench.spec import Arrays, TensorSpec
from quantbench.system import write_json


def keras(source: str, state: Arrays) -> Any:
    """The Keras model of a ``.keras`` or ``.h5`` file or a SavedModel folder; ``state`` is empty.

    Raises
    ------
    BadInput
        If it cannot be read without running code from it, and the file is not trusted.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    from tf_keras.models import load_model

    asked = json.loads(source)
    try:
        return load_model(asked["keras"], compile=False, safe_mode=not asked.get("trust"))
    except Exception as error:  # Keras raises what its layers raise
        reason = " ".join(str(error).split())[:240]
        raise BadInput(
            f"{asked['keras']} is no model that tf_keras reads ({reason}); models of Keras 3 are "
            "saved for it by model.export or as .h5"
        ) from error


def outputs(source: str, folder: Path) -> Path:
    """Write what a model's outputs look like."""
    asked = json.loads(source)
    if "tflite" in asked:
        from ai_edge_litert.interpreter import Interpreter

        made = Interpreter(model_path=asked["tflite"], num_threads=1)
        found = [(d["name"], d["shape"][1:].tolist()) for d in made.get_output_details()]
    else:
        model = keras(source, {})
        shapes = (tensor.shape[1:] for tensor in model.outputs)
        found = list(zip(model.output_names, map(list, shapes), strict=True))
    told = [TensorSpec(name, (None, *shape), "float32").to_json() for name, shape in found]
    write_json(folder / OUTPUTS, told)
    return folder / OUTPUTS
