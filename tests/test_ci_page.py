"""docs/ci.md: its files are valid, its commands exist, and its job does what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML

from quantbench.analysis import gates
from quantbench.cli.app import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "ci.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
EXPERIMENT, GATES, WORKFLOW = (text for kind, text in BLOCKS if kind == "yaml")
BASELINE, EXAMPLES = (text for kind, text in BLOCKS if kind == "bash")
(TESTS,) = (text for kind, text in BLOCKS if kind == "python")
pytest_plugins = ["pytester"]
STEPS = YAML(typ="safe").load(WORKFLOW)["jobs"]["quantized"]["steps"]
COMMANDS = [
    line.partition(" #")[0].strip()
    for script in (BASELINE, EXAMPLES, *(step.get("run", "") for step in STEPS))
    for line in script.splitlines()
    if line.startswith(("quantbench ", "pytest "))
]
INSTALLED = any(
    point.value == "quantbench.testing.pytest_plugin"
    for point in metadata.entry_points(group="pytest11")
)
PLUGIN = () if INSTALLED else ("-p", "quantbench.testing.pytest_plugin")


def test_the_job_uses_actions_of_a_pinned_major_version():
    used = [step["uses"] for step in STEPS if "uses" in step]

    assert len(used) == 4
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used)
    assert all(("uses" in step) != ("run" in step) for step in STEPS)


def test_the_page_names_every_command_of_the_job():
    assert {shlex.split(line)[0] for line in COMMANDS} == {"quantbench", "pytest"}
    assert len(COMMANDS) == 9


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("quantbench")])
def test_every_quantbench_command_parses(line):
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(app).commands[name]

    given, left, _ = command.make_parser(command.context_class(command)).parse_args(arguments)

    assert given
    assert not left


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("pytest")])
def test_every_pytest_command_parses(line, pytester):
    found = pytester.parseconfig(*PLUGIN, *shlex.split(line)[1:])

    assert found.getoption("quantbench") == ["quantized.yaml"]


def test_the_gates_are_gates(tmp_path):
    (tmp_path / "gates.yaml").write_text(GATES)

    assert len(gates.read(tmp_path / "gates.yaml")) == 6


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the files of the page, and its baseline; timing is cut short."""
    folder = tmp_path_factory.mktemp("clone")
    short = "{name: short, generations: 1, max_generations: 1, rounds: 6, warmup_s: 0.05, memory_processes: 1}"
    (folder / "quantized.yaml").write_text(EXPERIMENT.replace("preview", short))
    (folder / "gates.yaml").write_text(GATES)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_quantized.py").write_text(TESTS)
    (folder / "bin").mkdir()
    for name, command in (
        ("quantbench", "-c 'from quantbench.cli.app import main; main()'"),
        ("pytest", f"-m pytest -p no:anyio -p no:cacheprovider {' '.join(PLUGIN)}"),
    ):
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        path.chmod(0o755)
    done = shell(BASELINE, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A step as GitHub runs it."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    return subprocess.run(
        ["/bin/bash", "-e", "-c", script], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_the_job_runs_in_a_fresh_clone(clone):
    for step in STEPS:
        if step.get("name") in ("Install", "Comment") or "run" not in step:
            continue
        done = shell(step["run"], clone)
        assert done.returncode == 0, f"{step['name']}: {done.stdout}{done.stderr}"
        if step["name"] == "Tests":
            assert "4 passed" in done.stdout

    kept = next(step for step in STEPS if step.get("name") == "Keep")["with"]["path"].split()
    assert all(list(clone.glob(pattern)) for pattern in kept)
    assert (
        "digits" in (clone / "summary.md").read_text()
        or "gates" in (clone / "summary.md").read_text()
    )
