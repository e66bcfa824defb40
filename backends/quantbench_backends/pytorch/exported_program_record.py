"""Programs: what a .pt2 file holds, tensor by tensor and node by node; nothing is unpickled."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from quantbench.backend_api import (
    ACTIVATION,
    BIAS,
    DEQUANTIZE,
    INPUT,
    MULTIPLY,
    OUTPUT,
    QUANTIZE,
    WEIGHT,
    Artifact,
    NodeRecord,
    Record,
    TensorRecord,
    is_integer,
)
from quantbench.backend_api.artifact_record import CONSTANT
from quantbench_backends.pytorch import exported, operator_roles

LAYERS = "parameters"
"""The detail of an artifact that says, as JSON, which layer each constant belongs to whose name in the
file is but a number."""
_BATCH = 2  # of the examples that programs are exported with: sizes are noted for it
_SYMBOL = re.compile(r"Symbol\('(s\d+)'")
# how the weights of a multiplication come to it
_THROUGH = ("t", "transpose", "to", "_to_copy", "alias", "view", "reshape", "contiguous")


def record(artifact: Artifact, layers: tuple[str, ...]) -> Record:
    """Everything in the file; raises what reading a damaged one raises."""
    exported.check(artifact.path)
    with zipfile.ZipFile(artifact.path) as file:
        (name,) = (n for n in file.namelist() if "/models/" in n)
        program = json.loads(file.read(name))["graph_module"]
        payloads = exported.payloads(file)
        values = {n: _array(file, p) for n, p in payloads.items()}
    return _Program(artifact, program, payloads, values, layers).record()


def _array(file: zipfile.ZipFile, payload: Mapping[str, Any]) -> Any:
    """A stored tensor as bytes' own integers or floats, flat; bfloat16 as int16."""
    (name,) = (n for n in file.namelist() if n.endswith(f"/{payload['path_name']}"))
    dtype = exported.DTYPES[payload["tensor_meta"]["dtype"]]
    return np.frombuffer(file.read(name), "int16" if dtype == "bfloat16" else dtype)


class _Program:
    """A serialized graph with its tensors, and what is known of each value."""

    def __init__(
        self,
        artifact: Artifact,
        program: Mapping[str, Any],
        payloads: Mapping[str, Any],
        values: Mapping[str, Any],
        layers: tuple[str, ...],
    ) -> None:
        self._artifact = artifact
        self._graph = program["graph"]
        self._payloads = payloads
        self._values = values
        self._layers = layers
        self._parameters = {}
        self._inputs = []
        for spec in program["signature"]["input_specs"]:
            ((kind, what),) = spec.items()
            if kind == "user_input":
                self._inputs.append(_names(what["arg"])[0])
            else:
                key = next(k for k in what if k.endswith("_name"))
                self._parameters[what["arg"]["name"]] = what[key]
        self._batch = {
            symbol
            for name in self._inputs
            for symbol in _symbols(self._graph["tensor_values"][name]["sizes"][:1])
        }
        self._producer = {
            name: node
            for node in self._graph["nodes"]
            for output in node["outputs"]
            for name in _names(output)
        }
        known = json.loads(artifact.details.get(LAYERS, "{}"))
        self._paths = {name: known.get(name, name) for name in self._parameters.values()}
        self._tensors: dict[str, TensorRecord] = {}

    def record(self) -> Record:
        """What the file says."""
        for name, parameter in self._parameters.items():
            self._tensors[name] = self._stored(name, parameter)
        for name in self._graph["tensor_values"]:
            if name not in self._tensors:
                self._tensors[name] = self._computed(name)
        nodes = tuple(map(self._node, self._graph["nodes"]))
        named = (
            replace(t, name=self._parameters.get(name, name)) for name, t in self._tensors.items()
        )
        return Record(tuple(named), nodes)

    # --- tensors ---

    def _stored(self, name: str, parameter: str) -> TensorRecord:
        meta = self._graph["tensor_values"][name]
        dtype = exported.DTYPES[meta["dtype"]]
        shape = self._shape(name)
        return TensorRecord(
            name=name,
            role=self._role(parameter, shape),
            dtype=dtype,
            shape=shape,
            bytes=self._values[parameter].nbytes,
            layer=operator_roles.layer_of(self._paths[parameter], self._layers),
        )

    def _role(self, parameter: str, shape: tuple[int, ...]) -> str:
        """Weights have two axes or more; a bias belongs to one."""
        owner, _, last = self._paths[parameter].rpartition(".")
        # torchao keeps a weight's scales and zero points beside its integers
        if last in ("original1", "original2") or last.startswith(("_scale_", "_zero_point_")):
            return CONSTANT
        if len(shape) > 1:
            return WEIGHT
        beside = (
            name
            for name, other in self._parameters.items()
            if self._paths[other].startswith(f"{owner}.") and len(self._shape(name)) > 1
        )
        return BIAS if last.endswith("bias") and any(beside) else CONSTANT

    def _computed(self, name: str) -> TensorRecord:
        outputs = [n for output in self._graph["outputs"] for n in _names(output)]
        role = INPUT if name in self._inputs else OUTPUT if name in outputs else ACTIVATION
        dtype = exported.DTYPES[self._graph["tensor_values"][name]["dtype"]]
        tensor = TensorRecord(name=name, role=role, dtype=dtype, shape=self._shape(name))
        node = self._producer.get(name)
        if node is None:
            return tensor
        given = _arguments(node)
        if "quantize_per_tensor" in node["target"] and _narrow(dtype):
            return replace(
                tensor,
                scale=(float(given["scale"]),),
                zero_point=(int(given["zero_point"]),),
                qmin=given["quant_min"],
                qmax=given["quant_max"],
            )
        if "quantize_affine" in node["target"] and _narrow(dtype):
            # scales are found at run time, one for each row
            return replace(tensor, qmin=given["quant_min"], qmax=given["quant_max"], axis=0)
        return tensor

    def _shape(self, name: str) -> tuple[int, ...]:
        sizes = self._graph["tensor_values"][name]["sizes"]
        return tuple(size.get("as_int", -1) for size in sizes)

    def _of_one(self, name: str) -> tuple[int, ...] | None:
        """The shape for a batch of one sample; None where another length is free."""
        shape = []
        for size in self._graph["tensor_values"][name]["sizes"]:
            if "as_int" in size:
                shape.append(int(size["as_int"]))
                continue
            if not _symbols([size]) <= self._batch or "hint" not in size["as_expr"]:
                return None
            shape.append(int(size["as_expr"]["hint"]["as_int"]) // _BATCH)
        return tuple(shape)

    # --- nodes ---

    def _node(self, node: Mapping[str, Any]) -> NodeRecord:
        kind, given = node["target"], _arguments(node)
        outputs = [name for output in node["outputs"] for name in _names(output)]
        read = [v for v in given.values() if isinstance(v, str) and v in self._tensors]
        out = self._tensors[outputs[0]].dtype if outputs and outputs[0] in self._tensors else ""
        into = self._tensors[read[0]].dtype if read else out
        role = operator_roles.role(kind, into, out or into)
        plain = NodeRecord(name=node["name"], kind=kind, role=role, dtype=out or into)
        self._quantizes_weight(kind, given)
        if role in (QUANTIZE, DEQUANTIZE):
            weight = bool(read) and self._weight(read[0]) is not None
            integers = out if role == QUANTIZE else into
            scales = "none" if weight else operator_roles.scales(kind, integers, self._method)
            return replace(plain, scales=scales)
        return self._multiplication(plain, given) if role == MULTIPLY else plain

    def _multiplication(self, node: NodeRecord, given: Mapping[str, Any]) -> NodeRecord:
        name = operator_roles.plain(node.kind)
        if "params" in given:
            return self._recurrent(node, given)
        left, right = _OPERANDS.get(name, ("input", "weight"))
        if left not in given:
            left, right = "self", "mat2"
        operand, other = given[left], given.get(right)
        weight = self._weight(other) if other else None
        self._packed(name, given)
        if weight is not None:
            weight = self._tensors[weight.name]
        dtype = self._dtype(operand, weight, name)
        reason = "" if is_integer(dtype) else operator_roles.no_kernel(node.kind, self._method)
        return replace(
            node,
            dtype=dtype,
            scales=operator_roles.scales(node.kind, dtype, self._method),
            # a file does not say how many values a sparse matrix has
            macs=None if "sparse" in given else self._macs(name, node.name, operand, other),
            weights=weight.elements if weight else 0,
            weight_dtype=weight.dtype if weight else "",
            layer=weight.layer if weight else "",
            reason=reason,
        )

    def _recurrent(self, node: NodeRecord, given: Mapping[str, Any]) -> NodeRecord:
        """An LSTM or GRU: every weight matrix meets every time step once."""
        matrices = [
            tensor
            for entry in given["params"]
            if len((tensor := self._tensors[entry["name"]]).shape) > 1
        ]
        sequence = self._of_one(given["input"])
        elements = sum(matrix.elements for matrix in matrices)
        dtype = self._tensors[given["input"]].dtype
        return replace(
            node,
            dtype=dtype,
            scales=operator_roles.scales(node.kind, dtype, self._method),
            macs=None if sequence is None else prod(sequence[:-1]) * elements,
            weights=elements,
            weight_dtype=matrices[0].dtype,
            layer=matrices[0].layer,
            reason=operator_roles.no_kernel(node.kind, self._method),
        )

    @property
    def _method(self) -> str:
        return self._artifact.details["method"]

    def _dtype(self, operand: str, weight: TensorRecord | None, name: str) -> str:
        """That of the integers which were dequantized just before, on both sides; else as it is."""
        node = self._producer.get(operand)
        if node is not None and weight is not None and is_integer(weight.dtype):
            integers = _arguments(node).get("input")
            if "dequantize_per_tensor" in node["target"] and integers in self._tensors:
                return self._tensors[str(integers)].dtype
        return self._tensors[operand].dtype

    def _weight(self, name: str) -> TensorRecord | None:
        """The stored tensor that a value is, or is made from by layout, dtype and scale alone."""
        while name not in self._parameters:
            node = self._producer.get(name)
            if node is None:
                return None
            plain = operator_roles.plain(node["target"])
            if plain not in _THROUGH and not plain.startswith("dequantize"):
                return None
            given = _arguments(node)
            name = str(given.get("input", given.get("self")))
        return self._tensors[name]

    def _macs(self, name: str, output: str, operand: str, other: Any) -> int | None:
        made = self._of_one(output)
        taken = self._of_one(operand)
        if made is None or taken is None:
            return None
        if "conv" in name:
            kernel = self._of_one(str(other))
            met = taken if "transpose" in name else made
            return None if kernel is None else prod(met) * prod(kernel[1:])
        if "attention" in name:  # queries x keys, and their products x values
            keys = self._of_one(str(other))
            if keys is None:
                return None
            return prod(taken[:-1]) * keys[-2] * (taken[-1] + made[-1])
        if name == "einsum":
            return None
        return prod(made) * taken[-1]

    # --- quantized weights ---

    def _quantizes_weight(self, kind: str, given: Mapping[str, Any]) -> None:
        """Give a stored tensor the scales with which a node dequantizes it."""
        target = given.get("input")
        if "dequantize" not in kind or target not in self._parameters:
            return
        tensor = self._tensors[str(target)]
        if "per_channel" in kind or "per_tensor" in kind:
            self._tensors[tensor.name] = replace(
                tensor,
                scale=self._floats(given.get("scales", given.get("scale"))),
                zero_point=self._integers(given.get("zero_points", given.get("zero_point"))),
                qmin=given["quant_min"],
                qmax=given["quant_max"],
                axis=given.get("axis"),
            )
        elif "affine" in kind:
            block = given["block_size"]
            self._affine(tensor, given["scale"], given.get("zero_point"), block[-1])

    def _packed(self, name: str, given: Mapping[str, Any]) -> None:
        """Scales of weights that a multiplication takes as integers."""
        if name == "_weight_int4pack_mm_for_cpu":
            packed = self._tensors[given["mat2"]]
            pairs = np.asarray(self._values[self._parameters[given["qScaleAndZeros"]]], float)
            groups, outputs, _ = self._tensors[given["qScaleAndZeros"]].shape
            pairs = pairs.reshape(groups, outputs, 2).transpose(1, 0, 2).reshape(-1, 2)
            # a weight is (q - 8) * scale + zero, whose integer for 0 is the nearest to 8 - zero / scale
            points = np.rint(8 - pairs[:, 1] / pairs[:, 0]).astype(int)
            size = int(given["qGroupSize"])
            self._tensors[packed.name] = replace(
                packed,
                dtype="int4",
                shape=(outputs, groups * size),
                scale=tuple(pairs[:, 0].tolist()),
                zero_point=tuple(points.tolist()),
                qmin=0,
                qmax=15,
                group_size=size,
            )
            return
        for key in ("mat2", "weight"):
            weight = self._weight(given[key]) if isinstance(given.get(key), str) else None
            if weight is not None and weight.dtype == "int8" and not weight.scale:
                self._beside(weight)

    def _beside(self, weight: TensorRecord) -> None:
        """Torchao's int8 weights: scales and zero points lie beside, and come in after the product."""
        path = self._parameters[weight.name]
        names = {parameter: name for name, parameter in self._parameters.items()}
        scale = path.replace("original0", "original1")
        point = path.replace("original0", "original2")
        if scale != path and scale in names:
            self._affine(weight, names[scale], names.get(point), weight.shape[-1])

    def _affine(self, tensor: TensorRecord, scale: str, point: Any, size: int) -> None:
        """Torchao's grid of int8: ``absmax / 127.5`` a step, so that both -128 and 127 are reached."""
        whole = size == tensor.shape[-1]
        self._tensors[tensor.name] = replace(
            tensor,
            scale=self._floats(scale),
            zero_point=self._integers(point) if point else (0,),
            qmin=-128,
            qmax=127,
            axis=0 if whole else None,
            group_size=0 if whole else size,
        )

    def _floats(self, value: Any) -> tuple[float, ...]:
        """A number, or what a stored tensor holds."""
        if isinstance(value, str):
            return tuple(self._values[self._parameters[value]].astype(float).tolist())
        return (float(value),)

    def _integers(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, str):
            return tuple(self._values[self._parameters[value]].astype(int).tolist())
        return (int(value),)


# of each multiplication, its activations and its weights (or second activations)
_OPERANDS: Mapping[str, tuple[str, str]] = {
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
    "matmul": ("self", "other"),
    "_sparse_mm": ("sparse", "dense"),
    "scaled_dot_product_attention": ("query", "key"),
}


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node's arguments by name: tensors by theirs, numbers and lists as they are."""
    given = {}
    for each in node["inputs"]:
        ((kind, value),) = each["arg"].items()
        given[each["name"]] = value["name"] if kind == "as_tensor" else value
    return given


def _names(argument: Mapping[str, Any]) -> list[str]:
    """The tensors that an argument or a result names."""
    ((kind, value),) = argument.items()
    if kind == "as_tensor":
        return [value["name"]]
    return [tensor["name"] for tensor in value] if kind == "as_tensors" else []


def _symbols(sizes: list[Mapping[str, Any]]) -> set[str]:
    """The free lengths that sizes depend on."""
    written = [size["as_expr"]["expr_str"] for size in sizes if "as_expr" in size]
    return {symbol for text in written for symbol in _SYMBOL.findall(text)}


def _narrow(dtype: str) -> bool:
    return dtype in ("int8", "uint8")
