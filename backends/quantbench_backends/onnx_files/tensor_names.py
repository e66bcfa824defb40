"""Tensor names: which tensor of a file is which of the task's."""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.errors import BadInput
from quantbench.spec import TensorSpec


def in_order(specs: Sequence[TensorSpec], names: Sequence[str]) -> dict[str, TensorSpec]:
    """The file's own names, in the order of ``specs``, each with its spec.

    Tensors are matched by name where the file has the task's names, otherwise by position.

    Raises
    ------
    BadInput
        If the file has another number of tensors.
    """
    if len(specs) != len(names):
        raise BadInput(
            f"the ONNX file has {list(names)}, but the model has {[spec.name for spec in specs]}"
        )
    if {spec.name for spec in specs} == set(names):
        return {spec.name: spec for spec in specs}
    return dict(zip(names, specs, strict=True))
