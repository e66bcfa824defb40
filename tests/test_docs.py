"""The texts: numbers are those of the published runs, and what they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import QuantbenchError
from harness.experiment import Experiment
from harness.results import FAILURES, SCHEMAS, load_results

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLISHED = sorted(path.parent for path in (ROOT / "results" / "reference").glob("*/run.json"))


def test_the_numbers_in_the_texts_are_those_of_the_published_runs():
    found = subprocess.run(
        [sys.executable, "docs/figures.py", "check"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert found.returncode == 0, found.stderr


def test_a_changed_number_is_noticed(tmp_path):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import figures
    finally:
        sys.path.pop(0)
    text = (ROOT / "README.md").read_text()

    changed = text.replace("| onnxruntime | fp32 |", "| onnxruntime | fp32! |")

    assert changed != text
    assert figures.filled(changed) == text


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_and_files_named_exist(path):
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_experiment_file_is_valid(path):
    assert Experiment.load(path).trials


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_a_published_run_is_whole_and_without_failures(folder):
    found = load_results(folder)

    assert not found.trials["status"].isin(FAILURES).any()
    assert all(len(getattr(found, name)) for name in SCHEMAS if name != "training")
    assert (folder / "report.html").exists()


def test_both_published_runs_are_there():
    assert [path.name for path in PUBLISHED] == ["quickstart", "resnet20_cifar10"]


def test_every_module_is_in_the_architecture_page():
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = {path.name for path in (ROOT / "harness").glob("*.py")} - {"__init__.py"}

    assert {name for name in modules if f"`{name}`" not in text} == set()


def test_the_example_in_the_readme_is_a_valid_experiment(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(block[1])

    try:
        assert len(Experiment.load(path).trials) == 9
    except QuantbenchError as error:
        pytest.fail(str(error))
