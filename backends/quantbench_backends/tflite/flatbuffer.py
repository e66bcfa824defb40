"""Flatbuffer: a TFLite file as LiteRT's schema has it. Needs LiteRT, never TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from quantbench.errors import BadArtifact


def read_file(path: Path) -> Any:
    """The file as a ``ModelT`` of LiteRT's schema; raises `BadArtifact` where it is none."""
    data = path.read_bytes()
    try:
        if data[4:8] != b"TFL3":
            raise ValueError("no TFL3 mark")
        return parse(data)
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise BadArtifact(f"{path} is not a TFLite file ({error}); build it again") from error


def parse(data: bytes) -> Any:
    """The content of a TFLite file as a ``ModelT``."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data)


def dtype_name(tensor_type: int) -> str:
    """NumPy's name of a schema ``TensorType``, e.g. ``int8``."""
    return enum_names("TensorType")[tensor_type].lower()


@cache
def enum_names(enum: str) -> Mapping[int, str]:
    """The names of one of the schema's enumerations by value."""
    from ai_edge_litert import schema_py_generated as schema

    return {v: k for k, v in vars(getattr(schema, enum)).items() if isinstance(v, int)}


def payload_bytes(buffer: Any) -> int:
    """Bytes of a constant's values; 0 where a tensor is computed."""
    # files above 2 GB hold payloads behind the flatbuffer, at `offset`
    return int(buffer.size or 0) if buffer.data is None else len(buffer.data)


def operator_name(model: Any, opcode: int) -> str:
    """The schema's name of an operator code, or the custom operator's own."""
    code = model.operatorCodes[opcode]
    # the first field has 8 bits, the later one took over above 127
    name = enum_names("BuiltinOperator")[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return code.customCode.decode() if name == "CUSTOM" else name
