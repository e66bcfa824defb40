"""Model mobilenet-v2: half width, for CIFAR-10; its trained weights are part of the package."""

from __future__ import annotations

from pathlib import Path

from quantbench.spec import Model, TensorSpec
from quantbench_experiments.data import verified

WEIGHTS = Path(__file__).with_name("mobilenet-v2.safetensors")
SHA256 = "660d39d08b9c2d57f62e0317039ab7c22560790447a3fd37856bbce467b9f01e"
STEM, LAST, CLASSES = 16, 640, 10
STAGES = (
    (1, 8, 1, 1),
    (6, 16, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)
"""Expansion, channels, blocks and first stride (Sandler et al. 2018, table 2, half as wide; for images
of 32x32 the stem and the second stage keep the size)."""

MODEL = Model(
    name="mobilenet-v2",
    task="cifar10",
    inputs=(TensorSpec("image", (None, 3, 32, 32), "float32", "NCHW"),),
    outputs=(TensorSpec("logits", (None, CLASSES), "float32"),),
    weights=f"{__name__}:weights",
    state="quantbench_experiments.models.stored:state",
    forms={
        "torch": f"{__name__}.torch_form:build",
        "keras": f"{__name__}.keras_form:build",
    },
    preprocess="quantbench_experiments.models.resnet:preprocess",
    description="MobileNet v2 of half width for 32x32 images, trained on 18,976 images of CIFAR-10",
)


def weights() -> Path:
    """The safetensors file beside this module, checksum verified; raises `DataMissing`."""
    return verified(WEIGHTS, SHA256, "reinstall quantbench to restore its weights")


def blocks() -> list[tuple[str, int, int, int, int]]:
    """Name, input channels, expansion, channels and stride of every block, in order."""
    found: list[tuple[str, int, int, int, int]] = []
    channels = STEM
    for expansion, width, count, first in STAGES:
        for i in range(count):
            found.append(
                (f"blocks.{len(found)}", channels, expansion, width, first if i == 0 else 1)
            )
            channels = width
    return found
