"""Task kws01: the 1,000 keywords of MLPerf Tiny, as features of its int8 model."""

from __future__ import annotations

import numpy as np
from scipy.signal import resample_poly

from quantbench.errors import DataMissing
from quantbench.spec import Array, Samples, Task, TensorSpec
from quantbench_experiments.data import check_split, data_folder, verified
from quantbench_experiments.tasks import fsdd
from quantbench_experiments.tasks.fsdd import recordings
from quantbench_experiments.tasks.mfcc import RATE, mfcc

SCALE, ZERO_POINT = 0.5847029089927673, 83
UNKNOWN = 11
CALIBRATION_TAKES = (5, 6)
SHA256 = "01a3464e34d9668c290ffb51dff16d356fb0f20a23a21c0980e2be46e6115b2a"
URL = "https://github.com/eembc/energyrunner (datasets/kws01)"

TASK = Task(
    name="kws01",
    inputs=(TensorSpec("features", (None, 49, 10, 1), "float32", "NHWC"),),
    metric="top1",
    load=f"{__name__}:load",
    version="2",
    classes=(
        "Down", "Go", "Left", "No", "Off", "On", "Right", "Stop", "Up", "Yes", "Silence", "Unknown",
    ),
    description="MLPerf Tiny keywords, 49x10 MFCC; spoken digits calibrate",
    splits=("calibration", "test"),
)  # fmt: skip


def load(split: str) -> Samples:
    """One split: ``features`` float32 [n, 49, 10, 1], labels int64 [n].

    All 1,000 test. No other features of this set are published: 120 spoken digits of `fsdd` calibrate,
    which are no keywords of this set ("Unknown"), through the same features.

    Raises
    ------
    BadInput
        For an unknown split.
    DataMissing
        If the files are absent or not the right ones.
    """
    check_split(split, TASK.splits)
    if split == "test":
        stored, labels = read()
        return Samples({"features": features(stored)}, labels)
    spoken = [audio for audio, _, take in recordings() if take in CALIBRATION_TAKES]
    real = np.stack([mfcc(one_second(audio)) for audio in spoken])
    stored = np.clip(np.round(real / SCALE + ZERO_POINT), -128, 127).astype(np.int8)
    return Samples({"features": features(stored)}, np.full(len(stored), UNKNOWN, np.int64))


def one_second(audio: Array) -> Array:
    """A recording int16 [samples] at 8 kHz in the middle of one second at 16 kHz, its highest value 1."""
    sound = resample_poly(audio.astype(np.float64), RATE, fsdd.RATE)[:RATE]
    before = (RATE - len(sound)) // 2
    padded = np.pad(sound, (before, RATE - len(sound) - before))
    scaled: Array = padded / max(padded.max(), 1.0)
    return scaled


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
