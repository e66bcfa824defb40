"""Keras forms of the probe's models: the torch forms' functions, layers by their names."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from harness.tensors import Array, Arrays

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from tf_keras import Input, Model, layers

HEADS = 4


def convolution(state: Arrays) -> Model:
    """Image float [n, 12, 12, 3] to logits float [n, 16]; the others by the same rule."""
    image = Input((12, 12, 3), name="image")
    x = layers.ReLU()(_convolution(image, state, "first"))
    x = layers.ReLU()(_convolution(x, state, "second"))
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, _linear(x, state, "head"))


def linear(state: Arrays) -> Model:
    """Features float [n, 64] to logits float [n, 16]."""
    features = Input((64,), name="features")
    x = layers.ReLU()(_linear(features, state, "first"))
    x = layers.ReLU()(_linear(x, state, "second"))
    return Model(features, _linear(x, state, "head"))


def lstm(state: Arrays) -> Model:
    """Sequences float [n, 8, 64] to logits float [n, 16]."""
    tokens = Input((8, 64), name="tokens")
    layer = layers.LSTM(64, name="lstm")
    x = layer(tokens)
    into, back, *biases = (
        state[f"lstm.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    layer.set_weights([into.T, back.T, sum(biases)])
    x = layers.ReLU()(_linear(x, state, "second"))
    return Model(tokens, _linear(x, state, "head"))


def attention(state: Arrays) -> Model:
    """Sequences float [n, 8, 64] to logits float [n, 16]."""
    tokens = Input((8, 64), name="tokens")
    width = 64 // HEADS
    layer = layers.MultiHeadAttention(HEADS, width, name="attention")
    x = layer(tokens, tokens)
    parts = zip(
        np.split(state["attention.in_proj_weight"], 3),
        np.split(state["attention.in_proj_bias"], 3),
        strict=True,
    )
    projections: list[Array] = []
    for weight, bias in parts:  # queries, keys, values
        projections += [weight.T.reshape(64, HEADS, width), bias.reshape(HEADS, width)]
    out = state["attention.out_proj.weight"].T.reshape(HEADS, width, 64)
    layer.set_weights([*projections, out, state["attention.out_proj.bias"]])
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.ReLU()(_linear(x, state, "second"))
    return Model(tokens, _linear(x, state, "head"))


def _convolution(x: Any, state: Arrays, name: str) -> Any:
    """A 3x3 convolution of stride 1 that keeps the size."""
    kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
    layer = layers.Conv2D(kernel.shape[-1], 3, padding="same", name=name)
    y = layer(x)
    layer.set_weights([kernel, state[f"{name}.bias"]])
    return y


def _linear(x: Any, state: Arrays, name: str) -> Any:
    weight = state[f"{name}.weight"]
    layer = layers.Dense(len(weight), name=name)
    y = layer(x)
    layer.set_weights([weight.T, state[f"{name}.bias"]])
    return y
