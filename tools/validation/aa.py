"""A/A: one artifact under two names; its interval must hold 1 as often as it says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from quantbench.results import Results
from quantbench.runs import run_comparison
from quantbench.spec import PRECISIONS
from tools.validation.contenders import comparison, speedup

SEEDS = 50
FEWEST = 44
"""Of `SEEDS` intervals of 95 %, fewer than these hold the truth once in 100 validations."""
WIDEST = 0.02
TRIAL = "resnet20/tflite/static-int8/cpu-1"


def check(run: Results, seeds: int = SEEDS) -> dict[str, Any]:
    """Time the artifact against itself, once for each seed."""
    precision = PRECISIONS["preview"]
    compared = comparison(run, {"first": TRIAL, "second": TRIAL}, precision)
    rows = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            generations = run_comparison(compared, precision, seed, Path(folder), Path(folder))
        found = speedup(compared, generations, "second")
        rows.append([found.value, found.low, found.high])
        print(f"A/A {seed + 1} of {seeds}: {found.value:.4f} [{found.low:.4f}, {found.high:.4f}]")
    held = sum(low <= 1 <= high for _, low, high in rows)
    width = median((high - low) / 2 / value for value, low, high in rows)
    return {
        "trial": TRIAL, "rows": rows, "held": held, "half_width": width,
        "reached": held >= FEWEST * seeds / SEEDS and width <= WIDEST,
    }  # fmt: skip
