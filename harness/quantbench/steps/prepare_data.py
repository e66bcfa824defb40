"""Data on disk: a task's splits as the model expects them, written once, memory-mapped by workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import registry
from quantbench.errors import BadInput
from quantbench.spec import (
    CONFIRMATION,
    Array,
    Data,
    Draw,
    Model,
    Samples,
    Shift,
    open_arrays,
    save_arrays,
)
from quantbench.system import filling, locate

LABELS = "labels.npy"
SIZES = "sizes.json"
HASHES = "hashes.npy"
"""Of the samples of a split, uint8 [n, 16]."""


def write(
    *, load: str, model: Mapping[str, Any], splits: list[str], folder: str, apart: str = ""
) -> dict[str, Any]:
    """Worker function: load splits, preprocess them for the model and write them to ``folder``.

    Returns the number of samples of each split. ``apart``: a folder written before whose test
    split must share no sample with these.

    Raises
    ------
    BadInput
        If arrays do not fit the model's inputs, or calibration, training and test samples overlap.
    """
    described = Model.from_json(model)
    sizes, seen = {}, {}
    if apart:
        seen["test"] = set(map(bytes, np.load(Path(apart) / "test" / HASHES)))
    with filling(Path(folder)) as temporary:
        for split in splits:
            samples = locate(load)(split)
            # of the task's own arrays: a model may well read two samples as one, such as two
            # sentences that differ in a word it does not know
            seen[split] = sample_hashes(samples.inputs)
            inputs = _shifted(dict(samples.inputs), described, split)
            if described.preprocess:
                inputs = locate(described.preprocess)(inputs)
            for spec in described.inputs:
                if spec.name not in inputs:
                    raise BadInput(f"the task gives no input '{spec.name}' for {described.name}")
                spec.check(inputs[spec.name])
            target = temporary / split
            target.mkdir()
            save_arrays(target, {spec.name: inputs[spec.name] for spec in described.inputs})
            np.save(target / LABELS, samples.labels)
            np.save(target / HASHES, np.array([list(h) for h in sorted(seen[split])], np.uint8))
            sizes[split] = len(samples)
        for split in seen.keys() - {"test"}:
            shared = seen[split] & seen.get("test", set())
            if shared and not registry.task(described.task).transductive:
                raise BadInput(
                    f"{len(shared)} {split} samples are also test samples; "
                    "give the task disjoint splits"
                )
        (temporary / SIZES).write_text(json.dumps(sizes), encoding="utf-8")
    return sizes


def _shifted(inputs: dict[str, Array], model: Model, split: str) -> dict[str, Array]:
    """A split's arrays under the model's shift, where it has one for this split."""
    if not model.shift:
        return inputs
    shift = Shift.read(model.shift)
    if split in ("test", CONFIRMATION) or (split == "calibration" and shift.recalibrated):
        layouts = {spec.name: spec.layout for spec in registry.task(model.task).inputs}
        return {name: shift.apply(array, layouts[name]) for name, array in inputs.items()}
    return inputs


def sample_hashes(inputs: Mapping[str, Array]) -> set[bytes]:
    """A hash of 16 bytes of each sample."""
    count = len(next(iter(inputs.values())))
    hashes = set()
    for i in range(count):
        digest = hashlib.blake2b(digest_size=16)
        for array in inputs.values():
            digest.update(np.ascontiguousarray(array[i]).tobytes())
        hashes.add(digest.digest())
    return hashes


def read_split(folder: Path, split: str, model: Model) -> Samples:
    """A split that `write` has written, memory-mapped."""
    inputs = open_arrays(folder / split, [spec.name for spec in model.inputs])
    return Samples(inputs, read_labels(folder, split))


def read_labels(folder: Path, split: str) -> Array:
    """The labels of a split that `write` has written."""
    labels: Array = np.load(folder / split / LABELS)
    return labels


def calibration_data(
    folder: Path, model: Model, samples: int, seed: int, train: Samples | None = None
) -> Data:
    """The seeded choice of ``samples`` calibration samples, in random order, with any ``train``.

    Raises
    ------
    BadInput
        If there are fewer than asked for, or any is not finite.
    """
    pool = read_split(folder, "calibration", model)
    if samples and not len(pool):
        raise BadInput("the calibration split is empty; give the task calibration samples")
    if samples > len(pool):
        raise BadInput(
            f"{samples} calibration samples were asked for, but the calibration split has "
            f"{len(pool)}; set 'samples: {len(pool)}' or less"
        )
    index = draw(len(pool), samples, seed)
    chosen = pool.take(index)
    for name, array in chosen.inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadInput(
                f"calibration input '{name}' holds NaN or infinity; correct the task's data"
            )
    return Data(chosen, train, seed, draw=Draw(len(pool), tuple(index.tolist())))


def draw(split_samples: int, samples: int, seed: int) -> Array:
    """Indices (int64 [samples]) of the calibration samples that a seed chooses, in random order."""
    index: Array = np.random.default_rng(seed).permutation(split_samples)[:samples]
    return index


def split_samples(folder: Path, split: str) -> int | None:
    """How many samples a split has that `write` has written; None where it is no longer there."""
    try:
        sizes = json.loads((folder / SIZES).read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(sizes[split])
