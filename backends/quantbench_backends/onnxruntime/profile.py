"""Profile: the time of each operator in ONNX Runtime, from the profile that it writes of its own."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantbench.backend_api import Artifact, TimedOperation, midmean
from quantbench.errors import NotProfiled
from quantbench.spec import Arrays, Target
from quantbench_backends.onnxruntime import session

WARM_UP, FEWEST, MOST = 5, 5, 500
MOST_EVENTS = 500_000
"""ONNX Runtime drops what comes after a million events, of which each operator has one to three."""
_CALL, _OPERATOR = "model_run", "_kernel_time"
_CLOCK_NS = 1000  # durations are whole microseconds, rounded down


def profile(
    artifact: Artifact, target: Target, inputs: Arrays, seconds: float
) -> tuple[TimedOperation, ...]:
    """See `quantbench.backend_api.protocol.Profiler.profile`.

    The session is the one that is timed, its weights packed. ONNX Runtime rounds each duration down
    to microseconds: half a microsecond a call, the mean of what that takes away, is added.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = session.options(target)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        opened = session.open_file(artifact, target, options)
        called = session.OnnxSession(artifact, opened, target.device, 1, {})
        called.bind(inputs)
        calls, started = 0, time.perf_counter()
        # the first calls take the shape of memory, and write more than later ones
        while calls < WARM_UP + FEWEST or (
            calls < MOST and time.perf_counter() - started < seconds
        ):
            called.run()
            calls += 1
        events = json.loads(Path(opened.end_profiling()).read_text(encoding="utf-8"))
    if len(events) > MOST_EVENTS:
        raise NotProfiled(
            f"ONNX Runtime noted {len(events):,} events and may have dropped some; "
            "profile for fewer seconds"
        )
    return timed(events)


def timed(events: Sequence[Mapping[str, Any]]) -> tuple[TimedOperation, ...]:
    """The operators of one inference, from the events of many; the first calls are left out."""
    runs = sorted(event["ts"] for event in events if event["name"] == _CALL)[WARM_UP:]
    if not runs:
        raise NotProfiled("ONNX Runtime's profile has no calls after the warm-up")
    begin, arguments, durations = runs[0], {}, defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_OPERATOR) and event["ts"] >= begin:
            arguments[event["name"]] = event["args"]
            durations[event["name"]].append(1000 * event["dur"] + _CLOCK_NS / 2)
    return tuple(
        TimedOperation(
            name=name.removesuffix(_OPERATOR),
            kind=told["op_name"],
            engine=told["provider"],
            count=max(1, round(len(durations[name]) / len(runs))),
            nanoseconds=midmean(durations[name]) * len(durations[name]) / len(runs),
        )
        for name, told in arguments.items()
    )
