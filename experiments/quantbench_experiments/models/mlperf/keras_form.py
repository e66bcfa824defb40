"""Keras forms of the MLPerf Tiny models: the published files, or their layers with their weights."""

from __future__ import annotations

from typing import Any

from quantbench.spec import Array, Arrays
from quantbench_experiments.models.keras_layers import Input, Model, layers
from quantbench_experiments.models.mlperf import EPSILON, file


def ic(state: Arrays) -> Model:
    """Pixels 0..255 float [n, 32, 32, 3] to probabilities float [n, 10], as published."""
    return _loaded("ic/pretrainedResnet.h5")


def vww(state: Arrays) -> Model:
    """Images 0..1 float [n, 96, 96, 3] to probabilities float [n, 2], as published."""
    return _loaded("vww/vww_96.h5")


def kws(state: Arrays) -> Model:
    """Features float [n, 49, 10, 1] to probabilities float [n, 12], with the SavedModel's weights."""
    features = Input((49, 10, 1), name="features")
    x = layers.Conv2D(64, (10, 4), 2, padding="same", name="conv2d")(features)
    x = _normed(x, "batch_normalization")
    for i in range(4):
        name = f"depthwise_conv2d_{i}" if i else "depthwise_conv2d"
        x = layers.DepthwiseConv2D(3, padding="same", name=name)(x)
        x = _normed(x, f"batch_normalization_{2 * i + 1}")
        x = layers.Conv2D(64, 1, name=f"conv2d_{i + 1}")(x)
        x = _normed(x, f"batch_normalization_{2 * i + 2}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = Model(features, layers.Dense(12, "softmax", name="dense")(x), name="mlperf-kws")
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([_variable(state, layer, w.name) for w in layer.weights])
    return model


def _loaded(name: str) -> Model:
    from tf_keras.models import load_model

    return load_model(file(name), compile=False)


def _normed(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(epsilon=EPSILON, name=name)(x)
    return layers.ReLU(name=f"{name}.relu")(x)


def _variable(state: Arrays, layer: Any, name: str) -> Array:
    """A layer's variable from its torch name, its axes in Keras' order."""
    part = name.rpartition("/")[2].partition(":")[0]
    if part == "depthwise_kernel":
        return state[f"{layer.name}.weight"].transpose(2, 3, 0, 1)
    if part == "kernel":
        weight = state[f"{layer.name}.weight"]
        return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
    parts = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "bias": "bias"}
    return state[f"{layer.name}.{parts.get(part, 'running_var')}"]
