"""The PyTorch backend passes the conformance suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.registry import backend
from harness.target import Target, no_gpu, presets
from tests.backends.conformance import Cell, Conformance, NotBuilt, Refusal, grid
from tests.backends.samples import SAMPLES, state, weights

torch = pytest.importorskip("torch")
pytestmark = [
    # the attempts call what the backend calls, where it silences them
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning"),
]

CONVOLUTIONS = {
    "conv": None,
    "depthwise": ("stem", "depth", "point"),
    "residual": None,
    "concat": None,
    "pair": ("look",),
    "larger": ("conv1", "conv2", "conv3", "conv4"),
}


# --- attempts: torch.ao without this project's code ----------------------------------------------


def ao() -> Any:
    import torch.ao.quantization

    return torch.ao.quantization


def dynamic(dtype: Any) -> Any:
    return ao().quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(8, 8)), dtype=dtype)


def dynamic_with_activations(dtype: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    module, x = torch.nn.Sequential(torch.nn.Linear(8, 8)), torch.randn(4, 8)
    activation = ao().PlaceholderObserver.with_args(dtype=dtype, is_dynamic=True, **options)
    qconfig = ao().QConfig(activation=activation, weight=ao().default_weight_observer)
    return ao().quantize_dynamic(module, {torch.nn.Linear: qconfig})(x)


def ignored(dtype: Any, **options: Any) -> bool:
    """Whether quantize_dynamic gives what it gives for its default, uint8."""
    return torch.equal(
        dynamic_with_activations(dtype, **options), dynamic_with_activations(torch.quint8)
    )


def quantized_layers(activation: Any = None, weight: Any = None, calibrate: bool = True) -> int:
    """How many of the two layers FX graph mode converts with these observers."""
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    chosen = ao().QConfig(
        activation=activation or ao().MinMaxObserver.with_args(dtype=torch.quint8),
        weight=weight or ao().default_weight_observer,
    )
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    x = torch.randn(2, 3, 8, 8)
    prepared = prepare_fx(module, ao().QConfigMapping().set_global(chosen), (x,))
    if calibrate:
        prepared(x)
    converted = convert_fx(prepared)
    converted(x)
    return sum(hasattr(child, "_packed_params") for child in converted.children()) + sum(
        hasattr(child, "_weight_bias") for child in converted.children()
    )


def observer(dtype: Any, **options: Any) -> Any:
    return ao().MinMaxObserver.with_args(dtype=dtype, **options)


def observers(word: str) -> list[str]:
    """torch.ao's observers that have a word in their name."""
    from torch.ao.quantization import observer

    return [n for n in dir(observer) if n.endswith("Observer") and word in n.lower()]
