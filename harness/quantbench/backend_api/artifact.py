"""Artifact: the deployable files that a Quantizer built, with a manifest."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quantbench.errors import BadArtifact
from quantbench.spec import TensorSpec
from quantbench.system import file_sha256, is_plain

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """The deployable file or files that a Quantizer built, with a manifest.

    Parameters
    ----------
    folder : Path
        Where the files and ``manifest.json`` lie.
    files : tuple of str
        Every file needed at run time, the main one first.
    runtime : str
        Name of the backend that runs it.
    inputs, outputs : tuple of TensorSpec
        As stored in the file: its shapes, dtypes, scales and layouts, under the task's names.
    task_inputs, task_outputs : tuple of TensorSpec
        The same tensors as the task sees them, in the same order.
    details : mapping
        What the runtime must know to load it (``route``, ``architecture``...). ``simulated``: why
        no kernel executes the method as it is, so that latency would be another method's.
    sha256 : mapping
        SHA-256 by file name.
    """

    folder: Path
    files: tuple[str, ...]
    runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task_inputs: tuple[TensorSpec, ...]
    task_outputs: tuple[TensorSpec, ...]
    details: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The main file."""
        return self.folder / self.files[0]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files needed at run time."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    def gzip_bytes(self) -> int:
        """Bytes of the same files as gzip compresses each at its best; slow for large ones."""
        files = (self.folder / name for name in self.files)
        return sum(len(gzip.compress(f.read_bytes(), compresslevel=9, mtime=0)) for f in files)

    @property
    def digest(self) -> str:
        """SHA-256 of the main file, or of all files' hashes where there are several."""
        if len(self.files) == 1:
            return self.sha256[self.files[0]]
        return hashlib.sha256("".join(self.sha256[f] for f in self.files).encode()).hexdigest()

    def save(self) -> Artifact:
        """Hash the files and write the manifest; returns the artifact with its hashes."""
        hashes = {name: file_sha256(self.folder / name) for name in self.files}
        specs = ("inputs", "outputs", "task_inputs", "task_outputs")
        manifest = {
            "files": list(self.files),
            "runtime": self.runtime,
            "details": dict(self.details),
            "sha256": hashes,
            **{key: [spec.to_json() for spec in getattr(self, key)] for key in specs},
        }
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        return Artifact.open(self.folder, verify=False)

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Artifact:
        """Read a saved artifact.

        Raises
        ------
        BadArtifact
            If the manifest or a file is missing, truncated or altered.
        """
        try:
            data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            specs = {
                key: tuple(TensorSpec.from_json(spec) for spec in data[key])
                for key in ("inputs", "outputs", "task_inputs", "task_outputs")
            }
            artifact = cls(
                folder=folder,
                files=tuple(data["files"]),
                runtime=data["runtime"],
                details=data["details"],
                sha256=data["sha256"],
                **specs,
            )
            strange = next((name for name in artifact.files if not is_plain(name)), None)
            if strange is not None:
                raise BadArtifact(
                    f"artifact {folder} lists the file {strange!r}, which is not in its folder; "
                    "it was not made by quantbench, or was altered: delete it"
                )
            if verify:
                for name in artifact.files:
                    if file_sha256(folder / name) != artifact.sha256[name]:
                        raise BadArtifact(
                            f"artifact {folder / name} is truncated or altered; "
                            "delete its folder and run again to rebuild it"
                        )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadArtifact(
                f"artifact {folder} cannot be read ({error}); delete the folder and run again"
            ) from error
        return artifact
