"""The converters from a model's torch form to a float ONNX file, by PyTorch's own exporter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from quantbench.backend_api import state_of
from quantbench.errors import BadInput
from quantbench.spec import Model, TensorSpec
from quantbench.system import locate

FILE = "model.onnx"
OPSET = 17
# 2, not 1: an axis of length 1 would be traced as one that broadcasts
EXAMPLE_BATCH = 2
EXAMPLE_LENGTH = 8


def convert(model: Model, folder: Path) -> Path:
    """Export the torch form with its weights to ``folder/model.onnx``.

    Inputs and outputs have the names of the model's, every free axis is dynamic, and the same model
    gives the same bytes. Batch norm is folded into convolutions by the exporter.

    Raises
    ------
    BadInput
        If a weight is not finite, or the weights do not fit the torch form.
    """
    return export(load(model), model, folder / FILE)


def convert_unfused(model: Model, folder: Path) -> Path:
    """The same as `convert`, with every batch norm a node of its own."""
    return export(load(model), model, folder / FILE, training=torch.onnx.TrainingMode.PRESERVE)


def export(module: nn.Module, model: Model, path: Path, **options: Any) -> Path:
    """Export a module that takes the model's inputs, by PyTorch's exporter with ``options``."""
    specs = (*model.inputs, *model.outputs)
    with torch.no_grad(), plain_attention(), warnings.catch_warnings():
        # dynamo=False needs no onnxscript and keeps module paths in node names
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Constant folding", category=UserWarning)
        # meant for modules in training mode
        warnings.filterwarnings("ignore", message="It is recommended that constant folding")
        # torch's own layers check shapes while they are traced
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.")
        # recurrent layers take their first state from the input, so that the batch stays dynamic
        warnings.filterwarnings("ignore", message="Exporting a model to ONNX with a batch_size")
        torch.onnx.export(
            module,
            tuple(example(spec) for spec in model.inputs),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[spec.name for spec in model.inputs],
            output_names=[spec.name for spec in model.outputs],
            dynamic_axes={spec.name: free_axes(spec) for spec in specs},
            **options,
        )
    return path


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by its plain operators: the exporter knows no fused one."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def load(model: Model) -> nn.Module:
    """The torch form with the model's weights, in evaluation mode."""
    module: nn.Module = locate(model.forms["torch"])()
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state_of(model).items()}
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"weights of model '{model.name}' do not fit its torch form: {reason}"
        ) from (error)
    return module.eval()


def example(spec: TensorSpec) -> Tensor:
    """Zeros of the input's dtype, with some length for every free axis."""
    lengths = (EXAMPLE_LENGTH if length is None else length for length in spec.shape[1:])
    return torch.from_numpy(np.zeros((EXAMPLE_BATCH, *lengths), spec.dtype))


def free_axes(spec: TensorSpec) -> dict[int, str]:
    """The axes without a length, each with a name for its dimension in the file."""
    return {
        axis: f"{spec.name}_{axis}" if axis else "batch"
        for axis, length in enumerate(spec.shape)
        if length is None
    }
