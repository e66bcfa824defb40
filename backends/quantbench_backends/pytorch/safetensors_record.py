"""Safetensors record: what a safetensors file of weights holds; the graph is code elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import safetensors
import torch
from torch import Tensor

from quantbench.backend_api import BIAS, WEIGHT, Artifact, Record, TensorRecord
from quantbench.backend_api.artifact_record import CONSTANT
from quantbench_backends.pytorch import operator_roles


def record(artifact: Artifact, layers: tuple[str, ...]) -> Record:
    """Tensors by their names; raises what reading a damaged file raises."""
    with safetensors.safe_open(artifact.path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    described = (_described(name, tensors) for name in tensors)
    return Record(tuple(replace(t, layer=_layer(t, layers)) for t in described), ())


def _layer(tensor: TensorRecord, layers: tuple[str, ...]) -> str:
    return operator_roles.layer_of(tensor.name, layers)


def _described(name: str, tensors: Mapping[str, Tensor]) -> TensorRecord:
    tensor = tensors[name]
    plain = TensorRecord(
        name=name,
        role=_role(name, tensors),
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        bytes=tensor.nbytes,
    )
    owner = name.rpartition(".")[0]
    if f"{name}.quant_map" in tensors:
        return _blocks(plain, tensors)
    if name == f"{owner}.weight" and f"{owner}.SCB" in tensors:
        # bitsandbytes' scales are the largest magnitudes of the channels, which become 127
        scales = tensors[f"{owner}.SCB"].double() / 127
        return replace(
            plain, scale=tuple(scales.tolist()), zero_point=(0,), qmin=-127, qmax=127, axis=0
        )
    return plain


def _blocks(packed: TensorRecord, tensors: Mapping[str, Tensor]) -> TensorRecord:
    """Weights of nf4: two to a byte, 16 floats of a table times the largest magnitude of a block.

    The table has 7 values below 0 and 8 above, no multiples of one step, so that there is no scale.
    """
    state = _state(tensors, packed.name)
    levels = len(tensors[f"{packed.name}.quant_map"])
    return replace(
        packed,
        dtype=str(state["quant_type"]),
        shape=tuple(state["shape"]),
        qmin=-levels // 2,
        qmax=levels // 2 - 1,
        group_size=int(state["blocksize"]),
    )


def _state(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """What bitsandbytes wrote of a weight, as JSON in bytes."""
    (found,) = (n for n in tensors if n.startswith(f"{name}.quant_state."))
    return dict(json.loads(bytes(tensors[found].to(torch.uint8).tolist())))


def _role(name: str, tensors: Mapping[str, Tensor]) -> str:
    """Weights have two axes or more; a bias belongs to one: what normalizations hold are constants."""
    owner, _, last = name.rpartition(".")
    if ".weight." in name or last in ("SCB", "weight_format"):
        return CONSTANT  # bitsandbytes' tables and scales
    if prod(tensors[name].shape) and tensors[name].ndim > 1:
        return WEIGHT
    beside = [t for n, t in tensors.items() if n.startswith(f"{owner}.weight") and t.ndim > 1]
    return BIAS if last.startswith("bias") and beside else CONSTANT
