"""Twenty random kills of the runner and its workers, with real frameworks: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from quantbench.results import load_results
from tests.harness.test_runner import workers_of

ROOT = Path(__file__).parents[2]
EXPERIMENT = """\
models: [digits]
backends: [pytorch, tflite, onnxruntime]
methods: [fp32, static-int8]
precision: {name: test, generations: 2, max_generations: 2, rounds: 3, warmup_s: 0.05, burst_ms: 5.0, memory_processes: 1}
"""
DETERMINISTIC = ["trial", "status", "stage", "reason", "artifact", "sha256", "parity_max_abs"]


@pytest.mark.long
def test_twenty_random_kills_change_nothing_that_is_deterministic(tmp_path):
    for package in ("torch", "tensorflow", "onnxruntime"):
        pytest.importorskip(package)
    path = tmp_path / "kills.yaml"
    path.write_text(EXPERIMENT)
    command = [Path(sys.executable).parent / "quantbench", "run", path]
    dice = random.Random(20261120)

    def start(where: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "QUANTBENCH_CACHE": str(tmp_path / where / "cache")}
        return subprocess.Popen(
            [*command, "--results", tmp_path / where / "results"],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    kills = 0
    while kills < 20:
        runner = start("killed")
        while kills < 20 and runner.poll() is None:
            time.sleep(dice.uniform(0.5, 4.0))
            workers = workers_of(runner.pid)
            victim = dice.choice([runner.pid, *workers[:1]])
            if runner.poll() is None:
                os.kill(victim, signal.SIGKILL)
                kills += 1
            if victim == runner.pid:
                break
        if kills == 20 and runner.poll() is None:
            runner.kill()
        runner.wait()
        time.sleep(0.2)
        assert workers_of(runner.pid) == [], "no worker is left, not even a stopped one"
        if runner.returncode == 0:
            # finished in spite of the kills: start over to spend the rest of them
            (tmp_path / "killed" / "results").rename(tmp_path / f"done-{kills}")
    assert start("killed").wait(timeout=300) == 0
    assert start("whole").wait(timeout=300) == 0

    killed, whole = (
        load_results(tmp_path / where / "results" / "kills") for where in ("killed", "whole")
    )
    pd.testing.assert_frame_equal(killed.trials[DETERMINISTIC], whole.trials[DETERMINISTIC])
    pd.testing.assert_frame_equal(killed.predictions, whole.predictions)
    deterministic = [
        "quality",
        "quality_drop",
        "agreement",
        "sqnr_db",
        "size_bytes",
        "weight_bytes",
        "integer_macs_fraction",
    ]
    columns = ["trial", "scenario", "metric", "value", "low", "high"]
    first, second = (
        run.measurements[run.measurements["metric"].isin(deterministic)][columns].reset_index(drop=True)
        for run in (killed, whole)
    )  # fmt: skip
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(killed.artifacts, whole.artifacts)
