"""Files: written whole or not at all, and never under a name that came from outside."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantbench.errors import BadInput, NotComparable


def stored_as(name: str) -> str:
    """The name under which whatever is called ``name`` is stored: 16 hexadecimal digits of its hash.

    Tensors, trials and comparisons are called what a file or a user calls them: ``scale_0/tmp``,
    ``../../climbed``, two hundred letters. Such a name never becomes a part of a path; it is kept
    inside a file, beside what is stored.
    """
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_plain(name: str) -> bool:
    """Whether ``name`` names a file directly in a folder, and cannot lead out of it."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0")


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary name, sync, rename: a reader sees the old file or the new, never half."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_atomically(path, json.dumps(value, indent=1))


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_folder(source: Path, target: Path) -> None:
    """Make ``target`` hold the files of ``source``: linked, or copied across file systems."""
    if target.exists():
        return
    with filling(target) as temporary:
        for file in source.iterdir():
            try:
                (temporary / file.name).hardlink_to(file)
            except OSError:
                shutil.copyfile(file, temporary / file.name)


@contextmanager
def filling(final: Path) -> Iterator[Path]:
    """A temporary folder beside ``final`` that becomes it if the block ends well.

    ``final`` exists exactly if it is complete; one that is already there wins.

    Raises
    ------
    BadInput
        If the parent folder is not writable.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    except OSError as error:
        raise BadInput(
            f"cannot write to {final.parent} ({error.strerror}); "
            "set QUANTBENCH_CACHE to a writable folder"
        ) from error
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        temporary.chmod(0o755)
        try:
            temporary.rename(final)
        except OSError:
            if not final.is_dir():
                raise
        sync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a run; raises `NotComparable` where it is not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotComparable(f"{path} cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise NotComparable(f"{path} is not a JSON object")
    return data
