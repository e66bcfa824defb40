"""The command, as a user runs it: what it prints, and its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.sample_results import TYPICAL, sample_results

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "quantbench"


def quantbench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_version():
    from quantbench import __version__

    found = quantbench("--version")

    assert (found.returncode, found.stdout) == (0, f"quantbench {__version__}\n")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("experiments", "quickstart"),
        *(
            pytest.param(*pair, marks=pytest.mark.long)
            for pair in (
                ("models", "resnet20"), ("tasks", "cifar10"), ("backends", "onnxruntime"),
                ("methods", "static-int8"), ("targets", "cpu-avx2"),
            )
        ),
    ],
)  # fmt: skip
def test_list_shows_what_an_experiment_can_name(kind, word):
    found = quantbench("list", kind)

    assert found.returncode == 0
    assert word in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 80


def test_dry_run_shows_trials_refusals_and_time_and_runs_nothing(tmp_path):
    found = quantbench(
        "run", "experiments/quickstart.yaml", "--dry-run", "--results", str(tmp_path / "r"),
        "--only", "backend=pytorch",
    )  # fmt: skip

    assert found.returncode == 0
    assert "digits-mobilenet/pytorch/fp32/cpu-1" in found.stdout
    assert "use weight-only-int4" in " ".join(found.stdout.split())
    assert "5 trials, 4 to run, 1 unsupported" in " ".join(found.stdout.split())
    assert not (tmp_path / "r").exists()


def test_a_mistake_in_the_file_is_one_line_and_exit_code_2(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("models: [digits]\nbackends: [tflite]\nmethods: [static-in8]\n")

    found = quantbench("run", str(path))

    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr == (
        f"error: {path}:3: unknown method 'static-in8'. Did you mean 'static-int8'?\n"
    )


def test_an_unknown_option_is_a_usage_error():
    assert quantbench("run", "--nope").returncode == 2


def test_a_report_of_nothing_is_not_comparable(tmp_path):
    found = quantbench("report", str(tmp_path))

    assert found.returncode == 3
    assert "no run at" in found.stderr
    assert "Traceback" not in found.stderr


def test_missing_data_is_a_row_that_says_what_to_download(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("models: [resnet20]\nbackends: [tflite]\nmethods: [fp32]\n")

    found = quantbench(
        "run", str(path), "--results", str(tmp_path / "results"),
        QUANTBENCH_DATA=str(tmp_path / "nowhere"), QUANTBENCH_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip

    assert found.returncode == 1
    assert "failed: resnet20/tflite/fp32/cpu-1:" in found.stdout
    assert "resnet20-12fca82f.th" in found.stdout
    assert "Traceback" not in found.stderr + found.stdout


def test_doctor_names_backends_targets_and_what_is_missing_and_trains_nothing(tmp_path):
    found = quantbench("doctor", QUANTBENCH_DATA="/nonexistent", QUANTBENCH_CACHE=str(tmp_path))

    assert found.returncode == 0
    assert "model cifar-cnn: its weights are made when they are first used" in found.stdout
    assert "making" not in found.stderr
    for word in ("pytorch on cpu-avx2", "tflite on cuda", "model resnet20", "cache"):
        assert word in found.stdout


def test_a_probe_of_an_unknown_backend_or_into_an_odd_file_is_a_usage_error():
    unknown = quantbench("probe", "--backend", "tflit")
    odd = quantbench("probe", "--output", "matrix.txt")
    none = quantbench("probe", "--check", "nowhere.md")

    assert unknown.returncode == odd.returncode == none.returncode == 2
    assert unknown.stderr == "error: unknown backend 'tflit'. Did you mean 'tflite'?\n"
    assert "neither a .md nor a .json" in odd.stderr
    assert "write it with 'quantbench probe --output nowhere.md'" in none.stderr


def test_help_has_examples():
    assert "quantbench run quickstart" in quantbench("run", "--help").stdout
    assert "quantbench probe --check docs/capabilities.md" in quantbench("probe", "--help").stdout


@pytest.mark.long
def test_a_report_with_figures_names_every_file_it_writes(tmp_path):
    sample_results(tmp_path / "run", TYPICAL[:1])

    found = quantbench("report", str(tmp_path / "run"), "--figures", str(tmp_path / "slides"))

    assert found.returncode == 0
    named = [line.partition(": ")[2] for line in found.stdout.splitlines()]
    assert sorted(named[1:]) == sorted(map(str, (tmp_path / "slides").iterdir()))
    assert named[0] == str(tmp_path / "run" / "report.html")
    assert len(named) > 2
