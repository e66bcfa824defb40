"""Model digits: a small residual CNN for 8x8 digits; its trained weights are part of the package."""

from __future__ import annotations

from pathlib import Path

from quantbench.spec import Model, TensorSpec
from quantbench_experiments.data import verified
from quantbench_experiments.models.stored import state as state

WIDTH = 32
BLOCKS = 5
WEIGHTS = Path(__file__).with_name("digits.safetensors")
SHA256 = "3ed16b064b5ed72f4ab8ffb3296b451b2cd478b77ead9afcf1d97cbd932c8caf"

MODEL = Model(
    name="digits",
    task="digits",
    inputs=(TensorSpec("image", (None, 1, 8, 8), "float32", "NCHW"),),
    outputs=(TensorSpec("logits", (None, 10), "float32"),),
    weights=f"{__name__}:weights",
    state="quantbench_experiments.models.stored:state",
    forms={
        "torch": f"{__name__}.torch_form:build",
        "keras": f"{__name__}.keras_form:build",
    },
    description="Residual CNN, 32 channels, 5 blocks; 5.9 million multiply-accumulates per image",
)


def weights() -> Path:
    """The safetensors file beside this module, checksum verified.

    Raises
    ------
    DataMissing
        If the file is absent or altered.
    """
    return verified(WEIGHTS, SHA256, "reinstall quantbench to restore its weights")
