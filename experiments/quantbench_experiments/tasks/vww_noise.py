"""Task vww-noise: smooth random images for a model whose real images are not here."""

from __future__ import annotations

import numpy as np

from quantbench.spec import Samples, Task, TensorSpec
from quantbench_experiments.data import check_split

SIZES = {"calibration": 128, "test": 256}

TASK = Task(
    name="vww-noise",
    inputs=(TensorSpec("image", (None, 3, 96, 96), "float32", "NCHW"),),
    metric="fidelity",
    load=f"{__name__}:load",
    version="1",
    description="Smooth random images, no labels: size and latency, and fidelity to the float model",
    splits=("calibration", "test"),
)


def load(split: str) -> Samples:
    """One split: ``image`` float32 [n, 3, 96, 96] in 0..1, seeded; labels are all 0.

    Raises
    ------
    BadInput
        For an unknown split.
    """
    check_split(split, SIZES)
    random = np.random.RandomState(list(SIZES).index(split))
    coarse = random.uniform(size=(SIZES[split], 3, 12, 12)).astype(np.float32)
    image = coarse.repeat(8, axis=2).repeat(8, axis=3)
    for axis in (2, 3):
        image = np.mean([np.roll(image, k, axis) for k in range(-4, 5)], axis=0)
    return Samples({"image": image.astype(np.float32)}, np.zeros(len(image), np.int64))
