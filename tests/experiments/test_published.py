"""A fresh run of the published quickstart against it, by the gates that hold on any machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench import load_results, run
from quantbench.analysis.gates import read
from quantbench.cli.checks import Checks
from quantbench.results import Results

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results" / "reference" / "quickstart"
GATES = read(ROOT / "experiments" / "gates" / "portable.yaml")
# nothing is asserted on time, so little is spent on it
BRIEF = (
    "precision: {generations: 1, max_generations: 1, rounds: 2, warmup_s: 0.01, burst_ms: 1.0, "
    "memory_processes: 1}"
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The experiment of the published run, built anew and timed briefly."""
    folder = tmp_path_factory.mktemp("quickstart")
    text = load_results(PUBLISHED).run["experiment_text"]
    kept, _, _ = text.partition("precision:")
    path = folder / "quickstart.yaml"
    path.write_text(f"{kept}{BRIEF}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTBENCH_CACHE", str(folder / "cache"))
        return run(path, results=folder / "results")


@pytest.mark.long
def test_a_fresh_quickstart_passes_the_portable_gates_against_the_published_run(fresh):
    published = load_results(PUBLISHED)

    found = Checks.of(published, fresh, GATES)

    assert [f"{f.trial}: {f.gate.text}: {f.sentence}" for f in found.failed] == []
    assert not found.idle
    # every gate judged every trial that runs; the traced float that is added is new
    assert len(found.findings) == 1 + 15 + 5 * 13


@pytest.mark.slow
def test_it_would_not_pass_with_the_files_of_other_trials(fresh):
    other = load_results(PUBLISHED)
    rows = other.measurements
    int8 = rows["trial"].str.contains("static-int8") & (rows["metric"] == "size_bytes")
    rows.loc[int8, "value"] *= 0.98

    found = Checks.of(other, fresh, GATES)

    assert {f.trial for f in found.failed} == {
        f"digits/{backend}/static-int8/cpu-1" for backend in ("pytorch", "tflite", "onnxruntime")
    }
