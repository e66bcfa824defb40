"""Keras form of the text encoders: the torch form's function."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantbench.spec import Arrays
from quantbench_experiments.models.encoder import HEADS, LAYERS, LENGTH, PADDING
from quantbench_experiments.models.keras_layers import (
    Input,
    Model,
    attention,
    embedding,
    gelu,
    layer_norm,
    layers,
    linear,
)


def build(state: Arrays) -> Model:
    """The model with these weights: words int [n, 64] to logits."""
    ids = Input((LENGTH,), dtype="int64", name="ids")
    known = layers.Lambda(lambda x: _float(x != PADDING), name="known")(ids)
    x = embedding(ids, state, "words")
    x = layer_norm(layers.Lambda(lambda y: y + state["places"], name="places")(x), state, "norm")
    seen = layers.Reshape((1, LENGTH), name="seen")(known)
    for i in range(LAYERS):
        x = _layer(x, seen, state, f"layers.{i}")
    mean = layers.Lambda(_mean, name="mean")([x, known])
    return Model(ids, linear(mean, state, "head"), name="encoder")


def _layer(x: Any, seen: Any, state: Arrays, name: str) -> Any:
    y = attention(x, state, f"{name}.attention", HEADS, mask=seen)
    x = layer_norm(layers.Add(name=f"{name}.add1")([x, y]), state, f"{name}.norm1")
    y = gelu(linear(x, state, f"{name}.wide"), f"{name}.gelu")
    y = linear(y, state, f"{name}.narrow")
    return layer_norm(layers.Add(name=f"{name}.add2")([x, y]), state, f"{name}.norm2")


def _float(x: Any) -> Any:
    import tensorflow as tf

    return tf.cast(x, np.float32)


def _mean(given: list[Any]) -> Any:
    import tensorflow as tf

    x, known = given
    weight = tf.expand_dims(known, 2)
    return tf.reduce_sum(x * weight, 1) / tf.maximum(tf.reduce_sum(weight, 1), 1)
