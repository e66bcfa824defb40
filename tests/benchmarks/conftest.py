"""The trials of `trials.yaml` as tests, by quantbench's own plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.testing.pytest_plugin import Trials

TRIALS = Path(__file__).with_name("trials.yaml")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Trials | None:
    if file_path != TRIALS:
        return None
    trials: Trials = Trials.from_parent(parent, path=file_path)
    trials.add_marker(pytest.mark.slow)
    trials.add_marker(pytest.mark.long)
    return trials
