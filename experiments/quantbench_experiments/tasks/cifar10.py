"""Task cifar10: CIFAR-10 as raw pixels, from Parquet files or from the original binary version."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantbench.errors import BadInput, DataMissing, did_you_mean
from quantbench.spec import Array, Samples, Task, TensorSpec
from quantbench.system import content_key, entry, filling
from quantbench_experiments.data import check_digest, data_folder, verified

CALIBRATION = 1024
"""Images of ``data_batch_1`` that calibrate; the rest of the training images train."""

TASK = Task(
    name="cifar10",
    inputs=(TensorSpec("image", (None, 3, 32, 32), "float32", "NCHW"),),
    metric="top1",
    load=f"{__name__}:load",
    version="1",
    classes=(
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    description="CIFAR-10, 32x32 colour pixels in 0..255, the full official test set",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """10,000 images that are stored together, and the SHA-256 that prove them.

    Parameters
    ----------
    parquet, file_sha256 : str
        The Parquet file and its hash.
    batches : tuple of str
        Files of the binary version that hold the same images.
    pixels_sha256, labels_sha256 : str
        Of the decoded uint8 [10000, 32, 32, 3] and uint8 [10000], C order.
    per_class : int or None
        Only the first so many images of each class in ``batches`` belong to it; None for all.
    """

    parquet: str
    file_sha256: str
    batches: tuple[str, ...]
    pixels_sha256: str
    labels_sha256: str
    per_class: int | None = None


TEST = Part(
    parquet="test.parquet",
    file_sha256="6bf306b3dc7def19912c2d891116d7beb1cf60d85574e901c80b0f568110488a",
    batches=("test_batch.bin",),
    pixels_sha256="f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    labels_sha256="cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
)
FIRST = Part(
    parquet="train-00000-of-00002.parquet",
    file_sha256="2419a72503067e8220340427fd18fe92fbc0176afbac44b2a091c49eb059d863",
    batches=("data_batch_1.bin",),
    pixels_sha256="fc115a3de050d667b88cbd5b0b9612ebf996c54230fe7758f3a14bb5af9a1c27",
    labels_sha256="d829dbdf32167c9d7b3687cee66d92d80d46c441308b5aca0d11e8b69e27dac9",
)
# The last of these is training image 20211, so data_batch_4 and _5 hold none.
BALANCED = Part(
    parquet="train-00001-of-00002.parquet",
    file_sha256="ca8ab36c1398ffec9e98bc663bc26ffa063a05fadd36c9164fcb164a4682dc36",
    batches=("data_batch_2.bin", "data_batch_3.bin"),
    pixels_sha256="f1ab49a5ae4bfbc6c633d8dd59c4b8ed4c984d43054c352bf8543444b456bc5b",
    labels_sha256="1ac4da492923098e60d1dc76703aff334160c95f2c9f9035a305efb285fc2e2a",
    per_class=1000,
)


def load(split: str) -> Samples:
    """One split: ``image`` float32 [n, 3, 32, 32] in 0..255, labels int64 [n].

    ``test``: all 10,000 in official order; ``calibration``: the first 1,024 of ``data_batch_1``;
    ``train``: its other 8,976, then 10,000 more, 1,000 of each class. The same arrays from either
    layout of the files.

    Raises
    ------
    BadInput
        For an unknown split.
    DataMissing
        If a file is absent or not the right one; says what to download and where to put it.
    """
    if split == "test":
        pixels, labels = read(TEST)
    elif split == "calibration":
        pixels, labels = (array[:CALIBRATION] for array in read(FIRST))
    elif split == "train":
        first, first_labels = read(FIRST)
        balanced, balanced_labels = read(BALANCED)
        pixels = np.concatenate([first[CALIBRATION:], balanced])
        labels = np.concatenate([first_labels[CALIBRATION:], balanced_labels])
    else:
        known = ("train", "calibration", "test")
        raise BadInput(f"unknown split '{split}'.{did_you_mean(split, known)}")
    image = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32)
    return Samples({"image": image}, labels.astype(np.int64))


def read(part: Part) -> tuple[Array, Array]:
    """Pixels uint8 [10000, 32, 32, 3] and labels uint8 [10000], checksums verified.

    Raises `DataMissing`.
    """
    parquet = data_folder() / "cifar10" / part.parquet
    batches = [data_folder() / "cifar-10-batches-bin" / name for name in part.batches]
    if parquet.is_file() or not all(path.is_file() for path in batches):
        return _from_parquet(verified(parquet, part.file_sha256, remedy()), part)
    return _from_batches(batches, part)


def remedy() -> str:
    """What to download, from where, and where to put it."""
    return (
        "download the binary version (cifar-10-binary.tar.gz) from "
        f"https://www.cs.toronto.edu/~kriz/cifar.html and extract it in {data_folder()} "
        "($QUANTBENCH_DATA), or put the Parquet files that docs/data.md describes into "
        f"{data_folder() / 'cifar10'}"
    )


def _from_parquet(path: Path, part: Part) -> tuple[Array, Array]:
    """The arrays of a Parquet file, memory-mapped from the cache; decoded the first time."""
    folder = entry("cifar10", content_key(file=part.file_sha256, version=TASK.version))
    if not folder.is_dir():
        with filling(folder) as temporary:
            for name, array in zip(("pixels", "labels"), _decode(path), strict=True):
                np.save(temporary / f"{name}.npy", array)
    cure = f"delete the folder {folder} and run again"
    try:
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
    except (OSError, ValueError) as error:
        raise DataMissing(f"the cache of {path} is damaged; {cure}") from error
    _check(f"the cache of {path}", pixels, labels, part, cure)
    return pixels, labels


def _decode(path: Path) -> tuple[Array, Array]:
    from PIL import Image
    from pyarrow.parquet import read_table

    table = read_table(path, columns=["image", "label"])
    images = [np.asarray(Image.open(io.BytesIO(png.as_py()))) for png in table["image"]]
    return np.stack(images), np.asarray(table["label"], np.uint8)


def _from_batches(paths: list[Path], part: Part) -> tuple[Array, Array]:
    """The arrays of files of the binary version.

    A record is one byte of label, then 1024 bytes each of red, green and blue.
    """
    what = " and ".join(map(str, paths))
    try:
        content = b"".join(path.read_bytes() for path in paths)
    except OSError as error:
        raise DataMissing(f"{what} cannot be read ({error.strerror}); {remedy()}") from error
    whole = len(content) // 3073
    records = np.frombuffer(content, np.uint8, whole * 3073).reshape(whole, 3073)
    if part.per_class is not None:
        members = (np.flatnonzero(records[:, 0] == label) for label in range(10))
        records = records[np.sort(np.concatenate([m[: part.per_class] for m in members]))]
    pixels, labels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]
    _check(what, pixels, labels, part, remedy())
    return pixels, labels


def _check(what: str, pixels: Array, labels: Array, part: Part, cure: str) -> None:
    """Raise `DataMissing`, which names the ``cure``, unless these are the part's arrays."""
    for kind, array, expected in (
        ("pixels", pixels, part.pixels_sha256),
        ("labels", labels, part.labels_sha256),
    ):
        got = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        check_digest(f"{what}: array of {kind}", expected, got, cure)
