"""Keras form of the recurrent models: the torch form's function."""

from __future__ import annotations

from quantbench.spec import Arrays
from quantbench_experiments.models.keras_layers import Input, Model, gru, layers, linear, lstm


def build(kind: str, state: Arrays) -> Model:
    """The model with these weights: frames float [n, 64, 40] to logits float [n, 10]."""
    frames = Input((64, 40), name="frames")
    layer = {"lstm": lstm, "gru": gru}[kind]
    x = layer(frames, state, "recurrent", sequences=True)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    return Model(frames, linear(x, state, "linear"), name=kind)
