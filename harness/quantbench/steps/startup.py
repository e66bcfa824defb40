"""Start-up: memory, load time and first inference of an artifact in a fresh process, never the timed one."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import Artifact
from quantbench.spec import Target
from quantbench.steps.score import open_inputs, status_bytes
from quantbench.system import locate

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
        ``runtime_rss_bytes``: resident after the imports; ``load_peak_rss_bytes``,
        ``run_peak_rss_bytes``: high-water marks of loading and of up to 50 runs;
        ``peak_rss_bytes``: the largest of the three; ``model_rss_bytes``: that minus the first;
        ``load_ms``; ``first_inference_ms``; ``reset``: whether the kernel let the mark be reset
        (else the peak covers the imports too). And, after imports, load and runs, what the kernel
        tells of the mappings: ``{imports,load,run}_{pss,pss_anon,pss_file,private_dirty}_bytes``;
        none of them where it tells nothing.
    """
    for module in modules:
        importlib.import_module(module)
    engine, opened, where = (
        locate(runtime)(),
        Artifact.open(Path(artifact)),
        Target.from_json(target),
    )
    arrays = open_inputs(Path(data) / "test", opened)
    count = len(next(iter(arrays.values())))
    batch = {
        name: np.ascontiguousarray(array[np.arange(batch_size) % count])
        for name, array in arrays.items()
    }
    before, shares = status_bytes("VmRSS"), {"imports": _smaps()}
    reset = _reset_peak()
    started = time.perf_counter_ns()
    session = engine.load(opened, where, batch_size)
    loaded = time.perf_counter_ns()
    load_peak, shares["load"] = status_bytes("VmHWM"), _smaps()
    _reset_peak()
    session.bind(batch)
    bound = time.perf_counter_ns()
    session.run()
    first = time.perf_counter_ns()
    for _ in range(RUNS - 1):
        if time.perf_counter_ns() - first > RUN_LIMIT_S * 1e9:
            break
        session.run()
    run_peak, shares["run"] = status_bytes("VmHWM"), _smaps()
    peak = max(load_peak, run_peak, before)
    dict(session.effective)  # raises where a setting of the target did not take effect
    return {
        "runtime_rss_bytes": before,
        "peak_rss_bytes": peak,
        "model_rss_bytes": peak - before,
        "load_peak_rss_bytes": load_peak,
        "run_peak_rss_bytes": run_peak,
        **{f"{point}_{name}": n for point, known in shares.items() for name, n in known.items()},
        "load_ms": (loaded - started) / 1e6,
        "first_inference_ms": (first - bound) / 1e6,
        "reset": reset,
    }


_MAPPED = ("Pss", "Pss_Anon", "Pss_File", "Private_Dirty")


def _smaps() -> dict[str, int]:
    """Shares of the mappings in bytes, from ``/proc/self/smaps_rollup``.

    Weights that are mapped from a file are in ``pss_file_bytes``; what was copied to the heap or
    to an arena in ``pss_anon_bytes`` and ``private_dirty_bytes``.
    """
    try:
        text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.splitlines())
    known = {key: value.split()[0] for key, _, value in lines if key in _MAPPED}
    return {f"{name.lower()}_bytes": 1024 * int(kb) for name, kb in known.items()}


def _reset_peak() -> bool:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return True
    return False
