"""Task: named inputs, splits and a metric; Samples and Data: the arrays themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from quantbench.spec.tensor import Array, Arrays, TensorSpec

SPLITS = ("train", "calibration", "test")
CONFIRMATION = "confirmation"
"""A split that a task may have beside `SPLITS`: samples that take no part in a choice, and confirm it."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Named input arrays and labels, all with the same first axis."""

    inputs: Arrays
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Array) -> Samples:
        """The samples at ``index`` (int64 [k]), in that order."""
        return Samples({name: a[index] for name, a in self.inputs.items()}, self.labels[index])

    def batches(self, size: int) -> Iterator[dict[str, Array]]:
        """Input batches of ``size`` samples in order; the last may be smaller."""
        for start in range(0, len(self), size):
            yield {name: np.asarray(a[start : start + size]) for name, a in self.inputs.items()}


@dataclass(frozen=True, slots=True)
class Draw:
    """Which samples of the calibration split were chosen.

    ``split_samples``: how many the split has; ``samples``: indices in it, in the order in which the
    samples are given.
    """

    split_samples: int
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """What a quantizer or trainer may see, never the test split.

    ``train`` is there for trainers only, in the task's order; their `Course` goes through it.
    ``ranges`` are injected ones: the name that `Quantizer.observe` gave an activation -> its smallest
    and largest value. ``draw``: which samples ``calibration`` holds, where they were chosen.
    """

    calibration: Samples
    train: Samples | None
    seed: int
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    draw: Draw | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What a model is for.

    Parameters
    ----------
    name : str
        Registered name.
    inputs : tuple of TensorSpec
        The task's own arrays, before any model's ``preprocess``.
    metric : str
        A name in `quantbench.stats.quality_metrics.METRICS`, ``fidelity`` where there are no labels, or the locator
        of a function ``(outputs, labels) -> float [n]``, more is better.
    load : str
        Locator of ``(split: str) -> Samples`` for each of ``splits``. Raises `DataMissing`.
    version : str
        Part of every cache key: changes whenever ``load`` returns other arrays.
    classes : tuple of str
        Class names by label, empty where there are none.
    splits : tuple of str
        The splits there are; without ``train`` nothing can be trained. With `CONFIRMATION` what is
        recommended is scored again on samples that took no part in the choice.
    transductive : bool
        One graph, whose test nodes' inputs are seen while training and calibrating, but never
        their labels: the splits share their inputs, and nothing is compared.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    metric: str
    load: str
    version: str
    classes: tuple[str, ...] = ()
    description: str = ""
    splits: tuple[str, ...] = SPLITS
    transductive: bool = False
