"""Layers: a model's layers by canonical name, and the operators that compute them in a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantbench.spec import Arrays, computed
from quantbench_backends.tflite.flatbuffer import dtype_name, operator_name

# operator -> the position of its weights among its inputs
WEIGHTS: Mapping[str, int] = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "CONV_3D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "BATCH_MATMUL": 1,
    "EMBEDDING_LOOKUP": 1,
}


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator that multiplies a layer's weights.

    ``outputs`` are the names of its output tensors, by which TensorFlow's and LiteRT's tools tell
    operators apart; ``dtype`` and ``shape`` are those of the stored weights (the last axis of a
    ``FULLY_CONNECTED`` the input features).
    """

    kind: str
    outputs: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]


def of_state(state: Arrays) -> tuple[str, ...]:
    """Canonical names of the layers whose weights have two axes or more (no batch norm)."""
    return tuple(
        name.removesuffix(".weight")
        for name, array in state.items()
        if name.endswith(".weight") and array.ndim > 1
    )


def operators(file: Any, known: Sequence[str]) -> dict[str, Operator]:
    """The operators of a parsed file (``ModelT``) by the layer whose weights they hold.

    TFLiteConverter names tensors after Keras layers (``model/conv1/Conv2D``), litert-torch after
    modules (``Net/Sequential_layer1/Conv2d_conv1``); fused tensors have several such paths, joined
    by semicolons. Layers that the file names nowhere are left out.
    """
    graph, found = file.subgraphs[0], {}
    for operator in graph.operators:
        kind = operator_name(file, operator.opcodeIndex)
        if kind not in WEIGHTS:
            continue
        weights = graph.tensors[operator.inputs[WEIGHTS[kind]]]
        outputs = tuple(graph.tensors[i].name.decode() for i in operator.outputs)
        for name in (weights.name.decode(), *outputs):
            if layer := _layer(name, known):
                shape = () if weights.shape is None else tuple(int(n) for n in weights.shape)
                found[layer] = Operator(kind, outputs, dtype_name(weights.type), shape)
                break
    return found


def named(axis: str, patterns: Iterable[str], file: Any, known: Sequence[str]) -> list[Operator]:
    """The operators of the layers that an axis names; raises `BadInput` where there are none."""
    every = operators(file, known)
    return [every[layer] for layer in computed(axis, patterns, known, every)]


def _layer(tensor: str, known: Sequence[str]) -> str | None:
    """The layer that a tensor is named after; the last of several, whose result it was at first."""
    paths = [path.split("/") for path in re.split(";+", tensor)]
    for path in reversed(paths):
        fitting = [name for name in known if name in path or _is_module(path, name)]
        if fitting:
            return max(fitting, key=len)
    return None


def _is_module(path: list[str], layer: str) -> bool:
    """Whether a litert-torch path, a class and an attribute per module, is that of ``layer``."""
    names = layer.split(".")
    return len(path) == len(names) + 1 and all(
        part.endswith(f"_{name}") for part, name in zip(path[1:], names, strict=True)
    )
