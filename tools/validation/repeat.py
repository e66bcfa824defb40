"""Repeat: two complete runs of one experiment; their speed-ups must agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantbench.results import Results

MOST, SHARE = 0.03, 0.95


def check(both: Sequence[Results]) -> dict[str, Any]:
    """The speed-ups that two runs have, cell by cell."""
    one, other = map(_speedups, both)
    shared = one.keys() & other.keys()
    rows = [[*key, one[key], other[key]] for key in shared]
    rows.sort(key=lambda row: row[:2])
    agreeing = sum(abs(other[key] / one[key] - 1) <= MOST for key in shared)
    return {
        "rows": rows, "agreeing": agreeing, "cells": len(rows),
        "reached": bool(rows) and agreeing >= SHARE * len(rows),
    }  # fmt: skip


def _speedups(found: Results) -> dict[tuple[str, str], float]:
    rows = found.measurements.query("metric == 'speedup' and value == value")
    keys = zip(rows["trial"], rows["reference"], strict=True)
    return dict(zip(keys, rows["value"], strict=True))
