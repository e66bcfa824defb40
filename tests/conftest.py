"""What all tests share: their order, and the path that workers import fakes from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = str(Path(__file__).parents[1])
# workers import the fakes of these tests, wherever a test runs
os.environ["PYTHONPATH"] = os.pathsep.join(
    dict.fromkeys([*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), ROOT])
)


# machines are shared: how long an example takes says nothing of the code
settings.register_profile("quantbench", deadline=None)
settings.load_profile("quantbench")

# inductor must not run what it compiled under another cap of the instruction set
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR",
    str(
        Path(tempfile.gettempdir())
        / f"quantbench-tests-inductor-{os.getuid()}-{os.environ.get('ATEN_CPU_CAPABILITY', 'native')}"
    ),
)

LONGEST = (
    "test_tutorial.py", "test_own_models.py", "test_models.py", "test_runner.py", "test_recovery.py",
    "test_published.py", "test_report_browser.py", "test_report.py",
)  # fmt: skip
"""Two processes take whole files: one left for last would run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others in their order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
