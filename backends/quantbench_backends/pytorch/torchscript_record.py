"""Scripted: what a TorchScript archive holds, tensor by tensor and node by node."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.show_pickle import DumpUnpickler, FakeObject

from quantbench.backend_api import (
    ACTIVATION,
    BIAS,
    DEQUANTIZE,
    INPUT,
    MULTIPLY,
    OUTPUT,
    WEIGHT,
    Artifact,
    NodeRecord,
    Record,
    TensorRecord,
    is_integer,
)
from quantbench.backend_api.artifact_record import CONSTANT
from quantbench_backends.pytorch import operator_roles
from quantbench_backends.pytorch.archive import deprecated_torchscript

GRID = "activation_grid"
"""The detail of an artifact that says which integers its static activations take: a file knows only
that they are bytes."""
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "QInt8Storage": "int8", "QUInt8Storage": "uint8", "QInt32Storage": "int32",
}  # fmt: skip
_PACKED = "_packed_params"
# torch.ao gives them the scale and zero point of what they can return, whatever the method says
_FIXED: Mapping[str, Any] = {
    "sigmoid": {"scale": (1 / 256,), "zero_point": (0,)},
    "hardsigmoid": {"scale": (1 / 256,), "zero_point": (0,)},
    "softmax": {"scale": (1 / 256,), "zero_point": (0,)},
    "tanh": {"scale": (2 / 256,), "zero_point": (128,)},
}
# torch.dtype's numbers in TorchScript
_SCALAR_TYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32",
                 7: "float64", 15: "bfloat16"}  # fmt: skip


def record(artifact: Artifact, layers: tuple[str, ...]) -> Record:
    """Everything in the archive; raises what reading a damaged one raises."""
    stored = tensors(artifact.path, layers)
    with deprecated_torchscript():
        module = torch.jit.load(artifact.path, map_location="cpu")  # type: ignore[no-untyped-call]
    graph = _Graph(artifact, module, stored)
    graph.read()
    return Record((*graph.stored.values(), *graph.computed.values()), tuple(graph.nodes))


# --- tensors -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor as a pickle describes it: where its values lie, and how they are quantized."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    quantizer: tuple[Any, ...] = ()


def tensors(path: Path, layers: tuple[str, ...] = ()) -> dict[str, TensorRecord]:
    """Tensors of the archive by name, in its order.

    ``data.pkl`` holds attributes, ``constants.pkl`` the constants of graphs; each names storages,
    which are entries beside it. Nothing is unpickled: every class becomes a placeholder.
    """
    found: dict[str, TensorRecord] = {}
    with zipfile.ZipFile(path) as file:
        root = file.namelist()[0].partition("/")[0]
        for part in ("data", "constants"):
            tree = _Reader(io.BytesIO(file.read(f"{root}/{part}.pkl"))).load()
            counted: set[str] = set()
            named = dict(_named("" if part == "data" else "CONSTANTS", tree))
            for name, tensor in named.items():
                payload = file.read(f"{root}/{part}/{tensor.key}")
                size = 0 if tensor.key in counted else len(payload)
                counted.add(tensor.key)
                scales = _values(file, f"{root}/{part}", tensor)
                made = _described(name, tensor, size, payload, scales, set(named))
                found[name] = replace(made, layer=operator_roles.layer_of(name, layers))
    return found


class _Reader(DumpUnpickler):
    """Describes tensors by `_Stored`; leaves all else as placeholders."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"_rebuild_tensor_v2": _plain, "_rebuild_qtensor": _quantized}
        if module == "torch._utils" and name in known:
            return known[name]
        if (module, name) == ("torch.jit._pickle", "build_tensorlist"):
            return list
        return super().find_class(module, name)  # type: ignore[no-untyped-call]

    def persistent_load(self, pid: Any) -> Any:
        _, storage, key, *_ = pid
        return _STORAGES[storage.name], str(key)


def _plain(storage: tuple[str, str], offset: int, shape: tuple[int, ...], *_: Any) -> _Stored:
    return _Stored(storage[1], storage[0], offset, tuple(shape))


def _quantized(
    storage: tuple[str, str], offset: int, shape: tuple[int, ...], stride: Any, how: Any, *_: Any
) -> _Stored:
    return _Stored(storage[1], storage[0], offset, tuple(shape), tuple(how[1:]))


def _named(path: str, value: Any) -> Iterator[tuple[str, _Stored]]:
    """Every tensor below ``value`` with its path; scales and zero points after their tensor."""
    if isinstance(value, _Stored):
        yield path, value
        for part, name in zip(value.quantizer, ("scale", "zero_point"), strict=False):
            if isinstance(part, _Stored):
                yield f"{path}.{name}", part
    elif isinstance(value, FakeObject):
        if isinstance(value.state, Mapping):
            yield from _named(path, value.state)
        else:  # packed weights: quantized, then their biases
            packed = {id(tensor): tensor for tensor in _leaves((value.args, value.state))}
            owner = path.removesuffix(f".{_PACKED}")
            for name, tensor in _packed_names(packed.values()):
                yield from _named(f"{owner}.{name}", tensor)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{path}.{key}" if path else str(key)
            yield from _named(inner.replace(f".{_PACKED}.{_PACKED}", f".{_PACKED}"), item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _named(f"{path}.c{index}", item)


def _leaves(value: Any) -> Iterator[_Stored]:
    if isinstance(value, _Stored):
        yield value
    elif isinstance(value, FakeObject):
        yield from _leaves((value.args, value.state))
    elif isinstance(value, Mapping):
        yield from _leaves(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)


def _packed_names(packed: Iterable[_Stored]) -> Iterator[tuple[str, _Stored]]:
    """``weight`` and ``bias``, with numbers where there are several (recurrent layers)."""
    count = {"weight": 0, "bias": 0}
    for tensor in packed:
        kind = "weight" if tensor.quantizer or len(tensor.shape) > 1 else "bias"
        yield f"{kind}{count[kind] or ''}", tensor
        count[kind] += 1


def _values(
    file: zipfile.ZipFile, folder: str, tensor: _Stored
) -> tuple[tuple[float, ...], tuple[int, ...], int | None]:
    """Scales, zero points and their axis."""
    if not tensor.quantizer:
        return (), (), None
    scale, point, *axis = tensor.quantizer
    if not isinstance(scale, _Stored):
        return (float(scale),), (int(point),), None
    scales, points = (
        np.frombuffer(file.read(f"{folder}/{part.key}"), part.dtype) for part in (scale, point)
    )
    return tuple(scales.astype(float).tolist()), tuple(points.astype(int).tolist()), axis[0]


def _described(
    name: str,
    tensor: _Stored,
    size: int,
    payload: bytes,
    scales: tuple[tuple[float, ...], tuple[int, ...], int | None],
    names: set[str],
) -> TensorRecord:
    scale, point, axis = scales
    described = TensorRecord(
        name=name, role=_role(name, tensor, names), dtype=tensor.dtype, shape=tensor.shape,
        bytes=size, scale=scale, zero_point=point, axis=axis,
    )  # fmt: skip
    if not scale:
        return described
    integers = np.frombuffer(payload, tensor.dtype)[tensor.offset :][: prod(tensor.shape)]
    low, high = weight_grid(integers)
    return replace(described, qmin=low, qmax=high)


def weight_grid(integers: Any) -> tuple[int, int]:
    """The levels that torch.ao's quantizer of int8 weights has.

    Its scales are the range over 255 (symmetric ones ``absmax / 127.5``), so that values reach both
    -128 and 127; or, where this project asks for 4 bits, ``absmax / 7`` with values of -7 to 7, which
    a layer of 8 bits, whose largest weight is at 127 or 128, cannot all be within.
    """
    largest = int(np.abs(integers.astype(np.int16)).max(initial=0))
    return (-7, 7) if 0 < largest <= 7 else (-128, 127)


def _role(name: str, tensor: _Stored, names: set[str]) -> str:
    """A bias belongs to a weight: what normalizations hold are constants."""
    owner, _, last = name.rpartition(".")
    if last.endswith(("scale", "zero_point")):
        return CONSTANT
    if len(tensor.shape) > 1:
        return WEIGHT
    has_weight = any(n.startswith(f"{owner}.weight") for n in names)
    norm = f"{owner}.running_mean" in names or f"{owner}.num_batches_tracked" in names
    return BIAS if last.startswith("bias") and has_weight and not norm else CONSTANT


# --- nodes ---------------------------------------------------------------------------------------


class _Path(str):
    """The path of a module, or of packed weights, that a value of the graph stands for."""

    __slots__ = ()


class _Graph:
    """Reads a graph from its inputs on, and knows of each value what it is."""

    def __init__(self, artifact: Artifact, module: Any, stored: Mapping[str, TensorRecord]) -> None:
        self.nodes: list[NodeRecord] = []
        self.stored = dict(stored)
        self.computed: dict[str, TensorRecord] = {}
        self._artifact = artifact
        self._module = module
        self._constants = [name for name in stored if name.startswith("CONSTANTS.")]
        # what a value is: a path, a number, a stored or computed tensor's name, a list of these
        self._known: dict[str, Any] = {}
        # of a tensor that is computed from constants alone, as where weights are fake-quantized in
        # the graph, the weights among them
        self._derived: dict[str, list[TensorRecord]] = {}

    def read(self) -> None:
        """Fill ``nodes`` and ``computed``."""
        graph = self._module.inlined_graph
        own, *given = graph.inputs()
        self._known[own.debugName()] = _Path("")
        for value, spec in zip(given, self._artifact.inputs, strict=True):
            floating = spec.dtype.startswith("float")
            dtype = self._artifact.details["precision"] if floating else spec.dtype
            self._compute(value, TensorRecord(spec.name, INPUT, dtype, _shape(spec.shape)))
        self._block(graph)
        results = [v for out in graph.outputs() for v in _parts(out)]
        for name, spec in zip(results, self._artifact.outputs, strict=False):
            tensor = self.computed.get(name)
            if tensor is not None and tensor.role == ACTIVATION:
                self.computed[name] = replace(tensor, role=OUTPUT, shape=_shape(spec.shape))

    def _compute(self, value: Any, tensor: TensorRecord) -> None:
        self.computed[value.debugName()] = tensor
        self._known[value.debugName()] = tensor

    def _block(self, block: Any) -> None:
        for node in block.nodes():
            kind = node.kind()
            if kind == "prim::GetAttr":
                self._attribute(node)
            elif kind == "prim::Constant":
                self._constant(node)
            elif kind in ("prim::ListConstruct", "prim::TupleConstruct"):
                self._known[node.output().debugName()] = self._values(node)
            elif kind in ("prim::ListUnpack", "prim::TupleUnpack"):
                self._unpack(node)
            elif not kind.startswith("prim::"):
                self._node(node, kind)
            for inner in node.blocks():
                self._block(inner)

    def _attribute(self, node: Any) -> None:
        owner = self._known[node.inputsAt(0).debugName()]
        path = f"{owner}.{node.s('name')}" if owner else node.s("name")
        path = path.replace(f".{_PACKED}.{_PACKED}", f".{_PACKED}")
        self._known[node.output().debugName()] = self.stored.get(path) or _Path(path)

    def _constant(self, node: Any) -> None:
        name = node.output().debugName()
        if not node.hasAttribute("value"):
            self._known[name] = None
        elif node.kindOf("value") == "t":
            # the archive numbers constants in the order in which the graph meets them
            shape = tuple(node.t("value").shape)
            same = [n for n in self._constants if self.stored[n].shape == shape]
            self._constants = [n for n in self._constants if n not in same[:1]]
            self._known[name] = self.stored[same[0]] if same else None
        else:
            self._known[name] = node.output().toIValue()

    def _unpack(self, node: Any) -> None:
        known = self._known.get(node.inputsAt(0).debugName())
        for index, out in enumerate(node.outputs()):
            inner = known[index] if isinstance(known, list) and index < len(known) else known
            if isinstance(inner, TensorRecord) and not isinstance(known, list):
                self._compute(out, replace(inner, name=out.debugName()))
            else:
                self._known[out.debugName()] = inner

    def _values(self, node: Any) -> list[Any]:
        return [self._known.get(value.debugName()) for value in node.inputs()]

    def _node(self, node: Any, kind: str) -> None:
        arguments = self._values(node)
        weights = self._weights(arguments)
        read = [t for t in self._computed_among(arguments) if t.name not in self._derived]
        looks = self._made(kind, arguments, read)
        given = read[0].dtype if read else looks.dtype
        role = operator_roles.role(kind, given, looks.dtype)
        layer = next((t.layer for t in weights if t.layer), "")
        outputs = [out for out in node.outputs() if str(out.type()) in ("Tensor", "Tensor[]")]
        for out in outputs:
            name = out.debugName()
            self._compute(out, replace(looks, name=name, layer=layer if role == MULTIPLY else ""))
            if not read:
                self._derived[name] = weights
        if role == MULTIPLY:
            self._note_biases(arguments)
        multiplying = weights if role == MULTIPLY else []
        dtype = _computing(kind, role, given, looks.dtype)
        integers = given if role == DEQUANTIZE else dtype
        self.nodes.append(
            NodeRecord(
                name=outputs[0].debugName() if outputs else f"{len(self.nodes)}:{kind}",
                kind=kind,
                role=role,
                dtype=dtype,
                scales=operator_roles.scales(kind, integers, self._artifact.details["method"]),
                macs=None if role == MULTIPLY else 0,
                weights=sum(t.elements for t in multiplying),
                weight_dtype=multiplying[0].dtype if multiplying else "",
                layer=layer,
                fused=operator_roles.fused(kind),
                reason=self._reason(kind, role, dtype),
            )
        )

    def _note_biases(self, arguments: list[Any]) -> None:
        """A constant's name does not say that it is a bias; that it is added to a product does."""
        for argument in _flat(arguments):
            if isinstance(argument, TensorRecord) and argument.name in self.stored:
                vector = argument.role == CONSTANT and len(argument.shape) == 1
                if vector and not is_integer(argument.dtype):
                    self.stored[argument.name] = replace(argument, role=BIAS)

    def _reason(self, kind: str, role: str, dtype: str) -> str:
        details = self._artifact.details
        if role != MULTIPLY or is_integer(dtype):
            return ""
        return str(details.get("simulated", "")) or operator_roles.no_kernel(
            kind, details["method"]
        )

    def _computed_among(self, arguments: list[Any]) -> list[TensorRecord]:
        tensors = [a for a in _flat(arguments) if isinstance(a, TensorRecord)]
        return [t for t in tensors if t.role in (ACTIVATION, INPUT, OUTPUT)]

    def _weights(self, arguments: list[Any]) -> list[TensorRecord]:
        """Stored weights that the arguments are, hold packed, or are made of."""
        found: dict[str, TensorRecord] = {}
        for argument in _flat(arguments):
            if isinstance(argument, _Path):
                for owner in (argument, argument.removesuffix(f".{_PACKED}")):
                    inside = (n for n in self.stored if n.rpartition(".")[0] == owner)
                    found.update((n, self.stored[n]) for n in inside)
            elif isinstance(argument, TensorRecord):
                made_of = self._derived.get(argument.name, [argument])
                found.update((tensor.name, tensor) for tensor in made_of)
        return [tensor for tensor in found.values() if tensor.role == WEIGHT]

    def _made(self, kind: str, arguments: list[Any], read: list[TensorRecord]) -> TensorRecord:
        """What a tensor that the node computes looks like."""
        name, first = operator_roles.plain(kind), read[0] if read else None
        dtype = first.dtype if first else self._artifact.details["precision"]
        if name == "embedding":  # reads integers, gives rows of its weights
            dtype = arguments[0].dtype
        plain = TensorRecord("", ACTIVATION, dtype)
        if name == "quantize_per_tensor":
            return self._activation(arguments[1], arguments[2])
        if name.startswith("dequantize") or "_dynamic" in kind or kind in operator_roles.RECURRENT:
            return replace(plain, dtype="float32")
        if name == "to" and len(arguments) > 1 and isinstance(arguments[1], int):
            return replace(plain, dtype=_SCALAR_TYPES.get(arguments[1], dtype))
        if kind.startswith("quantized::") and _by_number(arguments):
            return _scaled(first, arguments[1]) if name == "mul" and first else plain
        if kind.startswith("quantized::"):
            numbers = [a for a in arguments if isinstance(a, int | float | TensorRecord)]
            return self._activation(*numbers[-2:]) if len(numbers) > 1 else plain
        if first is not None and first.scale:
            if name in _FIXED:
                return replace(plain, **_FIXED[name], qmin=0, qmax=255)
            return replace(first, name="", role=ACTIVATION, shape=(), layer="")
        return plain

    def _activation(self, scale: Any, point: Any) -> TensorRecord:
        low, high = map(int, self._artifact.details[GRID].split())
        step, zero = (self._number(scale),), (int(self._number(point)),)
        # a concatenation gives what it reads the fixed scale of a sigmoid among it
        if {"scale": step, "zero_point": zero} in _FIXED.values():
            low, high = 0, 255
        return TensorRecord(
            name="",
            role=ACTIVATION,
            dtype="uint8",
            scale=step,
            zero_point=zero,
            qmin=low,
            qmax=high,
        )

    def _number(self, value: Any) -> float:
        """A number, or the one that a stored tensor holds."""
        if not isinstance(value, TensorRecord):
            return float(value)
        return float(reduce(getattr, value.name.split("."), self._module).item())


def _by_number(arguments: list[Any]) -> bool:
    """Whether an operator takes a tensor and a number, and so has no scale of its own."""
    return len(arguments) == 2 and isinstance(arguments[1], int | float)


def _scaled(given: TensorRecord, times: float) -> TensorRecord:
    """A quantized tensor times a number: other scales, the same integers or their mirror.

    Source: PyTorch, aten/src/ATen/native/quantized/cpu/qmul.cpp.
    """
    made = replace(given, name="", role=ACTIVATION, shape=(), layer="")
    if times == 0:
        return replace(made, scale=(1.0,), zero_point=(0,))
    zero = given.zero_point
    if times < 0:
        zero = tuple(given.qmin + given.qmax - point for point in zero)
    return replace(made, scale=tuple(abs(times) * step for step in given.scale), zero_point=zero)


def _computing(kind: str, role: str, given: str, made: str) -> str:
    dynamic = kind in operator_roles.RECURRENT or "_dynamic" in kind
    if dynamic or (role == MULTIPLY and kind.startswith("quantized::")):
        return "uint8"  # engine x86 multiplies unsigned activations, quantized before or inside
    return given if role == MULTIPLY else made


def _shape(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(-1 if length is None else length for length in shape)


def _parts(value: Any) -> list[str]:
    """The values that a tuple or list of the graph consists of."""
    node = value.node()
    if node.kind() in ("prim::TupleConstruct", "prim::ListConstruct"):
        return [name for inner in node.inputs() for name in _parts(inner)]
    return [value.debugName()]


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value
