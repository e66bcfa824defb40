"""The pytest plugin, by pytest's own tool for tests of plugins, with the fake framework."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from quantbench import Experiment, run
from quantbench.results import write_table
from quantbench.runs import score
from quantbench.system import stored_as
from tests.test_architecture import FRAMEWORKS

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
INSTALLED = any(
    point.value == "quantbench.testing.pytest_plugin"
    for point in metadata.entry_points(group="pytest11")
)
PLUGIN = ("-p", "no:anyio", *(() if INSTALLED else ("-p", "quantbench.testing.pytest_plugin")))


@pytest.fixture(autouse=True)
def no_outer_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs inside are no workers of pytest-xdist, whatever runs these tests."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def suite(pytester: pytest.Pytester, experiment_file):
    """A function that runs pytest on an experiment of the fake framework, as a user would."""

    def pytest_on(*arguments: str, **more: str) -> pytest.RunResult:
        path = experiment_file(**more)
        return pytester.runpytest_inprocess(*PLUGIN, "--quantbench", str(path), *arguments)

    return pytest_on


@pytest.fixture
def own_tests(pytester: pytest.Pytester, fakery):
    """A function that runs a user's own test module."""

    def pytest_on(text: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess(*PLUGIN, *arguments)

    return pytest_on


# --- collection ----------------------------------------------------------------------------------


def test_every_trial_is_a_test_named_after_it(suite):
    done = suite(
        "--collect-only", "-q", targets="[cpu-1, cpu-avx2]", seeds="[0, 1]", methods="[fp32]"
    )

    assert [line.split("::")[1] for line in done.outlines if "::" in line] == [
        "fake[fakery-fp32-cpu-1-seed0]", "fake[fakery-fp32-cpu-1-seed1]",
        "fake[fakery-fp32-cpu-avx2-seed0]", "fake[fakery-fp32-cpu-avx2-seed1]",
    ]  # fmt: skip


def test_the_experiment_comes_beside_paths_that_were_given(suite, pytester):
    module = pytester.makepyfile("def test_own(): pass")

    both, alone = suite(str(module), "--collect-only", "-q"), suite("--collect-only", "-q")

    assert sum("::" in line for line in both.outlines) == 3
    assert sum("::" in line for line in alone.outlines) == 2


@pytest.mark.long
def test_a_single_trial_can_be_named(suite, fakery):
    name = f"{fakery / 'test.yaml'}::fake[fakery-fp32-cpu-1]"

    suite(name).assert_outcomes(passed=1)


def test_a_mistake_in_the_experiment_is_told_with_its_line(suite):
    done = suite(methods="[fp23]")

    assert done.ret != 0
    done.stdout.fnmatch_lines(["*test.yaml:3: unknown method 'fp23'. Did you mean 'fp32'?"])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_collecting_imports_no_framework():
    code = (
        "import sys, pytest\n"
        f"pytest.main([*{PLUGIN!r}, '--quantbench', 'experiments/quickstart.yaml', '--collect-only', '-q'])\n"
        "print('imported', *{name.partition('.')[0] for name in sys.modules})\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )

    assert "digits-mobilenet[onnxruntime-static-int8-cpu-1]" in done.stdout
    imported = done.stdout.splitlines()[-1].split()
    assert not set(imported) & frozenset().union(*FRAMEWORKS.values())


def test_without_its_option_the_plugin_imports_nothing_of_the_engine(pytester):
    path = pytester.makepyfile("import sys\ndef test_light():\n    assert 'pandas' not in sys.modules\n"
                               "    assert {m for m in sys.modules if m.startswith('quantbench')} == "
                               "{'quantbench', 'quantbench.testing', 'quantbench.testing.pytest_plugin'}")  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "1 passed" in done.stdout, done.stdout


# --- trials --------------------------------------------------------------------------------------


def test_good_trials_pass_and_those_that_cannot_run_are_skipped_with_the_reason(suite):
    done = suite("-rs", methods="[fp32, bf16, static-int8, {static-int8: {route: float}}]")

    done.assert_outcomes(passed=2, skipped=2)
    done.stdout.fnmatch_lines_random(
        [
            "*unsupported: the fake has no bfloat16; use fp32*",
            "*no-op: the method changed nothing*",
        ]
    )


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("crash", "crashed in build: *SIGSEGV*"),
        ("error", "failed in build: RuntimeError: the converter gave up"),
        ("noise", "invalid in score: its outputs are far from fp32*"),
    ],
)
def test_a_trial_that_does_not_work_fails_with_its_reason(suite, route, reason):
    done = suite(methods=f"[fp32, {{static-int8: {{route: {route}}}}}]")

    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines([reason])
    done.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.long
def test_a_selection_builds_only_what_it_needs(suite, fakery):
    done = suite("-k", "static-int8", methods="[fp32, fp16, dynamic-int8, static-int8]")

    done.assert_outcomes(passed=1, deselected=3)
    assert len(list((fakery / "cache" / "artifacts").iterdir())) == 2  # and its float form


@pytest.mark.long
def test_a_second_session_builds_nothing(suite, fakery):
    suite()
    before = {p: p.stat().st_mtime_ns for p in (fakery / "cache").glob("*/*")}

    suite().assert_outcomes(passed=2)

    assert {p: p.stat().st_mtime_ns for p in (fakery / "cache").glob("*/*")} == before


@pytest.mark.long
def test_the_last_failed_trial_alone_is_run_again(suite):
    methods = "[fp32, {static-int8: {route: error}}]"
    suite(methods=methods).assert_outcomes(passed=1, failed=1)

    suite("--lf", methods=methods).assert_outcomes(failed=1, deselected=1)


# --- gates ---------------------------------------------------------------------------------------


@pytest.fixture
def baseline(experiment_file, fakery) -> Path:
    """A run of the experiment that `suite` runs, with a margin that forgives much."""
    return run(experiment_file(quality_margin="0.5"), results=fakery / "results").folder


def test_what_is_as_good_as_the_baseline_passes(suite, baseline):
    done = suite("--quantbench-baseline", str(baseline), quality_margin="0.5")

    done.assert_outcomes(passed=2)


def test_a_lost_accuracy_fails(suite, baseline, fakery):
    for path in (fakery / "cache" / "scores").glob(f"*/{stored_as('y')}.npy"):
        outputs = np.load(path)
        outputs[:20] = -outputs[:20]  # float form and artifact alike: nothing is lost against fp32
        np.save(path, outputs)

    done = suite("--quantbench-baseline", str(baseline), quality_margin="0.5")

    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["quality_drop > 0.5pp: quality -*pp *"])


def test_a_file_that_grew_fails_unless_the_gates_allow_it(suite, baseline, fakery):

    sizes = pq.read_table(baseline / "measurements.parquet").to_pandas()
    grown = (sizes["metric"] == "size_bytes") & sizes["trial"].str.contains("int8")
    sizes.loc[grown, "value"] *= 0.9
    write_table(
        baseline,
        "measurements",
        sizes.astype(object).where(sizes.notna(), None).to_dict("records"),
    )
    lenient = fakery / "gates.yaml"
    lenient.write_text("fail_on: ['size_bytes > +20%']\n")

    strict = suite("--quantbench-baseline", str(baseline), quality_margin="0.5")
    allowed = suite(
        "--quantbench-baseline", str(baseline), "--quantbench-gate", str(lenient),
        quality_margin="0.5",
    )  # fmt: skip

    strict.assert_outcomes(passed=1, failed=1)
    strict.stdout.fnmatch_lines(["size_bytes > +1%: size_bytes +11.*%*"])
    allowed.assert_outcomes(passed=2)


@pytest.mark.long
def test_a_quality_beyond_the_margin_fails_without_a_baseline(suite, fakery):
    suite()
    scores = (fakery / "cache" / "scores").glob(f"*/{stored_as('y')}.npy")
    last = max(scores, key=lambda path: path.stat().st_mtime_ns)  # of static-int8, after fp32
    outputs = np.load(last)
    outputs[:60] = outputs[:60, ::-1]
    np.save(last, outputs)

    done = suite()

    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["loses quality: *less than fake/fakery/fp32/cpu-1*"])


def test_a_baseline_that_cannot_be_read_is_a_usage_error(suite, fakery):
    done = suite("--quantbench-baseline", str(fakery / "nowhere"))

    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*no run at *nowhere*"])


def test_a_baseline_of_something_else_is_told(suite, experiment_file, fakery):
    other = run(experiment_file("[fp16]"), results=fakery / "results").folder

    done = suite("--quantbench-baseline", str(other), methods="[static-int8]")

    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines(["*has no trial of test.yaml*"])


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_statistics_are_saved_under_the_names_of_trials_and_compared(suite, pytester):
    suite("--benchmark-save=before").assert_outcomes(passed=2)

    saved = json.loads(next(pytester.path.glob(".benchmarks/*/0001_before.json")).read_text())
    known = {found["name"]: found["stats"] for found in saved["benchmarks"]}
    assert set(known) == {"fake[fakery-fp32-cpu-1]", "fake[fakery-static-int8-cpu-1]"}
    assert all(0 < found["median"] < 0.01 and found["rounds"] >= 60 for found in known.values())
    compared = suite("--benchmark-compare=0001", "--benchmark-compare-fail=median:100000%")
    compared.assert_outcomes(passed=2)
    compared.stdout.fnmatch_lines(["*fake?fakery-fp32-cpu-1? (0001_before)*"])


@pytest.mark.long
def test_the_time_is_that_of_the_inference_alone(suite, pytester):
    suite("--benchmark-json=times.json", methods="[fp32, {fp32: {route: slow}}]")

    times = json.loads((pytester.path / "times.json").read_text())["benchmarks"]
    fast, slow = (found["stats"]["median"] for found in times)
    assert 5 < slow / fast < 80  # 20 times the work


@pytest.mark.long
def test_a_crash_while_timed_fails_that_trial_alone(suite):
    done = suite(methods="[fp32, {fp32: {route: clock-crash}}]")

    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["crashed while timed: *SIGABRT*"])


@pytest.mark.long
def test_trials_are_judged_where_nothing_is_timed(suite):
    disabled = suite("--benchmark-disable", "-W", "error")
    absent = suite("-p", "no:benchmark")

    disabled.assert_outcomes(passed=2)
    absent.assert_outcomes(passed=2)
    absent.stdout.fnmatch_lines(["*no times: pip install pytest-benchmark*"])


# --- fixtures ------------------------------------------------------------------------------------


def test_a_test_of_ones_own_reads_in_five_lines(own_tests):
    done = own_tests(
        """
        def test_int8_keeps_the_answers(quantized, reference):
            small, full = quantized("fake", "fakery", "static-int8"), reference("fake", "fakery")
            assert small.agreement(full) > 0.9 and small.sqnr_db(full) > 20
            assert 0.9 < small.quality <= full.quality == 1.0
            assert small.size_bytes < full.size_bytes
            assert small.record.tensors[1].dtype == "int8"
        """
    )

    done.assert_outcomes(passed=1)


def test_a_session_gives_what_was_scored(own_tests):
    done = own_tests(
        """
        import numpy as np, pytest
        from quantbench.errors import BadInput

        def test_session(quantized, session):
            small = quantized("fake", "fakery", "static-int8")
            loaded = session(small, batch_size=4)
            loaded.bind({"x": small.inputs()["x"][4:8]})
            loaded.run()
            # not the same to the bit: a matrix product of another size adds in another order
            assert np.allclose(loaded.read()["y"], small.outputs()["y"][4:8], rtol=1e-5, atol=1e-6)
            assert loaded.effective == {"threads": "1"}
            with pytest.raises(BadInput, match="x"):
                loaded.bind({"x": np.zeros((4, 3), np.float32)})
            loaded.run()
        """
    )

    done.assert_outcomes(passed=1)


def test_what_cannot_run_here_skips_and_what_fails_fails_with_its_reason(own_tests):
    done = own_tests(
        """
        def test_refused(quantized):
            quantized("fake", "fakery", "bf16")

        def test_broken(quantized):
            quantized("fake", "fakery", "static-int8", route="error")

        def test_mistaken(quantized):
            quantized("fake", "fakery", "static-in8")

        def test_crashing(quantized, session):
            loaded = session(quantized("fake", "fakery", "fp32", route="clock-crash"))
            loaded.run()  # without inputs
        """,
        "-rs",
    )

    done.assert_outcomes(skipped=1, failed=3)
    done.stdout.fnmatch_lines_random(
        [
            "*unsupported: the fake has no bfloat16*",
            "fake/fakery/static-int8+route=error/cpu-1: failed: RuntimeError: the converter gave up",
            "unknown method 'static-in8'. Did you mean 'static-int8'?",
            "E *session fake/fakery/fp32+route=clock-crash/cpu-1 1: failed: AttributeError: *",
        ]
    )


def test_scoring_alone_leaves_a_run_without_times(experiment_file, fakery):
    from quantbench.runs import Reporter

    found = score(Experiment.load(experiment_file()), fakery / "scored", reporter=Reporter())

    assert list(found.trials["status"]) == ["ok", "ok"]
    assert {"quality", "quality_drop", "size_bytes"} <= set(found.measurements["metric"])
    assert found.samples.empty
    assert not re.search("latency|speedup|load_ms", " ".join(found.measurements["metric"]))
