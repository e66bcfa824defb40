"""Start-up: memory, load time and first inference of an artifact in a fresh process, never the timed one."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.protocol import Artifact
from harness.score import load_runtime, open_inputs, status_bytes
from harness.target import Target

RUNS = 50
RUN_LIMIT_S = 2.0


def start(
    *,
    artifact: str,
    runtime: str,
    modules: list[str],
    target: Mapping[str, Any],
    batch_size: int,
    data: str,
) -> dict[str, int | float | bool]:
    """Worker function: import the runtime, load, run; memory and times of each step.

    Returns
    -------
    dict
        ``runtime_rss_bytes``: resident after the imports; ``peak_rss_bytes``: high-water mark of
        loading and up to 50 runs; ``model_rss_bytes``: their difference; ``load_ms``;
        ``first_inference_ms``; ``reset``: whether the kernel let the mark be reset (else the peak
        covers the imports too).
    """
    for module in modules:
        importlib.import_module(module)
    engine, opened, where = (
        load_runtime(runtime),
        Artifact.open(Path(artifact)),
        Target.from_json(target),
    )
    arrays = open_inputs(Path(data) / "test", opened)
    count = len(next(iter(arrays.values())))
    batch = {
        name: np.ascontiguousarray(array[np.arange(batch_size) % count])
        for name, array in arrays.items()
    }
    before = status_bytes("VmRSS")
    reset = _reset_peak()
    started = time.perf_counter_ns()
    session = engine.load(opened, where, batch_size)
    loaded = time.perf_counter_ns()
    session.bind(batch)
    bound = time.perf_counter_ns()
    session.run()
    first = time.perf_counter_ns()
    for _ in range(RUNS - 1):
        if time.perf_counter_ns() - first > RUN_LIMIT_S * 1e9:
            break
        session.run()
    peak = max(status_bytes("VmHWM"), before)
    return {
        "runtime_rss_bytes": before,
        "peak_rss_bytes": peak,
        "model_rss_bytes": peak - before,
        "load_ms": (loaded - started) / 1e6,
        "first_inference_ms": (first - bound) / 1e6,
        "reset": reset,
    }


def _reset_peak() -> bool:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return True
    return False
