"""The TorchScript archive: a zip file of tensors, pickles and code, written reproducibly."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.jit._trace import TracerWarning

_MANGLED = re.compile(rb"___torch_mangle_(\d+)")
_ALIGNMENT = 64  # of tensors, as PyTorch writes them, so that they can be mapped into memory


def write(script: torch.jit.ScriptModule, path: Path) -> None:
    """Save ``script`` so that the same module always gives the same bytes.

    ``torch.jit.save`` stores the call stack of whoever traced the module (with the paths of the
    machine), the example inputs, and class names numbered per process. The first two serve only
    debugging and are left out; the numbers are counted from 0.
    """
    buffer = io.BytesIO()
    with deprecated_torchscript():
        torch.jit.save(script, buffer)
    numbers: dict[bytes, int] = {}

    def renumber(text: bytes) -> bytes:
        return _MANGLED.sub(
            lambda m: b"___torch_mangle_%d" % numbers.setdefault(m[1], len(numbers)), text
        )

    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            record = entry.filename.partition("/")[2]
            # the identifier is a hash over all records, those left out included; beside it lies the
            # version, where a module uses an operator of a newer one
            if record.endswith(".debug_pkl") or record.startswith("traced_inputs"):
                continue
            if record == ".data/serialization_id":
                continue
            payload = source.read(entry)
            if record.endswith((".py", ".pkl")):
                payload = renumber(payload)
            _append(target, f"model/{renumber(record.encode()).decode()}", payload, entry)


def _append(target: zipfile.ZipFile, name: str, payload: bytes, like: zipfile.ZipInfo) -> None:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = like.compress_type
    header = 30 + len(name) + 4
    position = target.fp.tell() if target.fp else 0
    padding = -(position + header) % _ALIGNMENT
    entry.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    target.writestr(entry, payload)


def forget_traces() -> None:
    """Let the next trace name its classes as the first one of a process does."""
    torch._C._jit_clear_class_registry()
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
    torch.jit._state._clear_class_state()


@contextmanager
def deprecated_torchscript() -> Iterator[None]:
    """Silence TorchScript's deprecation, and tracer warnings about PyTorch's own modules.

    TorchScript is the one way to save and run a torch.ao model without pickled code. What the tracer says
    of the model's own code stays visible.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.(_ops|nn|ao)")
        yield
