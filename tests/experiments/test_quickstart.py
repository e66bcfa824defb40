"""A fresh quickstart against the published one, by what has to hold on any machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import gates
from harness.experiment import Experiment
from harness.regression import changes
from harness.results import load_results
from harness.runner import run

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_fresh_quickstart_is_as_good_as_the_published_one(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorflow")
    experiment = Experiment.load(ROOT / "experiments" / "quickstart.yaml")
    # times are not compared: one round of each artifact
    short = replace(
        experiment.precision, generations=1, max_generations=1, rounds=1, warmup_s=0.0, burst_ms=1.0
    )

    fresh = run(replace(experiment, precision=short), results=tmp_path)

    published = load_results(ROOT / "results" / "reference" / "quickstart")
    every = gates.read(ROOT / "results" / "reference" / "gates.yaml")
    findings = gates.judge(changes(published, fresh), every)
    assert len(findings) >= 5 * 13
    assert [f"{f.trial}: {f.sentence}" for f in findings if f.failed] == []
