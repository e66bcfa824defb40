"""Task digits: 8x8 handwritten digits of the UCI repository, part of this package, so always at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quantbench.spec import SPLITS, Array, Samples, Task, TensorSpec
from quantbench_experiments.data import check_split, verified

IMAGES = Path(__file__).with_name("digits.npz")
SHA256 = "af104d81e7cd419be5f343d23c6ca2e4e4ff847b06636260802df8e903c6183f"
SIZES = {"train": 600, "calibration": 300, "test": 897}
SEED = 0

TASK = Task(
    name="digits",
    inputs=(TensorSpec("image", (None, 1, 8, 8), "float32", "NCHW"),),
    metric="top1",
    load=f"{__name__}:load",
    version="1",
    classes=tuple("0123456789"),
    description="Handwritten digits of the UCI repository, 8x8 grey values in 0..1, 1797 images",
)


def load(split: str) -> Samples:
    """One split: ``image`` float32 [n, 1, 8, 8] in 0..1, labels int64 [n].

    Raises
    ------
    BadInput
        For an unknown split.
    DataMissing
        If the file beside this module is missing or altered.
    """
    check_split(split, SIZES)
    with np.load(verified(IMAGES, SHA256, "reinstall quantbench to restore its images")) as stored:
        images, labels = stored["images"], stored["labels"].astype(np.int64)
    index = split_indices(labels)[split]
    pixels = (images[index].reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    return Samples({"image": pixels}, labels[index])


def split_indices(labels: Array) -> dict[str, Array]:
    """Seeded, disjoint, stratified splits: int64 indices into ``labels``, by split name.

    Each class is shuffled and spread evenly over one line of all samples, which is then cut; so
    any stretch of it holds the classes in their proportions to within one sample.
    """
    # RandomState, not Generator: NumPy promises that its stream never changes
    random = np.random.RandomState(SEED)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    line = np.lexsort((labels, place))
    cuts = np.cumsum([SIZES[split] for split in SPLITS])[:-1]
    return dict(zip(SPLITS, np.split(line, cuts), strict=True))
