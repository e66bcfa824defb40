"""Keras form of the CIFAR-10 ResNets: the torch form's function, channels last, layers by its names."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    """The model with these weights: image float [n, 32, 32, 3] to logits float [n, 10].

    The number of blocks is read off the names.
    """
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layer1."))
    image = Input((32, 32, 3), name="image")
    x = relu(convolution(image, state, "conv1", "bn1"), "relu1")
    for stage in (1, 2, 3):
        for i in range(blocks):
            x = _block(x, state, f"layer{stage}.{i}", stride=2 if stage > 1 and i == 0 else 1)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return Model(image, linear(x, state, "linear"), name=f"resnet{6 * blocks + 2}")


def _block(x: Any, state: Arrays, name: str, *, stride: int) -> Any:
    y = convolution(x, state, f"{name}.conv1", f"{name}.bn1", stride=stride)
    y = relu(y, f"{name}.relu1")
    y = convolution(y, state, f"{name}.conv2", f"{name}.bn2")
    if stride > 1:
        x = _shortcut(x, y.shape[-1], f"{name}.shortcut")
    return relu(layers.Add(name=f"{name}.add")([y, x]), f"{name}.relu2")


def _shortcut(x: Any, width: int, name: str) -> Any:
    """Option A as a fixed 1x1 convolution of zeros and ones.

    Exact, and unlike slicing and padding it stays one integer operator in int8 and is accepted by
    the TensorFlow Model Optimization Toolkit.
    """
    channels = x.shape[-1]
    kernel = np.zeros((1, 1, channels, width), np.float32)
    source = np.arange(channels)
    kernel[0, 0, source, source + (width - channels) // 2] = 1
    selection = layers.Conv2D(width, 1, 2, use_bias=False, trainable=False, name=name)
    y = selection(x)
    selection.set_weights([kernel])
    return y
