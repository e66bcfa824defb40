"""Scenarios and references: what is timed together, against what, and how it can be recomputed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from quantbench import run
from quantbench.analysis import control, trial_frame
from quantbench.errors import BadExperiment
from quantbench.execution import Job
from quantbench.experiment import Experiment
from quantbench.report import render
from quantbench.runs import Comparison, Contender, interleaved_timing, runner
from quantbench.runs import run as run_alone
from quantbench.runs.timing_plan import best_batch_sizes
from quantbench.spec import Target, target_warnings
from quantbench.stats import Rounds, statistics
from quantbench.system import physical_cores
from tests.harness import fake
from tests.harness.conftest import install

FP32, INT8 = "fake/fakery/fp32/cpu-1", "fake/fakery/static-int8/cpu-1"


OFFLINE = """
models: [fake]
backends: [fakery]
methods: [fp32, static-int8]
batch_sizes: [1, 16]
offline: true
precision: {generations: 2, max_generations: 2, rounds: 6, warmup_s: 0.01, burst_ms: 1.0, memory_processes: 2}
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = install(
        patch, tmp_path_factory.mktemp("offline"), backends={"fakery": fake.BACKEND},
        models={"fake": fake.MODEL}, tasks={"fake-task": fake.TASK},
    )  # fmt: skip
    (folder / "test.yaml").write_text(OFFLINE)
    yield run_alone(folder / "test.yaml", results=folder / "results")
    patch.undo()


def test_each_artifact_is_timed_once_more_at_its_best_batch_size(offline):
    rows = offline.measurements.query("metric == 'throughput_per_s'")

    scenarios = {(row.scenario, row.batch_size) for row in rows.itertuples()}
    # one product of matrices for sixteen samples costs hardly more than for one
    assert scenarios == {("single-stream", 1), ("multi-stream", 16), ("offline", 16)}
    assert set(rows.query("scenario == 'offline'")["trial"]) == {FP32, INT8}
    assert [one.comparison for one in offline.references] == ["batch1", "batch16", "offline"]


def test_the_offline_speed_up_can_be_recomputed_from_the_samples(offline):
    own = offline.samples.query("scenario == 'offline'").copy()
    own["ns"] = own["nanoseconds"] / own["calls"] / own["batch_size"]
    bursts = own.groupby(["trial", "generation", "round"])["ns"].median()

    ratios = np.log(bursts[FP32] / bursts[INT8])

    row = offline.measurements.query(
        "metric == 'speedup' and scenario == 'offline' and trial == @INT8"
    ).iloc[0]
    assert row["value"] == pytest.approx(float(np.exp(ratios.median())))
    assert row["reference"] == FP32


def test_offline_figures_stand_beside_those_of_single_stream(offline):
    frame = trial_frame(offline).set_index("trial")

    rows = offline.measurements.set_index(["trial", "scenario", "metric"])["value"]
    assert (
        frame.loc[INT8, "throughput_per_s"]
        == rows[INT8, "single-stream", "throughput_per_s"].item()
    )
    assert (
        frame.loc[INT8, "offline_throughput_per_s"]
        == rows[INT8, "offline", "throughput_per_s"].item()
    )
    assert frame.loc[INT8, "offline_batch_size"] == 16
    page = render(offline)
    assert "Samples per second by batch size" in page
    assert "<b>Offline</b>" in page or ">Offline</th>" in page


def test_offline_needs_batch_sizes_to_choose_from(experiment_file):
    with pytest.raises(BadExperiment, match="list several in batch_sizes"):
        Experiment.load(experiment_file(offline="true"))


def test_the_best_batch_size_is_that_of_the_least_time_per_sample():
    assert best_batch_sizes({1: {"a": 1.0}, 8: {"a": 0.9, "b": 2.0}, 32: {"a": 0.95}}) == {
        "a": 8, "b": 8,
    }  # fmt: skip
    assert best_batch_sizes({}) == {}


def test_scenarios_have_names_by_how_many_samples_a_call_takes():
    job = Job("j", print, {}, {}, (), 1.0, 1.0)

    def made(size, offline=False):
        found = (Contender("a", job, size), Contender("b", job, 1))
        return Comparison("model", Target("cpu-1"), found, "a", offline)

    assert (made(1).scenario, made(1).id) == ("single-stream", "model/cpu-1/batch1")
    assert (made(8).scenario, made(8).id) == ("multi-stream", "model/cpu-1/batch8")
    assert (made(8, True).scenario, made(8, True).id) == ("offline", "model/cpu-1/offline")


@pytest.mark.long
def test_without_a_chosen_one_the_reference_is_the_fastest_fp32(experiment_file, fakery):
    path = experiment_file("[{fp32: {route: slow}}, fp32, static-int8]")

    found = run(path, results=fakery / "results")

    assert [(one.model, one.target, one.comparison, one.trial) for one in found.references] == [
        ("fake", "cpu-1", "batch1", FP32)
    ]
    frame = trial_frame(found).set_index("trial")
    assert list(frame.index[frame["is_reference"]]) == [FP32]
    # the first of them is timed twice; its noise is that of the comparison
    controls = found.measurements.query("metric == 'aa_control'")
    assert list(controls["trial"]) == ["fake/fakery/fp32+route=slow/cpu-1"]
    assert control(found, "fake", "cpu-1") is not None


@pytest.mark.long
def test_a_session_that_answers_from_a_cache_is_found(experiment_file, fakery):
    path = experiment_file("[fp32, static-int8, {static-int8: {route: cache}}]")

    found = run(path, results=fakery / "results")

    flags = found.trials.set_index("trial")["flags"]
    assert "caches-inputs" in flags["fake/fakery/static-int8+route=cache/cpu-1"]
    assert "caches-inputs" not in flags[INT8]


def test_the_row_carries_the_warnings_of_machine_and_target(experiment_file, fakery):
    many = physical_cores() + 1
    path = experiment_file(targets=f"[cpu-1, {{name: many, threads: {many}}}]")

    found = run(path, results=fakery / "results")

    warnings = found.trials.set_index("trial")["warnings"]
    expected = [*found.machine["warnings"], *target_warnings(Target("many", threads=many))]
    assert list(warnings["fake/fakery/fp32/many"]) == expected
    assert "wait for each other" in expected[-1]
    assert list(warnings[FP32]) == found.machine["warnings"]
    assert "many: The target wants" in render(found)


def test_a_target_is_warned_of_only_where_it_has_too_few_cores(monkeypatch):
    monkeypatch.setattr("quantbench.spec.target.physical_cores", lambda: 4)

    assert target_warnings(Target("one")) == []
    assert target_warnings(Target("two", threads=2)) == []
    assert target_warnings(Target("gpu", device="cuda", threads=9)) == []
    assert "takes every core" in target_warnings(Target("four", threads=4))[0]
    assert "wants 5 threads" in target_warnings(Target("five", threads=5))[0]


def test_memory_is_told_by_mapping_at_three_points(offline):
    rows = offline.measurements.query("trial == @INT8 and scenario == 'memory'").set_index("metric")

    for point in ("imports", "load", "run"):
        parts = rows["value"][[f"{point}_pss_anon_bytes", f"{point}_pss_file_bytes"]].sum()
        whole = rows["value"][f"{point}_pss_bytes"]
        assert 0 < parts <= whole
    assert rows["value"]["run_pss_bytes"] >= 0.5 * rows["value"]["imports_pss_bytes"]
    peak = rows.loc["peak_rss_bytes"]
    assert (peak["n"], peak["low"] <= peak["value"] <= peak["high"]) == (2, True)
    # the kernel's counters are batched: an error of some 100 KiB
    marks = rows["value"][["load_peak_rss_bytes", "run_peak_rss_bytes", "runtime_rss_bytes"]]
    assert peak["value"] == pytest.approx(marks.max(), rel=0.05)


def test_mappings_read_the_kernels_own_sums():
    """In a process of its own: here the heap may have room from before."""
    code = (
        "import json, numpy as np\n"
        "from quantbench.steps.startup import _smaps\n"
        "before = _smaps()\n"
        "held = np.ones(40_000_000, np.uint8)\n"
        "print(json.dumps([before, _smaps(), held.nbytes]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, held = json.loads(done.stdout)

    assert after["pss_anon_bytes"] - before["pss_anon_bytes"] == pytest.approx(held, rel=0.1)
    assert after["pss_file_bytes"] == pytest.approx(before["pss_file_bytes"], rel=0.1)


def test_weights_are_told_by_their_type(offline):
    rows = offline.measurements.set_index(["trial", "metric"])["value"]

    assert rows[INT8, "weight_bytes_int8"] == 64
    assert rows[FP32, "weight_bytes_float32"] == 256
    assert rows[INT8, "weight_bytes"] == 64


def test_a_small_test_set_says_what_it_can_tell_apart(offline):
    rows = offline.measurements.set_index(["trial", "metric"])

    row = rows.loc[(INT8, "quality")]
    half = 50 * (row["high"] - row["low"])
    assert row["reason"] == f"resolution ±{half:.1f} points: only 300 test samples"
    assert "only 300 test samples" in render(offline)


def test_the_share_of_quality_that_is_kept_meets_targets_by_its_bound(offline):
    rows = offline.measurements.set_index(["trial", "metric"])
    kept, bound = rows.loc[(INT8, "quality_kept")], rows.loc[(INT8, "quality_drop_bound")]

    low = 1 - bound["value"] / rows.loc[(FP32, "quality")]["value"]

    assert kept["low"] == pytest.approx(low)
    assert kept["verdict"] == ("keeps 99 %" if low > 0.99 else "undecided")


# --- sessions ---


SESSIONS = """
models: [fake]
backends: [fakery]
methods: [fp32, static-int8]
precision: {generations: 2, max_generations: 2, rounds: 6, warmup_s: 0.01, burst_ms: 1.0, memory_processes: 1}
"""


@pytest.fixture
def file(monkeypatch, tmp_path):
    install(
        monkeypatch, tmp_path, backends={"fakery": fake.BACKEND}, models={"fake": fake.MODEL},
        tasks={"fake-task": fake.TASK},
    )  # fmt: skip
    monkeypatch.setattr(runner, "SESSION_GAP_S", 0.0)
    (tmp_path / "test.yaml").write_text(SESSIONS)
    return tmp_path / "test.yaml"


def test_a_finished_run_is_timed_once_more_as_a_session_of_it(file):
    first = run_alone(file, results=file.parent / "results")
    again = run_alone(file, results=file.parent / "results", again=True)

    assert again.folder == first.folder
    assert set(first.samples["session"]) == {0}
    seen = again.samples.drop_duplicates(["session", "generation"])
    found = [(row.session, row.generation) for row in seen.itertuples()]
    assert found == [(0, 0), (0, 1), (1, 2), (1, 3)]
    # what was timed first is kept as it was
    kept = again.samples.query("session == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first.samples.reset_index(drop=True))
    said = {
        name: set(own.measurements.query("metric == 'speedup'")["spread"])
        for name, own in (("first", first), ("again", again))
    }
    assert said == {"first": {"95 % confidence, this session"}, "again": {"95 % confidence"}}


@pytest.mark.long
def test_an_experiment_asks_for_sessions_and_each_loads_fresh_copies(file, monkeypatch):
    file.write_text(SESSIONS + "sessions: 2\n")
    opened = []
    start = interleaved_timing.Process

    def noted(job, *arguments, **more):
        opened.append(job.arguments.get("artifact", ""))
        return start(job, *arguments, **more)

    monkeypatch.setattr(interleaved_timing, "Process", noted)
    found = run_alone(file, results=file.parent / "results")

    assert sorted(set(found.samples["session"])) == [0, 1]
    folders = [Path(path).parent for path in opened if path]
    assert folders[0] != folders[-1]
    assert not folders[-1].exists()  # copies go with their session
    assert found.run["sessions"] == 2


def test_the_interval_of_several_sessions_holds_each_of_them(file):
    rng = np.random.default_rng(0)
    apart = Rounds(
        tuple(rng.normal(shift, 0.001, 9) for shift in (0.0, 0.0, 0.05, 0.05, 0.1, 0.1)),
        (0, 0, 1, 1, 2, 2),
    )

    found = statistics.rounds_interval(apart)

    # Student's t of three medians: the 97.5 % quantile of 2 degrees of freedom is 4.303
    medians = [np.median(np.concatenate(apart[i : i + 2])) for i in (0, 2, 4)]
    half = 4.3027 * np.std(medians, ddof=1) / np.sqrt(3)
    # 1e-3: the quantile is written with five digits
    assert found.value == pytest.approx(np.mean(medians))
    assert (found.low, found.high) == pytest.approx(
        (found.value - half, found.value + half), rel=1e-3
    )
