"""Torch forms of the probe's models for eager mode: integers begin before the first layer.

Where a layer has no integer kernel, conversion or the run fails: that is what the probe is to show.
"""

from __future__ import annotations

from typing import Any

import torch.ao.quantization as ao
from torch import Tensor, nn

from quantbench_experiments.models.probe import torch_form


class Stubs(nn.Module):
    """A model between a stub that quantizes and one that dequantizes."""

    joined: tuple[tuple[str, ...], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.quantize, self.dequantize = ao.QuantStub(), ao.DeQuantStub()

    def forward(self, given: Tensor) -> Tensor:
        """As the torch form."""
        logits: Tensor = self.dequantize(super().forward(self.quantize(given)))
        return logits

    def fuse_model(self, *, is_qat: bool) -> None:
        """Join the layers that have kernels together."""
        fuse: Any = ao.fuse_modules_qat if is_qat else ao.fuse_modules
        fuse(self, [list(names) for names in self.joined], inplace=True)


class Convolution(Stubs, torch_form.Convolution):
    """Quantizable `torch_form.Convolution`."""

    joined = (("first", "relu1"), ("second", "relu2"))


class Linear(Stubs, torch_form.Linear):
    """Quantizable `torch_form.Linear`."""

    joined = (("first", "relu1"), ("second", "relu2"))


class Lstm(Stubs, torch_form.Lstm):
    """Quantizable `torch_form.Lstm`."""

    joined = (("second", "relu"),)


class Attention(Stubs, torch_form.Attention):
    """Quantizable `torch_form.Attention`."""

    joined = (("second", "relu"),)


def convolution() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode; likewise the others."""
    return Convolution().eval()


def linear() -> nn.Module:
    """See `convolution`."""
    return Linear().eval()


def lstm() -> nn.Module:
    """See `convolution`."""
    return Lstm().eval()


def attention() -> nn.Module:
    """See `convolution`."""
    return Attention().eval()
