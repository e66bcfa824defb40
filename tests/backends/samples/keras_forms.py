"""Keras forms of the sample models: the torch forms' functions, channels last, with weights."""

from __future__ import annotations

import os
from typing import Any

from quantbench.spec import Arrays

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tf_keras import Input, Model, layers


class Builder:
    """Layers by canonical name, with their weights from a torch state."""

    def __init__(self, state: Arrays) -> None:
        self.state = state

    def conv(self, x: Any, name: str, *, stride: int = 1, norm: str = "") -> Any:
        """A convolution padded as torch pads it, on all sides; then its batch norm, if any."""
        kernel = self.state[f"{name}.weight"].transpose(2, 3, 1, 0)
        size, _, into, out = kernel.shape
        if size > 1:
            x = layers.ZeroPadding2D(size // 2)(x)
        bias = f"{name}.bias" in self.state
        if into == 1:
            layer = layers.DepthwiseConv2D(size, strides=stride, use_bias=bias, name=name)
            kernel = kernel.transpose(0, 1, 3, 2)
        else:
            layer = layers.Conv2D(out, size, stride, use_bias=bias, name=name)
        y = layer(x)
        layer.set_weights([kernel, self.state[f"{name}.bias"]] if bias else [kernel])
        if not norm:
            return y
        batch_norm = layers.BatchNormalization(epsilon=1e-5, name=norm)
        y = batch_norm(y)
        vectors = ("weight", "bias", "running_mean", "running_var")
        batch_norm.set_weights([self.state[f"{norm}.{v}"] for v in vectors])
        return y

    def linear(self, x: Any, name: str) -> Any:
        weight = self.state[f"{name}.weight"]
        layer = layers.Dense(len(weight), name=name)
        y = layer(x)
        layer.set_weights([weight.T, self.state[f"{name}.bias"]])
        return y


def relu(x: Any) -> Any:
    return layers.ReLU()(x)


def mean(x: Any) -> Any:
    return layers.GlobalAveragePooling2D()(x)


def image_input() -> Any:
    return Input((12, 10, 3), name="image")


def linear(state: Arrays) -> Model:
    build, features = Builder(state), Input((64,), name="features")
    return Model(features, build.linear(relu(build.linear(features, "first")), "second"))


def conv(state: Arrays) -> Model:
    build, image = Builder(state), image_input()
    x = relu(build.conv(image, "first", norm="norm"))
    return Model(image, mean(build.conv(x, "second", stride=2)))


def depthwise(state: Arrays) -> Model:
    build, image = Builder(state), image_input()
    x = relu(build.conv(image, "stem", norm="norm1"))
    x = relu(build.conv(x, "depth", norm="norm2"))
    return Model(image, build.linear(mean(relu(build.conv(x, "point"))), "head"))


def groupnorm(state: Arrays) -> Model:
    build, image = Builder(state), image_input()
    norm = layers.GroupNormalization(6, epsilon=1e-5, name="norm")
    x = relu(norm(build.conv(image, "first")))
    norm.set_weights([state["norm.weight"], state["norm.bias"]])
    return Model(image, build.linear(mean(relu(build.conv(x, "second", stride=2))), "head"))


def residual(state: Arrays) -> Model:
    build, image = Builder(state), image_input()
    x = relu(build.conv(image, "stem"))
    y = build.conv(relu(build.conv(x, "body1", norm="norm1")), "body2")
    return Model(image, relu(layers.Add()([x, y])))


def concat(state: Arrays) -> Model:
    build, image = Builder(state), image_input()
    both = [relu(build.conv(image, "left")), relu(build.conv(image, "right"))]
    return Model(image, mean(build.conv(layers.Concatenate()(both), "join")))


def pair(state: Arrays) -> Model:
    build, image, features = Builder(state), image_input(), Input((64,), name="features")
    seen = relu(build.conv(image, "look"))
    hidden = relu(layers.Add()([mean(seen), build.linear(features, "read")]))
    return Model([image, features], [build.linear(hidden, "head"), seen])


def larger(state: Arrays) -> Model:
    build, photo = Builder(state), Input((64, 48, 3), name="photo")
    x = photo
    for i in (1, 2, 3, 4):
        x = relu(build.conv(x, f"conv{i}", stride=2, norm=f"norm{i}"))
    return Model(photo, build.linear(relu(build.linear(mean(x), "hidden")), "head"))
