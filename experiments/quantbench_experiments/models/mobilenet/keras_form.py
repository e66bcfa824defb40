"""Keras form of the mobilenet-v2 model: the torch form's function, channels last."""

from __future__ import annotations

from typing import Any

from quantbench.spec import Arrays
from quantbench_experiments.models.keras_layers import Input, Model, convolution, layers, linear
from quantbench_experiments.models.mobilenet import blocks


def build(state: Arrays) -> Model:
    """The model with these weights: image float [n, 32, 32, 3] to logits float [n, 10]."""
    image = Input((32, 32, 3), name="image")
    x = _relu6(convolution(image, state, "conv1", "bn1"), "relu1")
    for name, channels, expansion, width, stride in blocks():
        y = x
        if expansion > 1:
            y = convolution(y, state, f"{name}.conv1", f"{name}.bn1", padding=0)
            y = _relu6(y, f"{name}.relu1")
        y = convolution(y, state, f"{name}.conv2", f"{name}.bn2", stride=stride, depthwise=True)
        y = _relu6(y, f"{name}.relu2")
        y = convolution(y, state, f"{name}.conv3", f"{name}.bn3", padding=0)
        adds = stride == 1 and channels == width
        x = layers.Add(name=f"{name}.add")([x, y]) if adds else y
    x = _relu6(convolution(x, state, "conv2", "bn2", padding=0), "relu2")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return Model(image, linear(x, state, "linear"), name="mobilenet-v2")


def _relu6(x: Any, name: str) -> Any:
    return layers.ReLU(6.0, name=name)(x)
