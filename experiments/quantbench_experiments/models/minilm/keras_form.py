"""Keras form of minilm: the torch form's function."""

from __future__ import annotations

import math
from typing import Any

from quantbench.spec import Arrays
from quantbench_experiments.models.keras_layers import (
    Input,
    Model,
    embedding,
    gelu,
    layer_norm,
    layers,
    linear,
)
from quantbench_experiments.models.minilm import HEADS, LAYERS, LENGTH, WIDTH

EPSILON, FAR = 1e-12, -1e4


def build(state: Arrays) -> Model:
    """The model with these weights: words int [n, 64] and their mask to embeddings [n, 384]."""
    ids = Input((LENGTH,), dtype="int64", name="ids")
    mask = Input((LENGTH,), name="mask")
    places = state["embeddings.position_embeddings.weight"][:LENGTH]
    places = places + state["embeddings.token_type_embeddings.weight"][0]
    x = embedding(ids, state, "embeddings.word_embeddings")
    x = layers.Lambda(lambda y: y + places, name="places")(x)
    x = layer_norm(x, state, "embeddings.LayerNorm", EPSILON)
    bias = layers.Lambda(lambda m: (1 - m[:, None, None, :]) * FAR, name="bias")(mask)
    for i in range(LAYERS):
        x = _layer(x, bias, state, f"encoder.layer.{i}")
    return Model([ids, mask], layers.Lambda(_normalized, name="mean")([x, mask]), name="minilm")


def _layer(x: Any, bias: Any, state: Arrays, name: str) -> Any:
    parts = [
        _heads(linear(x, state, f"{name}.attention.self.{part}"), f"{name}.{part}.heads")
        for part in ("query", "key", "value")
    ]
    mixed = layers.Lambda(_attend, name=f"{name}.attend")([*parts, bias])
    mixed = layers.Reshape((LENGTH, WIDTH), name=f"{name}.joined")(mixed)
    x = _output(mixed, x, state, f"{name}.attention.output")
    wide = gelu(linear(x, state, f"{name}.intermediate.dense"), f"{name}.gelu")
    return _output(wide, x, state, f"{name}.output")


def _heads(x: Any, name: str) -> Any:
    return layers.Reshape((LENGTH, HEADS, WIDTH // HEADS), name=name)(x)


def _attend(given: list[Any]) -> Any:
    import tensorflow as tf

    query, key, value, bias = given
    query, key, value = (tf.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(WIDTH // HEADS) + bias
    return tf.transpose(tf.matmul(tf.nn.softmax(scores), value), (0, 2, 1, 3))


def _output(x: Any, before: Any, state: Arrays, name: str) -> Any:
    x = layers.Add(name=f"{name}.add")([linear(x, state, f"{name}.dense"), before])
    return layer_norm(x, state, f"{name}.LayerNorm", EPSILON)


def _normalized(given: list[Any]) -> Any:
    import tensorflow as tf

    x, mask = given
    weight = tf.expand_dims(mask, 2)
    mean = tf.reduce_sum(x * weight, 1) / tf.reduce_sum(weight, 1)
    return mean / tf.sqrt(tf.reduce_sum(mean * mean, 1, keepdims=True))
