"""Task kws01: the 1,000 keywords of MLPerf Tiny, as features of its int8 model."""

from __future__ import annotations

import numpy as np

from experiments.data import check_split, data_folder, verified
from harness.errors import DataMissing
from harness.task import Samples, Task
from harness.tensors import Array, TensorSpec

SCALE, ZERO_POINT = 0.5847029089927673, 83
CALIBRATION = 100
SHA256 = "01a3464e34d9668c290ffb51dff16d356fb0f20a23a21c0980e2be46e6115b2a"
URL = "https://github.com/eembc/energyrunner (datasets/kws01)"

TASK = Task(
    name="kws01",
    inputs=(TensorSpec("features", (None, 49, 10, 1), "float32", "NHWC"),),
    metric="top1",
    load="experiments.tasks.kws01:load",
    version="1",
    classes=(
        "Down", "Go", "Left", "No", "Off", "On", "Right", "Stop", "Up", "Yes", "Silence", "Unknown",
    ),
    description="MLPerf Tiny keywords, 49x10 MFCC; 100 of the 1,000 calibrate, 900 test",
    splits=("calibration", "test"),
)  # fmt: skip


def load(split: str) -> Samples:
    """One split: ``features`` float32 [n, 49, 10, 1], labels int64 [n].

    No other features of this set are published, so 100 seeded ones calibrate and the other 900
    test; an utterance that occurs twice is on one side only.

    Raises
    ------
    BadInput
        For an unknown split.
    DataMissing
        If the files are absent or not the right ones.
    """
    check_split(split, TASK.splits)
    stored, labels = read()
    order = np.random.RandomState(0).permutation(len(stored))
    chosen = np.zeros(len(stored), bool)
    chosen[order[:CALIBRATION]] = True
    known = {row.tobytes() for row in stored[chosen]}
    both = np.array([row.tobytes() in known for row in stored])
    index = np.flatnonzero(chosen if split == "calibration" else ~both)
    return Samples({"features": features(stored[index])}, labels[index])


def features(stored: Array) -> Array:
    """Float features [n, 49, 10, 1] of those that are stored, int8 [n, 490]."""
    real = (stored.astype(np.float32) - ZERO_POINT) * np.float32(SCALE)
    return real.reshape(-1, 49, 10, 1)


def read() -> tuple[Array, Array]:
    """All 1,000: int8 [1000, 490] and labels int64 [1000], from either layout of the files."""
    packed = data_folder() / "mlperf_tiny" / "kws" / "kws01.npz"
    folder = data_folder() / "kws01"
    remedy = f"put the .bin files and y_labels.csv of {URL} into {folder}"
    if packed.is_file():
        with np.load(verified(packed, SHA256, remedy), allow_pickle=False) as stored:
            return stored["x"], stored["y"].astype(np.int64)
    table = folder / "y_labels.csv"
    try:
        rows = [line.split(",") for line in table.read_text(encoding="utf-8").split()]
        sounds = [np.frombuffer((folder / name).read_bytes(), np.int8) for name, _, _ in rows]
    except (OSError, ValueError) as error:
        raise DataMissing(f"{folder} cannot be read ({error}); {remedy}") from error
    return np.stack(sounds), np.array([int(label) for _, _, label in rows], np.int64)
