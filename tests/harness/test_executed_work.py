"""Where a form executes other work than the reference's, its row says so, with the operators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from quantbench import load_results
from quantbench.analysis import other_work
from quantbench.backend_api import Operation
from quantbench.cli.commands.explain import explain
from quantbench.report.page import summarise
from quantbench.results import Results
from quantbench.runs.assembly.artifacts import operation_row
from tests.harness.sample_results import TYPICAL, sample_results

ROOT = Path(__file__).parents[2]
REFERENCE, OTHER = TYPICAL[0].id, TYPICAL[7].id


def executing(folder: Path, **sizes: tuple[int, ...]) -> Results:
    """A run whose two trials execute convolutions of these sizes, named by their place."""
    results = sample_results(folder, (TYPICAL[0], TYPICAL[7]))
    trials = {"reference": REFERENCE, "other": OTHER}
    rows = [
        operation_row(trials[which], Operation(f"c{i}", f"Conv{which}", macs, "float32"))
        for which, found in sizes.items()
        for i, macs in enumerate(found)
    ]
    kept = results.artifacts[results.artifacts["kind"] != "executed"]
    more = pd.DataFrame(rows).reindex(columns=kept.columns)
    return replace(results, artifacts=pd.concat([kept, more], ignore_index=True))


def test_the_shortcut_of_resnet_is_work_that_tflite_alone_does():
    results = load_results(ROOT / "results" / "reference" / "resnet20_cifar10")

    found = other_work(results)

    assert {trial.split("/")[1] for trial in found} == {"tflite"}
    assert len(found) == 4
    said = found["resnet20/tflite/static-int8/cpu-1"]
    assert (said.macs, said.reference_macs) == (40_813_184, 40_551_040)
    assert said.short == "+0.65 % MACs against the reference: 2 CONV_2D more here"
    assert said.sentence == (
        "It executes 40.81 M multiplications an inference, pytorch fp32 40.55 M (+0.65 %): it has 2 CONV_2D "
        "beyond the other (resnet20/layer2.0.shortcut/Conv2D1, resnet20/layer3.0.shortcut/Conv2D1)."
    )


@pytest.mark.parametrize(
    ("reference", "other", "short"),
    [
        ((100_000, 500), (500, 100_000), None),
        ((100_000,), (100_000, 99), None),  # under a thousandth
        ((100_000,), (100_000, 101), "+0.10 % MACs against the reference: 1 Convother more here"),
        ((100_000, 9_000, 9_000), (100_000,), "−15.25 % MACs against the reference: 2 Convreference more there"),
        # cut differently: no operator is the reason
        ((100_000, 50_000), (75_000, 76_000), "+0.67 % MACs against the reference"),
        # one of three of a size: nothing tells which
        ((7_000, 7_000), (7_000, 7_000, 7_000), "+50.00 % MACs against the reference"),
    ],
)  # fmt: skip
def test_operators_are_named_where_the_record_shows_them(tmp_path, reference, other, short):
    found = other_work(executing(tmp_path, reference=reference, other=other))

    assert {trial: work.short for trial, work in found.items()} == ({OTHER: short} if short else {})


def test_a_trial_without_a_record_has_no_other_work(tmp_path):
    assert other_work(executing(tmp_path, reference=(100,))) == {}
    assert other_work(executing(tmp_path, other=(100,))) == {}


def test_the_row_of_the_report_says_it_and_the_reference_does_not(tmp_path):
    page = summarise(executing(tmp_path, reference=(100_000,), other=(100_000, 5_000)))

    column = [column.name for column in page.columns].index("Integer MACs")
    notes = {row.trial: " ".join(row.cells[column].notes) for row in page.rows}
    assert "+5.00 % MACs against the reference: 1 Convother more here" in notes[OTHER]
    assert "MACs" not in notes[REFERENCE]


def test_explain_says_it_under_its_summary(capsys):
    explain(ROOT / "results" / "reference" / "resnet20_cifar10", "resnet20/tflite/fp32/cpu-1")

    assert "40.81 M multiplications an inference, pytorch fp32 40.55 M" in capsys.readouterr().out
