"""Model cifar-cnn: the plain CNN of a course on quantization, trained here from a seed."""

from __future__ import annotations

import numpy as np

from quantbench.execution import made
from quantbench.spec import Array, Arrays, Model, TensorSpec
from quantbench.system import locator

MODEL = Model(
    name="cifar-cnn",
    task="cifar10",
    inputs=(TensorSpec("image", (None, 3, 32, 32), "float32", "NCHW"),),
    outputs=(TensorSpec("logits", (None, 10), "float32"),),
    weights=locator(made, f"{__name__}.train:weights(0)"),
    state="quantbench_experiments.models.stored:state",
    forms={
        "torch": f"{__name__}.torch_form:build",
        "keras": f"{__name__}.keras_form:build",
    },
    preprocess=f"{__name__}:preprocess",
    description="Three convolutions and two linear layers, 4.58 million parameters, 92 % of them in "
    "linear layers; Adam, 5 epochs over 10,000 images",
)


def preprocess(inputs: Arrays) -> dict[str, Array]:
    """Pixels float32 0..255 [n, 3, 32, 32] scaled to -1..1."""
    image = inputs["image"] / np.float32(127.5)
    image -= np.float32(1)
    return {"image": image}
