"""Keras layers with the weights of torch layers: the same function, channels last, named alike."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from quantbench.spec import Array, Arrays

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from tf_keras import Input, Model, layers

__all__ = [
    "Input", "Model", "attention", "batch_norm", "convolution", "embedding", "gelu", "gru", "layer_norm",
    "layers", "linear", "lstm", "relu",
]  # fmt: skip


def relu(x: Any, name: str) -> Any:
    """``max(x, 0)``."""
    return layers.ReLU(name=name)(x)


def linear(x: Any, state: Arrays, name: str) -> Any:
    """`torch.nn.Linear`, with its bias where it has one."""
    weight, bias = state[f"{name}.weight"], _biases(state, name)
    layer = layers.Dense(len(weight), use_bias=bool(bias), name=name)
    y = layer(x)
    layer.set_weights([weight.T, *bias])
    return y


def convolution(
    x: Any, state: Arrays, name: str, norm: str = "", *, stride: int = 1, padding: int = 1,
    depthwise: bool = False,
) -> Any:  # fmt: skip
    """`torch.nn.Conv2d` of a square kernel, then the batch norm of that name where one is given.

    ``depthwise``: one kernel per channel (``groups`` equal to the channels).
    """
    kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
    size, bias = kernel.shape[0], _biases(state, name)
    border = "valid"
    if padding and stride == 1 and size == 2 * padding + 1:
        border = "same"
    elif padding:
        # at stride 2 Keras' "same" pads only below and to the right, torch on all sides
        x = layers.ZeroPadding2D(padding, name=f"{name}.pad")(x)
    options = {"padding": border, "use_bias": bool(bias), "name": name}
    if depthwise:
        layer = layers.DepthwiseConv2D(size, stride, **options)
        kernel = kernel.transpose(0, 1, 3, 2)
    else:
        layer = layers.Conv2D(kernel.shape[-1], size, stride, **options)
    y = layer(x)
    layer.set_weights([kernel, *bias])
    return batch_norm(y, state, norm) if norm else y


def batch_norm(x: Any, state: Arrays, name: str, epsilon: float = 1e-5) -> Any:
    """`torch.nn.BatchNorm2d` in evaluation mode."""
    layer = layers.BatchNormalization(epsilon=epsilon, name=name)
    y = layer(x)
    parts = ("weight", "bias", "running_mean", "running_var")
    layer.set_weights([state[f"{name}.{part}"] for part in parts])
    return y


def lstm(x: Any, state: Arrays, name: str, *, sequences: bool = False) -> Any:
    """One layer of `torch.nn.LSTM`; its last step, or all where ``sequences``."""
    into, back, *biases = _recurrent(state, name)
    layer = layers.LSTM(back.shape[1], return_sequences=sequences, name=name)
    y = layer(x)
    layer.set_weights([into.T, back.T, sum(biases)])
    return y


def gru(x: Any, state: Arrays, name: str, *, sequences: bool = False) -> Any:
    """One layer of `torch.nn.GRU`, whose gates stand in another order than Keras'."""
    into, back, *biases = (_gates(array) for array in _recurrent(state, name))
    layer = layers.GRU(back.shape[1], return_sequences=sequences, reset_after=True, name=name)
    y = layer(x)
    layer.set_weights([into.T, back.T, np.stack(biases)])
    return y


def attention(x: Any, state: Arrays, name: str, heads: int, mask: Any = None) -> Any:
    """`torch.nn.MultiheadAttention` of ``x`` [n, length, width] on itself."""
    size = x.shape[-1]
    width = size // heads
    layer = layers.MultiHeadAttention(heads, width, name=name)
    y = layer(x, x, attention_mask=mask)
    parts = zip(
        np.split(state[f"{name}.in_proj_weight"], 3),
        np.split(state[f"{name}.in_proj_bias"], 3),
        strict=True,
    )
    projections: list[Array] = []
    for weight, bias in parts:  # queries, keys, values
        projections += [weight.T.reshape(size, heads, width), bias.reshape(heads, width)]
    out = state[f"{name}.out_proj.weight"].T.reshape(heads, width, size)
    layer.set_weights([*projections, out, state[f"{name}.out_proj.bias"]])
    return y


def embedding(ids: Any, state: Arrays, name: str) -> Any:
    """`torch.nn.Embedding`."""
    weight = state[f"{name}.weight"]
    layer = layers.Embedding(*weight.shape, name=name)
    y = layer(ids)
    layer.set_weights([weight])
    return y


def layer_norm(x: Any, state: Arrays, name: str, epsilon: float = 1e-5) -> Any:
    """`torch.nn.LayerNorm` over the last axis."""
    layer = layers.LayerNormalization(epsilon=epsilon, name=name)
    y = layer(x)
    layer.set_weights([state[f"{name}.weight"], state[f"{name}.bias"]])
    return y


def gelu(x: Any, name: str) -> Any:
    """`torch.nn.GELU`, not approximated."""
    return layers.Activation("gelu", name=name)(x)


def _biases(state: Arrays, name: str) -> list[Array]:
    bias = state.get(f"{name}.bias")
    return [] if bias is None else [bias]


def _recurrent(state: Arrays, name: str) -> list[Array]:
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [state[f"{name}.{part}_l0"] for part in parts]


def _gates(array: Array) -> Array:
    """Reset, update, new (torch) as update, reset, new (Keras)."""
    reset, update, new = np.split(array, 3)
    return np.concatenate([update, reset, new])
