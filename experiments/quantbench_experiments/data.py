"""Data folder: where data sets and published weights lie, and whether a file is the right one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import platformdirs

from quantbench.errors import BadInput, DataMissing, did_you_mean
from quantbench.system import file_sha256


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


def check_split(split: str, known: Iterable[str]) -> None:
    """Raise `BadInput`, with the nearest name, unless ``split`` is a known one."""
    names = tuple(known)
    if split not in names:
        raise BadInput(f"unknown split '{split}'.{did_you_mean(split, names)}")
