"""Start: memory, load time and first inference, over fresh processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from quantbench.runs.assembly.trial_state import Row, View
from quantbench.runs.store import Store

_POINTS = ("imports", "load", "run")
_SHARES = ("pss", "pss_anon", "pss_file", "private_dirty")
UNITS: Mapping[str, tuple[str, str]] = {
    "peak_rss_bytes": ("memory", "byte"),
    "model_rss_bytes": ("memory", "byte"),
    "runtime_rss_bytes": ("memory", "byte"),
    "load_peak_rss_bytes": ("memory", "byte"),
    "run_peak_rss_bytes": ("memory", "byte"),
    **{f"{point}_{share}_bytes": ("memory", "byte") for point in _POINTS for share in _SHARES},
    "load_ms": ("start", "ms"),
    "first_inference_ms": ("start", "ms"),
}
"""Scenario and unit of what is observed in a starting process."""


def start_up(views: Iterable[View], store: Store) -> list[Row]:
    """A row per metric of `UNITS`: the median over fresh processes, and their range."""
    rows = []
    for view in views:
        state = store.get("start", view.id)
        if state is None:
            continue
        seen = state["observed"]
        for metric, (scenario, unit) in UNITS.items():
            row: Row = {"trial": view.id, "scenario": scenario, "metric": metric, "unit": unit}
            values = [observed[metric] for observed in seen if metric in observed]
            if values:
                row |= {"value": float(np.median(values)), "n": len(values)}
                row |= {"low": min(values), "high": max(values)} if len(values) > 1 else {}
                if not all(observed["reset"] for observed in seen):
                    row["reason"] = "the kernel does not reset the peak: imports are included"
            elif seen:
                row["reason"] = "the kernel has no /proc/self/smaps_rollup"
            else:
                row["reason"] = f"{state['status']}: {state['reason']}"
            rows.append(row)
    return rows
