"""Score: an artifact's outputs over the test split, and what its runtime really executes.

The worker's half imports NumPy and the runtime only; metrics are computed by the parent.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import Artifact, Runtime, Session
from quantbench.errors import BadInput
from quantbench.spec import Array, Target, open_arrays, save_arrays
from quantbench.system import filling, locate

SUMMARY = "score.json"


def score(
    *,
    artifact: str,
    runtime: str,
    target: Mapping[str, Any],
    batch_size: int,
    data: str,
    split: str,
    folder: str,
) -> dict[str, Any]:
    """Worker function: run every sample of a split; write outputs, return a summary.

    Returns
    -------
    dict
        ``samples``, ``seconds``, ``call_ns`` (median of all calls, one process: orientation only),
        ``effective``, ``operations``, ``peak_rss_bytes``.
    """
    opened = Artifact.open(Path(artifact))
    where = Target.from_json(target)
    engine: Runtime = locate(runtime)()
    inputs = open_inputs(Path(data) / split, opened)
    session = engine.load(opened, where, batch_size)
    started = time.perf_counter()
    outputs, calls = run_all(session, inputs, batch_size)
    seconds = time.perf_counter() - started
    first = {name: np.ascontiguousarray(array[:1]) for name, array in inputs.items()}
    operations = engine.operations(opened, where, first)
    summary = {
        "samples": len(next(iter(inputs.values()))),
        "seconds": seconds,
        "call_ns": float(np.median(calls)),
        "effective": dict(session.effective),
        "operations": [dataclasses.asdict(op) for op in operations],
        "peak_rss_bytes": peak_rss_bytes(),
    }
    with filling(Path(folder)) as temporary:
        save_arrays(temporary, outputs)
        (temporary / SUMMARY).write_text(json.dumps(summary), encoding="utf-8")
    return summary


def open_inputs(folder: Path, artifact: Artifact) -> dict[str, Array]:
    """The split's input arrays, memory-mapped."""
    return open_arrays(folder, [spec.name for spec in artifact.task_inputs])


def run_all(
    session: Session, inputs: Mapping[str, Array], batch_size: int
) -> tuple[dict[str, Array], list[int]]:
    """Outputs for all samples in order, and nanoseconds per call.

    The last batch is filled up by repeating its last sample; the filling is cut off again.
    """
    count = len(next(iter(inputs.values())))
    if count == 0:
        raise BadInput("the test split is empty")
    pieces: dict[str, list[Array]] = {spec.name: [] for spec in session.outputs}
    calls = []
    for start in range(0, count, batch_size):
        index = np.minimum(np.arange(start, start + batch_size), count - 1)
        session.bind({name: np.ascontiguousarray(array[index]) for name, array in inputs.items()})
        before = time.perf_counter_ns()
        session.run()
        calls.append(time.perf_counter_ns() - before)
        kept = min(batch_size, count - start)
        for name, array in session.read().items():
            pieces[name].append(array[:kept])
    return {name: np.concatenate(parts) for name, parts in pieces.items()}, calls


def peak_rss_bytes() -> int:
    """High-water mark of this process's resident memory (VmHWM; never ``ru_maxrss``)."""
    return status_bytes("VmHWM")


def status_bytes(field: str) -> int:
    """A memory field of ``/proc/self/status`` in bytes; 0 where the kernel has none."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
