"""Signature: the named inputs and outputs of a TFLite file, and how they fit the task's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantbench.errors import BadInput
from quantbench.spec import Array, TensorSpec, relayout
from quantbench_backends.tflite.flatbuffer import dtype_name, parse

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One input or output as the file declares it; ``index`` is its place among all tensors."""

    index: int
    shape: Shape
    dtype: str
    scale: float | None
    zero_point: int | None

    def spec(self, task: TensorSpec, *, channels_last: bool) -> TensorSpec:
        """As a TensorSpec under the task's name; see `stored_layout`."""
        return TensorSpec(
            name=task.name,
            shape=self.shape,
            dtype=self.dtype,
            layout=stored_layout(task, self.shape, channels_last=channels_last),
            scale=self.scale,
            zero_point=self.zero_point,
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """A file's inputs and outputs by name, in the order in which its graph has them."""

    inputs: Mapping[str, FileTensor]
    outputs: Mapping[str, FileTensor]


def read(content: bytes) -> Signature:
    """The signature of a file's content; where it has none, tensors go by their own names."""
    model = parse(content)
    if not model.signatureDefs:
        graph = model.subgraphs[0]
        return Signature(
            *(
                {graph.tensors[i].name.decode(): _tensor(int(i), graph.tensors) for i in indices}
                for indices in (graph.inputs, graph.outputs)
            )
        )
    signature = model.signatureDefs[0]
    graph = model.subgraphs[signature.subgraphIndex]
    return Signature(
        _ordered(signature.inputs, graph.inputs, graph.tensors),
        _ordered(signature.outputs, graph.outputs, graph.tensors),
    )


def _ordered(entries: Any, indices: Any, tensors: Sequence[Any]) -> dict[str, FileTensor]:
    order = {int(index): position for position, index in reversed(list(enumerate(indices)))}
    return {
        entry.name.decode(): _tensor(entry.tensorIndex, tensors)
        for entry in sorted(entries, key=lambda entry: order[entry.tensorIndex])
    }


def _tensor(index: int, tensors: Sequence[Any]) -> FileTensor:
    tensor = tensors[index]
    # the signature has -1 for a free axis where the shape has 1; it is left out where none is free
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    affine = tensor.quantization
    quantized = affine is not None and affine.scale is not None and len(affine.scale) == 1
    return FileTensor(
        index=index,
        shape=tuple(None if n < 0 else int(n) for n in shape),
        dtype=dtype_name(tensor.type),
        scale=float(affine.scale[0]) if quantized else None,
        zero_point=int(affine.zeroPoint[0]) if quantized else None,
    )


def by_name(specs: Sequence[TensorSpec], names: Sequence[str]) -> dict[str, TensorSpec]:
    """The form's names to the model's specs, in the model's order: by equal names, or position."""
    if len(names) != len(specs):
        raise BadInput(
            f"the form has {list(names)}, the model declares {[s.name for s in specs]}; "
            "give both the same number, in the same order"
        )
    if set(names) == {spec.name for spec in specs}:
        return {spec.name: spec for spec in specs}
    return dict(zip(names, specs, strict=True))


def stored_layout(task: TensorSpec, shape: Shape, *, channels_last: bool = True) -> str:
    """The layout of a form's tensor: channels last or the task's, whichever fits ``shape``.

    ``channels_last`` says which is preferred: Keras forms have channels last, files made from
    PyTorch the task's layout.

    Raises
    ------
    BadInput
        If ``shape`` is the task's in neither layout.
    """
    last = task.layout.replace("C", "") + "C" if "C" in task.layout else task.layout
    for layout in (last, task.layout) if channels_last else (task.layout, last):
        moved = tuple(task.shape[task.layout.index(axis)] for axis in layout) or task.shape
        if len(moved) == len(shape) and all(
            want is None or have is None or want == have
            for want, have in zip(moved, shape, strict=True)
        ):
            return layout
    raise BadInput(
        f"tensor '{task.name}' has shape {shape} in the form, "
        f"which does not fit {task.shape} of the model ({task.layout or 'no layout'})"
    )


def stored_array(
    array: Array, task: TensorSpec, shape: Shape, *, channels_last: bool = True
) -> Array:
    """The task's samples as the form takes them: axes moved, C-contiguous."""
    layout = stored_layout(task, shape, channels_last=channels_last)
    return np.ascontiguousarray(relayout(array, task.layout, layout))
