"""Task cora: papers of the Cora citation graph by subject, one graph with the Planetoid split."""

from __future__ import annotations

import numpy as np

from quantbench.spec import Array, Samples, Task, TensorSpec
from quantbench_experiments.data import check_split, data_folder, verified
from quantbench_experiments.tasks import planetoid

SOURCE = "https://github.com/kimiyoung/planetoid"
SHA256 = "488810967d82757e726e29cbbfd433e2c45c365cd2f7013f98b5482a06a37a41"
NODES, WORDS, CLASSES = 2708, 1433, 7
MASKS = {"train": "train_mask", "calibration": "val_mask", "test": "test_mask"}

TASK = Task(
    name="cora",
    inputs=(
        TensorSpec("features", (None, NODES, WORDS), "float32"),
        TensorSpec("adjacency", (None, NODES, NODES), "float32"),
    ),
    metric="top1",
    load=f"{__name__}:load",
    version="1",
    transductive=True,
    description="Cora citation graph, 2,708 papers of 7 subjects; 1,000 test nodes (Planetoid split)",
)


def load(split: str) -> Samples:
    """One split: the one graph, with the labels of the split's nodes; -1 for all others.

    ``features`` float32 [1, 2708, 1433], rows that add up to 1; ``adjacency`` float32
    [1, 2708, 2708], weights of edges ``1 / sqrt(d_i d_j)`` with self loops (Kipf and Welling 2017,
    section 2); labels int64 [1, 2708].

    Raises
    ------
    BadInput
        For an unknown split.
    DataMissing
        If the file is absent or not the right one.
    """
    check_split(split, MASKS)
    data = read()
    features = np.zeros((NODES, WORDS), np.float32)
    rows = np.repeat(np.arange(NODES), np.diff(data["x_indptr"]))
    features[rows, data["x_indices"]] = data["x_data"]
    features /= np.maximum(features.sum(1, keepdims=True), 1)
    labels = np.where(data[MASKS[split]], data["y"].astype(np.int64), -1)
    inputs = {"features": features[None], "adjacency": normalized(data["edge_index"])[None]}
    return Samples(inputs, labels[None])


def read() -> dict[str, Array]:
    """The graph as plain arrays, from ``cora/cora.npz`` or the source's own files."""
    packed, folder = data_folder() / "cora" / "cora.npz", data_folder() / "planetoid" / "data"
    if not packed.is_file() and (folder / "ind.cora.graph").is_file():
        return planetoid.read(folder, "cora")
    remedy = f"put the folder 'data' of {SOURCE} into {folder.parent}, or see docs/data.md"
    with np.load(verified(packed, SHA256, remedy), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def normalized(edges: Array) -> Array:
    """``D^-1/2 (A + I) D^-1/2`` float32 [2708, 2708] of edges int [2, m]."""
    matrix = np.eye(NODES)
    matrix[edges[0], edges[1]] = 1
    scale = 1 / np.sqrt(matrix.sum(1))
    found: Array = (scale[:, None] * matrix * scale).astype(np.float32)
    return found
