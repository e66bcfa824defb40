"""Metrics: what is measured is described, and one entry is enough for a metric to be everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.analysis.compare import QUANTITIES
from quantbench.results import load_results
from quantbench.units import METRICS, as_table, spec_of

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
