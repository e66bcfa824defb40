"""Fixtures of the engine's tests: a fake framework in the registry, caches and results apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from markupsafe import Markup

from quantbench.backend_api import registry
from tests.harness import fake


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, **known: dict[str, Any]) -> Path:
    """Leave only these ``backends``, ``models`` and ``tasks`` in the registry; ``folder`` caches."""
    monkeypatch.setattr(
        registry,
        "_entry_points",
        lambda group: {
            name: SimpleNamespace(load=lambda found=found: found, value=name)
            for name, found in known.get(group.partition(".")[2], {}).items()
        },
    )
    monkeypatch.setenv("QUANTBENCH_CACHE", str(folder / "cache"))
    return folder


@pytest.fixture(autouse=True)
def words_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are written without drawing their pictures, which take most of the time.

    Tests that are marked ``pictures`` draw them, and so do fixtures of a whole module.
    """
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr(
            "quantbench.report.drawing.svg.drawn", lambda *asked: Markup("<svg></svg>")
        )


@pytest.fixture
def fakery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The registry holds only the fake framework; returns a fresh folder."""
    return install(
        monkeypatch, tmp_path,
        backends={"fakery": fake.BACKEND, "other": fake.OTHER, "absent": fake.ABSENT},
        models={"fake": fake.MODEL},
        tasks={"fake-task": fake.TASK},
    )  # fmt: skip


@pytest.fixture
def experiment_file(fakery: Path):
    """A function that writes an experiment file for the fake framework."""

    def write(methods: str = "[fp32, static-int8]", **more: str) -> Path:
        lines = {
            "models": "[fake]",
            "backends": "[fakery]",
            "methods": methods,
            "confirm": "false",
            "precision": "{name: test, generations: 1, max_generations: 1, rounds: 6, "
            "warmup_s: 0.01, burst_ms: 1.0, memory_processes: 1}",
            **more,
        }
        path = fakery / "test.yaml"
        path.write_text("\n".join(f"{key}: {value}" for key, value in lines.items()) + "\n")
        return path

    return write
