from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantbench.errors import BadInput, DataMissing
from quantbench.spec import Array, check_inputs
from quantbench.system import cache_folder
from quantbench_experiments.data import data_folder
from quantbench_experiments.tasks import cifar10
from quantbench_experiments.tasks.cifar10 import BALANCED, FIRST, TASK, TEST, Part, load, read

SIZES = {"train": 18_976, "calibration": 1_024, "test": 10_000}


def records(pixels: Array, labels: Array) -> Array:
    """Records of the binary version: uint8 [n, 3073]."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(labels), 3072)
    return np.concatenate([labels[:, None], planes], axis=1)


def write_binary_version(folder: Path) -> None:
    """Write from the Parquet files what the original archive holds, as far as it is read.

    Images that the Parquet files do not hold are blank; their labels are of the class that was
    complete first, as any label there must be of a complete class.
    """
    from pyarrow.parquet import read_table

    folder.mkdir()
    for part in (TEST, FIRST):
        records(*read(part)).tofile(folder / part.batches[0])
    path = data_folder() / "cifar10" / BALANCED.parquet
    place = np.asarray(read_table(path, columns=["index"])["index"]) - 10_000
    pixels, labels = read(BALANCED)
    last = [place[labels == label].max() for label in range(10)]
    rest = np.zeros((20_000, 3073), np.uint8)
    rest[:, 0] = np.argmin(last)
    rest[place] = records(pixels, labels)
    rest[:10_000].tofile(folder / "data_batch_2.bin")
    rest[10_000:].tofile(folder / "data_batch_3.bin")


@pytest.mark.data
@pytest.mark.slow
def test_splits_have_their_sizes_and_specs_and_share_no_image(real_data: Path) -> None:
    images: list[set[bytes]] = []
    for split, size in SIZES.items():
        samples = load(split)
        check_inputs(TASK.inputs, samples.inputs, size)
        assert samples.labels.dtype == np.int64
        pixels = samples.inputs["image"]
        assert (pixels.min(), pixels.max()) == (0, 255)
        images.append({image.astype(np.uint8).tobytes() for image in pixels})
    train, calibration, test = images
    assert not train & calibration
    assert not train & test
    assert not calibration & test


@pytest.mark.data
def test_the_test_split_is_balanced_and_in_official_order(real_data: Path) -> None:
    labels = load("test").labels
    assert np.bincount(labels).tolist() == [1000] * 10
    # the start of the official test set: cat, ship, ship, airplane, frog, frog, automobile...
    assert labels[:8].tolist() == [3, 8, 8, 0, 6, 6, 1, 6]


@pytest.mark.data
@pytest.mark.slow
def test_the_original_binary_files_give_the_same_arrays(
    parquet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_binary_version(tmp_path / "cifar-10-batches-bin")
    expected = {split: load(split) for split in SIZES}
    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path))
    for split, samples in expected.items():
        got = load(split)
        assert np.array_equal(got.labels, samples.labels)
        assert np.array_equal(got.inputs["image"], samples.inputs["image"])


@pytest.mark.data
def test_an_altered_label_in_a_binary_file_is_refused(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = records(*read(TEST)).copy()
    content[17, 0] = (content[17, 0] + 1) % 10
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    content.tofile(folder / "test_batch.bin")
    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path))
    with pytest.raises(DataMissing, match=f"array of labels has .* expected {TEST.labels_sha256}"):
        load("test")


@pytest.mark.parametrize("size", [0, 100, 3073 * 10_000], ids=["empty", "truncated", "blank"])
def test_a_binary_file_of_other_content_is_refused(size: int, empty_data: Path) -> None:
    folder = empty_data / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(bytes(size))
    with pytest.raises(DataMissing, match=f"test_batch.bin.*expected {TEST.pixels_sha256}"):
        load("test")


@pytest.mark.data
def test_an_altered_parquet_file_is_refused_although_the_right_one_is_cached(
    parquet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(FIRST)
    content = bytearray((parquet_data / "cifar10" / FIRST.parquet).read_bytes())
    content[1_000_000] ^= 1
    altered = tmp_path / "cifar10" / FIRST.parquet
    altered.parent.mkdir()
    altered.write_bytes(content)
    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path))
    with pytest.raises(DataMissing, match=f"has SHA-256 .* expected {FIRST.file_sha256}"):
        load("calibration")


@pytest.mark.parametrize(
    ("split", "part"), [("test", TEST), ("calibration", FIRST), ("train", FIRST)]
)
def test_a_missing_file_says_what_to_get_and_where_to_put_it(
    split: str, part: Part, empty_data: Path
) -> None:
    with pytest.raises(DataMissing) as caught:
        load(split)
    message = str(caught.value)
    assert message.startswith(f"{empty_data / 'cifar10' / part.parquet} is missing; download")
    assert "cifar-10-binary.tar.gz" in message
    assert "https://www.cs.toronto.edu/~kriz/cifar.html" in message
    assert f"extract it in {empty_data} ($QUANTBENCH_DATA)" in message
    assert "\n" not in message


@pytest.mark.data
def test_images_are_decoded_once(
    parquet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path))
    pixels, labels = read(TEST)
    monkeypatch.setattr(cifar10, "_decode", lambda path: pytest.fail("decoded again"))
    again, labels_again = read(TEST)
    assert isinstance(again, np.memmap)
    assert np.array_equal(pixels, again)
    assert np.array_equal(labels, labels_again)


@pytest.mark.data
@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_a_damaged_cache_says_which_folder_to_delete(
    damage: str, parquet_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path))
    read(TEST)
    (file,) = cache_folder().rglob("pixels.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content if damage == "altered" else content[:-1000])
    with pytest.raises(DataMissing, match=f"delete the folder {file.parent} and run again"):
        read(TEST)


def test_an_unknown_split_gets_the_nearest_name() -> None:
    with pytest.raises(BadInput, match=r"unknown split 'calibraton'\. Did you mean 'calibration'"):
        load("calibraton")
