"""Profile: the worker that tells where the time of an artifact's inference goes, on command.

Like a burst's worker (`quantbench.steps.timed_burst`) it answers one line with one line of JSON. Imports
NumPy and the runtime.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter_ns, process_time_ns
from typing import Any

from quantbench.backend_api import Artifact, Profiler, Runtime, Session, midmean
from quantbench.spec import Array, Target
from quantbench.steps.score import open_inputs
from quantbench.steps.timed_burst import input_cycle, pin_all_threads, warm_up
from quantbench.system import locate

WARMUP_S = 0.1
FEWEST_CALLS, MOST_CALLS = 10, 2000


def serve(
    *, artifact: str, runtime: str, target: Mapping[str, Any], data: str, seconds: float
) -> None:
    """Worker function: load, warm up, say so, then answer ``profile`` and ``quit``.

    An answer has ``call_ns``, an inference without a profiler timed before and after it in
    ``seconds`` together, and ``operations`` (`TimedOperation` as mappings), profiled for as long;
    or ``refusal``, why the runtime cannot tell.
    """
    # frameworks print to standard output; the answers need a pipe of their own
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    opened, where = Artifact.open(Path(artifact)), Target.from_json(target)
    engine: Runtime = locate(runtime)()
    session = engine.load(opened, where, 1)
    cycle = input_cycle(open_inputs(Path(data) / "test", opened), 1)
    warm_up(session, cycle, WARMUP_S)
    pin_all_threads(where.affinity)
    print(json.dumps({"effective": dict(session.effective)}), file=answers)
    for line in sys.stdin:
        if line.split()[0] != "profile":
            break
        if not isinstance(engine, Profiler):
            print(json.dumps({"refusal": f"runtime {engine.name} has no profiler"}), file=answers)
            continue
        alone = where.device == "cpu" and where.threads == 1
        calls = _calls(session, cycle, seconds / 2, alone=alone)
        operations = engine.profile(opened, where, cycle[0], seconds)
        calls += _calls(session, cycle, seconds / 2, alone=alone)
        answer = {
            "call_ns": midmean(calls),
            "operations": [dataclasses.asdict(operation) for operation in operations],
        }
        print(json.dumps(answer), file=answers)


def _calls(
    session: Session, cycle: list[dict[str, Array]], seconds: float, *, alone: bool
) -> list[int]:
    """Nanoseconds of single inferences, for a while.

    ``alone``: the one thread of this process computes, so that wall time above its processor time is
    a neighbour's, who has preempted it; then the processor time is taken. Operators are too short to be
    preempted often.
    """
    calls: list[int] = []
    started = perf_counter_ns()
    while len(calls) < FEWEST_CALLS or (
        len(calls) < MOST_CALLS and perf_counter_ns() - started < seconds * 1e9
    ):
        session.bind(cycle[len(calls) % len(cycle)])
        before, busy = perf_counter_ns(), process_time_ns()
        session.run()
        busy, wall = process_time_ns() - busy, perf_counter_ns() - before
        calls.append(min(wall, busy) if alone else wall)
    return calls
