"""A run against a baseline: every verdict, planted regressions, and how rarely noise is called one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.analysis import Change, changes, compare, gates
from quantbench.analysis.compare import QUANTITIES, verdict
from quantbench.analysis.time_changes import TIMED_METRICS, TWO_RUNS, least, ratio_change
from quantbench.errors import NotComparable
from quantbench.results import Results, load_results
from quantbench.stats import (
    Interval,
    bursts,
    difference_interval,
    exp_interval,
    log_times,
    paired,
    rounds_interval,
    statistics,
)
from quantbench.stats.statistics import FloatArray, bonett_price
from tests.harness.sample_results import Invented, sample_results

PUBLISHED = Path(__file__).parents[2] / "results" / "reference"
FLOAT = Invented("pytorch", "fp32", 1.0, 400_000, sqnr_db=math.inf)
INT8 = Invented("onnxruntime", "static-int8", 0.10, 110_000, lost=3, won=2, integer=1.0)


@cache
def published(name: str) -> Results:
    return load_results(PUBLISHED / name)


def between(
    folder: Path, before: Sequence[Invented], after: Sequence[Invented]
) -> dict[tuple[str, str], Change]:
    """Changes by trial and metric."""
    found = changes(
        sample_results(folder / "before", before), sample_results(folder / "after", after)
    )
    return {(change.trial, change.metric): change for change in found}


def planted(folder: Path, **how: object) -> dict[str, Change]:
    """Changes of `INT8`, by metric, where the candidate differs in this."""
    found = between(folder, [FLOAT, INT8], [FLOAT, replace(INT8, **how)])  # type: ignore[arg-type]
    return {metric: change for (trial, metric), change in found.items() if trial == INT8.id}


# --- verdicts ---


def test_a_run_against_itself_is_the_same_in_everything():
    run = published("quickstart")

    found = changes(run, run)

    assert {change.verdict for change in found} == {"same"}
    assert {change.metric for change in found} == {"status", *QUANTITIES}
    assert not any(finding.failed for finding in gates.judge(found, gates.DEFAULT))


def test_a_larger_file_is_worse_and_a_smaller_one_better(tmp_path):
    worse = planted(tmp_path / "a", size_bytes=112_200)["size_bytes"]
    better = planted(tmp_path / "b", size_bytes=99_000)["size_bytes"]

    assert (worse.verdict, better.verdict) == ("worse", "better")
    assert worse.change == Interval(*[pytest.approx(0.02)] * 3)
    assert better.change == Interval(*[pytest.approx(-0.1)] * 3)


def test_a_slower_ratio_is_worse_and_noise_is_not(tmp_path):
    slower = planted(tmp_path / "a", latency_ms=0.11)["speedup"]
    faster = planted(tmp_path / "b", latency_ms=0.09)["speedup"]
    noise = planted(tmp_path / "c", latency_ms=0.101)["speedup"]

    assert (slower.verdict, faster.verdict, noise.verdict) == ("worse", "better", "same")
    assert slower.change.value == pytest.approx(1 / 1.1 - 1)


def test_a_wide_interval_is_undecided(tmp_path):
    found = planted(tmp_path, latency_ms=0.11, width=0.15)["speedup"]

    assert found.verdict == "undecided"


def test_a_small_loss_of_quality_is_undecided_on_few_samples_and_a_large_one_worse(tmp_path):
    small = planted(tmp_path / "a", lost=8)["quality"]
    large = planted(tmp_path / "b", lost=60)["quality"]

    assert (small.verdict, large.verdict) == ("undecided", "worse")
    assert large.change.value == pytest.approx(-57 / 897)
    assert "not the same test samples" in large.reason


def test_decibels_within_rounding_or_beyond_float_are_the_same(tmp_path):
    assert planted(tmp_path / "a", sqnr_db=39.95)["sqnr_db"].verdict == "same"
    assert planted(tmp_path / "b", sqnr_db=35.0)["sqnr_db"].verdict == "worse"
    found = between(
        tmp_path / "c", [FLOAT, replace(INT8, sqnr_db=139.0)], [FLOAT, replace(INT8, sqnr_db=118.0)]
    )
    assert found[INT8.id, "sqnr_db"].verdict == "same"


def test_less_coverage_is_worse(tmp_path):
    assert planted(tmp_path, integer=0.5)["integer_macs_fraction"].verdict == "worse"


def test_a_trial_that_is_absent_or_no_longer_runs_is_missing_with_the_reason(tmp_path):
    absent = between(tmp_path / "a", [FLOAT, INT8], [FLOAT])[INT8.id, "status"]
    crashed = planted(tmp_path / "b", status="crashed", reason="ended by signal 4")["status"]

    assert (absent.verdict, absent.reason) == ("missing", "the candidate does not have it")
    assert (crashed.verdict, crashed.reason) == ("missing", "crashed: ended by signal 4")


def test_a_trial_that_only_the_candidate_runs_is_new(tmp_path):
    absent = between(tmp_path / "a", [FLOAT], [FLOAT, INT8])[INT8.id, "status"]
    refused = replace(INT8, status="unsupported", latency_ms=None)
    revived = between(tmp_path / "b", [FLOAT, refused], [FLOAT, INT8])[INT8.id, "status"]

    assert (absent.verdict, revived.verdict) == ("new", "new")


def test_a_trial_that_no_longer_changes_anything_is_worse(tmp_path):
    found = planted(tmp_path, status="no-op", reason="no int8 weights in the file")["status"]

    assert (found.verdict, found.reason) == (
        "worse", "was ok, is no-op: no int8 weights in the file",
    )  # fmt: skip


def test_what_failed_in_both_runs_is_the_same(tmp_path):
    failed = replace(INT8, status="failed", latency_ms=None)

    found = between(tmp_path, [FLOAT, failed], [FLOAT, failed])

    assert found[INT8.id, "status"].verdict == "same"
    assert (INT8.id, "size_bytes") not in found


def test_a_metric_that_the_candidate_lacks_is_missing(tmp_path):
    before = sample_results(tmp_path / "a", [FLOAT, INT8])
    rows = before.measurements
    after = dataclasses.replace(before, measurements=rows[rows["metric"] != "size_bytes"])

    found = [c for c in changes(before, after) if c.metric == "size_bytes"]
    back = [c for c in changes(after, before) if c.metric == "size_bytes"]

    assert {c.verdict for c in found} == {"missing"}
    assert {c.verdict for c in back} == {"new"}


# --- what is compared with what ---


def test_runs_without_a_common_trial_are_not_comparable(tmp_path):
    one = sample_results(tmp_path / "a", [FLOAT])
    other = sample_results(tmp_path / "b", [INT8])

    with pytest.raises(NotComparable, match="no trial in common"):
        changes(one, other)


def elsewhere(run: Results, **machine: object) -> Results:
    """The run as if it were of another machine, which is so in what is given."""
    return dataclasses.replace(
        run, trials=run.trials.assign(machine="another"), machine={**run.machine, **machine}
    )


def test_times_of_different_machines_are_not_comparable_and_the_rest_is(tmp_path):
    before = sample_results(tmp_path / "a", [FLOAT, INT8])
    slow = replace(INT8, latency_ms=0.2, size_bytes=120_000)
    after = sample_results(tmp_path / "b", [FLOAT, slow])

    here, there = (
        {c.metric: c for c in changes(before, run) if c.trial == INT8.id}
        for run in (after, elsewhere(after, cpu="Another CPU"))
    )

    assert {m for m, c in there.items() if c.verdict == "not comparable"} == TIMED_METRICS
    for metric in TIMED_METRICS:
        assert here[metric].verdict == "worse"
        assert there[metric].change is None
        assert (there[metric].baseline, there[metric].candidate) == (
            here[metric].baseline, here[metric].candidate,
        )  # fmt: skip
        assert there[metric].reason == (
            "timed on different machines (cpu Invented CPU 9000 @ 3.0 GHz and Another CPU)"
        )
    untimed = here.keys() - TIMED_METRICS
    assert {"quality", "agreement", "sqnr_db", "size_bytes", "integer_macs_fraction"} <= untimed
    assert {m: there[m] for m in untimed} == {m: here[m] for m in untimed}


def test_times_of_different_machines_are_compared_where_somebody_asks(tmp_path):
    before = sample_results(tmp_path / "a", [FLOAT, INT8])
    after = sample_results(tmp_path / "b", [FLOAT, replace(INT8, latency_ms=0.2)])

    asked = changes(before, elsewhere(after), across_machines=True)

    assert asked == changes(before, after)


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({"packages": {"quantbench": "0.0.0", "numpy": "2.4.6", "onnxruntime": "1.32.0"}},
         "timed with other software (onnxruntime 1.31.1 and 1.32.0)"),
        ({"packages": {"numpy": "2.4.6"}, "cores": 4, "isa": ["avx2", "fma"]},
         "timed on different machines (isa avx512f/avx512_vnni and no more, cores 2 and 4, "
         "quantbench 0.0.0 and absent, 1 more)"),
        ({"environment": {}}, "timed with other software (another environment)"),
        ({}, "timed on different machines"),
    ],
)  # fmt: skip
def test_what_differs_between_the_machines_is_said(tmp_path, machine, said):
    run = sample_results(tmp_path, [FLOAT, INT8])

    found = [c for c in changes(run, elsewhere(run, **machine)) if c.metric == "speedup"]

    assert {c.reason for c in found} == {said}


def test_a_time_that_only_the_baseline_has_is_not_missing_on_another_machine(tmp_path):
    before = sample_results(tmp_path / "a", [FLOAT, INT8])
    rows = before.measurements
    after = dataclasses.replace(before, measurements=rows[rows["metric"] != "latency_ms"])

    here, there = (
        {c.verdict for c in changes(before, run) if c.metric == "latency_ms"}
        for run in (after, elsewhere(after))
    )

    assert (here, there) == ({"missing"}, {"not comparable"})


def test_ratios_to_another_reference_are_not_compared_unless_both_timed_it(tmp_path):
    traced = Invented("pytorch", "fp32", 0.5, axes={"route": "traced"})
    before = sample_results(tmp_path / "a", [FLOAT, traced, INT8])
    renamed = {
        "reference": [
            {"model": "digits", "target": "cpu-1", "comparison": "batch1", "trial": traced.id}
        ]
    }
    both = sample_results(tmp_path / "b", [FLOAT, traced, INT8], run=renamed)
    rows = both.measurements
    one = dataclasses.replace(both, measurements=rows[rows["reference"] != FLOAT.id])
    only = dataclasses.replace(
        before, measurements=before.measurements[before.measurements["reference"] != traced.id]
    )

    shared, apart = (
        next(c for c in changes(a, b) if c.trial == INT8.id and c.metric == "speedup")
        for a, b in ((before, both), (only, one))
    )

    assert shared.verdict == "same"
    assert (apart.change, apart.verdict) == (None, "not comparable")
    assert "ratios are to digits/pytorch/fp32/cpu-1 in the baseline" in apart.reason


def test_one_seed_is_paired_with_the_same_seed_of_several(tmp_path):
    several = sample_results(tmp_path / "a", [FLOAT, INT8])
    second = several.trials.assign(
        seed=1, trial=[f"{trial}/seed1" for trial in several.trials["trial"]]
    )
    first = several.trials.assign(trial=[f"{trial}/seed0" for trial in several.trials["trial"]])
    several = dataclasses.replace(
        several, trials=type(first)({c: [*first[c], *second[c]] for c in first})
    )

    found = changes(several, sample_results(tmp_path / "b", [FLOAT, INT8]))

    assert {c.trial: c.verdict for c in found if c.metric == "status"} == {
        f"{FLOAT.id}/seed0": "same", f"{INT8.id}/seed0": "same",
        f"{FLOAT.id}/seed1": "missing", f"{INT8.id}/seed1": "missing",
    }  # fmt: skip


def with_answers(run: Results, trial: str, change: Callable[[FloatArray], FloatArray]) -> Results:
    """A run whose trial answered otherwise, with its score."""
    answers, rows = run.predictions.copy(), run.measurements.copy()
    own = answers["trial"] == trial
    answers.loc[own, "prediction"] = change(answers.loc[own, "prediction"].to_numpy())
    right = answers.loc[own, "prediction"] == answers.loc[own, "label"]
    answers.loc[own, "outcome"] = right.astype(float)
    rows.loc[(rows["trial"] == trial) & (rows["metric"] == "quality"), "value"] = right.mean()
    return dataclasses.replace(run, predictions=answers, measurements=rows)


def test_quality_on_the_same_samples_is_paired():
    run, trial = published("quickstart"), "digits/tflite/static-int8/cpu-1"

    after = with_answers(run, trial, lambda p: np.where(np.arange(len(p)) < 20, (p + 1) % 10, p))

    found = {c.metric: c for c in changes(run, after) if c.trial == trial}
    drop = bonett_price(20, 0, 897).interval
    assert found["quality"].change == Interval(-drop.value, -drop.high, -drop.low)
    assert found["quality"].verdict == "worse"
    assert found["agreement"].verdict == "worse"
    assert found["agreement"].change.value == pytest.approx(-20 / 897)
    assert found["quality"].reason == "the same test samples"


def test_a_score_that_is_no_mean_is_paired_by_resampling(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 499)  # seconds, not minutes
    run, trial = published("quickstart"), "digits/tflite/static-int8/cpu-1"
    answers, rows = run.predictions.copy(), run.measurements.copy()
    own, draw = answers["trial"] == trial, np.random.default_rng(1)
    label = np.arange(own.sum(), dtype=float)
    answers.loc[own, "label"], answers.loc[own, "outcome"] = label, math.nan

    def scored(noise: float) -> Results:
        found, kept = answers.copy(), rows.copy()
        found.loc[own, "prediction"] = label + draw.normal(0, noise, len(label))
        score = compare.STATISTICS["spearman"](found.loc[own, "prediction"].to_numpy(), label)
        kept.loc[(kept["trial"] == trial) & (kept["metric"] == "quality"), "value"] = float(score)
        return dataclasses.replace(run, predictions=found, measurements=kept)

    before, after = scored(200.0), scored(300.0)
    found = next(c for c in changes(before, after) if (c.trial, c.metric) == (trial, "quality"))

    assert found.reason == "the same test samples"
    assert found.change.value == pytest.approx(found.candidate - found.baseline)
    assert (found.change.excludes(0.0), found.verdict) == (True, "worse")


def test_other_test_samples_are_not_paired():
    run, trial = published("quickstart"), "digits/tflite/static-int8/cpu-1"
    answers = run.predictions.copy()
    answers["label"] = (answers["label"] + 1) % 10
    other = dataclasses.replace(run, predictions=answers)

    found = next(c for c in changes(run, other) if (c.trial, c.metric) == (trial, "quality"))

    assert "not the same test samples" in found.reason
    assert found.change.low < 0 < found.change.high


# --- properties ---

SWAPPED = {"better": "worse", "worse": "better", "missing": "new", "new": "missing"}


@settings(max_examples=4, deadline=None)
@given(
    st.floats(0.02, 5.0), st.floats(0.02, 5.0), st.integers(1_000, 10**6),
    st.integers(1_000, 10**6), st.integers(0, 200), st.integers(0, 200), st.floats(0.001, 0.2),
)  # fmt: skip
def test_the_way_back_is_the_way_there(
    tmp_path_factory, time, later, size, new_size, lost, more, width
):
    folder = tmp_path_factory.mktemp("runs")
    one = replace(INT8, latency_ms=time, size_bytes=size, lost=lost, width=width)
    other = replace(INT8, latency_ms=later, size_bytes=new_size, lost=more, status="ok")
    runs = [sample_results(folder / name, [FLOAT, t]) for name, t in (("a", one), ("b", other))]

    there, back = (changes(*order) for order in (runs, runs[::-1]))

    for a, b in zip(there, back, strict=True):
        assert (a.trial, a.metric) == (b.trial, b.metric)
        assert b.verdict == SWAPPED.get(a.verdict, a.verdict)
        if a.change is None or b.change is None:
            continue
        if a.unit == "%":
            # the same arithmetic in float64, there and back
            assert math.isclose((1 + a.change.value) * (1 + b.change.value), 1.0, rel_tol=1e-9)
            # as above
            assert math.isclose((1 + a.change.low) * (1 + b.change.high), 1.0, rel_tol=1e-9)
        else:
            assert a.change.value == pytest.approx(-b.change.value, abs=1e-12)
            assert a.change.low == pytest.approx(-b.change.high, abs=1e-12)


ends = st.floats(-5, 5)


@settings(deadline=None)
@given(ends, st.floats(0, 2), st.floats(0, 2), ends, st.floats(0, 2), st.floats(0, 2))
def test_a_difference_of_intervals_holds_its_value_and_is_wider_than_either(a, b, c, d, e, f):
    first, second = Interval(a, a - b, a + c), Interval(d, d - e, d + f)

    found = difference_interval(first, second)

    assert found.low <= found.value <= found.high
    assert found.half_width >= max(first.half_width, second.half_width) - 1e-12


def test_the_difference_of_two_shares_is_newcombe_s():
    # Newcombe (1998), table II, example a: 56/70 against 48/80, method 10
    from quantbench.stats.statistics import wilson

    found = difference_interval(wilson(48, 80), wilson(56, 70))

    assert (found.value, found.low, found.high) == (
        pytest.approx(0.2), pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5),
    )  # fmt: skip


@settings(deadline=None)
@given(
    st.floats(0.05, 20), st.floats(0.0, 0.3), st.floats(0.5, 2), st.floats(0, 0.2),
    st.floats(0, 0.2),
)  # fmt: skip
def test_no_change_under_the_floor_or_what_sessions_differ_by_is_called_one(
    value, width, factor, floor, sessions
):
    before, after = (
        Interval(x, x * math.exp(-width), x * math.exp(width)) for x in (value, value * factor)
    )

    found = ratio_change(before, after, floor=floor, sessions=sessions)

    if found.excludes(0.0):
        assert abs(math.log(factor)) > math.log1p(max(floor, sessions)) - 1e-9


# --- A/A: how rarely noise is called worse ---

GATE = next(gate for gate in gates.DEFAULT if gate.metric == "speedup")
RESAMPLED = 1000


@cache
def control_rounds(name: str) -> tuple[FloatArray, ...]:
    """Log ratios of a published run's reference to itself, by generation."""
    run = published(name)
    (reference,) = {str(trial) for trial in (one.trial for one in run.references)}
    control = f"{reference}@control"
    rows = run.samples[run.samples["trial"].isin((reference, control))]
    return tuple(paired(log_times(bursts(rows)), reference, control))


@cache
def resampled(name: str) -> tuple[tuple[Interval, Interval], ...]:
    """Intervals of the log ratio in two runs, drawn from the generations of one A/A run."""
    generations, draw = control_rounds(name), np.random.default_rng(0)
    assert len(generations) >= 5

    def drawn() -> Interval:
        chosen = draw.integers(0, len(generations), len(generations))
        return rounds_interval([generations[i] for i in chosen])

    return tuple((drawn(), drawn()) for _ in range(RESAMPLED))


def judged(name: str, slower: float = 0.0) -> list[gates.Finding]:
    """What the default gate says of each pair; the candidate's artifact, not its control, is slower."""
    shift, found = math.log1p(slower), []
    for one, other in resampled(name):
        before, control = exp_interval(one), exp_interval(other)
        after = exp_interval(Interval(other.value - shift, other.low - shift, other.high - shift))
        change = ratio_change(
            before, after, floor=least((before, control)), sessions=TWO_RUNS["speedup"]
        )
        whole = Change(
            "m/b/l/t", "speedup", "single-stream", 1, before.value, after.value, change, "%",
            verdict(change, "speedup"), "", {},
        )  # fmt: skip
        found += gates.judge([whole], [GATE])
    return found


@pytest.mark.parametrize("name", ["quickstart", "resnet20_cifar10", "methods_resnet20"])
def test_an_artifact_against_itself_is_worse_at_most_once_in_a_thousand(name):
    found = judged(name)

    assert len(found) == RESAMPLED
    assert sum(finding.failed for finding in found) <= RESAMPLED / 1000
    assert sum(finding.change.verdict == "worse" for finding in found) <= RESAMPLED / 1000


@pytest.mark.parametrize("name", ["gnn", "resnet20_cifar10"])
def test_what_is_slower_is_found_where_the_control_is_known_to_one_percent(name):
    ten, twenty = judged(name, 0.10), judged(name, 0.20)

    # two sessions differ by 7.6 %: a tenth is surely slower, and not surely by the gate's 5 %
    assert sum(finding.change.verdict == "worse" for finding in ten) >= 0.95 * RESAMPLED
    assert all(finding.undecided for finding in ten if not finding.failed)
    assert sum(finding.failed for finding in twenty) >= 0.95 * RESAMPLED


def test_ten_percent_slower_in_a_noisy_run_is_undecided_and_never_fine():
    found = judged("methods_resnet20", 0.10)  # its control is known to within 4 % only

    assert sum(f.failed or f.undecided for f in found) >= 0.95 * RESAMPLED
    assert all(finding.change.verdict in ("worse", "undecided") for finding in found)


def test_two_published_runs_of_the_same_trials_are_not_called_slower():
    one, other = published("resnet20_cifar10"), published("methods_resnet20")

    for order in ((one, other), (other, one)):
        compared = [c for c in changes(*order) if c.metric == "speedup" and c.change]
        assert len(compared) >= 15
        assert not any(finding.failed for finding in gates.judge(compared, [GATE]))
        assert not any(change.verdict == "worse" for change in compared)
