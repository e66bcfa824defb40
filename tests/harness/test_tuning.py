"""Tuning with the fake framework of three layers, one of which is planted to break."""

from __future__ import annotations

import pytest

from quantbench.errors import BadInput
from quantbench.report import write_report
from quantbench.runs import Reporter
from quantbench.spec import PRECISIONS, Precision, preset
from quantbench.studies import Budget, tune
from quantbench.studies.mixed_precision import candidates
from tests.harness.test_diagnosis import install_deep

QUICK = Precision("test", 1, 1, 6, 0.02, 30.0, 0.01, 1.0, 1)


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = install_deep(patch, tmp_path_factory.mktemp("tuning"))
    patch.setitem(PRECISIONS, "test", QUICK)
    yield lambda budget: tune(
        "deep", "deepery", budget, precision="test", samples=100, results=folder / "results",
        reporter=Reporter(quiet=True), write_report=write_report,
    )  # fmt: skip
    patch.undo()


def test_the_planted_layer_is_found_and_the_loss_recovered(tuned):
    found = tuned(Budget(0.05, "size"))

    assert found.diagnosis.ranking("deepery")[0].layer == "b"
    by_label = {one.row.label: one.row for one in found.candidates}
    assert by_label["static-int8"].value("quality_drop") > 0.1
    assert found.qualified
    (chosen,) = (one.row for one in found.candidates if one.row.trial == found.chosen)
    assert "b" in chosen.axes["keep_float"]
    # one layer in float or two: files that differ by less than 1 %, and then the bound decides
    one, two = (by_label[f"static-int8+float={n}"] for n in (1, 2))
    assert two.value("size_bytes") < 1.01 * one.value("size_bytes")
    assert chosen.trial == min(one, two, key=lambda row: row.value("quality_drop_bound")).trial
    assert chosen.value("quality_drop_bound") < 0.05


def test_every_candidate_is_kept_and_the_pareto_set_marked(tuned):
    found = tuned(Budget(0.05, "size"))

    labels = {"static-int8", "static-int8+float=1", "static-int8+float=2"}
    by_label = {one.row.label: one for one in found.candidates}
    assert by_label.keys() == labels
    small, kept = by_label["static-int8"], by_label["static-int8+float=1"]
    # smaller and worse, or larger and better; two layers in float are larger than one
    assert small.pareto
    assert kept.pareto
    assert small.row.value("size_bytes") < kept.row.value("size_bytes")
    assert (found.run.folder / "report.html").exists()


def test_where_nothing_qualifies_the_best_effort_is_returned(tuned):
    found = tuned(Budget(1e-9, "size"))

    assert not found.qualified
    bounds = {one.row.trial: one.row.value("quality_drop_bound") for one in found.candidates}
    assert bounds[found.chosen] == min(bounds.values())


def test_candidates_go_from_all_int8_to_more_bits_where_it_hurts_and_fewer_where_not():
    start = preset("static-int8")
    found = dict(candidates(start, ["a", "b", "c", "d"]))

    assert found["static-int8"] == start
    assert found["static-int8+float=2"].keep_float == ("a", "b")
    assert found["static-int8+int4=1"].int4_weights == ("d",)
    assert found["static-int8+int4=2+float=1"].int4_weights == ("c", "d")
    assert found["static-int8+int4=2+float=1"].keep_float == ("a",)
    assert found["static-int16x8"].activations == "int16"
    assert all(len(m.keep_float) + len(m.int4_weights) <= 4 for m in found.values())


def test_an_unknown_objective_is_named(tuned):
    with pytest.raises(BadInput, match="objective is one of latency, size, not 'speed'"):
        tuned(Budget(0.01, "speed"))
