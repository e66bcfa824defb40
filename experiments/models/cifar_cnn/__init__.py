"""Model cifar-cnn: the plain CNN of a course on quantization, trained here from a seed."""

from __future__ import annotations

import numpy as np

from harness.model import Model
from harness.tensors import Array, Arrays, TensorSpec

MODEL = Model(
    name="cifar-cnn",
    task="cifar10",
    inputs=(TensorSpec("image", (None, 3, 32, 32), "float32", "NCHW"),),
    outputs=(TensorSpec("logits", (None, 10), "float32"),),
    weights="harness.making:made(experiments.models.cifar_cnn.train:weights(0))",
    state="experiments.models.stored:state",
    forms={
        "torch": "experiments.models.cifar_cnn.torch_form:build",
        "keras": "experiments.models.cifar_cnn.keras_form:build",
    },
    preprocess="experiments.models.cifar_cnn:preprocess",
    description="Three convolutions and two linear layers, 4.58 million parameters, 92 % of them in "
    "linear layers; Adam, 5 epochs over 10,000 images",
)


def preprocess(inputs: Arrays) -> dict[str, Array]:
    """Pixels float32 0..255 [n, 3, 32, 32] scaled to -1..1."""
    image = inputs["image"] / np.float32(127.5)
    image -= np.float32(1)
    return {"image": image}
