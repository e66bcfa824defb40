"""Tasks of the probe: inputs and labels from a seed, which mean nothing; not registered."""

from __future__ import annotations

from functools import partial

import numpy as np

from quantbench.errors import BadInput, did_you_mean
from quantbench.spec import SPLITS, Samples, Task, TensorSpec
from quantbench_experiments.models.probe import FEATURES, IMAGE, LOGITS, TOKENS

HERE = f"{__name__}"
SIZES = {"train": 64, "calibration": 32, "test": 64}


def draw(given: TensorSpec, split: str) -> Samples:
    """One split: float32 inputs from a normal distribution, labels int64 [n] of 16 classes.

    Raises
    ------
    BadInput
        For an unknown split.
    """
    if split not in SIZES:
        raise BadInput(f"unknown split '{split}'.{did_you_mean(split, SIZES)}")
    # RandomState, not Generator: NumPy promises that its stream never changes
    random = np.random.RandomState(SPLITS.index(split))
    shape = tuple(n for n in given.shape[1:] if n is not None)
    values = random.standard_normal((SIZES[split], *shape)).astype(np.float32)
    return Samples({given.name: values}, random.randint(0, LOGITS.shape[1], SIZES[split]))


images = partial(draw, IMAGE)
vectors = partial(draw, FEATURES)
sequences = partial(draw, TOKENS)


def _task(load: str, given: TensorSpec) -> Task:
    return Task(
        name=f"probe-{load}",
        inputs=(given,),
        metric="top1",
        load=f"{HERE}:{load}",
        version="1",
        description="Numbers from a seed",
    )


IMAGES = _task("images", IMAGE)
VECTORS = _task("vectors", FEATURES)
SEQUENCES = _task("sequences", TOKENS)
