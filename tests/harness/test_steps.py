"""Steps: a table of them is run in order, shared and cached; a key covers all that decides a result."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from quantbench.execution import Ending, Step, StepGraph
from quantbench.system import filling
from quantbench.system.source import source_files

ROOT = Path(__file__).parents[2]


def make(*, folder: str, text: str = "", before: str = "", beside: str = "") -> None:
    """A worker function: writes what it was given."""
    with filling(Path(folder)) as temporary:
        earlier = (Path(before) / "text").read_text() if before else ""
        (temporary / "text").write_text(earlier + text)


class Here:
    """An executor that calls functions in this process, one after the other."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.ran: list[str] = []

    def run(self, jobs, on_end, on_start, on_news) -> None:
        queue = list(jobs)
        while queue:
            job = queue.pop(0)
            on_start(job)
            self.ran.append(job.name)
            ending = Ending("ok", "", None, 0.0)
            if job.name in self.failing:
                ending = Ending("crashed", f"{job.name} fell over", None, 0.0)
            else:
                job.function(**job.arguments)
            queue[:0] = on_end(job, ending)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


A = Step("a", "things", make, {"text": "a"})
B = Step("b", "things", make, {"text": "b"}, inputs={"before": "a"})
C = Step("c", "things", make, {"text": "c"}, inputs={"before": "b"})


def ran(steps, *failing: str) -> tuple[StepGraph, list[str]]:
    graph, executor = StepGraph(steps), Here(*failing)
    graph.execute(executor)
    return graph, executor.ran


def test_steps_run_once_what_they_need_is_there_and_give_it_on():
    graph, order = ran([C, B, A])

    assert order == ["a", "b", "c"]
    assert (graph.done["c"].folder / "text").read_text() == "abc"


def test_what_is_cached_is_not_run_again():
    ran([A, B])

    assert ran([A, B, C])[1] == ["c"]


def test_steps_of_the_same_key_share_one_job():
    graph, order = ran([A, B, replace(B, name="b again"), replace(C, inputs={"before": "b again"})])

    assert order == ["a", "b", "c"]
    assert graph.done["b"].folder == graph.done["b again"].folder


def test_what_needs_a_failed_step_ends_as_it_did_and_the_rest_goes_on():
    told = {}
    steps = [A, replace(B, settle=lambda ending: told.setdefault("b", ending)), C]
    graph, order = ran([*steps, Step("d", "things", make, {"text": "d"})], "a")

    assert order == ["a", "d"]
    assert graph.done["c"].ending.reason == told["b"].reason == "a fell over"


def test_a_decision_may_stop_what_comes_after_and_may_follow_what_failed():
    stop = Ending("invalid", "not the same function", None, 0.0)
    gate = Step("gate", after=("a",), whatever=True, settle=lambda ending: stop)
    graph, order = ran([A, gate, replace(B, after=("gate",))], "a")

    assert order == ["a"]
    assert graph.done["b"].ending == graph.done["gate"].ending == stop

    after = Step("after", "things", make, {"text": "x"}, after=("gate",))
    assert ran([A, gate, after])[0].done["after"].ending == stop


def test_a_table_that_cannot_be_run_is_refused():
    with pytest.raises(ValueError, match=r"\['a'\]"):
        StepGraph([B])
    with pytest.raises(ValueError, match="wait for each other"):
        ran([replace(A, after=("b",)), B])


def test_a_key_covers_arguments_inputs_packages_and_source():
    contents = {"before": "1"}
    key = B.key(contents)

    assert key == B.key(contents)
    others = [
        replace(B, arguments={"text": "other"}).key(contents),
        B.key({"before": "2"}),
        replace(B, packages=("numpy",)).key(contents),
        replace(B, source=(":".join(("quantbench.report.glossary", "TERMS")),)).key(contents),
        replace(B, kind="other").key(contents),
    ]
    assert len({key, *others}) == 6


def test_what_lies_beside_and_what_has_an_identity_of_its_own_change_no_key():
    placed = Step("p", "things", make, {"text": "at /some/place"}, identity={"text": "at"})

    assert placed.key({}) == replace(placed, arguments={"text": "at /another"}).key({})
    assert replace(B, beside={"beside": "a"}).key({"before": "1"}) == B.key({"before": "1"})


# --- source --------------------------------------------------------------------------------------


def test_source_is_followed_through_doorways_to_what_is_used():
    found = set(source_files("quantbench.steps.score:score"))

    assert {"quantbench.steps.score", "quantbench.spec.tensor", "quantbench.errors"} <= found
    assert not {name for name in found if "report" in name or "calibration" in name}


def test_source_of_a_user_s_module_is_followed_to_its_neighbours(tmp_path, monkeypatch):
    (tmp_path / "lone_model.py").write_text(
        "import numpy\ndef build():\n    from lone_layers import x\n"
    )
    (tmp_path / "lone_layers.py").write_text("x = 1\n")
    (tmp_path / "lone_other.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert set(source_files("lone_model:build")) == {"lone_model", "lone_layers"}


CODES = """
import json, sys
from pathlib import Path
from quantbench.experiment import Experiment
from quantbench.experiment.plan import plan
from quantbench.runs import BuildGraph, Reporter, Store
from quantbench.system import machine, source_digest
experiment = Experiment.load(sys.argv[1])
graph = BuildGraph(experiment, plan(experiment), Store(Path(sys.argv[2])), machine.describe(), Reporter(quiet=True))
codes = {s.name: s.code() for m in ("digits", "digits@noise=0.1") for s in graph.steps(m) if s.function}
codes["own data"] = source_digest("quantbench.experiment.user_data:load")
print(json.dumps(codes))
"""
SWEEP = """
models: [digits, "digits@noise=0.1"]
backends: [pytorch, tflite, onnxruntime]
methods: [fp32, static-int8, {static-int8: {ranges: injected, backends: [onnxruntime]}}, qat-int8]
"""


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory):
    """A function that edits a module in a copy of the sources: the steps whose keys change."""
    for name in ("torch", "tensorflow", "onnxruntime"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("copy")
    for part in ("harness", "backends", "experiments"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sweep.yaml").write_text(SWEEP)
    path = ":".join(str(folder / part) for part in ("harness", "backends", "experiments"))

    def read() -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", CODES, str(folder / "sweep.yaml"), str(folder / "run")],
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": path},
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found: dict[str, str] = json.loads(done.stdout)
        return found

    before = read()

    def changed(module: str) -> set[str]:
        file = folder / module
        text = file.read_text()
        file.write_text(f"{text}\n_CHANGED = 1\n")
        try:
            after = read()
        finally:
            file.write_text(text)
        assert after.keys() == before.keys()
        return {name for name in before if after[name] != before[name]}

    return changed, set(before)


def starting(names: set[str], *words: str) -> set[str]:
    return {name for name in names if name.startswith(words)}


def test_a_shift_that_changed_gives_new_data(codes):
    changed, names = codes

    found = changed("harness/quantbench/spec/shift.py")

    assert starting(names, "data") <= found
    assert not starting(found, "score")


def test_what_is_written_in_a_report_changes_no_key(codes):
    changed, _ = codes

    assert changed("harness/quantbench/report/glossary.py") == set()


def test_a_user_s_data_change_with_what_reads_them_alone(codes):
    changed, _ = codes

    assert changed("harness/quantbench/experiment/user_data.py") == {"own data"}


def test_a_runtime_changes_the_scores_of_its_backend_alone(codes):
    changed, names = codes

    found = changed("backends/quantbench_backends/tflite/runtime.py")

    assert found == {n for n in starting(names, "score") if "/tflite/" in n}


def test_a_quantizer_changes_what_it_builds_and_observes_alone(codes):
    changed, names = codes

    found = changed("backends/quantbench_backends/onnxruntime/methods.py")

    assert found == {n for n in starting(names, "build", "observe") if "/onnxruntime/" in n}


def test_what_reads_onnx_files_changes_what_is_built_of_them_or_what_runs_them(codes):
    changed, names = codes
    of_onnxruntime = {name for name in names if "/onnxruntime/" in name}

    graphs = changed("backends/quantbench_backends/onnx_files/graph.py")
    nodes = changed("backends/quantbench_backends/onnx_files/nodes.py")

    assert graphs == starting(of_onnxruntime, "build", "observe")
    assert nodes == starting(of_onnxruntime, "build", "observe", "score")


def test_a_form_changes_all_that_is_made_of_it_and_no_data(codes):
    changed, names = codes

    found = changed("experiments/quantbench_experiments/models/digits/torch_form.py")

    assert starting(names, "build", "train", "convert", "weights") <= found
    assert not starting(found, "data", "score")
