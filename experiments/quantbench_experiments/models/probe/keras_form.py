"""Keras forms of the probe's models: the torch forms' functions, layers by their names."""

from __future__ import annotations

from typing import Any

from quantbench.spec import Arrays
from quantbench_experiments.models import keras_layers as torch_like
from quantbench_experiments.models.keras_layers import Input, Model, layers

HEADS = 4


def convolution(state: Arrays) -> Model:
    """Image float [n, 12, 12, 3] to logits float [n, 16]; the others by the same rule."""
    image = Input((12, 12, 3), name="image")
    x = layers.ReLU()(torch_like.convolution(image, state, "first"))
    x = layers.ReLU()(torch_like.convolution(x, state, "second"))
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, torch_like.linear(x, state, "head"))


def linear(state: Arrays) -> Model:
    """Features float [n, 64] to logits float [n, 16]."""
    features = Input((64,), name="features")
    x = layers.ReLU()(torch_like.linear(features, state, "first"))
    return Model(features, _head(x, state))


def lstm(state: Arrays) -> Model:
    """Sequences float [n, 8, 64] to logits float [n, 16]."""
    tokens = Input((8, 64), name="tokens")
    return Model(tokens, _head(torch_like.lstm(tokens, state, "lstm"), state))


def attention(state: Arrays) -> Model:
    """Sequences float [n, 8, 64] to logits float [n, 16]."""
    tokens = Input((8, 64), name="tokens")
    x = torch_like.attention(tokens, state, "attention", HEADS)
    x = layers.GlobalAveragePooling1D()(x)
    return Model(tokens, _head(x, state))


def _head(x: Any, state: Arrays) -> Any:
    """Two linear layers."""
    x = layers.ReLU()(torch_like.linear(x, state, "second"))
    return torch_like.linear(x, state, "head")
