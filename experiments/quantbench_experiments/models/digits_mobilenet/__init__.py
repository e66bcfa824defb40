"""Model digits-mobilenet: depthwise separable CNN for 8x8 digits; its trained weights are in the package."""

from __future__ import annotations

from pathlib import Path

from quantbench.spec import Model, TensorSpec
from quantbench_experiments.data import verified

WEIGHTS = Path(__file__).with_name("digits-mobilenet.safetensors")
SHA256 = "069131a4e592c6bf98b501e843050e555f424b05a1210a0d9bdb5a669d8e879a"
STEM = 32
BLOCKS = ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (128, 1))
"""Channels and stride of each block."""
EPSILON = 1e-3
"""Of batch norms, as Keras has it by default, and so its MobileNets."""

MODEL = Model(
    name="digits-mobilenet",
    task="digits",
    inputs=(TensorSpec("image", (None, 1, 8, 8), "float32", "NCHW"),),
    outputs=(TensorSpec("logits", (None, 10), "float32"),),
    weights=f"{__name__}:weights",
    state="quantbench_experiments.models.stored:state",
    forms={
        "torch": f"{__name__}.torch_form:build",
        "keras": f"{__name__}.keras_form:build",
    },
    description="Depthwise separable CNN, six blocks; hard to quantize with one scale per tensor",
)


def weights() -> Path:
    """The safetensors file beside this module, checksum verified; raises `DataMissing`."""
    return verified(WEIGHTS, SHA256, "reinstall quantbench to restore its weights")
