"""The order of all tests."""

from __future__ import annotations

import pytest

LONGEST = (
    "test_tutorial.py", "test_own_models.py", "test_models.py", "test_runner.py", "test_recovery.py",
    "test_published.py", "test_report_browser.py", "test_report.py",
)  # fmt: skip
"""Two processes take whole files: one left for last would run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others in their order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))
