"""Metrics: what is measured is described, and one entry is enough for a metric to be everywhere."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantbench.analysis import trial_frame
from quantbench.analysis.compare import QUANTITIES
from quantbench.report import render
from quantbench.results import Results, load_results
from quantbench.runs import assemble
from quantbench.spec import Scenario
from quantbench.units import METRICS, MetricSpec, as_table, metrics, spec_of
from quantbench.units.quantities import percent
from tests.harness.test_assemble import copy, finished  # noqa: F401 - fixtures

PUBLISHED = sorted(
    path.parent for path in (Path(__file__).parents[2] / "results" / "reference").glob("*/trials.parquet")
)  # fmt: skip


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_every_metric_of_a_published_run_is_described_where_it_stands(folder):
    rows = load_results(folder).measurements

    for metric, scenario in rows[["metric", "scenario"]].drop_duplicates().itertuples(index=False):
        spec = spec_of(metric)
        assert spec is not None, metric
        assert scenario in spec.scenarios, (metric, scenario)


def test_every_metric_has_one_line_of_help_and_a_row_in_the_docs():
    text = as_table()
    for spec in METRICS.values():
        assert spec.help
        assert "\n" not in spec.help
        assert f"| `{spec.name}` |" in text


def test_what_runs_are_compared_by_says_which_way_is_better():
    for name in QUANTITIES:
        assert METRICS[name].better is not None, name


def test_a_metric_is_one_entry(finished: Results, copy: Path, monkeypatch):  # noqa: F811
    """Assembled, a column of the trial table, shown and explained in the report."""
    confident = MetricSpec(
        "both_right", "fraction", "share of samples that both have right", (Scenario.SCORE,),
        write=percent, column="both_right", title="Both right",
        of=lambda own, full, near: float(np.mean((own.outcome == 1) & (full.outcome == 1))),
    )  # fmt: skip
    known = {**METRICS, confident.name: confident}
    for module in (
        "quantbench.units.metrics", "quantbench.runs.assembly.quality", "quantbench.report.page",
    ):  # fmt: skip
        # a package may have a function of the module's name
        monkeypatch.setattr(importlib.import_module(module), "METRICS", known)
    monkeypatch.setitem(trial_frame.__globals__["METRICS"], "both_right", Scenario.SCORE)

    found = assemble(copy)

    own = found.predictions.query("trial == 'fake/fakery/static-int8/cpu-1'")["outcome"].to_numpy()
    full = found.predictions.query("trial == 'fake/fakery/fp32/cpu-1'")["outcome"].to_numpy()
    row = trial_frame(found).set_index("trial").loc["fake/fakery/static-int8/cpu-1"]
    assert row["both_right"] == pytest.approx(float((own * full).mean()))
    page = render(found)
    assert "Both right" in page
    assert percent(row["both_right"]) in page
    assert replace(confident, title="").title == ""
    assert metrics.METRICS is known
