"""Burst: the worker's half of the clock phase; a warm session timed on command.

The parent writes one line per command to the worker's standard input and reads one JSON line per
answer. Imports NumPy and the runtime, nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import Artifact, Runtime, Session
from quantbench.spec import Array, Target
from quantbench.steps.score import open_inputs, peak_rss_bytes
from quantbench.system import locate

CYCLE = 32  # distinct inputs per burst: one input would hide data-dependent paths
DROPPED = 3  # first calls after a process switch are up to 40 % slower
SHORTEST_SAMPLE_NS = 50_000  # several calls per sample below, so that the timer costs < 0.1 %
MOST_CALLS, FEWEST_CALLS = 500, 10
WARM_WINDOW, WARM_LIMIT_S = 20, 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a burst is laid out: ``samples`` timed samples of ``calls`` calls, after ``dropped``."""

    calls: int
    samples: int
    dropped: int


def plan(call_ns: float, burst_ms: float) -> Plan:
    """The burst of a call that takes ``call_ns``.

    A call longer than the whole burst is one sample, none dropped; else 10 to 500 samples in
    about ``burst_ms``, each of at least 50 microseconds.

    >>> plan(10_000, 50), plan(1e6, 50), plan(60e6, 50)
    (Plan(calls=5, samples=500, dropped=3), Plan(calls=1, samples=50, dropped=3), Plan(calls=1, samples=1, dropped=0))
    """
    if call_ns > burst_ms * 1e6:
        return Plan(1, 1, 0)
    calls = max(1, int(np.ceil(SHORTEST_SAMPLE_NS / call_ns)))
    samples = int(burst_ms * 1e6 / (call_ns * calls))
    return Plan(calls, min(max(samples, FEWEST_CALLS), MOST_CALLS), DROPPED)


def serve(
    *,
    artifact: str,
    runtime: str,
    target: Mapping[str, Any],
    batch_size: int,
    data: str,
    warmup_s: float,
    burst_ms: float,
) -> None:
    """Worker function: load, warm up, say so, then answer ``burst``, ``end-to-end``, ``work SECONDS`` and ``quit``."""
    # frameworks print to standard output; the answers need a pipe of their own
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    opened, where = Artifact.open(Path(artifact)), Target.from_json(target)
    engine: Runtime = locate(runtime)()
    session = engine.load(opened, where, batch_size)
    cycle = input_cycle(open_inputs(Path(data) / "test", opened), batch_size)
    outputs = first_outputs(session, cycle, batch_size)
    call_ns, steady = warm_up(session, cycle, warmup_s)
    layout = plan(call_ns, burst_ms)
    whole = plan(end_to_end_ns(session, cycle, call_ns), burst_ms)
    repeated = repeated_share(session, cycle, call_ns)
    loop = CalibrationLoop()
    loop.run()
    pin_all_threads(where.affinity)
    ready = {
        "call_ns": call_ns,
        "steady": steady,
        "repeated": repeated,
        "effective": dict(session.effective),
        "outputs": {name: array.tolist() for name, array in outputs.items()},
    }
    print(json.dumps(ready), file=answers)
    for line in sys.stdin:
        command, *values = line.split()
        if command == "burst":
            answer = burst(session, cycle, layout, loop)
        elif command == "end-to-end":
            answer = end_to_end(session, cycle, whole)
        elif command == "work":
            answer = work(session, cycle, float(values[0]))
        else:
            break
        print(json.dumps(answer), file=answers)
    print(json.dumps({"peak_rss_bytes": peak_rss_bytes()}), file=answers)


def input_cycle(inputs: Mapping[str, Array], batch_size: int) -> list[dict[str, Array]]:
    """Up to 32 distinct batches of the first test samples, the same for every artifact."""
    count = len(next(iter(inputs.values())))
    batches = max(1, min(CYCLE, count // batch_size))
    index = (np.arange(batches * batch_size) % count).reshape(batches, batch_size)
    return [{name: np.ascontiguousarray(a[rows]) for name, a in inputs.items()} for rows in index]


def first_outputs(
    session: Session, cycle: list[dict[str, Array]], batch_size: int
) -> dict[str, Array]:
    """Outputs of the first batches (at most 32 samples), to compare with what was scored."""
    pieces: dict[str, list[Array]] = {spec.name: [] for spec in session.outputs}
    for inputs in cycle[: max(1, CYCLE // batch_size)]:
        session.bind(inputs)
        session.run()
        for name, array in session.read().items():
            pieces[name].append(array)
    return {name: np.concatenate(parts)[:CYCLE] for name, parts in pieces.items()}


def warm_up(
    session: Session, cycle: list[dict[str, Array]], shortest_s: float
) -> tuple[float, bool]:
    """Run at least 10 calls and ``shortest_s``; from 0.5 s on, until steady or 10 s.

    Steady: medians of the last two windows of 20 calls within 2 %, and no trend in their quartiles
    (each within 5 %, as pyperf asks).

    Returns
    -------
    call_ns : float
        Median time of the last calls.
    steady : bool
        False if the limit ended it (never asked for where ``shortest_s`` is below 0.5).
    """
    times: list[int] = []
    started = time.perf_counter()
    while True:
        session.bind(cycle[len(times) % len(cycle)])
        before = time.perf_counter_ns()
        session.run()
        times.append(time.perf_counter_ns() - before)
        spent = time.perf_counter() - started
        last = float(np.median(times[-WARM_WINDOW:]))
        if spent > WARM_LIMIT_S:
            return last, False
        if len(times) < 10 or spent < shortest_s:
            continue
        if shortest_s < 0.5:
            return last, True
        if len(times) >= 2 * WARM_WINDOW:
            windows = times[-2 * WARM_WINDOW : -WARM_WINDOW], times[-WARM_WINDOW:]
            first, second = (np.percentile(window, (25, 50, 75)) for window in windows)
            if (np.abs(second / first - 1) < (0.05, 0.02, 0.05)).all():
                return last, True


def repeated_share(session: Session, cycle: list[dict[str, Array]], call_ns: float) -> float:
    """Time of calls on one input again and again over that of calls on different ones.

    In blocks of 3 to 10 calls, about 20 ms: different, one, one, different. Far below 1 where
    something caches results. Source: audit TEST04 of MLPerf® Inference, which repeats one query for
    ten minutes (mlcommons/inference 0ff06ce, compliance/TEST04/README.md).
    """
    count = min(max(int(20e6 / call_ns), 3), 10)
    times: tuple[list[int], list[int]] = ([], [])
    for same in (False, True, True, False):
        for i in range(count):
            session.bind(cycle[0 if same else i % len(cycle)])
            before = time.perf_counter_ns()
            session.run()
            times[same].append(time.perf_counter_ns() - before)
    different, one = (float(np.median(known)) for known in times)
    return one / different if different else 1.0


class CalibrationLoop:
    """A fixed integer loop and a fixed 96 x 96 matrix product: sees clock speed and neighbours."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._a, self._b = rng.random((2, 96, 96), dtype=np.float32)
        self._out = np.empty((96, 96), np.float32)

    def run(self) -> int:
        """Nanoseconds of one pass (about 2 ms)."""
        before = time.perf_counter_ns()
        total = 0
        for i in range(15_000):
            total += i
        for _ in range(40):
            np.matmul(self._a, self._b, out=self._out)
        return time.perf_counter_ns() - before


def burst(
    session: Session, cycle: list[dict[str, Array]], layout: Plan, loop: CalibrationLoop
) -> dict[str, Any]:
    """One calibration loop, then the timed samples; inputs are bound between them, untimed.

    ``cpu_ns`` is the processor time, of all threads, that passed during the timed samples alone: what
    is dropped and what binds lie outside of it, as they lie outside of ``nanoseconds``. ``wall_ns``
    is the whole burst's.
    """
    calibration = loop.run()
    started = time.perf_counter_ns()
    for i in range(layout.dropped):
        session.bind(cycle[i % len(cycle)])
        session.run()
    run, clock, processor = session.run, time.perf_counter_ns, time.process_time_ns
    calls = range(layout.calls)
    nanoseconds, cpu = [], 0
    for i in range(layout.samples):
        session.bind(cycle[i % len(cycle)])
        spent = processor()  # outside of the clock: reading it takes most of a microsecond
        before = clock()
        for _ in calls:
            run()
        nanoseconds.append(clock() - before)
        cpu += processor() - spent
    return {
        "calibration": calibration,
        "calls": layout.calls,
        "nanoseconds": nanoseconds,
        "cpu_ns": cpu,
        "wall_ns": time.perf_counter_ns() - started,
    }


def end_to_end_ns(session: Session, cycle: list[dict[str, Array]], call_ns: float) -> float:
    """About how long binding, an inference and reading take together: the median of a few calls."""
    count = min(max(int(20e6 / call_ns), 1), 10)
    return float(np.median(end_to_end(session, cycle, Plan(1, count, 0))["nanoseconds"]))


def end_to_end(session: Session, cycle: list[dict[str, Array]], layout: Plan) -> dict[str, Any]:
    """Samples of whole calls: the task's arrays are bound, run and read, all of it timed."""
    started = time.perf_counter_ns()
    bind, run, read, clock = session.bind, session.run, session.read, time.perf_counter_ns
    length, calls = len(cycle), layout.calls
    for i in range(layout.dropped):
        bind(cycle[i % length])
        run()
        read()
    nanoseconds = []
    for i in range(layout.samples):
        inputs = [cycle[(i * calls + k) % length] for k in range(calls)]
        before = clock()
        for one in inputs:
            bind(one)
            run()
            read()
        nanoseconds.append(clock() - before)
    return {
        "calls": calls,
        "nanoseconds": nanoseconds,
        "wall_ns": time.perf_counter_ns() - started,
    }


def work(session: Session, cycle: list[dict[str, Array]], seconds: float) -> dict[str, Any]:
    """Inferences back to back for a while, inputs bound as in a burst: how many, and how long."""
    started = now = time.perf_counter()
    calls = 0
    while now - started < seconds:
        session.bind(cycle[calls % len(cycle)])
        session.run()
        calls += 1
        now = time.perf_counter()
    return {"calls": calls, "seconds": now - started}


def pin_all_threads(cpus: tuple[int, ...]) -> None:
    """Pin every thread of this process to ``cpus``; nothing where empty."""
    if cpus:
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names only
            os.sched_setaffinity(int(thread), cpus)
