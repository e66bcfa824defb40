"""Channel: JSON and arrays over a pipe between a process and its worker."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from quantbench.spec import Array, Arrays


def send(pipe: IO[bytes], header: Mapping[str, Any], arrays: Arrays) -> None:
    """A line of JSON that ends with the number of bytes of arrays after it."""
    content = io.BytesIO()
    if arrays:
        np.savez(content, allow_pickle=False, **dict(arrays))
    data = content.getvalue()
    pipe.write(json.dumps({**header, "bytes": len(data)}).encode() + b"\n" + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """What `send` has sent; None where the other side is gone."""
    line = pipe.readline()
    if not line:
        return None
    header: dict[str, Any] = json.loads(line)
    data = pipe.read(header.pop("bytes"))
    return header, dict(np.load(io.BytesIO(data))) if data else {}
