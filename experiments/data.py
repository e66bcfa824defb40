"""Data folder: where data sets and published weights lie, and whether a file is the right one."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from harness.errors import DataMissing
from harness.protocol import file_sha256


def data_folder() -> Path:
    """``$QUANTBENCH_DATA``, or ``quantbench/data`` in the user's cache folder."""
    chosen = os.environ.get("QUANTBENCH_DATA")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("quantbench")) / "data"


def verified(path: Path, sha256: str, remedy: str) -> Path:
    """``path``, if its content has this SHA-256.

    Raises
    ------
    DataMissing
        If it is absent, unreadable or another file; ``remedy`` says what to download and
        from where.
    """
    if not path.is_file():
        raise DataMissing(f"{path} is missing; {remedy}")
    try:
        got = file_sha256(path)
    except OSError as error:
        raise DataMissing(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    check_digest(str(path), sha256, got, remedy)
    return path


def check_digest(what: str, expected: str, got: str, remedy: str) -> None:
    """Raise `DataMissing` unless the two SHA-256 are equal."""
    if got != expected:
        raise DataMissing(f"{what} has SHA-256 {got}, expected {expected}; {remedy}")
