"""Record: what a PyTorch artifact's file holds, read back from the file alone."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch.utils.show_pickle import DumpUnpickler

from backends.pytorch import exported
from backends.pytorch.archive import deprecated_torchscript
from harness.errors import BadArtifact
from harness.protocol import Artifact, Record

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "QInt8Storage": "int8", "QUInt8Storage": "uint8", "QInt32Storage": "int32",
}  # fmt: skip


def record(artifact: Artifact) -> Record:
    """Payload bytes by dtype; operators by TorchScript's names, none where there is no graph.

    Raises
    ------
    BadArtifact
        If the file is damaged.
    """
    try:
        if artifact.path.suffix == ".safetensors":
            return Record(_safetensors_bytes(artifact.path), {})
        if artifact.path.suffix == ".pt2":
            return Record(exported.weight_bytes(artifact.path), exported.operators(artifact.path))
        return Record(_archive_bytes(artifact.path), _operators(artifact.path))
    except (
        *(OSError, ValueError, KeyError, RuntimeError),
        *(zipfile.BadZipFile, safetensors.SafetensorError),
    ) as error:
        raise BadArtifact(
            f"artifact {artifact.path} cannot be read ({' '.join(str(error).split())[:300]}); "
            "delete its folder and run again to rebuild it"
        ) from error


def _safetensors_bytes(path: Path) -> dict[str, int]:
    total: Counter[str] = Counter()
    with safetensors.safe_open(path, framework="pt") as file:
        names = list(file.keys())
        for name in names:
            tensor = file.get_tensor(name)
            dtype = str(tensor.dtype).removeprefix("torch.")
            # bitsandbytes packs two weights into a byte
            total["nf4" if f"{name}.quant_map" in names else dtype] += tensor.nbytes
    return dict(total)


def _archive_bytes(path: Path) -> dict[str, int]:
    # data.pkl holds attributes, constants.pkl the constants of graphs; each names storages, which
    # are entries beside it. Nothing is unpickled: every class becomes a placeholder.
    total: Counter[str] = Counter()
    with zipfile.ZipFile(path) as file:
        root = file.namelist()[0].partition("/")[0]
        for part in ("data", "constants"):
            reader = _StorageReader(io.BytesIO(file.read(f"{root}/{part}.pkl")))
            reader.load()
            for key, storage in reader.storages.items():
                total[_STORAGES[storage]] += file.getinfo(f"{root}/{part}/{key}").file_size
    return dict(total)


class _StorageReader(DumpUnpickler):
    """Notes the class of each tensor storage by its key in the archive."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, str] = {}

    def persistent_load(self, pid: Any) -> None:
        _, storage, key, *_ = pid
        self.storages[key] = storage.name


def _operators(path: Path) -> dict[str, int]:
    with deprecated_torchscript():
        graph = torch.jit.load(path, map_location="cpu").inlined_graph  # type: ignore[no-untyped-call]
    return dict(Counter(kind for kind in _kinds(graph) if not kind.startswith("prim::")))


def _kinds(block: Any) -> list[str]:
    kinds = []
    for node in block.nodes():
        kinds.append(node.kind())
        for inner in node.blocks():
            kinds.extend(_kinds(inner))
    return kinds
