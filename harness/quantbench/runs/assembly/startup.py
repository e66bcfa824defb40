"""Start: memory, load time and first inference, over fresh processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from quantbench.results import Measurement, Results
from quantbench.runs.assembly.readings import FAILURE
from quantbench.spec import Scenario

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


def start_up(results: Results) -> list[Measurement]:
    """A row per metric of `UNITS`: the median over fresh processes, and their range."""
    rows = []
    known = results.readings[results.readings["scenario"] == Scenario.START]
    for trial, own in known.groupby("trial", sort=False):
        failed = own.loc[own["reading"] == FAILURE, "text"]
        seen = {str(name): found["value"].to_numpy() for name, found in own.groupby("reading")}
        for metric, (scenario, unit) in UNITS.items():
            row = Measurement(trial=str(trial), scenario=scenario, metric=metric, unit=unit)
            values = seen.get(metric)
            if values is not None:
                row = replace(row, value=float(np.median(values)), n=len(values))
                if len(values) > 1:
                    row = replace(row, low=float(min(values)), high=float(max(values)))
                if not seen["reset"].all():
                    why = "the kernel does not reset the peak: imports are included"
                    row = replace(row, reason=why)
            elif len(failed):
                row = replace(row, reason=str(failed.iloc[0]))
            else:
                row = replace(row, reason="the kernel has no /proc/self/smaps_rollup")
            rows.append(row)
    return rows
