"""Planetoid: a citation graph from the source's own files, which are pickles, read without running code."""

from __future__ import annotations

import codecs
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.errors import DataMissing
from quantbench.spec import Array

PARTS = ("tx", "allx", "y", "ty", "ally", "graph")


class _Sparse:
    """The attributes of a pickled SciPy matrix; nothing of SciPy is called."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.indices = np.asarray(state["indices"])
        self.indptr = np.asarray(state["indptr"])
        self.data = np.asarray(state["data"])


def _reconstructed(kind: type, *_: object) -> object:
    return object.__new__(kind)


_RECONSTRUCT: Callable[..., Any] = np.zeros(0).__reduce__()[0]  # type: ignore[assignment]
_KNOWN: Mapping[str, Callable[..., Any]] = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": _RECONSTRUCT,
    "csr_matrix": _Sparse,
    "defaultdict": defaultdict,
    "list": list,
    "object": object,
    "_reconstructor": _reconstructed,
    "encode": codecs.encode,
}
"""By name alone, since NumPy and SciPy have moved them; whatever else a file names is refused."""
_MODULES = (
    "numpy",
    "scipy",
    "collections",
    "builtins",
    "__builtin__",
    "copy_reg",
    "copyreg",
    "_codecs",
)


class _Restricted(pickle.Unpickler):
    """Builds arrays, sparse matrices and dicts; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] in _MODULES and name in _KNOWN:
            return _KNOWN[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read(folder: Path, name: str) -> dict[str, Array]:
    """A graph from ``ind.NAME.{tx,allx,y,ty,ally,graph,test.index}``, as plain arrays.

    ``x_indices x_indptr x_data`` (CSR of the features, columns sorted in each row), ``edge_index``
    int32 [2, m] (both directions, no loops, sorted), ``y`` uint8 [n], and bool [n] ``train_mask``,
    ``val_mask`` (the 500 after the training nodes) and ``test_mask``.

    Raises
    ------
    DataMissing
        If a file is absent, or holds something else than arrays.
    """
    tx, allx, y, ty, ally, graph = (_part(folder / f"ind.{name}.{part}") for part in PARTS)
    index = np.array((folder / f"ind.{name}.test.index").read_text(encoding="utf-8").split(), int)
    labels = np.concatenate([ally, ty]).argmax(1).astype(np.uint8)
    rows = [_row(allx, i) for i in range(len(ally))] + [_row(tx, i) for i in range(len(ty))]
    place = np.arange(len(rows))
    # test nodes are stored in ascending order of place, and named in another
    place[index] = np.sort(index)
    rows, labels = [rows[i] for i in place], labels[place]
    edges = {(a, b) for a, others in graph.items() for b in others if a != b}
    both = np.array(sorted(edges | {(b, a) for a, b in edges}), np.int32).T
    nodes = np.arange(len(rows))
    return {
        "x_data": np.concatenate([values for _, values in rows]),
        "x_indices": np.concatenate([columns for columns, _ in rows]).astype(np.int32),
        "x_indptr": np.cumsum([0, *(len(columns) for columns, _ in rows)]),
        "edge_index": both,
        "y": labels,
        "train_mask": nodes < len(y),
        "val_mask": (nodes >= len(y)) & (nodes < len(y) + 500),
        "test_mask": np.isin(nodes, index),
    }


def _part(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Restricted(file, encoding="latin1").load()
    except OSError as error:
        raise DataMissing(
            f"{path} cannot be read ({error.strerror}); docs/data.md has its source"
        ) from error
    except Exception as error:  # whatever a broken or hostile file provokes
        raise DataMissing(f"{path} is not a file of Planetoid: {error}") from error


def _row(matrix: _Sparse, i: int) -> tuple[Array, Array]:
    """Columns, ascending, and values of one row."""
    part = slice(matrix.indptr[i], matrix.indptr[i + 1])
    order = np.argsort(matrix.indices[part])
    return matrix.indices[part][order], matrix.data[part][order].astype(np.float32)
