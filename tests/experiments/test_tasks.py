"""The built-in tasks: their splits, and the same arrays from the public layout of their files."""

from __future__ import annotations

import os
import pickle
import wave
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from quantbench.backend_api import registry
from quantbench.errors import BadInput, DataMissing
from quantbench.steps.prepare_data import sample_hashes
from quantbench.system import locate
from quantbench_experiments.tasks import cora, fsdd, kws01, planetoid, stsb, text, vww_noise
from quantbench_experiments.tasks.mfcc import mfcc

pytestmark = [pytest.mark.data]
TF_MFCC = np.array(
    [[-16.9796, -3.9920, 0.1117], [14.5060, -2.9010, 0.5808], [19.1225, -4.1358, -1.2493]]
)
SIZES = {
    "fsdd": {"train": 2400, "calibration": 300, "test": 300},
    "sst2": {"test": 1821},
    "trec": {"calibration": 512, "test": 500},
    "tweeteval-emotion": {"test": 1421},
    "stsb": {"test": 2758},
    "kws01": {"calibration": 120, "test": 1000},
}


@pytest.mark.parametrize("name", SIZES)
def test_splits_have_their_sizes_and_share_no_sample(name: str, real_data: Path) -> None:
    task = registry.task(name)
    splits = {split: locate(task.load)(split) for split in task.splits}

    hashes = {split: sample_hashes(samples.inputs) for split, samples in splits.items()}

    assert {s: len(splits[s]) for s in SIZES[name]} == SIZES[name]
    for split in set(splits) - {"test"}:
        assert not hashes[split] & hashes["test"]
    for split, samples in splits.items():
        for spec in task.inputs:
            spec.check(samples.inputs[spec.name])
        if task.classes:
            assert set(np.unique(samples.labels)) <= set(range(len(task.classes))), split


def test_features_of_sound_are_those_of_tensorflow() -> None:
    rng = np.random.default_rng(0)
    sound = rng.normal(size=16000) * np.linspace(0, 1, 16000)

    ours = mfcc(sound / sound.max())

    # computed by tf.signal with the recipe of MLPerf Tiny's get_dataset.py, TensorFlow 2.21
    assert ours.shape == (49, 10)
    assert ours[[0, 24, 48], :3] == pytest.approx(TF_MFCC, abs=1e-3)


@pytest.mark.long
def test_spoken_digits_from_recordings_are_those_of_the_packed_file(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(real_data / "fsdd" / "fsdd.npz") as stored:
        folder = tmp_path / "free-spoken-digit-dataset" / "recordings"
        folder.mkdir(parents=True)
        for i in range(0, 3000, 41):
            path = folder / (
                f"{stored['label'][i]}_{stored['speaker_names'][stored['speaker'][i]]}_{stored['take'][i]}.wav"
            )
            start, end = stored["offsets"][i : i + 2]
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(fsdd.RATE)
                file.writeframes(stored["audio"][start:end].astype("<i2").tobytes())
    packed = {(digit, take, audio.tobytes()) for audio, digit, take in fsdd.recordings()}

    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path))
    plain = {(digit, take, audio.tobytes()) for audio, digit, take in fsdd.recordings()}

    assert len(plain) == 74
    assert plain <= packed


def test_frames_see_a_tone_in_its_band() -> None:
    seconds = np.arange(8000) / fsdd.RATE
    tone = (8000 * np.sin(2 * np.pi * 1000 * seconds)).astype(np.int16)

    frames = fsdd.log_mel(tone)

    middles = np.flatnonzero(fsdd._filters()[:, 32])  # 1000 Hz is bin 32 of 256
    assert frames.shape == (fsdd.FRAMES, fsdd.BANDS)
    assert frames[10].argmax() in middles
    assert frames[-1].max() < frames[10].max()  # silence after the sound


def test_texts_from_the_public_files_are_those_of_the_packed_ones(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = {name: text.read(source, "test") for name, source in text.SOURCES.items()}
    for name, source in text.SOURCES.items():
        folder = tmp_path / source.folder
        folder.mkdir(parents=True)
        rows = packed[name]
        if name == "tweeteval-emotion":
            (folder / "test_text.txt").write_text("\n".join(t for t, _ in rows), encoding="utf-8")
            (folder / "test_labels.txt").write_text("\n".join(str(k) for _, k in rows))
        elif name == "trec":
            lines = [f"{source.classes[k]}:fine {t}" for t, k in rows]
            (folder / "TREC_10.label").write_bytes("\n".join(lines).encode("latin-1"))
        else:
            lines = [f"{k} {t}" for t, k in rows]
            (folder / "stsa.binary.test").write_text("\n".join(lines), encoding="utf-8")

    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path))

    for name, source in text.SOURCES.items():
        assert text.read(source, "test") == packed[name]


def test_texts_survive_their_bytes(real_data: Path) -> None:
    rows = text.read(text.SOURCES["tweeteval-emotion"], "test")

    assert text.decoded(text.EMOTION and text.load("tweeteval-emotion", "test").inputs["text"]) == [
        t for t, _ in rows
    ]


def test_keywords_from_the_public_files_are_those_of_the_packed_one(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, labels = kws01.read()
    folder = tmp_path / "kws01"
    folder.mkdir()
    names = [f"tst_{i:06d}.bin" for i in range(len(stored))]
    for name, row in zip(names, stored, strict=True):
        (folder / name).write_bytes(row.tobytes())
    table = "\n".join(f"{n},12,{k}" for n, k in zip(names, labels, strict=True))
    (folder / "y_labels.csv").write_text(table)

    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path))
    again = kws01.read()

    assert np.array_equal(again[0], stored)
    assert np.array_equal(again[1], labels)


@pytest.mark.long
def test_a_graph_s_splits_share_all_but_their_labels(real_data: Path) -> None:
    train, test = cora.load("train"), cora.load("test")

    assert np.array_equal(train.inputs["features"], test.inputs["features"])
    known = [samples.labels >= 0 for samples in (train, test)]
    assert [int(k.sum()) for k in known] == [140, 1000]
    assert not (known[0] & known[1]).any()
    adjacency = test.inputs["adjacency"][0]
    assert np.array_equal(adjacency, adjacency.T)
    # the largest eigenvalue of the normalized matrix is 1 (Kipf and Welling 2017, section 2.2)
    vector = np.ones(len(adjacency))
    for _ in range(200):
        vector = adjacency @ vector
        vector /= np.linalg.norm(vector)
    assert np.linalg.norm(adjacency @ vector) == pytest.approx(1.0, abs=1e-4)


def test_noise_is_seeded_and_smooth() -> None:
    image = vww_noise.load("test").inputs["image"]

    assert np.array_equal(image, vww_noise.load("test").inputs["image"])
    assert 0 <= image.min() <= image.max() <= 1
    assert np.abs(np.diff(image, axis=3)).mean() < 0.2 * image.std()


def planetoid_files(graph: dict[str, np.ndarray], folder: Path) -> None:
    """The files of a graph as its source has them; test nodes in another order than their places."""
    folder.mkdir(parents=True)
    n = len(graph["y"])
    features = csr_matrix(
        (graph["x_data"], graph["x_indices"], graph["x_indptr"]), shape=tuple(graph["x_shape"])
    )
    labels = np.eye(7, dtype=np.int32)[graph["y"]]
    test = np.flatnonzero(graph["test_mask"])
    order = np.random.default_rng(0).permutation(test)
    train = np.flatnonzero(graph["train_mask"])
    neighbours = defaultdict(list, {i: [] for i in range(n)})
    for a, b in graph["edge_index"].T:
        neighbours[int(a)].append(int(b))
    parts = {
        "tx": features[order], "allx": features[: test[0]],
        "y": labels[train], "ty": labels[order], "ally": labels[: test[0]], "graph": neighbours,
    }  # fmt: skip
    for name, part in parts.items():
        (folder / f"ind.cora.{name}").write_bytes(pickle.dumps(part, protocol=2))
    (folder / "ind.cora.test.index").write_text("\n".join(map(str, order)) + "\n")


def test_the_graph_from_the_source_s_files_is_that_of_the_packed_one(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(real_data / "cora" / "cora.npz", allow_pickle=False) as stored:
        planetoid_files(dict(stored), tmp_path / "planetoid" / "data")
    packed = {split: cora.load(split) for split in cora.MASKS}

    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path))

    for split, samples in packed.items():
        again = cora.load(split)
        assert np.array_equal(again.labels, samples.labels)
        for name, array in samples.inputs.items():
            assert np.array_equal(again.inputs[name], array)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hostile",)


def test_a_file_that_names_anything_but_arrays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ind.cora.tx").write_bytes(pickle.dumps(Hostile()))

    with pytest.raises(
        DataMissing, match=r"ind\.cora\.tx is not a file of Planetoid: it names posix"
    ):
        planetoid.read(tmp_path, "cora")


@pytest.mark.parametrize("module", [fsdd, cora, kws01, stsb, vww_noise])
def test_an_unknown_split_is_named_with_the_nearest(module: object) -> None:
    with pytest.raises(BadInput, match=r"unknown split 'tests'\. Did you mean 'test'\?"):
        module.load("tests")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", ["fsdd", "cora", "sst2", "trec", "tweeteval-emotion", "stsb", "kws01"]
)
def test_missing_data_say_what_to_get_and_where_to_put_it(name: str, empty_data: Path) -> None:
    with pytest.raises(DataMissing, match=str(empty_data)) as caught:
        locate(registry.task(name).load)("test")

    assert (
        "download" in str(caught.value) or "put" in str(caught.value) or "docs" in str(caught.value)
    )
