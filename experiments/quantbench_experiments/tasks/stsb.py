"""Task stsb: pairs of English sentences by how alike they are (STS benchmark)."""

from __future__ import annotations

import csv

import numpy as np

from quantbench.spec import Samples, Task, TensorSpec
from quantbench_experiments.data import check_split, data_folder, verified

LONGEST = 512
"""Bytes of UTF-8 that are kept of a sentence; the longest here has fewer."""
FILES = {
    "train": (
        "stsb-en-train.csv",
        "e1e84fec60bbb598735552f54a35f4949904a484750fd2cb11e2720e49f63da6",
    ),
    "calibration": (
        "stsb-en-dev.csv",
        "d29586e96558c4eb52cf5ea5d14e9c24d3bf0e44f111b017caba43a5adc33226",
    ),
    "test": (
        "stsb-en-test.csv",
        "11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053",
    ),
}
URL = "https://github.com/PhilipMay/stsb-multi-mt (data)"

TASK = Task(
    name="stsb",
    inputs=(TensorSpec("text", (None, LONGEST), "uint8"),),
    metric="pairs",
    load=f"{__name__}:load",
    version="1",
    description="STS benchmark: 1,379 test pairs; samples 2i and 2i + 1 are a pair, Spearman's correlation",
)


def load(split: str) -> Samples:
    """One split: ``text`` uint8 [2n, 512], UTF-8 padded with 0; labels float64 [2n], 0 to 5.

    Sentences 2i and 2i + 1 are a pair. Pairs of other splits that hold a sentence of the test
    split are left out.

    Raises
    ------
    BadInput
        For an unknown split.
    DataMissing
        If a file is absent or not the right one.
    """
    check_split(split, FILES)
    pairs = read(split)
    if split != "test":
        known = {text for pair in read("test") for text in pair[:2]}
        pairs = [pair for pair in pairs if not known & set(pair[:2])]
    text = np.zeros((2 * len(pairs), LONGEST), np.uint8)
    for i, sentence in enumerate(s for pair in pairs for s in pair[:2]):
        encoded = np.frombuffer(sentence.encode("utf-8")[:LONGEST], np.uint8)
        text[i, : len(encoded)] = encoded
    return Samples({"text": text}, np.repeat([pair[2] for pair in pairs], 2))


def read(split: str) -> list[tuple[str, str, float]]:
    """The pairs of a file with their scores."""
    name, digest = FILES[split]
    path = data_folder() / "stsb" / name
    remedy = f"download {name} from {URL} and put it into {path.parent}"
    with verified(path, digest, remedy).open(encoding="utf-8", newline="") as file:
        return [(first, second, float(score)) for first, second, score in csv.reader(file)]
