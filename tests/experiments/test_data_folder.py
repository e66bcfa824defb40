from __future__ import annotations

import hashlib
from pathlib import Path

import platformdirs
import pytest

from quantbench.errors import DataMissing
from quantbench_experiments.data import data_folder, verified


def test_the_environment_names_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBENCH_DATA", "somewhere/data")
    assert data_folder() == Path("somewhere/data")


@pytest.mark.parametrize("value", [None, ""])
def test_the_default_data_folder_is_in_the_users_cache(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUANTBENCH_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("QUANTBENCH_DATA", value)
    assert data_folder() == Path(platformdirs.user_cache_dir("quantbench")) / "data"


def test_a_file_with_the_right_checksum_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"right")
    assert verified(path, hashlib.sha256(b"right").hexdigest(), "download it") == path


def test_another_content_names_both_checksums_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"wrong")
    expected, got = (hashlib.sha256(content).hexdigest() for content in (b"right", b"wrong"))
    with pytest.raises(DataMissing) as caught:
        verified(path, expected, "download it")
    assert str(caught.value) == f"{path} has SHA-256 {got}, expected {expected}; download it"


@pytest.mark.parametrize("name", ["absent.bin", "."], ids=["absent", "a folder"])
def test_what_is_not_a_file_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"is missing; download it$"):
        verified(tmp_path / name, "0" * 64, "download it")
