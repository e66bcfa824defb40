"""Fixtures for models and tasks: where real data lies, and a cache that tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantbench_experiments.data import data_folder

# before any test imports TensorFlow
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


PARQUET = "cifar10/test.parquet"
BINARY = "cifar-10-batches-bin/test_batch.bin"


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole session, so that images are decoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def real_data(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder; skips only where it is the default one, empty, and not in CI."""
    folder = data_folder()
    present = any((folder / name).is_file() for name in (PARQUET, BINARY))
    asked = os.environ.get("QUANTBENCH_DATA") or os.environ.get("CI")
    if not asked and not present:
        pytest.skip(f"no CIFAR-10 in {folder}; see docs/data.md")
    monkeypatch.setenv("QUANTBENCH_CACHE", str(shared_cache))
    return folder


@pytest.fixture
def parquet_data(real_data: Path) -> Path:
    """The data folder with Parquet files; skips where it holds the binary version instead."""
    if (real_data / BINARY).is_file() and not (real_data / PARQUET).is_file():
        pytest.skip(f"{real_data} holds the binary version of CIFAR-10, not the Parquet files")
    return real_data


@pytest.fixture
def empty_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"
