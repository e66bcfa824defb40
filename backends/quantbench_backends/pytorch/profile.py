"""Profile: the time of each operator in PyTorch, as torch.profiler shows it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from quantbench.backend_api import Artifact, TimedOperation, named, typical
from quantbench.errors import NotProfiled
from quantbench.spec import Arrays, Target
from quantbench_backends.pytorch import executed_operations, routes, session

WARM_UP, FEWEST, MOST = 5, 5, 100
MANY = 20
"""Operators that one calls in turn, from which on it is said: a loop over steps, say."""
GENERATED, INDUCTOR = "generated code", "inductor"
_CALL = "quantbench::call"

Part = tuple[str, int]
"""An operator's type, and how many operators it calls in turn."""


def profile(
    artifact: Artifact, target: Target, inputs: Arrays, seconds: float
) -> tuple[TimedOperation, ...]:
    """See `quantbench.backend_api.protocol.Profiler.profile`.

    An operator's time is with all that it calls in turn. What TorchScript and Python take between
    operators is nobody's; in compiled code, it cannot be told from what inductor generated.
    """
    if target.device != "cpu":
        raise NotProfiled("operators are profiled on a CPU only; use a cpu target")
    record = executed_operations.operations(artifact, target, inputs)
    loaded = session.load(artifact, target, 1)
    loaded.bind(inputs)
    for _ in range(WARM_UP):
        loaded.run()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        calls, started = 0, time.perf_counter()
        while calls < FEWEST or (calls < MOST and time.perf_counter() - started < seconds):
            with record_function(_CALL):
                loaded.run()
            calls += 1
    engines = {operation.kind: operation.engine for operation in record}
    compiled = routes.of(artifact).compiled
    durations = [
        list(_operators(event, engines, compiled=compiled))
        for event in profiler.events()
        if event.name == _CALL
    ]
    timed = tuple(
        TimedOperation(
            name=GENERATED if kind == INDUCTOR else "",
            kind=kind,
            engine=engines.get(kind, kind.partition("::")[0]),
            count=count,
            nanoseconds=nanoseconds,
            kernel=f"calls {parts} operators" if parts >= MANY else "",
        )
        for (kind, parts), count, nanoseconds in typical(durations)
    )
    return named(timed, record)


def _operators(
    call: Any, engines: Mapping[str, str], *, compiled: bool
) -> Iterator[tuple[Part, float]]:
    """The operators of one call in their order, each with its nanoseconds.

    One that the record knows is taken whole. One around such operators has what is left of its time.
    """
    whole, told = 1000.0 * call.time_range.elapsed_us(), 0.0
    for event in call.cpu_children:
        for part, nanoseconds in _inside(event, engines):
            told += nanoseconds
            yield part, nanoseconds
    if compiled:
        yield (INDUCTOR, 0), max(0.0, whole - told)


def _inside(event: Any, engines: Mapping[str, str]) -> Iterator[tuple[Part, float]]:
    operator = "::" in event.name  # else a module, or a region of compiled code
    if operator and (event.name in engines or not _holds(event, engines)):
        yield (event.name, _calls(event)), 1000.0 * event.time_range.elapsed_us()
        return
    if operator:
        yield (event.name, 0), 1000.0 * float(event.self_cpu_time_total)
    for child in event.cpu_children:
        yield from _inside(child, engines)


def _calls(event: Any) -> int:
    return sum(1 + _calls(child) for child in event.cpu_children)


def _holds(event: Any, engines: Mapping[str, str]) -> bool:
    return any(c.name in engines or _holds(c, engines) for c in event.cpu_children)
