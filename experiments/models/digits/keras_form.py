"""Keras form of the digits model: the torch form's function, channels last, layers by its names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from harness.tensors import Array

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from tf_keras import Input, Model, layers


def build(state: Mapping[str, Array]) -> Model:
    """The model with these weights: image float [n, 8, 8, 1] to logits float [n, 10]."""
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    image = Input((8, 8, 1), name="image")
    x = _relu(_convolution(image, state, "conv", "bn"), "relu")
    for i in range(blocks):
        block = f"blocks.{i}"
        y = _relu(_convolution(x, state, f"{block}.conv1", f"{block}.bn1"), f"{block}.relu1")
        y = _convolution(y, state, f"{block}.conv2", f"{block}.bn2")
        x = _relu(layers.Add(name=f"{block}.add")([y, x]), f"{block}.relu2")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    linear = layers.Dense(10, name="linear")
    logits = linear(x)
    linear.set_weights([state["linear.weight"].T, state["linear.bias"]])
    return Model(image, logits, name="digits")


def _relu(x: Any, name: str) -> Any:
    return layers.ReLU(name=name)(x)


def _convolution(x: Any, state: Mapping[str, Array], conv: str, bn: str) -> Any:
    """A 3x3 convolution of stride 1 that keeps the size, then batch norm."""
    kernel = state[f"{conv}.weight"].transpose(2, 3, 1, 0)
    convolution = layers.Conv2D(kernel.shape[-1], 3, padding="same", use_bias=False, name=conv)
    norm = layers.BatchNormalization(epsilon=1e-5, name=bn)
    y = norm(convolution(x))
    convolution.set_weights([kernel])
    names = ("weight", "bias", "running_mean", "running_var")
    norm.set_weights([state[f"{bn}.{name}"] for name in names])
    return y
