"""Timing the artifacts of two runs again: verdicts by paired rounds here, whatever the runs measured."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from quantbench import run
from quantbench.analysis import DEFAULT, changes, common, judge, with_retimed
from quantbench.analysis.gates import parse
from quantbench.cli.app import app
from quantbench.cli.checks import Checks
from quantbench.errors import NotComparable
from quantbench.results import SAMPLES, Results, load_results
from quantbench.runs import Reporter, Retimed, other_versions, retime
from quantbench.runs.retiming import SAME_FILE, batch_sizes
from quantbench.stats import Interval, bursts, log_times, paired
from quantbench.system import read_json, write_json
from tests.harness import fake
from tests.harness.conftest import install

FP32, INT8 = "fake/fakery/fp32/cpu-1", "fake/fakery/static-int8/cpu-1"
SLOWER = parse("latency_ms > +100%")
"""A limit far beyond the noise of a busy machine, and far within a candidate that is 20 times slower."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory):
    """A run of the fake framework, with its cache; what it leaves is copied by the tests."""
    patch = pytest.MonkeyPatch()
    folder = install(
        patch, tmp_path_factory.mktemp("retiming"), backends={"fakery": fake.BACKEND},
        models={"fake": fake.MODEL}, tasks={"fake-task": fake.TASK},
    )  # fmt: skip
    (folder / "test.yaml").write_text(
        "models: [fake]\nbackends: [fakery]\nmethods: [fp32, static-int8]\n"
        "precision: {name: test, generations: 2, max_generations: 2, rounds: 6, warmup_s: 0.01, "
        "burst_ms: 1.0, memory_processes: 1}\n"
    )
    yield run(folder / "test.yaml", results=folder / "results")
    patch.undo()


@pytest.fixture
def runs(measured: Results, tmp_path: Path) -> tuple[Results, Results]:
    """The run twice, each with artifacts of its own."""
    for name in ("before", "after"):
        shutil.copytree(measured.folder, tmp_path / name)
    return load_results(tmp_path / "before"), load_results(tmp_path / "after")


def altered(run: Results, trial: str, **details: str) -> None:
    """Make another artifact of a trial's: its details say how the fake runs it."""
    (key,) = run.trials.loc[run.trials["trial"] == trial, "artifact"]
    folder = run.folder / "artifacts" / key
    manifest = read_json(folder / "manifest.json")
    # the run's files are hard links to the cache's
    (folder / "manifest.json").unlink()
    write_json(
        folder / "manifest.json", {**manifest, "details": {**manifest["details"], **details}}
    )


def with_times(run: Results, trial: str, factor: float) -> Results:
    """The run with other stored times of a trial: what it claims of itself."""
    rows = run.measurements.copy()
    own = (rows["trial"] == trial) & (rows["metric"] == "latency_ms")
    rows.loc[own, ["value", "low", "high"]] *= factor
    ratio = (rows["trial"] == trial) & (rows["metric"] == "speedup")
    rows.loc[ratio, ["value", "low", "high"]] /= factor
    return dataclasses.replace(run, measurements=rows)


def again(baseline: Results, candidate: Results) -> tuple[Retimed, ...]:
    return retime(baseline, candidate, common(baseline, candidate), reporter=Reporter(quiet=True))


# --- what is timed, and what is said of it ---


def test_a_slower_artifact_is_worse_though_the_stored_times_say_it_is_faster(runs):
    before, after = runs
    altered(after, INT8, route="slow")
    after = with_times(after, INT8, 0.1)
    stored = {c.trial: c for c in changes(before, after) if c.metric == "latency_ms"}
    assert stored[INT8].verdict == "better"

    found = with_retimed(changes(before, after), again(before, after))

    (time,) = (c for c in found if (c.trial, c.metric) == (INT8, "latency_ms"))
    (speed,) = (c for c in found if (c.trial, c.metric) == (INT8, "speedup"))
    assert (time.verdict, speed.verdict) == ("worse", "worse")
    assert time.candidate > time.baseline > 0
    # the same rounds, once as a time and once as a speed-up; ends in float64
    assert 1 + speed.change.value == pytest.approx(1 / (1 + time.change.value), rel=1e-9)
    assert {f.gate.text for f in judge(found, [SLOWER, *DEFAULT]) if f.failed} == {
        "latency_ms > +100%", "speedup < -5%",
    }  # fmt: skip


def test_an_equal_artifact_is_not_slower_though_the_stored_times_say_so(runs):
    before, after = runs
    altered(after, INT8, remark="written anew")
    after = with_times(after, INT8, 10.0)
    assert any(f.failed for f in judge(changes(before, after), [SLOWER]))

    retimed = again(before, after)

    found = judge(with_retimed(changes(before, after), retimed), [SLOWER])
    assert {f.trial for f in found} == {FP32, INT8}
    assert not any(f.failed for f in found)
    assert all(one.ratio is not None for one in retimed)
    (timed,) = (one for one in retimed if one.trial == INT8)
    assert "12 rounds of 2 generations" in timed.reason


def test_one_file_is_the_same_without_being_timed(runs):
    retimed = again(*runs)

    assert {one.reason for one in retimed} == {SAME_FILE}
    found = with_retimed(changes(*runs), retimed)
    told = [c for c in found if c.metric in ("speedup", "latency_ms")]
    assert len(told) == 4
    assert {(c.verdict, c.change) for c in told} == {("same", Interval(0.0, 0.0, 0.0))}


def test_what_is_timed_again_counts_on_any_machine(runs):
    before, after = runs
    altered(after, INT8, route="slow")
    trials = after.trials.assign(machine="another")
    after = dataclasses.replace(after, trials=trials)

    found = with_retimed(changes(before, after), again(before, after))

    assert not [c for c in found if c.verdict == "not comparable"]
    assert {f.trial for f in judge(found, [SLOWER]) if f.failed} == {INT8}


def test_the_ratio_can_be_recomputed_from_the_kept_samples(runs):
    before, after = runs
    altered(after, INT8, route="slow")

    (one,) = (r for r in again(before, after) if r.trial == INT8)

    (folder,) = (after.folder / "retimed").iterdir()
    told = read_json(folder / "retimed.json")
    (kept,) = (r for r in told["retimed"] if r["trial"] == INT8)
    parts = sorted((folder / kept["samples"]).glob("*.parquet"))
    frame = pd.concat([pq.read_table(path).to_pandas() for path in parts])
    assert list(frame.columns) == SAMPLES.names
    frame = frame[frame["scenario"] != "end-to-end"]  # rounds of their own
    names = [f"{INT8} of the {side}" for side in ("baseline", "candidate")]
    rounds = paired(log_times(bursts(frame)), *names)
    middle = math.exp(-np.median(np.concatenate(rounds)))
    # the median of the same rounds, in float64
    assert one.ratio.value == pytest.approx(middle, rel=1e-9)
    assert told["machine"]["fingerprint"]
    assert one.control is not None


# --- what cannot be timed ---


def test_a_trial_without_an_artifact_is_named_and_the_others_are_timed(runs, monkeypatch, tmp_path):
    before, after = runs
    (key,) = before.trials.loc[before.trials["trial"] == INT8, "artifact"]
    shutil.rmtree(before.folder / "artifacts" / key)
    data = Path(read_json(next((after.folder / "state" / "score").iterdir()))["data"])
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "empty"))
    assert data.exists()

    found = {one.trial: one for one in again(before, after)}

    assert found[FP32].ratio is not None
    assert found[INT8].ratio is None
    assert "the baseline keeps no artifact of it" in found[INT8].reason
    told = with_retimed(changes(before, after), tuple(found.values()))
    assert {c.verdict for c in told if c.trial == INT8 and c.metric == "speedup"} == {
        "not comparable"
    }


def test_nothing_to_time_is_an_error_that_says_why(runs, monkeypatch, tmp_path):
    before, after = runs
    shutil.rmtree(after.folder / "artifacts")
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "empty"))

    with pytest.raises(
        NotComparable, match=r"can be timed again .*the candidate keeps no artifact"
    ):
        again(before, after)


def test_an_artifact_that_crashes_is_missing_and_fails_its_gates(runs):
    before, after = runs
    altered(after, INT8, route="score-crash")

    found = with_retimed(changes(before, after), again(before, after))

    failed = [f for f in judge(found, DEFAULT) if f.failed]
    assert [(f.trial, f.gate.text) for f in failed] == [(INT8, "speedup < -5%")]
    assert "SIGABRT" in failed[0].change.reason


def test_samples_of_another_machine_are_prepared_here(runs):
    altered(runs[1], INT8, route="slow")
    for one in runs:
        for path in (one.folder / "state" / "score").iterdir():
            write_json(path, {**read_json(path), "data": "/of/another/machine"})

    found = {one.trial: one for one in again(*runs)}

    assert found[INT8].ratio is not None, found[INT8].reason
    assert found[INT8].ratio.value > 2


def test_batch_sizes_are_those_of_both_runs(runs):
    before, after = (
        dataclasses.replace(run, run={**run.run, "protocol": {"batch_sizes": sizes}})
        for run, sizes in zip(runs, ([1, 8], [32, 8]), strict=True)
    )

    assert batch_sizes(before, after) == (8,)
    apart = dataclasses.replace(after, run={"protocol": {"batch_sizes": [32]}})
    with pytest.raises(NotComparable, match="batch sizes 1, 8 and the candidate at 32"):
        batch_sizes(before, apart)


def test_a_runtime_of_another_version_is_said(runs):
    before, after = runs
    packages = {**before.machine["packages"], "numpy": "1.0.0"}
    older = dataclasses.replace(before, machine={**before.machine, "packages": packages})

    (line,) = other_versions(older, after, common(older, after))

    assert line.startswith(f"numpy {after.machine['packages']['numpy']} runs both artifacts: ")
    assert line.endswith("the baseline was measured with 1.0.0")
    assert other_versions(before, after, common(before, after)) == ()


# --- verdicts of retimed pairs ---


def judged(retimed: Retimed, runs: tuple[Results, Results]) -> dict[str, str]:
    found = with_retimed(changes(*runs), [retimed])
    return {c.metric: c.verdict for c in found if c.trial == retimed.trial and c.unit == "%"}


@pytest.mark.parametrize(
    ("ratio", "control", "verdict"),
    [
        (Interval(1.03, 1.02, 1.04), Interval(1.0, 0.995, 1.005), "worse"),
        (Interval(0.97, 0.96, 0.98), Interval(1.0, 0.995, 1.005), "better"),
        (Interval(1.01, 1.0, 1.02), Interval(1.0, 0.985, 1.015), "same"),
        (Interval(1.03, 1.02, 1.04), Interval(1.0, 0.96, 1.04), "undecided"),
        (Interval(1.005, 1.002, 1.008), Interval(1.0, 0.999, 1.001), "same"),
    ],
)
def test_paired_rounds_find_less_than_two_sessions_and_heed_their_control(
    runs, ratio, control, verdict
):
    found = judged(Retimed(INT8, 1, 1.0, ratio.value, ratio, control, "timed"), runs)

    assert (found["latency_ms"], found["speedup"]) == (verdict, verdict)


# --- the command ---


def test_the_command_times_again_and_gates_on_it(runs):
    before, after = runs
    altered(after, INT8, route="slow")

    found = CliRunner().invoke(
        app,
        ["compare", str(before.folder), str(after.folder), "--retime",
         "--fail-on", "latency_ms > +100%", "--json", "-"],
        env={"COLUMNS": "80"},
    )  # fmt: skip

    assert found.exit_code == 1, found.output
    told = json.loads(found.stdout)
    assert [f["trial"] for f in told["findings"] if f["failed"]] == [INT8]


def test_offline_throughput_is_not_comparable_when_times_are_taken_again(runs):
    (change,) = (c for c in changes(*runs) if (c.trial, c.metric) == (INT8, "latency_ms"))
    offline = dataclasses.replace(change, scenario="offline", batch_size=None)
    status = next(c for c in changes(*runs) if (c.trial, c.metric) == (INT8, "status"))

    found = with_retimed([status, change, offline], [Retimed(INT8, 1, reason="why")])

    assert [(c.name, c.verdict) for c in found[3:]] == [("latency_ms offline", "not comparable")]
    assert {c.verdict for c in found[1:3]} == {"not comparable"}


def test_checks_with_what_was_timed_again_say_so(runs):
    retimed = [Retimed(INT8, 1, reason="not timed again: the candidate keeps no artifact of it")]

    found = Checks.of(*runs, [parse("speedup < -5%")], retimed=retimed)

    assert found.retimed
    assert [left.count for left in found.left_out] == [1]
