"""The torch form of a model: its module with trained weights, and example inputs for it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from quantbench.backend_api import state_of
from quantbench.errors import BadInput
from quantbench.spec import Arrays, Model, TensorSpec, decode, encode
from quantbench.spec import matching as named
from quantbench.system import locate

FREE_LENGTH = 8
"""Length of example inputs along an axis that has no fixed one."""


def architecture(model: Model, form: str = "torch") -> nn.Module:
    """The module without trained weights, in evaluation mode."""
    module = locate(model.forms[form])()
    if not isinstance(module, nn.Module):
        raise BadInput(f"{model.forms[form]} returns no torch.nn.Module")
    return module.eval()


def trained(model: Model, form: str = "torch") -> nn.Module:
    """The module with the model's weights, in evaluation mode.

    Raises
    ------
    BadInput
        If a weight is not finite, or the weights do not fit the architecture.
    """
    state = state_of(model)
    module = architecture(model, form)
    try:
        module.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in state.items()})
    except RuntimeError as error:
        problem = " ".join(str(error).split())
        raise BadInput(f"weights of model '{model.name}' do not fit: {problem}") from error
    return module


def layers(module: nn.Module) -> tuple[str, ...]:
    """Paths of the submodules that own a parameter of two axes or more."""
    return tuple(
        name
        for name, child in module.named_modules()
        if any(p.ndim > 1 for p in child.parameters(recurse=False))
    )


def matching(axis: str, patterns: Iterable[str], module: nn.Module) -> tuple[str, ...]:
    """The layers of a module that an axis names; raises `BadInput` where there are none."""
    return named(axis, patterns, layers(module))


def stored(spec: TensorSpec) -> TensorSpec:
    """The tensor as a torch module takes it: images with channels first."""
    if spec.layout != "NHWC":
        return spec
    n, h, w, c = spec.shape
    return TensorSpec(spec.name, (n, c, h, w), spec.dtype, "NCHW")


def tensors(model: Model, arrays: Arrays) -> tuple[Tensor, ...]:
    """The arrays of a batch as the module's arguments."""
    return tuple(
        torch.from_numpy(np.array(encode(arrays[spec.name], spec, stored(spec))))
        for spec in model.inputs
    )


def examples(model: Model, batch_size: int, precision: torch.dtype) -> tuple[Tensor, ...]:
    """Arguments of the right shapes and dtypes: seeded normal floats, zeros for integers."""
    generator = torch.Generator().manual_seed(batch_size)
    arguments = []
    for spec in map(stored, model.inputs):
        shape = (batch_size, *(FREE_LENGTH if n is None else n for n in spec.shape[1:]))
        example = torch.zeros(shape, dtype=getattr(torch, spec.dtype))
        if example.is_floating_point():
            example = torch.randn(shape, generator=generator).to(precision)
        arguments.append(example)
    return tuple(arguments)


def arrays(model: Model, outputs: Tensor | Iterable[Tensor]) -> Arrays:
    """A module's outputs as the task sees them, by name."""
    results = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    return {
        spec.name: decode(result.detach().float().numpy(), spec, stored(spec))
        for spec, result in zip(model.outputs, results, strict=True)
    }
