"""Keras form of the cifar-cnn model: the torch form's function, channels last."""

from __future__ import annotations

from quantbench.spec import Array, Arrays
from quantbench_experiments.models.keras_layers import (
    Input,
    Model,
    convolution,
    layers,
    linear,
    relu,
)


def build(state: Arrays) -> Model:
    """The model with these weights: image float [n, 32, 32, 3] to logits float [n, 10]."""
    image = x = Input((32, 32, 3), name="image")
    for i in (1, 2, 3):
        x = relu(convolution(x, state, f"conv{i}"), f"relu{i}")
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    moved = {**state, "fc1.weight": channels_last(state["fc1.weight"])}
    x = relu(linear(x, moved, "fc1"), "relu4")
    return Model(image, linear(x, state, "fc2"), name="cifar-cnn")


def channels_last(weight: Array) -> Array:
    """Columns in the order of rows, columns, channels instead of channels, rows, columns."""
    out, side = len(weight), 4
    return weight.reshape(out, -1, side, side).transpose(0, 2, 3, 1).reshape(out, -1)
