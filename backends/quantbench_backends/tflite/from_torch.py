"""The converter from a model's torch form to a float TFLite file, by litert-torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import litert_torch
import numpy as np
import torch
from torch import Tensor, nn

from quantbench.backend_api import state_of
from quantbench.errors import BadInput
from quantbench.spec import Model, TensorSpec
from quantbench.system import locate
from quantbench_backends.tflite.dynamic_batch import for_any_batch

FILE = "model.tflite"
EXAMPLE_LENGTH = 8


def convert(model: Model, folder: Path) -> Path:
    """Convert the torch form with its weights to ``folder/model.tflite``.

    Inputs and outputs keep the module's order and layout (channels first), as `litert_torch.convert`
    leaves them. It is converted for one sample: litert-torch 0.10 fails on a linear layer of a free
    batch. A session resizes it, for which no constant may hold the batch.

    Raises
    ------
    BadInput
        If the weights do not fit the torch form, or litert-torch cannot convert it.
    """
    module = _load(model)
    examples = tuple(_example(spec) for spec in model.inputs)
    path = folder / FILE
    litert_torch.config.show_progress = False
    with torch.no_grad(), warnings.catch_warnings():
        # torch.export warns of what it will do differently in a later version
        warnings.simplefilter("ignore")
        try:
            litert_torch.convert(module, examples).export(str(path))
        except Exception as error:
            # torch.export, JAX and MLIR raise what they like
            reason = " ".join(str(error).split())[:300]
            raise BadInput(
                f"litert-torch cannot convert the torch form of model '{model.name}' ({reason}); "
                "use route: keras"
            ) from error
    path.write_bytes(for_any_batch(path.read_bytes()))
    return path


def _load(model: Model) -> nn.Module:
    module: nn.Module = locate(model.forms["torch"])()
    tensors = {name: torch.from_numpy(np.array(a)) for name, a in state_of(model).items()}
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"weights of model '{model.name}' do not fit its torch form: {reason}"
        ) from error
    return module.eval()


def _example(spec: TensorSpec) -> Tensor:
    lengths = (EXAMPLE_LENGTH if length is None else length for length in spec.shape[1:])
    return torch.from_numpy(np.zeros((1, *lengths), spec.dtype))
