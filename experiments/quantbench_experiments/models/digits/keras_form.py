"""Keras form of the digits model: the torch form's function, channels last, layers by its names."""

from __future__ import annotations

from quantbench.spec import Arrays
from quantbench_experiments.models.keras_layers import (
    Input,
    Model,
    convolution,
    layers,
    linear,
    relu,
)


def build(state: Arrays) -> Model:
    """The model with these weights: image float [n, 8, 8, 1] to logits float [n, 10]."""
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    image = Input((8, 8, 1), name="image")
    x = relu(convolution(image, state, "conv", "bn"), "relu")
    for i in range(blocks):
        block = f"blocks.{i}"
        y = relu(convolution(x, state, f"{block}.conv1", f"{block}.bn1"), f"{block}.relu1")
        y = convolution(y, state, f"{block}.conv2", f"{block}.bn2")
        x = relu(layers.Add(name=f"{block}.add")([y, x]), f"{block}.relu2")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return Model(image, linear(x, state, "linear"), name="digits")
