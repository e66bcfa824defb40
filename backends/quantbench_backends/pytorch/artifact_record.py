"""Record: what a PyTorch artifact's file holds, read back from the file alone."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping

import safetensors

from quantbench.backend_api import Artifact, Record
from quantbench.errors import BadArtifact
from quantbench_backends.pytorch import (
    exported_program_record,
    routes,
    safetensors_record,
    torchscript_record,
)

_READERS: Mapping[str, Callable[[Artifact, tuple[str, ...]], Record]] = {
    routes.WEIGHTS: safetensors_record.record,
    routes.PROGRAM: exported_program_record.record,
    routes.SCRIPT: torchscript_record.record,
}


def record(artifact: Artifact, layers: tuple[str, ...]) -> Record:
    """Tensors and nodes of the file; nodes by the framework's names, none where there is no graph.

    Raises
    ------
    BadArtifact
        If the file is damaged.
    """
    try:
        return _READERS[artifact.path.suffix](artifact, layers)
    except (
        *(OSError, ValueError, KeyError, RuntimeError, IndexError),
        *(zipfile.BadZipFile, safetensors.SafetensorError),
    ) as error:
        raise BadArtifact(
            f"artifact {artifact.path} cannot be read ({' '.join(str(error).split())[:300]}); "
            "delete its folder and run again to rebuild it"
        ) from error
