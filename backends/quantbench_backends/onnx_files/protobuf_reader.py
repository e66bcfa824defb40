"""Protobuf reader: the edges of an ONNX graph, read from the file's bytes without the package onnx.

A device has the runtime only. Field numbers are those of onnx.proto; the encoding is
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_GRAPH = 7  # of ModelProto
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of GraphProto
_READS, _WRITES, _NAME, _KIND, _ATTRIBUTE = 1, 2, 3, 4, 5  # of NodeProto
_ATTRIBUTE_NAME, _INTEGER = 1, 3  # of AttributeProto
_VALUE_NAME, _TENSOR_NAME = 1, 8  # of ValueInfoProto, TensorProto
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_FIXED = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}

Field = tuple[int, int, memoryview]
"""Number, value of a varint (else 0), content of a field with a length (else empty)."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One node: the tensors it reads and writes (``""`` for those left out), its integer attributes."""

    name: str
    kind: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    integers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edges:
    """The nodes of a graph, its inputs that are no constants, and its outputs."""

    nodes: tuple[Edge, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read(path: Path) -> Edges:
    """The outermost graph of an ONNX file; bodies of loops and branches are left out."""
    graph = next(
        part for number, _, part in _fields(memoryview(path.read_bytes())) if number == _GRAPH
    )
    parts = list(_fields(graph))
    constants = {_text(part, _TENSOR_NAME) for number, _, part in parts if number == _INITIALIZER}
    inputs = [_text(part, _VALUE_NAME) for number, _, part in parts if number == _INPUT]
    return Edges(
        nodes=tuple(_edge(part) for number, _, part in parts if number == _NODE),
        inputs=tuple(name for name in inputs if name not in constants),
        outputs=tuple(_text(part, _VALUE_NAME) for number, _, part in parts if number == _OUTPUT),
    )


def _edge(node: memoryview) -> Edge:
    reads: list[str] = []
    writes: list[str] = []
    integers: dict[str, int] = {}
    for number, _, part in _fields(node):
        if number == _READS:
            reads.append(str(part, "utf-8"))
        elif number == _WRITES:
            writes.append(str(part, "utf-8"))
        elif number == _ATTRIBUTE:
            found = {n: value for n, value, _ in _fields(part) if n == _INTEGER}
            integers |= {_text(part, _ATTRIBUTE_NAME): value for value in found.values()}
    name, kind = _text(node, _NAME), _text(node, _KIND)
    return Edge(name, kind, tuple(reads), tuple(writes), integers)


def _text(message: memoryview, wanted: int) -> str:
    """A field of text; empty where it is left out."""
    return next((str(part, "utf-8") for n, _, part in _fields(message) if n == wanted), "")


def _fields(message: memoryview) -> Iterator[Field]:
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind, value, content = key & 7, 0, message[:0]
        if kind == _VARINT:
            value, position = _varint(message, position)
        else:
            if kind == _LENGTH:
                size, position = _varint(message, position)
            else:
                size = _FIXED[kind]
            content, position = message[position : position + size], position + size
        yield key >> 3, value, content


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the highest bit says that there are more."""
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
