"""Task fsdd: spoken digits as log-mel frames, from the Free Spoken Digit Dataset."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from quantbench.errors import DataMissing
from quantbench.spec import Array, Samples, Task, TensorSpec
from quantbench_experiments.data import check_split, data_folder, verified

SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
PACKED_SHA256 = "c82f96df98c6f17973ee8a3c8e95ea2ee208c86b3a20ff15d87df6836c8e5160"
RATE, WINDOW, HOP, BANDS, FRAMES = 8000, 256, 128, 40, 64
LOWEST_HZ = 60.0
TAKES = {"test": range(5), "calibration": range(5, 10), "train": range(10, 50)}
"""Recordings of each digit by each speaker; takes 0 to 4 are the official test split."""

TASK = Task(
    name="fsdd",
    inputs=(TensorSpec("frames", (None, FRAMES, BANDS), "float32"),),
    metric="top1",
    load=f"{__name__}:load",
    version="1",
    classes=tuple("0123456789"),
    description="Free Spoken Digit Dataset, 64 frames of 40 log-mel bands, 3,000 recordings",
)


def load(split: str) -> Samples:
    """One split: ``frames`` float32 [n, 64, 40], labels int64 [n]; sorted by digit, speaker, take.

    Raises
    ------
    BadInput
        For an unknown split.
    DataMissing
        If the recordings are absent; says what to download and where to put it.
    """
    check_split(split, TAKES)
    chosen = [(audio, digit) for audio, digit, take in recordings() if take in TAKES[split]]
    frames = np.stack([log_mel(audio) for audio, _ in chosen])
    return Samples({"frames": frames}, np.array([digit for _, digit in chosen], np.int64))


def recordings() -> list[tuple[Array, int, int]]:
    """Sound int16 [samples], digit and take of each recording, from either layout of the files.

    Raises `DataMissing`.
    """
    packed, plain = data_folder() / "fsdd" / "fsdd.npz", _wav_folder()
    remedy = (
        f"download {SOURCE} and put its folder 'recordings' into {plain.parent} "
        "($QUANTBENCH_DATA/free-spoken-digit-dataset)"
    )
    if not packed.is_file():
        return _from_wav(plain, remedy)
    with np.load(verified(packed, PACKED_SHA256, remedy), allow_pickle=False) as stored:
        audio, offsets = stored["audio"], stored["offsets"]
        digits, takes = stored["label"], stored["take"]
    return [
        (audio[start:end], int(digit), int(take))
        for start, end, digit, take in zip(offsets, offsets[1:], digits, takes, strict=False)
    ]


def _wav_folder() -> Path:
    return data_folder() / "free-spoken-digit-dataset" / "recordings"


def _from_wav(folder: Path, remedy: str) -> list[tuple[Array, int, int]]:
    """Files ``{digit}_{speaker}_{take}.wav``, mono, 16 bit, 8 kHz."""
    names = sorted(
        (int(digit), speaker, int(take), path)
        for path in folder.glob("*_*_*.wav")
        for digit, speaker, take in [path.stem.split("_")]
    )
    if not names:
        raise DataMissing(f"{folder} holds no recordings; {remedy}")
    found = []
    for digit, _, take, path in names:
        with wave.open(str(path)) as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE):
                raise DataMissing(f"{path} is not mono, 16 bit and {RATE} Hz; {remedy}")
            sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        found.append((sound, digit, take))
    return found


def log_mel(audio: Array) -> Array:
    """Frames float32 [64, 40]: power in mel bands, logarithmic, about -1..1; cut or padded with silence.

    Hann windows of 32 ms every 16 ms. Mel scale: O'Shaughnessy, Speech Communication (1987), 4.3.
    """
    sound = audio.astype(np.float64) / 32768
    sound = np.pad(sound, (0, max(0, FRAMES * HOP + WINDOW - len(sound))))
    starts = np.arange(FRAMES) * HOP
    windows = sound[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(windows)) ** 2
    frames: Array = ((np.log(power @ _filters().T + 1e-6) + 6) / 6).astype(np.float32)
    return frames


def _filters() -> Array:
    """Triangles [40, 129] that are evenly spaced on the mel scale."""
    ends = 2595 * np.log10(1 + np.array([LOWEST_HZ, RATE / 2]) / 700)
    hertz = 700 * (10 ** (np.linspace(ends[0], ends[1], BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    low, middle, high = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters: Array = np.maximum(0, np.minimum(rising, falling))
    return filters
