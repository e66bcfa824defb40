"""The checks of `make validate`, on invented runs: what they count, and what they would not pass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.harness.sample_results import Invented, sample_results
from tools.validation import __main__ as validation
from tools.validation import published, repeat, tools

TRIALS = (
    Invented("pytorch", "fp32", 1.0),
    Invented("pytorch", "static-int8", 0.5),
    Invented("tflite", "static-int8", 0.25),
)


@pytest.mark.parametrize(("factor", "reached"), [(1.0, True), (1.02, True), (1.1, False)])
def test_speedups_of_two_runs_are_compared_cell_by_cell(tmp_path, factor, reached):
    first = sample_results(tmp_path / "a", TRIALS)
    changed = (*TRIALS[:2], Invented("tflite", "static-int8", 0.25 * factor))
    second = sample_results(tmp_path / "b", changed)

    found = repeat.check([first, second])

    assert found["cells"] == len(found["rows"]) > 0
    assert found["reached"] == reached


def another(folder, times, **machine):
    """A run of `TRIALS` with other times, in milliseconds."""
    trials = [replace(trial, latency_ms=ms) for trial, ms in zip(TRIALS, times, strict=True)]
    return sample_results(folder, trials, detailed=True, machine=machine)


def test_what_two_runs_share_is_one_pair_of_each_two(tmp_path):
    runs = [
        another(tmp_path / "a", (1.0, 0.5, 0.25)),
        another(tmp_path / "b", (1.0, 0.5, 0.20)),
        another(tmp_path / "c", (1.0, 0.5, 0.25)),
        another(tmp_path / "d", (9.0, 0.5, 0.25), fingerprint="another machine"),
    ]

    found = published.pairs(runs, "speedup")

    # two speed-ups, each of three pairs of runs; nothing across machines
    assert len(found) == 6
    assert sum(pair.apart <= published.CLOSE for pair in found) == 4
    worst = max(found, key=lambda pair: pair.apart)
    assert worst.cell[0] == "digits/tflite/static-int8/cpu-1"
    # 5x and 4x of stored doubles
    assert worst.apart == pytest.approx(0.25, rel=1e-12)
    times = published.pairs(runs, "latency_ms")
    assert len(times) == 9
    assert "4 of 6 speed-ups (67%) agree within 3 %" in published.speedups_text(runs)
    assert "by 25.0% (4 in a, 5 in b)" in published.speedups_text(runs)


def test_the_spread_between_runs_is_that_within_cells(tmp_path):
    runs = [
        another(tmp_path / "a", (1.0, 0.5, 0.25)),
        another(tmp_path / "b", (1.0, 0.5, 0.20)),
    ]

    (session,) = published.sessions(runs)

    assert session.reference == "digits/pytorch/fp32/cpu-1"
    assert (session.cells, session.values, session.runs) == (2, 4, 2)
    # ln 5/4 apart in one cell of two, none in the other: SD = sqrt(2 (ln(5/4) / 2)^2 / (4 - 2))
    assert session.sd == pytest.approx(math.log(1.25) / 2, rel=1e-9)
    assert published.sessions(runs[:1]) == []


def test_two_processes_of_one_file_are_compared_in_each_generation(tmp_path):
    run = another(tmp_path, (1.0, 0.5, 0.25))

    found = published.processes([run])

    rows = run.samples[run.samples["trial"].str.startswith("digits/pytorch/fp32/cpu-1")]
    ns = rows.groupby(["generation", "round", "trial"])["nanoseconds"].median().unstack("trial")
    ratios = np.log(ns.iloc[:, 0] / ns.iloc[:, 1]).groupby("generation").median().abs()
    # exp and ln in another order
    assert found == pytest.approx(list(np.expm1(ratios)), rel=1e-9)
    assert len(found) == 3


def test_a_tool_s_ratio_is_of_turns_where_they_were_kept():
    turns = [["t", 1, 1e6, 1e6], ["t", 1, 9e6, 3e6], ["t", 1, 2e6, 4e6]]

    (kept,) = tools.told({"turns": turns})
    (lost,) = tools.told({"rows": [["t", 1, 0.5, 0.4, 7.0]]})

    assert (kept.ours_ms, kept.theirs_ms, kept.ratio) == (2.0, 3.0, 1.0)
    # the quotient of two stored medians, not what was printed beside them
    assert lost.ratio == 0.5 / 0.4


def test_a_check_that_there_is_not_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        validation.main(["aaa"])

    assert caught.value.code == 2
    assert "there are repeat, tools, aa, busy" in capsys.readouterr().err
