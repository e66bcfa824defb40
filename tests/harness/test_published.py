"""Published figures: read from the experiment file, stored in the run, shown beside ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.experiment import Experiment
from quantbench.experiment.literature import rows
from quantbench.report import render
from quantbench.report.sections.literature import Pair, beside
from quantbench.spec import Published
from quantbench.units import size
from tests.harness.sample_results import TYPICAL, sample_results
from tests.harness.test_experiment import GOOD, load, problems

TABLE = """\
published:
  - {what: 'static, as printed', beside: {backend: onnxruntime, method: static-int8}, size_bytes: 120000,
     quality: 0.98, speedup: 1.9, source: a table}
"""


def test_a_row_stands_beside_the_first_trial_that_it_selects(tmp_path: Path) -> None:
    experiment = load(tmp_path, GOOD + TABLE)

    (row,) = experiment.published
    assert row == Published(
        "static, as printed", "digits/onnxruntime/static-int8/cpu-1", 0.98, 120000, 1.9, "a table"
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("backend: onnx", "backand: onnx", "unknown key 'backand' in beside. Did you mean 'backend'?"),
        ("static-int8}, size", "bf16}, size", "no trial is beside 'static, as printed'"),
        ("speedup: 1.9", "speed: 1.9", "unknown key 'speed'. Did you mean 'speedup'?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_row_is_said_with_its_line(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    (problem,) = problems(tmp_path, GOOD + TABLE.replace(old, new))

    assert problem.partition(": ")[2].startswith(says)


def test_the_published_score_of_a_model_stands_beside_each_plain_fp32(tmp_path: Path) -> None:
    text = GOOD.replace("digits", "resnet20") + TABLE

    found = rows(load(tmp_path, text))

    assert [row.trial for row in found[1:]] == [
        "resnet20/pytorch/fp32/cpu-1",
        "resnet20/onnxruntime/fp32/cpu-1",
    ]
    assert {row.quality for row in found[1:]} == {0.9173}


def test_the_report_shows_both_figures_of_a_row(tmp_path: Path) -> None:
    row = Published("as <b>printed</b>", TYPICAL[6].id, 0.9, 50_000, 3.0, "a table")
    lost = Published("not here", "digits/none/fp32/cpu-1", 0.5)

    found = sample_results(tmp_path, run={"published": [row.to_json(), lost.to_json()]})

    ours, missing = beside(found)
    assert (ours.size.published, ours.size.ours) == ("50.0 kB", size(TYPICAL[6].size_bytes))
    assert ours.quality.published == "90.0 %"
    assert ours.speedup.published == "3.00×"
    assert missing.quality == Pair("50.0 %", "–")
    page = render(found)
    assert "as &lt;b&gt;printed&lt;/b&gt;" in page
    assert 'id="published"' in page


def test_a_run_without_published_figures_has_no_such_section(tmp_path: Path) -> None:
    assert 'id="published"' not in render(sample_results(tmp_path))


def test_the_experiments_tell_what_was_published() -> None:
    experiment = Experiment.load(Path(__file__).parents[2] / "experiments" / "seed_cifar10.yaml")

    assert [row.speedup for row in rows(experiment)] == [None, 0.96, 1.90, 1.90]
