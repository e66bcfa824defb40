"""A Keras GRU on which TFLiteConverter's int8 calibration crashes the process (TensorFlow 2.21)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from quantbench.spec import Arrays, Model, Samples, Task, TensorSpec

HERE = "tests.backends.gru"
X, Y = TensorSpec("x", (None, 8, 4), "float32"), TensorSpec("y", (None, 3), "float32")
TASK = Task("sequences", (X,), "top1", f"{HERE}:load", "1", splits=("calibration", "test"))
MODEL = Model("gru", "sequences", (X,), (Y,), f"{HERE}:weights", f"{HERE}:state", {"keras": f"{HERE}:form"})  # fmt: skip


def weights() -> Path:
    return Path(__file__)


def state(path: Path) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = {"kernel": (4, 48), "recurrent": (16, 48), "bias": (2, 48), "head": (16, 3)}
    return {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


def form(arrays: Arrays) -> Any:
    from tf_keras import Input, layers
    from tf_keras import Model as Keras

    x = Input((8, 4), name="x")
    gru, head = layers.GRU(16, name="gru"), layers.Dense(3, use_bias=False, name="head")
    model = Keras(x, head(gru(x)))
    gru.set_weights([arrays["kernel"], arrays["recurrent"], arrays["bias"]])
    head.set_weights([arrays["head"]])
    return model


def load(split: str) -> Samples:
    rng = np.random.default_rng({"calibration": 1, "test": 2}[split])
    x = rng.normal(size=(32, 8, 4)).astype(np.float32)
    return Samples({"x": x}, rng.integers(0, 3, 32))
