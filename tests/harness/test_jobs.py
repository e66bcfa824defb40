"""Jobs, workers, files and the cache: limits, deaths and atomicity."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time

import pytest

from quantbench.errors import BadInput
from quantbench.execution import Job, run_jobs
from quantbench.execution.process import resident_mb
from quantbench.steps.timed_burst import CalibrationLoop, Plan, plan
from quantbench.system import content_key, filling, source_digest, sweep, write_atomically
from tests.harness import sleeper


def outcome(folder, function, **arguments):
    """The ending of one job."""
    ended = []
    job = Job("one", function, arguments, time_limit_s=arguments.pop("limit", 20.0), memory_mb=500)
    run_jobs([job], folder, lambda job, ending: ended.append(ending) or [], slots=1)
    return ended[0]


def test_a_job_returns_what_its_function_returns(tmp_path):
    found = outcome(tmp_path, math.sqrt, wrong=1)
    assert (found.status, found.value) == ("failed", None)

    assert outcome(tmp_path, json.dumps, obj={"a": 1}).value == '{"a": 1}'


def test_exit_codes_and_signals_are_told_apart(tmp_path):
    left = outcome(tmp_path, os._exit, status=3)
    assert left.status == "crashed"
    assert "exited with code 3" in left.reason

    killed = outcome(tmp_path, sleeper.killed)
    assert killed.killed
    assert "signal 9 (SIGKILL)" in killed.reason


def test_follow_up_jobs_run_and_share_the_slots(tmp_path):
    order = []

    def on_end(job, ending):
        order.append(job.name)
        return [Job("child", os.getpid, {})] if job.name == "a" else []

    run_jobs([Job(n, os.getpid, {}) for n in "ab"], tmp_path, on_end, slots=1)

    assert order == ["a", "child", "b"]


def test_a_worker_dies_with_its_parent_even_when_stopped(tmp_path):
    script = (
        "import sys, time, os, signal; from pathlib import Path; from quantbench.execution import *; from tests.harness import sleeper\n"
        "job = Job('w', sleeper.sleep, {})\n"
        "p = Process(job, Path(sys.argv[1])); time.sleep(0.5)\n"
        "os.kill(p.popen.pid, signal.SIGSTOP); print(p.popen.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    worker = int(parent.stdout.readline())
    assert resident_mb(worker) > 1

    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while resident_mb(worker) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert resident_mb(worker) == 0


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "x.json"
    write_atomically(path, json.dumps([1]))

    with pytest.raises(TypeError):
        write_atomically(path, 7)  # type: ignore[arg-type]
    assert json.loads(path.read_text()) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"], "no temporary file stays"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail():
        with filling(tmp_path / "entry") as folder:
            (folder / "a").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []

    with filling(tmp_path / "entry") as folder:
        (folder / "a").write_text("1")
    assert (tmp_path / "entry" / "a").read_text() == "1"


def test_only_old_half_filled_folders_are_swept(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path))
    for name in ("artifacts/.old", "artifacts/.new", "artifacts/kept"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("artifacts/.old", "artifacts/kept"):
        os.utime(tmp_path / name, (0, 0))

    sweep()

    assert {p.name for p in (tmp_path / "artifacts").iterdir()} == {".new", "kept"}


def test_content_keys_depend_on_content_only():
    assert content_key(a=1, b=[2]) == content_key(b=[2], a=1)
    assert content_key(a=1) != content_key(a=2)


def test_source_digest_of_something_missing_says_so():
    with pytest.raises(BadInput, match=r"no module 'quantbench\.nothing'"):
        source_digest("quantbench.nothing")


@pytest.mark.parametrize(
    ("call_ns", "expected"),
    [
        (1_000, Plan(50, 500, 3)),
        (40_000, Plan(2, 500, 3)),
        (200_000, Plan(1, 250, 3)),
        (20_000_000, Plan(1, 10, 3)),
        (51_000_000, Plan(1, 1, 0)),
    ],
)
def test_a_burst_is_laid_out_by_the_length_of_a_call(call_ns, expected):
    assert plan(call_ns, 50) == expected


def test_the_calibration_loop_takes_time_and_returns_it():
    loop = CalibrationLoop()

    before = time.perf_counter_ns()
    spent = loop.run()

    assert 0 < spent <= time.perf_counter_ns() - before
