"""Observers: what finds the scales of weights and activations, and fake quantization with them."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization as ao
from torch import nn
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

from quantbench.spec import Method
from quantbench_backends.pytorch import form

# 7 bits, as in the engine's default: sums of two 8-bit products saturate int16 without VNNI.
# Its own way to say so, reduce_range, puts the zero point of symmetric ranges at 128, out of
# the 7 bits: measured on AVX2 kernels, 9 of 100 digits were then read wrongly.
ACTIVATIONS = {"uint8": (0, 127), "uint4": (0, 15)}
# 15 values of 4 bits, as many below 0 as above: the largest weight is then one of them. With 16 it
# is half a step beyond, which int8 storage, unlike 4 bits, does not cut off.
WEIGHTS = {"int8": (-128, 127), "int4": (-7, 7)}


def activation(method: Method, dtype: str, *, fake: bool) -> Any:
    """What estimates the static range of an activation; with ``fake`` it also rounds to it."""
    observer: Any = {
        "histogram": ao.HistogramObserver,
        "minmax": ao.MinMaxObserver,
        "moving-average": ao.MovingAverageMinMaxObserver,
    }["minmax" if method.ranges == "injected" else method.calibrator]
    low, high = ACTIVATIONS[dtype]
    symmetry = "symmetric" if method.symmetric_activations else "affine"
    options = {
        "dtype": torch.quint8,
        "qscheme": getattr(torch, f"per_tensor_{symmetry}"),
        "quant_min": low,
        "quant_max": high,
    }
    return _fake(observer, options) if fake else observer.with_args(**options)


def weight(method: Method, dtype: str, *, fake: bool) -> Any:
    """What finds the scales of a weight; with ``fake`` it also rounds to them."""
    per_channel = method.granularity == "per-channel"
    symmetry = "symmetric" if method.symmetric_weights else "affine"
    low, high = WEIGHTS[dtype]
    options: dict[str, Any] = {
        "dtype": torch.qint8,
        "qscheme": getattr(torch, f"per_{'channel' if per_channel else 'tensor'}_{symmetry}"),
        "quant_min": low,
        "quant_max": high,
    }
    if not fake:
        observer: Any = ao.PerChannelMinMaxObserver if per_channel else ao.MinMaxObserver
        return observer.with_args(**options)
    # the range of a weight is known at every step: an average over steps would only lag behind
    options["averaging_constant"] = 1.0
    return _fake(
        ao.MovingAveragePerChannelMinMaxObserver if per_channel else ao.MovingAverageMinMaxObserver,
        options,
    )


def _fake(observer: Any, options: dict[str, Any]) -> Any:
    # The fused kernel has another rule for symmetric ranges than the observer, whose scales the
    # conversion takes: measured, 1.2 points of accuracy lie between with 4-bit weights.
    symmetric = options["qscheme"] in (torch.per_tensor_symmetric, torch.per_channel_symmetric)
    fused = "MovingAverage" in observer.__name__ and not symmetric
    kind: Any = ao.FusedMovingAvgObsFakeQuantize if fused else ao.FakeQuantize
    return kind.with_args(observer=observer, **options)


def qconfig(method: Method, weights: str, activations: str, *, fake: bool) -> Any:
    """What torch.ao is told about one layer, its weights and its output."""
    return pair(activation(method, activations, fake=fake), weight(method, weights, fake=fake))


def pair(activation: Any, weight: Any) -> Any:
    """A ``QConfig``."""
    return ao.QConfig(activation=activation, weight=weight)  # type: ignore[no-untyped-call]


def by_layer(module: nn.Module, method: Method, *, fake: bool) -> dict[str, Any]:
    """The layers that differ from the rest: None for one in float, else what it is told."""
    known = {axis: form.matching(axis, getattr(method, axis), module) for axis in _LISTS}
    narrow = {
        name: qconfig(
            method,
            "int4" if name in known["int4_weights"] else method.weights,
            "uint4" if name in known["int4_activations"] else method.activations,
            fake=fake,
        )
        for name in (*known["int4_weights"], *known["int4_activations"])
    }
    return {**narrow, **dict.fromkeys(known["keep_float"])}


_LISTS = ("keep_float", "int4_weights", "int4_activations")


def fake_quantizers(module: nn.Module) -> list[Any]:
    """Every fake-quantizing module, torch.ao's and torchao's."""
    return [child for child in module.modules() if hasattr(child, "fake_quant_enabled")]


def learn_scales(module: nn.Module) -> None:
    """Replace fake quantization by one whose scales are parameters (LSQ).

    Source: Esser et al. 2020, Learned Step Size Quantization, arXiv 1902.08153.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ao.FakeQuantizeBase):
                setattr(parent, name, _learnable(parent, child))


def _learnable(parent: nn.Module, fake: Any) -> Any:
    observer = fake.activation_post_process
    options: dict[str, Any] = {"dtype": fake.dtype, "qscheme": fake.qscheme}
    channels = -1
    if fake.is_per_channel:
        channels = len(getattr(parent, "weight"))  # noqa: B009 - typed as a tensor or a module
        options["ch_axis"] = fake.ch_axis
    return _LearnableFakeQuantize(  # type: ignore[no-untyped-call]
        type(observer), fake.quant_min, fake.quant_max, channel_len=channels,
        use_grad_scaling=True, **options,
    )  # fmt: skip


def bake(module: nn.Module) -> None:
    """Give every weight the value that its fake quantization makes of it.

    Conversion rounds weights with the learned scales, but cuts them off at the ends of int8.
    """
    for child in module.modules():
        fake = getattr(child, "weight_fake_quant", None)
        if fake is not None:
            weight: Any = child.weight
            factor = _folded(child, weight)
            weight.data = fake(weight.data * factor) / factor


def _folded(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """What folding batch norm multiplies the layer's weight with."""
    norm = getattr(layer, "bn", None)
    if norm is None:
        return torch.ones(())
    factor: torch.Tensor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return factor.detach().reshape(-1, *[1] * (weight.ndim - 1))


def observe(module: nn.Module) -> None:
    """From now on ranges are observed, and nothing is rounded."""
    for fake in fake_quantizers(module):
        if isinstance(fake, _LearnableFakeQuantize):
            fake.enable_static_estimate()
            fake.toggle_fake_quant(enabled=False)
        else:
            fake.enable_observer()
            fake.disable_fake_quant()


def imitate(module: nn.Module, *, adapt: bool) -> None:
    """From now on everything is rounded; ranges (or scales) go on changing where ``adapt`` is set."""
    for fake in fake_quantizers(module):
        if isinstance(fake, _LearnableFakeQuantize):
            fake.enable_param_learning()
        else:
            fake.enable_fake_quant()
            fake.enable_observer(enabled=adapt)
