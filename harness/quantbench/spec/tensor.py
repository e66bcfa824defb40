"""TensorSpec: what one named input or output of a model or an artifact looks like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import BadInput
from quantbench.system import stored_as

Array = NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape, dtype, layout and affine quantization of one tensor.

    Parameters
    ----------
    name : str
        The task's name of the tensor, the same in every framework.
    shape : tuple of int or None
        ``None`` marks an axis of free length; the first axis is the batch.
    dtype : str
        NumPy's name: ``float32``, ``int8``, ``int64``...
    layout : str
        One letter per axis (``NCHW``, ``NHWC``), or empty where axes have no convention.
    scale, zero_point
        ``real = scale * (stored - zero_point)`` where the tensor is stored as integers of a
        real quantity; ``None`` where the values stand for themselves.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: str = ""
    scale: float | None = None
    zero_point: int | None = None

    def check(self, array: Array) -> None:
        """Raise `BadInput` unless ``array`` has this dtype and shape."""
        if array.dtype != np.dtype(self.dtype):
            raise BadInput(
                f"input '{self.name}' has dtype {array.dtype}, expected {self.dtype}; "
                f"convert it with .astype('{self.dtype}')"
            )
        fits = len(array.shape) == len(self.shape) and all(
            want is None or want == got for want, got in zip(self.shape, array.shape, strict=True)
        )
        if not fits:
            want = ", ".join("any" if n is None else str(n) for n in self.shape)
            raise BadInput(f"input '{self.name}' has shape {array.shape}, expected ({want})")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it back."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "layout": self.layout,
            "scale": self.scale,
            "zero_point": self.zero_point,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """The inverse of `to_json`."""
        return cls(**{**data, "shape": tuple(data["shape"])})


def check_inputs(specs: Sequence[TensorSpec], arrays: Arrays, batch_size: int) -> None:
    """Raise `BadInput` unless ``arrays`` holds exactly the named tensors, ``batch_size`` samples each."""
    missing = [spec.name for spec in specs if spec.name not in arrays]
    unknown = sorted(set(arrays) - {spec.name for spec in specs})
    if missing or unknown:
        raise BadInput(
            f"inputs are {[spec.name for spec in specs]}; missing {missing}, unknown {unknown}"
        )
    for spec in specs:
        array = arrays[spec.name]
        spec.check(array)
        if len(array) != batch_size:
            raise BadInput(
                f"input '{spec.name}' holds {len(array)} samples, "
                f"but the session was loaded with batch_size={batch_size}"
            )


def relayout(array: Array, source: str, target: str) -> Array:
    """A view of ``array`` with its axes moved from layout ``source`` to ``target``."""
    if not source or not target or source == target:
        return array
    return array.transpose([source.index(axis) for axis in target])


def encode(array: Array, task: TensorSpec, stored: TensorSpec) -> Array:
    """The task's array as the artifact stores it: layout moved, quantized, cast; C-contiguous.

    Real values are quantized as ``clip(round_half_even(x / scale) + zero_point)``
    (ONNX QuantizeLinear's rule, and LiteRT's up to ties).
    """
    moved = relayout(array, task.layout, stored.layout)
    if stored.scale is not None:
        info = np.iinfo(stored.dtype)
        levels = np.rint(moved / np.float32(stored.scale)) + (stored.zero_point or 0)
        moved = np.clip(levels, info.min, info.max)
    return np.ascontiguousarray(moved, dtype=stored.dtype)


def decode(array: Array, task: TensorSpec, stored: TensorSpec) -> Array:
    """The artifact's output in the task's layout and dtype, dequantized; a fresh array."""
    moved = relayout(array, stored.layout, task.layout)
    if stored.scale is not None:
        moved = (moved.astype(np.float32) - (stored.zero_point or 0)) * np.float32(stored.scale)
    return np.array(moved, dtype=task.dtype, order="C")


NAMES = "names.json"
"""In a folder of arrays: what each file's array is called."""


def save_arrays(folder: Path, arrays: Arrays) -> None:
    """Write each array as ``.npy`` under a name of ours, and what they are called in `NAMES`."""
    for name, array in arrays.items():
        np.save(folder / f"{stored_as(name)}.npy", np.ascontiguousarray(array), allow_pickle=False)
    text = json.dumps({stored_as(name): name for name in arrays}, indent=1)
    (folder / NAMES).write_text(text, encoding="utf-8")


def open_arrays(folder: Path, names: Iterable[str]) -> dict[str, Array]:
    """Some of the arrays that `save_arrays` has written, by their names, memory-mapped."""
    return {
        name: np.load(folder / f"{stored_as(name)}.npy", mmap_mode="r", allow_pickle=False)
        for name in names
    }


def read_arrays(folder: Path) -> dict[str, Array]:
    """All arrays that `save_arrays` has written, by their names, in the order of writing."""
    names = json.loads((folder / NAMES).read_text(encoding="utf-8")).values()
    return {name: np.load(folder / f"{stored_as(name)}.npy", allow_pickle=False) for name in names}
