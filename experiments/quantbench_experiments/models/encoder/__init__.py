"""Models bert-tiny-*: encoders of the size of BERT tiny, trained here on one set of texts each."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from quantbench.execution import made
from quantbench.spec import Array, Arrays, Model, TensorSpec
from quantbench.system import locator
from quantbench_experiments.tasks.text import decoded, load

LENGTH, WIDTH, HEADS, LAYERS = 64, 128, 2, 2
PADDING, UNKNOWN, FIRST = 0, 1, 2
FEWEST = 2
"""Words that the training texts hold less often are unknown."""
CLASSES = {"sst2": 2, "trec": 6, "tweeteval-emotion": 4}


def _described(task: str) -> Model:
    name = f"bert-tiny-{task.rpartition('-')[2]}"
    return Model(
        name=name,
        task=task,
        inputs=(TensorSpec("ids", (None, LENGTH), "int64"),),
        outputs=(TensorSpec("logits", (None, CLASSES[task]), "float32"),),
        weights=locator(made, f"{__name__}.train:weights({task})"),
        state="quantbench_experiments.models.stored:state",
        forms={
            "torch": f"{__name__}.torch_form:build({task})",
            "keras": f"{__name__}.keras_form:build",
        },
        preprocess=f"{__name__}:preprocess({task})",
        description=f"Transformer encoder, {LAYERS} layers of width {WIDTH}, {LENGTH} words, trained "
        f"on {task} alone from a seed",
    )


SST2, TREC, EMOTION = map(_described, CLASSES)


def preprocess(task: str, inputs: Arrays) -> dict[str, Array]:
    """Texts uint8 [n, 512] as ids of words int64 [n, 64], padded with 0."""
    known = vocabulary(task)
    ids = np.zeros((len(inputs["text"]), LENGTH), np.int64)
    for row, text in zip(ids, decoded(inputs["text"]), strict=True):
        found = [known.get(word, UNKNOWN) for word in words(text)[:LENGTH]] or [UNKNOWN]
        row[: len(found)] = found
    return {"ids": ids}


@cache
def vocabulary(task: str) -> dict[str, int]:
    """Words of the training texts that occur often enough, by their place in the alphabet."""
    texts = decoded(load(task, "train").inputs["text"])
    counts = Counter(word for text in texts for word in words(text))
    kept = sorted(word for word, count in counts.items() if count >= FEWEST)
    return {word: FIRST + i for i, word in enumerate(kept)}


def words(text: str) -> list[str]:
    """Lower-case words, numbers and single signs."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def rows(path: Path) -> int:
    """Rows of the embedding in a file of weights."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return int(file.get_slice("words.weight").get_shape()[0])
