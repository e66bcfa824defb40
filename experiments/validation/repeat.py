"""Repeat: two complete runs of one experiment; their speed-ups must agree."""

from __future__ import annotations

from typing import Any

from harness.results import Results

MOST, SHARE = 0.03, 0.95


def check(first: Results, second: Results) -> dict[str, Any]:
    """The speed-ups that both runs have, cell by cell."""
    one, other = _speedups(first), _speedups(second)
    rows = [
        [trial, reference, one[trial, reference], other[trial, reference]]
        for trial, reference in one.keys() & other.keys()
    ]
    rows.sort()
    agreeing = sum(abs(b / a - 1) <= MOST for _, _, a, b in rows)
    return {
        "rows": rows, "agreeing": agreeing, "cells": len(rows),
        "reached": bool(rows) and agreeing >= SHARE * len(rows),
    }  # fmt: skip


def _speedups(found: Results) -> dict[tuple[str, str], float]:
    rows = found.measurements.query("metric == 'speedup' and value == value")
    keys = zip(rows["trial"], rows["reference"], strict=True)
    return dict(zip(keys, rows["value"], strict=True))
