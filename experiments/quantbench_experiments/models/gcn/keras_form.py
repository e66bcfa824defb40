"""Keras form of the gcn model: the torch form's function."""

from __future__ import annotations

from typing import Any

from quantbench.spec import Array, Arrays
from quantbench_experiments.models.keras_layers import Input, Model, layers, linear, relu
from quantbench_experiments.tasks.cora import NODES, WORDS


def build(state: Arrays) -> Model:
    """The model with these weights: features and edges of a graph to logits of its nodes."""
    features = Input((NODES, WORDS), name="features")
    adjacency = Input((NODES, NODES), name="adjacency")
    x = _convolution(features, adjacency, state, "first")
    x = _convolution(relu(x, "relu"), adjacency, state, "second")
    return Model([features, adjacency], x, name="gcn")


def _convolution(x: Any, adjacency: Any, state: Arrays, name: str) -> Any:
    x = layers.Dot((2, 1), name=f"{name}.sum")([adjacency, linear(x, state, name)])
    return _shifted(x, state[f"{name}_bias"], f"{name}.bias")


def _shifted(x: Any, bias: Array, name: str) -> Any:
    return layers.Lambda(lambda y: y + bias, name=name)(x)
