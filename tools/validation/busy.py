"""Busy: ratios while something else starts and stops on the same core, and one after the other."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from quantbench.results import Results
from quantbench.runs import Generation, log_times, run_comparison, run_generation
from quantbench.spec import PRECISIONS
from tools.validation.contenders import comparison, speedup, target

MOST, HELD = 0.03, 0.2
"""Largest change of a ratio, and the share of the core that the neighbour must have had."""
TRIALS = {
    "fp32": "resnet20/tflite/fp32/cpu-1",
    "static-int8": "resnet20/tflite/static-int8/cpu-1",
    "onnxruntime static-int8": "resnet20/onnxruntime/static-int8/cpu-1",
}
NEIGHBOUR = """
import random, time
draw = random.Random(0)
while True:
    end = time.perf_counter() + draw.uniform(0.05, 2.0)
    while time.perf_counter() < end:
        pass
    time.sleep(draw.uniform(0.05, 2.0))
"""


@contextlib.contextmanager
def neighbour() -> Iterator[Callable[[], float]]:
    """A loop that holds the measured core for random times; yields how much of the time it had it."""
    core = ",".join(map(str, target().affinity))
    command = ["taskset", "-c", core, sys.executable, "-c", NEIGHBOUR]
    with subprocess.Popen(command) as process:  # noqa: S603 - ours
        started, loop = time.monotonic(), psutil.Process(process.pid)
        try:
            yield lambda: loop.cpu_times().user / (time.monotonic() - started)
        finally:
            process.kill()


def check(run: Results) -> dict[str, Any]:
    """Quiet, busy and interleaved, busy and one after the other: the same ratios each time."""
    quiet = interleaved(run)
    with neighbour() as share:
        busy = interleaved(run)
        one_after_the_other = [sequential(run, seed) for seed in range(5)]
        held = share()
    moved = {name: abs(busy[name] / quiet[name] - 1) for name in quiet}
    return {
        "trials": TRIALS, "quiet": quiet, "busy": busy, "moved": moved,
        "sequential": {name: [found[name] for found in one_after_the_other] for name in quiet},
        "held": held, "reached": max(moved.values()) <= MOST and held >= HELD,
    }  # fmt: skip


def interleaved(run: Results) -> dict[str, float]:
    """Speed-ups over the reference by the protocol."""
    precision = PRECISIONS["standard"]
    compared = comparison(run, TRIALS, precision)
    with tempfile.TemporaryDirectory() as folder:
        generations = run_comparison(compared, precision, 0, Path(folder), Path(folder))
    names = list(TRIALS)[1:]
    return {name: speedup(compared, generations, name).value for name in names}


def sequential(run: Results, seed: int) -> dict[str, float]:
    """Speed-ups of artifacts that are timed one after the other, each in its own process."""
    precision = PRECISIONS["preview"]
    times = {}
    for name, trial in TRIALS.items():
        alone = comparison(run, {name: trial}, precision)
        with tempfile.TemporaryDirectory() as folder:
            generation = run_generation(alone, [name], 0, precision, seed, Path(folder))
        times[name] = _median([generation], name)
    reference = next(iter(times))
    return {name: times[reference] / t for name, t in times.items() if name != reference}


def _median(generations: Sequence[Generation], name: str) -> float:
    rounds = [value for g in log_times(generations)[name] for value in g.values()]
    return float(np.exp(np.median(rounds)))
