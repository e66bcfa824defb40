"""The runner with a fake framework: what every kind of trouble becomes, and how a run continues."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from quantbench import run
from quantbench.backend_api import registry
from quantbench.cli.terminal import show
from quantbench.errors import BadInput, NotComparable
from quantbench.results import SCHEMA_VERSION, SCHEMAS, load_results
from quantbench.runs import Store, exit_code, export, locked
from tests.harness import fake

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory):
    """One run in which every kind of trouble happens; used by several tests."""
    from tests.harness import conftest

    patch = pytest.MonkeyPatch()
    folder = conftest.fakery.__wrapped__(patch, tmp_path_factory.mktemp("troubled"))
    write = conftest.experiment_file.__wrapped__(folder)
    path = write(
        "[fp32, fp16, bf16, static-int8, {static-int8: {route: "
        "[crash, hang, eat, error, nan, noise, float, slow, score-crash, clock-crash]}}]",
        backends="[fakery, other, absent]",
        targets="[cpu-1, cuda]",
        limits="{build_s: 6.0, memory_mb: 400.0}",
    )
    yield run(path, results=folder / "results")
    patch.undo()


def status(found, trial: str) -> tuple[str, str, str]:
    row = found.trials.set_index("trial").loc[trial]
    return row["status"], row["stage"], row["reason"]


@pytest.mark.parametrize(
    ("route", "expected", "stage", "says"),
    [
        ("crash", "crashed", "build", "SIGSEGV"),
        ("hang", "timeout", "build", "limit of 6 s"),
        ("eat", "out-of-memory", "build", "400 MB"),
        ("error", "failed", "build", "RuntimeError: the converter gave up"),
        ("nan", "invalid", "score", "not finite"),
        ("noise", "invalid", "score", "SQNR -6.0 dB, below the limit of 3 dB"),
        ("float", "no-op", "score", "no int8 weights in the file (float32)"),
        ("score-crash", "crashed", "score", "SIGABRT"),
        ("clock-crash", "crashed", "clock", "SIGABRT"),
    ],
)
def test_trouble_in_one_trial_is_a_row_with_status_and_reason(
    troubled, route, expected, stage, says
):
    found = status(troubled, f"fake/fakery/static-int8+route={route}/cpu-1")

    assert found[:2] == (expected, stage)
    assert says in found[2]
    assert "\n" not in found[2]


def test_the_other_trials_of_a_troubled_run_are_measured(troubled):
    latency = troubled.measurements.query("metric == 'latency_ms'").set_index("trial")["value"]

    assert latency["fake/fakery/fp32/cpu-1"] > 0
    assert latency["fake/fakery/static-int8/cpu-1"] > 0
    assert exit_code(troubled) == 1


def test_there_is_one_row_per_trial_whatever_happened(troubled):
    assert len(troubled.trials) == 3 * 14 * 2
    assert troubled.trials["trial"].is_unique


def test_refusals_carry_their_reason(troubled):
    assert status(troubled, "fake/fakery/bf16/cpu-1")[::2] == (
        "unsupported", "the fake has no bfloat16; use fp32",
    )  # fmt: skip
    assert status(troubled, "fake/absent/fp32/cpu-1")[::2] == (
        "unsupported", "no-such-package is not installed; pip install no-such-package",
    )  # fmt: skip
    assert status(troubled, "fake/fakery/fp32/cuda")[::2] == ("unsupported", "the fake has no GPU")


def test_a_backend_whose_float_form_is_another_function_is_invalid(troubled):
    found, _, reason = status(troubled, "fake/other/static-int8/cpu-1")
    row = troubled.trials.set_index("trial").loc["fake/other/fp32/cpu-1"]

    assert found == "invalid"
    assert "not the same function as fakery's" in reason
    assert row["parity_samples"] == 300
    assert row["parity_max_abs"] > 1


def test_invalid_and_changed_nothing_are_never_timed(troubled):
    timed = set(troubled.samples["trial"]) - {"calibration-loop"}

    # whether the one that crashes while timed gets a round in depends on the machine's speed
    assert timed - {"fake/fakery/static-int8+route=clock-crash/cpu-1"} == {
        "fake/fakery/fp32/cpu-1",
        "fake/fakery/fp32/cpu-1@control",
        "fake/fakery/static-int8/cpu-1",
        "fake/fakery/static-int8+route=slow/cpu-1",
    }


def test_much_slower_leaves_after_one_generation(troubled):
    row = troubled.measurements.query(
        "metric == 'speedup' and trial == 'fake/fakery/static-int8+route=slow/cpu-1'"
    ).iloc[0]

    assert row["value"] < 0.1
    assert row["verdict"] == "slower, > 10x"
    # one process says nothing of the next: there is a value, and no interval
    own = troubled.measurements[troubled.measurements["trial"] == row["trial"]]
    for metric in ("speedup", "latency_ms", "throughput_per_s", "end_to_end_ms"):
        found = own[own["metric"] == metric].iloc[0]
        assert found["value"] > 0
        assert found[["low", "high", "spread"]].isna().all()
        assert found["reason"].startswith("about: ")
    flags = troubled.trials.set_index("trial")["flags"]
    assert [name for name, known in flags.items() if "slower-than-10x" in known] == [row["trial"]]


def test_only_what_left_is_about_so_much(experiment_file, fakery):
    precision = "{name: t, generations: 2, max_generations: 2, rounds: 6, warmup_s: 0.01, burst_ms: 1.0, memory_processes: 1}"
    path = experiment_file("[fp32, static-int8, {static-int8: {route: slow}}]", precision=precision)

    found = run(path, results=fakery / "results")

    rows = found.measurements.query(
        "metric in ('speedup', 'latency_ms', 'throughput_per_s', 'end_to_end_ms')"
    )
    slow = rows["trial"] == "fake/fakery/static-int8+route=slow/cpu-1"
    assert rows.loc[slow, ["low", "high", "spread"]].isna().all(axis=None)
    assert rows.loc[slow, "reason"].str.startswith("about: ").all()
    assert (rows.loc[~slow, "low"] < rows.loc[~slow, "high"]).all()
    said = io.StringIO()
    show(found, Console(file=said, width=100, color_system=None))
    lines = [line for line in said.getvalue().splitlines() if " about " in line]
    assert len(lines) == 1
    assert "route=slow" in lines[0]


def test_every_table_has_exactly_the_columns_of_its_schema(troubled):
    for name, schema in SCHEMAS.items():
        assert list(getattr(troubled, name).columns) == schema.names


def test_the_score_can_be_recomputed_from_the_predictions(troubled):
    kept = troubled.predictions.query("trial == 'fake/fakery/static-int8/cpu-1'")
    score = troubled.measurements.query(
        "metric == 'quality' and trial == 'fake/fakery/static-int8/cpu-1'"
    )["value"].item()

    assert (kept["label"] == kept["prediction"]).mean() == pytest.approx(score)


def test_no_worker_outlives_a_run(troubled):
    assert workers_of(os.getpid()) == []


def workers_of(pid: int) -> list[int]:
    """Processes of the worker module that were started by ``pid`` or whose parent is gone."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if (
            b"quantbench.execution.worker" in command
            and f"QUANTBENCH_PARENT={pid}".encode() in environment
        ):
            found.append(int(folder.name))
    return found


def test_a_finished_run_is_only_read_and_fresh_times_again(experiment_file, fakery):
    path = experiment_file()
    first = run(path, results=fakery / "results")

    again = run(path, results=fakery / "results")
    fresh = run(path, results=fakery / "results", fresh=True)

    assert again.folder == first.folder
    pd.testing.assert_frame_equal(again.samples, first.samples)
    assert fresh.folder != first.folder
    assert list(fresh.samples["nanoseconds"]) != list(first.samples["nanoseconds"])
    assert not list((fresh.folder / "logs").glob("build*")), "artifacts are cached"
    assert not list((fresh.folder / "logs").glob("score*")), "scores are cached"


@pytest.mark.long
def test_an_altered_artifact_in_the_cache_is_built_again(experiment_file, fakery):
    first = run(experiment_file(), results=fakery / "results")
    key = first.trials.set_index("trial").loc["fake/fakery/static-int8/cpu-1", "artifact"]
    file = fakery / "cache" / "artifacts" / key / "w.npy"
    file.write_bytes(file.read_bytes()[:-3])

    fresh = run(experiment_file(), results=fakery / "results", fresh=True)

    assert set(fresh.trials["status"]) == {"ok"}
    assert list(fresh.trials["sha256"]) == list(first.trials["sha256"])


def test_the_same_run_cannot_be_worked_on_twice(experiment_file, fakery):
    found = run(experiment_file(), results=fakery / "results")

    with locked(Store(found.folder)), pytest.raises(BadInput, match="another quantbench"):
        run(experiment_file(), results=fakery / "results")


def test_an_unwritable_results_folder_says_what_to_do(experiment_file, fakery):
    (fakery / "file").write_text("")

    with pytest.raises(BadInput, match="choose another folder with --results"):
        run(experiment_file(), results=fakery / "file")


def test_too_few_calibration_samples_is_said_in_the_row(experiment_file, fakery):
    found = run(
        experiment_file("[fp32, {static-int8: {samples: 100}}]"), results=fakery / "results"
    )

    row = found.trials.set_index("trial").loc["fake/fakery/static-int8+samples=100/cpu-1"]
    assert row["status"] == "failed"
    assert "calibration split has 32" in row["reason"]


def test_the_samples_that_calibrated_are_listed_once_for_each_choice(experiment_file, fakery):
    methods = "[fp32, static-int8: {calibrator: [minmax, moving-average], seeds: [0, 1]}]"

    found = run(experiment_file(methods), results=fakery / "results")

    assert len(found.calibration) == 2
    trials = found.trials.set_index("trial")
    for row in found.calibration.itertuples():
        assert (row.task, row.split_samples) == ("fake-task", 32)
        assert set(trials.loc[list(row.trials), "seed"]) == {row.seed}
        assert len(row.trials) == 2
        # eight samples are what the backend declares for this method
        assert len(set(row.samples)) == len(row.samples) == 8
        assert set(row.samples) <= set(range(32))
        given = np.random.default_rng(row.seed).permutation(32)[:8]
        assert list(row.samples) == list(given)


def test_what_was_retrained_is_open_and_the_rest_closed(experiment_file, fakery):
    methods = "[fp32, static-int8, static-int8: {training: qat}, fp32: {training: finetune}]"

    found = run(experiment_file(methods), results=fakery / "results")

    told = found.trials.set_index("label")["division"]
    assert told["fp32"] == told["static-int8"] == "closed"
    assert told["static-int8+training=qat"] == told["fp32+training=finetune"] == "open"


def test_results_of_another_schema_are_refused(experiment_file, fakery):
    import pyarrow.parquet as pq

    found = run(experiment_file("[fp32]"), results=fakery / "results")
    path = found.folder / "trials.parquet"
    table = pq.read_table(path).replace_schema_metadata({"quantbench_schema": "99"})
    pq.write_table(table, path)

    with pytest.raises(
        NotComparable, match=f"has schema version 99, this quantbench reads 4 to {SCHEMA_VERSION}"
    ):
        load_results(found.folder)


SCRIPT = """
import sys
from pathlib import Path
import pytest
from tests.harness import conftest
patch = pytest.MonkeyPatch()
folder = Path(sys.argv[1])
conftest.fakery.__wrapped__(patch, folder)
from quantbench import run
run(sys.argv[2], results=folder / "results")
"""


@pytest.mark.long
def test_a_run_killed_at_any_moment_continues_and_loses_nothing(experiment_file, fakery):
    path = experiment_file("[fp32, fp16, {static-int8: {samples: [4, 8, 16]}}]")
    (fakery / "whole").mkdir()
    os.environ["QUANTBENCH_CACHE"] = str(fakery / "whole" / "cache")
    whole = run(path, results=fakery / "whole" / "results")
    command = [sys.executable, "-c", SCRIPT, str(fakery), str(path)]

    for moment in (0.5, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8):
        runner = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        runner.send_signal(signal.SIGKILL)
        runner.wait()
        time.sleep(0.1)
        assert workers_of(runner.pid) == []
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    found = load_results(fakery / "results" / "test")

    columns = ["trial", "status", "stage", "reason", "sha256", "artifact"]
    pd.testing.assert_frame_equal(found.trials[columns], whole.trials[columns])
    pd.testing.assert_frame_equal(found.predictions, whole.predictions)
    assert len(list((fakery / "results" / "test").iterdir())) == 1, "one run, continued"


def test_ctrl_c_ends_the_workers_and_says_how_to_go_on(experiment_file, fakery):
    path = experiment_file("[fp32, {static-int8: {route: hang}}]")
    command = [sys.executable, "-c", SCRIPT, str(fakery), str(path)]
    runner = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    while not workers_of(runner.pid):
        time.sleep(0.05)

    os.kill(runner.pid, signal.SIGINT)
    _, said = runner.communicate(timeout=20)

    assert "KeyboardInterrupt" in said
    assert workers_of(runner.pid) == []


def test_the_reference_follows_the_experiment_file(experiment_file, fakery):
    path = experiment_file("[fp32, static-int8]", reference="{method: static-int8}")

    found = run(path, results=fakery / "results")

    assert {one.trial for one in found.references} == {"fake/fakery/static-int8/cpu-1"}
    ratios = found.measurements.query("metric == 'aa_control'")
    assert list(ratios["trial"]) == ["fake/fakery/static-int8/cpu-1"]
    assert json.loads(found.trials["effective"].iloc[0]) == {"threads": "1"}


@pytest.mark.long
def test_the_same_file_run_in_two_ways_is_scored_twice(experiment_file, fakery):
    found = run(
        experiment_file("[fp32, {static-int8: {route: [one-way, other-way]}}]"),
        results=fakery / "results",
    )

    artifacts = found.trials.set_index("trial")["sha256"]
    one, other = (f"fake/fakery/static-int8+route={r}-way/cpu-1" for r in ("one", "other"))
    assert artifacts[one] == artifacts[other], "the fake stores the way in the manifest only"
    scored = [path.name for path in (fakery / "cache" / "scores").iterdir()]
    assert len(scored) == 3


@pytest.mark.long
def test_what_the_user_has_mended_is_tried_again_and_timed_with_the_rest(
    experiment_file, fakery, monkeypatch
):
    path = experiment_file("[fp32, static-int8, {static-int8: {route: mendable}}]")
    late = "fake/fakery/static-int8+route=mendable/cpu-1"
    first = run(path, results=fakery / "results")
    assert status(first, late)[::2] == ("failed", "something is missing; set FAKE_MENDED")

    monkeypatch.setenv("FAKE_MENDED", "1")
    again = run(path, results=fakery / "results")

    assert again.folder == first.folder
    assert status(again, late)[0] == "ok"
    rounds = again.samples.groupby("trial")["round"].nunique()
    assert rounds[late] == rounds["fake/fakery/fp32/cpu-1"] == 6
    assert again.measurements.query("trial == @late and metric == 'speedup'")["value"].item() > 0


@pytest.mark.long
def test_a_run_continues_after_the_cache_was_emptied(experiment_file, fakery):
    first = run(experiment_file(), results=fakery / "results")
    described = json.loads((first.folder / "run.json").read_text())
    (first.folder / "run.json").write_text(json.dumps({**described, "finished": ""}))
    shutil.rmtree(fakery / "cache")

    again = run(experiment_file(), results=fakery / "results")

    assert set(again.trials["status"]) == {"ok"}
    pd.testing.assert_frame_equal(again.predictions, first.predictions)
    pd.testing.assert_frame_equal(again.samples, first.samples)


def test_an_artifact_is_exported_even_after_the_cache_was_emptied(experiment_file, fakery):
    found = run(experiment_file(), results=fakery / "results")
    shutil.rmtree(fakery / "cache")

    written = export(found.folder, "fake/fakery/static-int8/cpu-1", fakery / "out")

    assert sorted(path.name for path in written) == ["scale.npy", "w.npy"]
    with pytest.raises(BadInput, match=r"Did you mean 'fake/fakery/static-int8/cpu-1'\?"):
        export(found.folder, "fake/fakery/static-in8/cpu-1", fakery / "out")
    shutil.rmtree(found.folder / "artifacts")
    with pytest.raises(BadInput, match="keeps no artifact"):
        export(found.folder, "fake/fakery/fp32/cpu-1", fakery / "out")


# --- training ------------------------------------------------------------------------------------

RECIPE = "{epochs: 2, batch_size: 32, learning_rate: 0.5, schedule: constant}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """One run with a QAT over three seeds, its control, and trainings that go wrong."""
    from tests.harness import conftest

    patch = pytest.MonkeyPatch()
    folder = conftest.fakery.__wrapped__(patch, tmp_path_factory.mktemp("trained"))
    write = conftest.experiment_file.__wrapped__(folder)
    path = write(
        "[fp32, {fp32: {training: finetune, seeds: [0, 1, 2]}}, {qat-int8: {seeds: [0, 1, 2]}}, "
        "{qat-int8: {route: [diverge, train-crash]}}, {qat-int8: {weights: int4}}]",
        backends="[fakery, other]",
        recipe=RECIPE,
    )
    yield run(path, results=folder / "results")
    patch.undo()


QAT = "fake/fakery/qat-int8/cpu-1"


def measured(found, trial: str, metric: str) -> pd.Series:
    rows = found.measurements
    return rows[(rows["trial"] == trial) & (rows["metric"] == metric)].iloc[0]


def test_training_is_recorded_step_by_step_and_its_loss_falls(trained):
    steps = trained.training.query("trial == @QAT + '/seed1'")

    assert list(steps["step"]) == list(range(8))
    assert set(steps["epoch"]) == {0, 1}
    assert set(steps["learning_rate"]) == {0.5}
    assert steps["loss"].iloc[4:].mean() < steps["loss"].iloc[:4].mean()
    row = trained.trials.set_index("trial").loc[f"{QAT}/seed1"]
    assert row["trained_s"] > 0
    assert row["status"] == "ok"


def test_the_converted_model_is_scored_and_the_fake_quantized_one_beside_it(trained):
    converted = measured(trained, f"{QAT}/seed0", "quality")
    fake = measured(trained, f"{QAT}/seed0", "fake_quantized_quality")

    assert converted["value"] == fake["value"]
    assert fake["n"] == 300


def test_qat_is_compared_with_the_float_control_of_its_seed_and_over_seeds(trained):
    for seed in (0, 1, 2):
        drop = measured(trained, f"{QAT}/seed{seed}", "control_drop")
        control = QAT.replace("qat-int8", "fp32+training=finetune") + f"/seed{seed}"
        assert drop["reference"] == control
    over = measured(trained, f"{QAT}/seed0", "seeds_control_drop")
    drops = [measured(trained, f"{QAT}/seed{seed}", "control_drop")["value"] for seed in (0, 1, 2)]
    assert over["value"] == pytest.approx(sum(drops) / 3)
    assert over["n"] == 3
    bound = measured(trained, f"{QAT}/seed0", "seeds_control_drop_bound")["value"]
    assert over["value"] <= bound <= over["high"]


def test_a_diverging_training_is_a_row_with_advice(trained):
    found = status(trained, QAT.replace("qat-int8", "qat-int8+route=diverge"))

    assert found[:2] == ("failed", "build")
    assert "use a learning_rate below 0.5" in found[2]


def test_a_killed_training_goes_on_from_its_checkpoint(trained):
    name = QAT.replace("qat-int8", "qat-int8+route=train-crash")
    steps = trained.training.query("trial == @name")

    assert status(trained, name)[0] == "ok"
    assert list(steps["step"]) == list(range(8))
    same = trained.training.query("trial == @QAT + '/seed0'")
    assert list(steps["loss"]) == list(same["loss"])


def test_what_no_kernel_executes_is_scored_but_not_timed(trained):
    name = QAT.replace("qat-int8", "qat-int8+weights=int4")
    found = status(trained, name)
    metrics = set(trained.measurements.query("trial == @name")["metric"])

    assert found == ("simulated", "score", "the fake multiplies no 4-bit integers")
    assert "quality" in metrics
    assert not metrics & {"latency_ms", "speedup", "load_ms"}


def test_a_backend_without_a_trainer_says_so(trained):
    found = status(trained, QAT.replace("fakery", "other") + "/seed0")

    assert found[0] == "unsupported"
    assert "other does not train; use training: ptq" in found[2]


def test_a_finetune_is_not_the_reference_of_ratios(trained):
    assert {one.trial for one in trained.references} == {"fake/fakery/fp32/cpu-1"}


def test_a_task_without_training_samples_cannot_train(fakery, experiment_file, monkeypatch):
    task = dataclasses.replace(fake.TASK, splits=("calibration", "test"))
    monkeypatch.setattr(registry, "task", lambda name: task)

    found = run(experiment_file("[fp32, qat-int8]"), results=fakery / "results")

    assert status(found, "fake/fakery/qat-int8/cpu-1")[0] == "unsupported"
    assert "has no training samples" in status(found, "fake/fakery/qat-int8/cpu-1")[2]


@pytest.mark.long
def test_a_form_of_its_own_is_judged_for_parity_by_its_own_fp32(
    fakery, experiment_file, monkeypatch
):
    forms = {"numpy": "tests.harness.fake:form", "other-numpy": "tests.harness.fake:form"}
    monkeypatch.setattr(fake, "MODEL", dataclasses.replace(fake.MODEL, forms=forms))
    monkeypatch.setattr(registry, "model", lambda name: fake.MODEL)

    found = run(
        experiment_file("[fp32, {static-int8: {route: ['', other]}}]"), results=fakery / "results"
    )

    row = found.measurements.query("metric == 'compression'").set_index("trial")["reference"]
    assert row["fake/fakery/static-int8/cpu-1"] == "fake/fakery/fp32"
    assert row["fake/fakery/static-int8+route=other/cpu-1"] == "fake/fakery/fp32+route=other"


def test_the_last_words_of_a_converter_that_crashed_come_with_advice(troubled):
    found = status(troubled, "fake/fakery/static-int8+route=crash/cpu-1")

    assert "take another route or backend" in found[2]


@pytest.mark.pictures
def test_the_report_tells_what_training_gained_against_its_control(trained):
    from quantbench.report.page import summarise

    page = summarise(trained)

    assert page.section("training") is not None
    rows = {f"{row.backend} {row.label}": row for row in page.section("training").rows}
    qat = rows["fakery qat-int8"]
    assert qat.seeds == "0, 1, 2"
    post_training, fake_quantized, converted, control = (s.mean for s in qat.qualities)
    assert fake_quantized == converted != "–"
    assert control != "–"
    assert post_training == "–"
    assert "at most" in qat.bound
    assert "fakery fp32+training=finetune" not in rows
    assert qat.verdict
    assert page.section("training").picture is not None
    assert "seed 2" in page.section("training").picture.wide
    simulated = next(row for row in page.rows if "weights=int4" in row.label)
    assert simulated.status == "simulated"
    assert simulated.state not in ("recommended", "on the front", "allowed")
    assert simulated.cells[0].text == "–"


@pytest.mark.long
def test_a_float_file_that_is_not_float_is_found(experiment_file, fakery):
    found = run(experiment_file("[fp32, fp32: {route: narrow}]"), results=fakery / "results")

    flags = found.trials.set_index("label")["flags"].map(list)
    # others may be there on a busy machine
    assert "holds-integers" not in flags["fp32"]
    assert "holds-integers" in flags["fp32+route=narrow"]


@pytest.mark.long
def test_injected_ranges_come_from_one_pass_that_calibrators_share(experiment_file, fakery):
    methods = "[fp32, static-int8: {ranges: injected, calibrator: [minmax, mse, moving-average]}]"

    found = run(experiment_file(methods), results=fakery / "results")

    assert set(found.trials["status"]) == {"ok"}
    assert len(list((fakery / "cache" / "observed").glob("*/histograms.npz"))) == 2  # and weights
    seen = found.histograms.set_index("role")
    assert seen.loc["activation", "name"] == "x"
    assert seen.loc["activation", "count"] == 8 * 16  # eight samples of sixteen values
    assert len(seen.loc["activation", "trials"]) == 3
    x = found.artifacts[(found.artifacts["kind"] == "tensor") & (found.artifacts["name"] == "x")]
    ranges = x.set_index("trial")["high"].dropna()
    assert ranges.nunique() > 1
    assert ranges.max() == pytest.approx(seen.loc["activation", "maximum"], rel=0.02)


def test_the_clocks_own_share_of_its_time_is_measured(experiment_file, fakery):
    found = run(experiment_file("[fp32, static-int8]"), results=fakery / "results")

    rows = found.measurements.query("metric == 'clock_overhead'")
    assert list(rows["trial"]) == ["fake/fakery/fp32/cpu-1"]
    assert 0 <= rows["value"].iloc[0] < 1


@pytest.mark.long
def test_coverage_and_memory_of_activations_are_measured(experiment_file, fakery):
    found = run(experiment_file("[fp32, static-int8]"), results=fakery / "results")

    rows = found.measurements.pivot_table(index="trial", columns="metric", values="value")
    int8, full = rows.loc["fake/fakery/static-int8/cpu-1"], rows.loc["fake/fakery/fp32/cpu-1"]
    for level in ("requested", "serialized", "executed"):
        assert (int8[f"{level}_weights_fraction"], full[f"{level}_weights_fraction"]) == (1, 0)
    assert int8["activation_bytes"] == 64 + 16  # x, then y
