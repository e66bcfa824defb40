"""Seeds are one candidate: pooled before anything is chosen, and the pick says which of them it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from quantbench.analysis import Constraints, pooled, recommend, trial_rows
from quantbench.report import verdict
from quantbench.report.markdown import brief
from quantbench.results import Results
from tests.harness.sample_results import Invented, sample_results

FLOAT = Invented("pytorch", "fp32", 1.0, 400_000)
INT8 = Invented("tflite", "static-int8", 0.10, 100_000, lost=2, won=2)


def seeds(*lost: int, like: Invented = INT8, **changes: object) -> list[Invented]:
    """A trial per seed that loses so many samples, two won back."""
    return [
        dataclasses.replace(like, seed=seed, lost=one, **changes) for seed, one in enumerate(lost)
    ]


def run(folder: Path, *trials: Invented) -> Results:
    return sample_results(folder, [FLOAT, *trials])


def test_the_median_seed_stands_for_all_and_the_pick_says_how_the_others_fared(tmp_path) -> None:
    trials = seeds(3, 1, 2)  # losses of 1, -1 and 0 samples of 897
    results = run(tmp_path, *trials)

    (choice,) = recommend(results)
    row = next(r for r in pooled(trial_rows(results)) if r.trial == choice.trial)

    assert choice.trial == trials[2].id
    assert (choice.ties, len(choice.allowed)) == ((), 2)
    assert verdict.headline(row) == "Ship tflite static-int8, seed 2"
    assert verdict.seeds_line(row) == (
        "seed 2, the median of 3; the others lose −0.11 to 0.11 points",
    )


def test_equal_files_of_many_seeds_are_one_candidate_not_22(tmp_path: Path) -> None:
    results = run(tmp_path, *seeds(*[2] * 22))

    (choice,) = recommend(results, Constraints(objective="size"))

    assert len(choice.allowed) == 2
    assert choice.ties == ()
    assert "tie" not in choice.reason


def test_a_lucky_seed_does_not_ship_a_method_that_may_lose_too_much(tmp_path: Path) -> None:
    # one seed of three is far within 1 point; the method is not
    trials = seeds(2, 14, 16)

    (choice,) = recommend(run(tmp_path, *trials))

    assert choice.trial == FLOAT.id
    (passed,) = choice.passed_over
    assert passed.trial == trials[1].id
    assert "over 3 seeds" in passed.reason


def test_the_loss_of_a_pick_is_the_mean_over_its_seeds_and_its_time_its_own(tmp_path: Path) -> None:
    first, second, third = seeds(3, 1, 2)
    results = run(tmp_path, first, second, dataclasses.replace(third, latency_ms=0.12))

    row = next(r for r in pooled(trial_rows(results)) if r.trial == third.id)

    # 1e-12: rounding of a mean of three numbers
    assert row.value("quality_drop") == pytest.approx((1 - 1 + 0) / 3 / 897, abs=1e-12)
    assert row.value("latency_ms") == 0.12
    own = next(r for r in trial_rows(results) if r.trial == third.id)
    assert row.value("quality_drop_bound") > own.value("quality_drop_bound")


def test_a_seed_that_failed_takes_no_part_and_is_said(tmp_path: Path) -> None:
    first, second, third = seeds(3, 1, 2)
    broken = dataclasses.replace(third, status="crashed", latency_ms=None)

    results = run(tmp_path, first, second, broken)
    (choice,) = recommend(results)
    row = next(r for r in pooled(trial_rows(results)) if r.trial == choice.trial)

    assert choice.trial == first.id  # of an even number the worse one
    assert verdict.seeds_line(row)[0].endswith("; 1 more may not be shipped")


def test_seeds_that_all_failed_are_refused_once(tmp_path: Path) -> None:
    (choice,) = recommend(run(tmp_path, *seeds(2, 2, status="no-op")))

    assert [p.reason for p in choice.passed_over] == ["its status is no-op"]


def test_a_reference_of_several_seeds_stays_the_reference(tmp_path: Path) -> None:
    floats = [dataclasses.replace(FLOAT, seed=seed) for seed in (0, 1, 2)]

    results = sample_results(tmp_path, floats)
    (choice,) = recommend(results)

    assert choice.trial == floats[0].id
    assert choice.judged == 0


def test_of_files_of_one_size_the_surest_ships_not_the_one_that_is_a_byte_smaller(tmp_path) -> None:
    sure = Invented("tflite", "static-int8", 0.1, 100_900, lost=0, won=0)
    unsure = Invented("onnxruntime", "static-int8", 0.1, 100_000, lost=4, won=2)

    (fastest,) = recommend(run(tmp_path / "a", sure, unsure))
    (smallest,) = recommend(run(tmp_path / "b", sure, unsure), Constraints(objective="size"))
    (apart,) = recommend(run(tmp_path / "c", dataclasses.replace(sure, size_bytes=101_100), unsure))

    assert (fastest.trial, fastest.ties) == (sure.id, (unsure.id,))
    assert "the least bound of loss of 2" in fastest.reason
    assert smallest.trial == sure.id
    assert apart.trial == unsure.id
    assert "the smallest file of 2" in apart.reason


def test_the_comment_names_the_seed(tmp_path: Path) -> None:
    assert "Ship tflite static-int8, seed 2" in brief(run(tmp_path, *seeds(3, 1, 2)))
