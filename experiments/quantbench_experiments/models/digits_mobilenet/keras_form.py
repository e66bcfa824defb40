"""Keras form of the digits-mobilenet model: the torch form's function, channels last."""

from __future__ import annotations

from typing import Any

from quantbench.spec import Arrays
from quantbench_experiments.models.digits_mobilenet import BLOCKS, EPSILON
from quantbench_experiments.models.keras_layers import (
    Input,
    Model,
    batch_norm,
    convolution,
    layers,
    linear,
)


def build(state: Arrays) -> Model:
    """The model with these weights: image float [n, 8, 8, 1] to logits float [n, 10]."""
    image = Input((8, 8, 1), name="image")
    x = _normed(convolution(image, state, "conv"), state, "bn", "relu")
    for i, (_, stride) in enumerate(BLOCKS):
        name = f"blocks.{i}"
        x = convolution(x, state, f"{name}.depthwise", stride=stride, depthwise=True)
        x = _normed(x, state, f"{name}.bn1", f"{name}.relu1")
        x = convolution(x, state, f"{name}.pointwise", padding=0)
        x = _normed(x, state, f"{name}.bn2", f"{name}.relu2")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return Model(image, linear(x, state, "linear"), name="digits-mobilenet")


def _normed(x: Any, state: Arrays, norm: str, relu: str) -> Any:
    """Batch norm, then ``min(max(x, 0), 6)``."""
    return layers.ReLU(6.0, name=relu)(batch_norm(x, state, norm, EPSILON))
