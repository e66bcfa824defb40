"""Advice on synthetic runs whose right answer is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.analysis import (
    Choice,
    Constraints,
    MeasuredTrial,
    Standing,
    Standings,
    batch_sizes,
    choose,
    gains_of,
    pareto,
    parse_drop,
    parse_size,
    recommend,
    size_limit,
    smallest_claim,
    trial_frame,
)
from quantbench.analysis.equivalence import claim_of, same_speed
from quantbench.analysis.trial_table import reference_trial
from quantbench.errors import BadInput
from quantbench.results import SAMPLES, Measurement, Results
from quantbench.stats import Interval, Times
from tests.harness.sample_results import OLD_MACHINE, TYPICAL, Invented, sample_results

FLOAT = Invented("pytorch", "fp32", 1.0, 400_000)
FAST = Invented("onnxruntime", "static-int8", 0.10, 110_000, lost=3, won=2)


def only_choice(folder: Path, trials: Sequence[Invented], **how: object) -> Choice:
    (choice,) = recommend(sample_results(folder, trials), Constraints(**how))  # type: ignore[arg-type]
    return choice


def test_the_fastest_trial_within_the_allowed_loss_is_chosen(tmp_path: Path) -> None:
    slower = Invented("tflite", "static-int8", 0.20, 100_000)

    choice = only_choice(tmp_path, [FLOAT, slower, FAST])

    assert choice.trial == FAST.id
    assert choice.ties == ()
    assert len(choice.allowed) == 3


def test_a_trial_that_loses_too_much_is_passed_over_and_named(tmp_path: Path) -> None:
    broken = Invented("tflite", "static-int8", 0.05, 100_000, lost=60, won=2)

    choice = only_choice(tmp_path, [FLOAT, FAST, broken])

    assert choice.trial == FAST.id
    assert [p.trial for p in choice.passed_over] == [broken.id]
    assert "loses 6.47 points" in choice.passed_over[0].reason


def test_loss_is_judged_by_its_bound_not_by_its_estimate(tmp_path: Path) -> None:
    # 0.56 points were measured, but 897 samples cannot rule out more than 1
    unsure = Invented("tflite", "static-int8", 0.05, 100_000, lost=9, won=4)

    choice = only_choice(tmp_path, [FLOAT, FAST, unsure])

    assert choice.trial == FAST.id
    assert "cannot rule out" in choice.passed_over[0].reason


def test_a_larger_allowed_loss_admits_it(tmp_path: Path) -> None:
    unsure = Invented("tflite", "static-int8", 0.05, 100_000, lost=9, won=4)

    assert only_choice(tmp_path, [FLOAT, FAST, unsure], max_drop=0.02).trial == unsure.id


def test_without_a_bound_the_upper_end_of_the_interval_judges(tmp_path: Path) -> None:
    results = sample_results(tmp_path, [FLOAT, FAST])
    rows = results.measurements
    without = dataclasses.replace(
        results, measurements=rows[rows["metric"] != "quality_drop_bound"]
    )

    frame = trial_frame(without).set_index("trial")

    assert frame.loc[FAST.id, "quality_drop_bound"] == frame.loc[FAST.id, "quality_drop_high"]


def test_a_trial_without_a_measured_loss_is_not_recommended(tmp_path: Path) -> None:
    results = sample_results(tmp_path, [FLOAT, FAST])
    rows = results.measurements
    kept = rows[~rows["metric"].isin(["quality_drop", "quality_drop_bound"])]

    (choice,) = recommend(dataclasses.replace(results, measurements=kept))

    assert choice.trial == FLOAT.id
    assert choice.passed_over[0].reason == "its loss of quality was not measured"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "no-op"}, "its status is no-op"),
        ({"flags": ("outputs-differ-at-batch-1",)}, "differ from those that were scored"),
    ],
)
def test_what_is_not_what_it_says_is_never_recommended(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    doubtful = dataclasses.replace(FAST, **change)

    choice = only_choice(tmp_path, [FLOAT, doubtful])

    assert choice.trial == FLOAT.id
    assert reason in choice.passed_over[0].reason


def test_ties_within_noise_are_named_and_broken_by_size(tmp_path: Path) -> None:
    same = Invented("tflite", "static-int8", 0.1008, 100_000, lost=3, won=2)

    choice = only_choice(tmp_path, [FLOAT, FAST, same])

    assert choice.trial == same.id
    assert choice.ties == (FAST.id,)
    assert "smallest file of 2" in choice.reason


@pytest.mark.parametrize(("backend", "tied"), [("pytorch", True), ("tflite", False)])
def test_disjoint_intervals_are_a_tie_where_a_control_of_their_kind_is_noisy(
    tmp_path: Path, backend: str, tied: bool
) -> None:
    """The control is eager PyTorch's: of two files of LiteRT it says nothing."""
    fast = Invented(backend, "static-int8", 0.100, 110_000, lost=3, won=2)
    slower = Invented(backend, "dynamic-int8", 0.105, 100_000, lost=3, won=2)

    (quiet,) = recommend(sample_results(tmp_path / "quiet", [FLOAT, fast, slower], noise=0.004))
    (noisy,) = recommend(sample_results(tmp_path / "noisy", [FLOAT, fast, slower], noise=0.03))

    assert (quiet.trial, quiet.ties) == (fast.id, ())
    assert noisy.ties == ((fast.id,) if tied else ())


def rounds_of(**factors: float) -> Times:
    """Five generations of seven rounds: times by name, around one that drifts, with noise of 0.2 %."""
    rng = np.random.default_rng(0)
    rounds = {
        name: [
            {r: float(np.log(1e5 * factor * rng.normal(1, 0.002))) for r in range(7)}
            for _ in range(5)
        ]
        for name, factor in factors.items()
    }
    return Times(rounds, (0,) * 5)


def test_two_files_of_litert_that_differ_by_2_percent_are_told_apart_beside_a_noisy_control():
    """ResNet-20's static and dynamic int8: 1.021 [1.019, 1.024] in rounds, where eager PyTorch varied by 4 %."""
    static, dynamic, eager = (
        dataclasses.replace(measured(name, latency_ms=ms), backend=backend, axes=axes)
        for name, ms, backend, axes in (
            ("static", 0.1, "tflite", {"scales": "static", "weights": "int8", "route": "keras"}),
            ("dynamic", 0.1021, "tflite", {"scales": "dynamic", "weights": "int8", "route": "keras"}),
            ("eager", 2.0, "pytorch", {"scales": "none", "weights": "float32", "route": "eager"}),
        )
    )  # fmt: skip
    noisy = Interval(1.0, 0.96, 1.04)
    times = rounds_of(static=1.0, dynamic=1.021)

    assert not same_speed(static, dynamic, claim_of(static, dynamic, eager, noisy), times)
    # 1e-12: rounding of a difference
    assert claim_of(static, eager, eager, noisy) == pytest.approx(0.08, abs=1e-12)
    assert claim_of(static, dynamic, None, None) == 0.01


def test_a_pair_at_1_27_is_not_the_same_where_one_at_1_22_is_not() -> None:
    """Trials further apart than 1.25 were judged by intervals that drift had widened, not by rounds."""

    def wide(name: str, ms: float) -> MeasuredTrial:
        ends = Measurement(value=ms, low=ms / 1.5, high=ms * 1.5)
        return MeasuredTrial(name, metrics={"latency_ms": ends})

    for factor in (1.22, 1.27):
        times = rounds_of(a=1.0, b=factor)
        assert not same_speed(wide("a", 1.0), wide("b", factor), 0.01, times)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9),
    st.floats(0, 0.3), st.floats(0, 0.2), st.floats(0, 1.0),
)  # fmt: skip
def test_what_is_shifted_further_apart_never_becomes_the_same(
    seed: int, generations: int, count: int, spread: float, claim: float, further: float
) -> None:
    rng = np.random.default_rng(seed)
    # generations differ as much as rounds do
    rounds = spread * (rng.normal(size=(generations, 1)) + rng.normal(size=(generations, count)))

    def wide(name: str, ms: float) -> MeasuredTrial:
        """Its own interval is wide, as where a machine drifts: only the rounds tell."""
        ends = Measurement(value=ms, low=ms / 1.5, high=ms * 1.5)
        return MeasuredTrial(name, metrics={"latency_ms": ends})

    side = 1 if np.median(rounds) >= 0 else -1

    def same(shift: float) -> bool:
        times = Times(
            {
                "a": [dict.fromkeys(range(len(g)), 0.0) for g in rounds],
                "b": [{i: float(x) + side * shift for i, x in enumerate(g)} for g in rounds],
            },
            (0,) * len(rounds),
        )
        ms = float(np.exp(np.median(rounds) + side * shift))
        return same_speed(wide("a", 1.0), wide("b", ms), claim, times)

    assert same(0.0) or not same(further)


@given(st.floats(0.1, 10), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(1, 3), st.floats(0, 0.2))
def test_without_rounds_what_is_further_apart_never_becomes_the_same_either(
    ratio: float, one: float, two: float, further: float, claim: float
) -> None:
    def trial(ms: float, width: float) -> MeasuredTrial:
        ends = Measurement(value=ms, low=ms * (1 - width), high=ms * (1 + width))
        return MeasuredTrial("t", metrics={"latency_ms": ends})

    away = ratio * further if ratio >= 1 else ratio / further
    still, near, far = trial(1.0, one), trial(ratio, two), trial(away, two)

    assert same_speed(still, near, claim) or not same_speed(still, far, claim)


@pytest.mark.parametrize(("ratio", "tied"), [(1.03, False), (1.005, True)])
def test_rounds_of_both_decide_a_tie_where_the_run_has_them(tmp_path, ratio, tied):
    """Times that drift together by 20 % overlap as intervals; the ratio of their rounds does not."""
    wide = dataclasses.replace(FAST, width=0.1)
    slower = Invented("tflite", "static-int8", 0.1 * ratio, 200_000, lost=3, won=2, width=0.1)
    results = sample_results(tmp_path, [FLOAT, wide, slower])
    rng = np.random.default_rng(0)
    rows = [
        (trial, "single-stream", 1, 0, generation, round_, position, 1,
         int(1e5 * factor * (0.9 + 0.2 * (7 * generation + round_) / 35) * rng.normal(1, 0.001)))
        for generation in range(5)
        for round_ in range(7)
        for position, (trial, factor) in enumerate([(wide.id, 1.0), (slower.id, ratio)])
    ]  # fmt: skip
    timed = dataclasses.replace(results, samples=pd.DataFrame(rows, columns=SAMPLES.names))

    (blind,), (seeing,) = recommend(results), recommend(timed)

    assert blind.ties  # their intervals overlap
    assert (seeing.trial, bool(seeing.ties)) == (FAST.id, tied)


def test_size_can_be_the_objective(tmp_path: Path) -> None:
    small = Invented("tflite", "dynamic-int8", 0.5, 90_000, lost=2, won=2)

    assert only_choice(tmp_path, [FLOAT, FAST, small], objective="size").trial == small.id


def test_each_target_has_its_own_choice(tmp_path: Path) -> None:
    results = sample_results(tmp_path, TYPICAL + OLD_MACHINE)

    choices = {choice.target: choice.trial for choice in recommend(results)}

    assert choices == {
        "cpu-1": "digits/tflite/static-int8/cpu-1",
        "cpu-avx2": "digits/pytorch/fp32/cpu-avx2",
    }
    assert [c.target for c in recommend(results, Constraints(target="cpu-avx2"))] == ["cpu-avx2"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"objective": "latancy"}, "Did you mean 'latency'"),
        ({"target": "cpu-2"}, "Did you mean 'cpu-1'"),
    ],
)
def test_an_unknown_word_gets_the_nearest(
    tmp_path: Path, how: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        recommend(sample_results(tmp_path, [FLOAT]), Constraints(**how))  # type: ignore[arg-type]


def test_nothing_measured_is_a_choice_of_none_with_the_reason(tmp_path: Path) -> None:
    failed = dataclasses.replace(FLOAT, status="failed", reason="no such operator")

    choice = only_choice(tmp_path, [failed])

    assert choice.trial is None
    assert choice.reason == "no trial was measured to the end"


def test_an_empty_run_has_no_choice(tmp_path: Path) -> None:
    assert recommend(sample_results(tmp_path, [])) == []


def test_gains_are_in_the_same_runtime_first_then_over_the_fastest_float_and_the_reference(
    tmp_path: Path,
) -> None:
    results = sample_results(tmp_path, TYPICAL)

    gains = gains_of(results, "digits/tflite/static-int8/cpu-1")

    assert [gain.reference for gain in gains] == [
        "digits/tflite/fp32/cpu-1",
        "digits/onnxruntime/fp32/cpu-1",
        "digits/pytorch/fp32/cpu-1",
    ]
    assert [gain.versus for gain in gains] == [
        "in the same runtime", "the fastest float of any framework", "the reference"
    ]  # fmt: skip
    assert [gain.own for gain in gains] == [True, False, False]
    # 1e-6: pytest's own, relative; both are the same division
    assert gains[0].speedup.value == pytest.approx(0.381 / 0.0842)
    assert gains[0].speedup.low < gains[0].speedup.value < gains[0].speedup.high


def test_gains_name_each_float_once(tmp_path: Path) -> None:
    own = Invented("pytorch", "static-int8", 0.3)

    gains = gains_of(sample_results(tmp_path, [FLOAT, own]), own.id)

    assert [gain.versus for gain in gains] == [
        "in the same runtime, the fastest float of any framework, the reference"
    ]


TRACED = Invented("pytorch", "fp32", 0.6, axes={"route": "traced"})
DYNAMIC = Invented("pytorch", "dynamic-int8", 0.62, axes={"route": "eager"})


def test_a_traced_file_is_compared_with_the_traced_float(tmp_path: Path) -> None:
    gains = gains_of(sample_results(tmp_path, [FLOAT, TRACED, DYNAMIC]), DYNAMIC.id)

    assert [gain.reference for gain in gains] == [TRACED.id, FLOAT.id]
    assert gains[0].versus.startswith("in the same runtime")


def test_where_the_run_has_no_traced_float_the_difference_is_said(tmp_path: Path) -> None:
    (gain,) = gains_of(sample_results(tmp_path, [FLOAT, DYNAMIC]), DYNAMIC.id)

    assert gain.reference == FLOAT.id
    assert "which runs eager and this traced: add fp32 with route: traced" in gain.versus


def test_a_fine_tuned_float_hides_no_gain_over_the_plain_one(tmp_path: Path) -> None:
    plain = Invented("tflite", "fp32", 0.4)
    tuned = Invented("tflite", "fp32", 0.39, axes={"training": "finetune"})
    own = Invented("tflite", "static-int8", 0.1)

    gains = gains_of(sample_results(tmp_path, [FLOAT, plain, tuned, own]), own.id)

    assert [gain.reference for gain in gains] == [plain.id, FLOAT.id]


def test_the_reference_is_found_without_the_run_naming_it(tmp_path: Path) -> None:
    results: Results = sample_results(tmp_path, [FAST, FLOAT], run={"reference": None})

    assert reference_trial(results, "digits", "cpu-1") == FLOAT.id


def test_the_smallest_batch_is_compared(tmp_path: Path) -> None:
    results = sample_results(tmp_path, [FLOAT, FAST], batch_sizes=(1, 32))

    frame = trial_frame(results).set_index("trial")
    large = trial_frame(results, 32).set_index("trial")

    assert batch_sizes(results) == [1, 32]
    assert frame.loc[FAST.id, "latency_ms"] == pytest.approx(0.10)
    assert large.loc[FAST.id, "latency_ms"] > 1
    assert large.loc[FAST.id, "quality"] == frame.loc[FAST.id, "quality"]


def test_outputs_that_differ_at_another_batch_size_do_not_matter(tmp_path: Path) -> None:
    fine = dataclasses.replace(FAST, flags=("outputs-differ-at-batch-32", "not-steady"))

    assert only_choice(tmp_path, [FLOAT, fine]).trial == FAST.id


def test_a_loss_may_be_against_another_trial_than_the_speedup(tmp_path: Path) -> None:
    # as where the second target's own reference loses against the first target's
    results = sample_results(tmp_path, [FLOAT, Invented("tflite", "fp32", 0.5), FAST])
    run = {
        **results.run,
        "reference": [
            {
                "model": "digits",
                "target": "cpu-1",
                "comparison": "batch1",
                "trial": "digits/tflite/fp32/cpu-1",
            }
        ],
    }

    frame = trial_frame(dataclasses.replace(results, run=run)).set_index("trial")

    assert frame.loc[FAST.id, "speedup"] == pytest.approx(5.0)
    assert frame.loc[FAST.id, "quality_drop"] == pytest.approx(1 / 897)
    assert frame.loc[FLOAT.id, "quality_drop"] == 0
    assert frame.loc["digits/tflite/fp32/cpu-1", "quality_drop_bound"] > 0


def test_memory_is_that_of_the_memory_scenario(tmp_path: Path) -> None:
    frame = trial_frame(sample_results(tmp_path, [FLOAT]))

    assert frame["peak_rss_bytes"].iloc[0] < 100e6


def test_nothing_under_twice_the_control_is_claimed() -> None:
    assert smallest_claim(None) == 0.01
    assert smallest_claim(Interval(1.0, 0.999, 1.001)) == 0.01
    assert smallest_claim(Interval(1.0, 0.97, 1.03)) == pytest.approx(0.06)


def test_a_row_with_a_null_is_never_on_the_front() -> None:
    frame = pd.DataFrame({"latency_ms": [1.0, None], "quality": [0.9, 0.99]})

    assert list(pareto(frame)) == [True, False]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_no_row_beats_the_front_and_the_front_beats_all_others(
    points: list[tuple[int, int]],
) -> None:
    frame = pd.DataFrame(points, columns=["latency_ms", "quality"], dtype=float)

    front = pareto(frame)

    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a != b and a[0] <= b[0] and a[1] >= b[1]

    for i, point in enumerate(points):
        assert front[i] == (not any(beats(other, point) for other in points))


def test_a_size_limit_passes_over_what_is_larger(tmp_path: Path) -> None:
    small = Invented("tflite", "static-int8", 0.20, 90_000)

    choice = only_choice(tmp_path, [FLOAT, FAST, small], max_size_bytes=100_000.0)

    assert choice.trial == small.id
    assert [p.reason for p in choice.passed_over] == ["takes 110 kB, more than the 100 kB allowed"]
    assert choice.reason == (
        "the only measured trial within the allowed loss and size, by Holm's correction for 2 losses "
        "judged"
    )


def test_energy_ties_where_its_windows_overlap_and_the_smaller_file_wins(tmp_path: Path) -> None:
    frugal = dataclasses.replace(FAST, energy_j=0.0100)
    smaller = Invented("tflite", "static-int8", 0.2, 90_000, energy_j=0.0101)

    choice = only_choice(tmp_path, [FLOAT, frugal, smaller], objective="energy")

    assert (choice.trial, choice.ties) == (smaller.id, (frugal.id,))


def test_without_energy_nothing_is_chosen_by_it_and_the_reason_says_so(tmp_path: Path) -> None:
    choice = only_choice(tmp_path, [FLOAT, FAST], objective="energy")

    assert choice.trial is None
    assert "did not measure it" in choice.reason


def test_throughput_is_each_at_its_best_or_at_the_batch_size_asked_for(tmp_path: Path) -> None:
    offline = Invented("tflite", "static-int8", 0.3, 90_000, per_s=90_000.0)
    trials = [FLOAT, dataclasses.replace(FAST, per_s=20_000.0), offline]
    results = sample_results(tmp_path, trials, batch_sizes=(1, 8))

    (best,) = recommend(results, Constraints(objective="throughput"))
    (at_8,) = recommend(results, Constraints(objective="throughput", batch_size=8))

    assert (best.trial, best.batch_size) == (offline.id, None)
    assert (at_8.trial, at_8.batch_size) == (FAST.id, 8)


def test_without_an_offline_scenario_the_best_batch_size_that_was_timed_counts(
    tmp_path: Path,
) -> None:
    results = sample_results(tmp_path, [FLOAT, FAST], batch_sizes=(1, 8))

    (choice,) = recommend(results, Constraints(objective="throughput"))

    assert choice.trial == FAST.id
    assert choice.front[0] == FAST.id


def test_a_batch_size_that_was_not_timed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="batch size 7 was not timed; timed: 1, 8"):
        recommend(sample_results(tmp_path, [FLOAT], batch_sizes=(1, 8)), Constraints(batch_size=7))


@pytest.mark.parametrize("text", ["1", "5", "-1pp", "0.5%", "pp", "nan", "1pp2", ""])
def test_what_is_no_drop_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--max-drop takes"):
        parse_drop(text)


@pytest.mark.parametrize("text", ["0", "-2MB", "2 apples", "MB", "1e6", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--max-size takes"):
        parse_size(text)


@given(st.integers(1, 999), st.sampled_from(["B", "kB", "MB", "GB"]))
def test_a_size_limit_reads_as_it_was_written(number: int, unit: str) -> None:
    assert size_limit(parse_size(f"{number}{unit}")) == f"{number} {unit}"


def measured(name: str, **values: float) -> MeasuredTrial:
    metrics = {metric: Measurement(name, value=value) for metric, value in values.items()}
    return MeasuredTrial(name, status="ok", batch_size=1, metrics=metrics)


@given(
    st.lists(
        st.tuples(*[st.floats(0.1, 9, allow_nan=False).map(lambda x: round(x, 1))] * 4),
        min_size=1, max_size=14, unique=True,
    ),
    st.floats(0, 0.09), st.floats(1, 9e5),
)  # fmt: skip
def test_whatever_the_limits_the_best_is_a_contender_and_its_ties_are_known(
    points: list[tuple[float, float, float, float]], max_drop: float, max_size: float
) -> None:
    known = [
        Standing(measured(f"t{i}", latency_ms=ms, size_bytes=1e5 * size, quality=0.9 - loss / 100,
                          quality_drop=loss / 100, quality_drop_bound=(loss + doubt) / 100), ms)
        for i, (ms, size, loss, doubt) in enumerate(points)
    ]  # fmt: skip
    known.sort(key=lambda one: (*one.order, one.bound))
    near = lambda a, b: abs(a.value("latency_ms") - b.value("latency_ms")) < 0.5  # noqa: E731
    place = Standings("m", "t", "latency", 1, tuple(known), near)

    choice = choose(place, Constraints(max_drop, max_size))
    contenders = place.contenders()

    if choice.trial is not None:
        best = choice.allowed[0]
        tied = {t for t in contenders[best] if t in choice.allowed}
        assert {choice.trial, *choice.ties} == {best, *tied}
