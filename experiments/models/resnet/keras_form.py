"""Keras form of the CIFAR-10 ResNets: the torch form's function, channels last, layers by its names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.tensors import Array

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from tf_keras import Input, Model, layers


def build(state: Mapping[str, Array]) -> Model:
    """The model with these weights: image float [n, 32, 32, 3] to logits float [n, 10].

    The number of blocks is read off the names.
    """
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layer1."))
    image = Input((32, 32, 3), name="image")
    x = _relu(_convolution(image, state, "conv1", "bn1"), "relu1")
    for stage in (1, 2, 3):
        for i in range(blocks):
            x = _block(x, state, f"layer{stage}.{i}", stride=2 if stage > 1 and i == 0 else 1)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    linear = layers.Dense(10, name="linear")
    logits = linear(x)
    linear.set_weights([state["linear.weight"].T, state["linear.bias"]])
    return Model(image, logits, name=f"resnet{6 * blocks + 2}")


def _block(x: Any, state: Mapping[str, Array], name: str, *, stride: int) -> Any:
    y = _convolution(x, state, f"{name}.conv1", f"{name}.bn1", stride=stride)
    y = _relu(y, f"{name}.relu1")
    y = _convolution(y, state, f"{name}.conv2", f"{name}.bn2")
    if stride > 1:
        x = _shortcut(x, y.shape[-1], f"{name}.shortcut")
    return _relu(layers.Add(name=f"{name}.add")([y, x]), f"{name}.relu2")


def _relu(x: Any, name: str) -> Any:
    return layers.ReLU(name=name)(x)


def _convolution(x: Any, state: Mapping[str, Array], conv: str, bn: str, *, stride: int = 1) -> Any:
    """A 3x3 convolution over a border of one pixel, then batch norm."""
    kernel = state[f"{conv}.weight"].transpose(2, 3, 1, 0)
    padding = "same"
    if stride > 1:
        # at stride 2 Keras' "same" pads only below and to the right, torch on all sides
        x, padding = layers.ZeroPadding2D(1, name=f"{conv}.pad")(x), "valid"
    convolution = layers.Conv2D(
        kernel.shape[-1], 3, stride, padding=padding, use_bias=False, name=conv
    )
    norm = layers.BatchNormalization(epsilon=1e-5, name=bn)
    y = norm(convolution(x))
    convolution.set_weights([kernel])
    names = ("weight", "bias", "running_mean", "running_var")
    norm.set_weights([state[f"{bn}.{name}"] for name in names])
    return y


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
