"""Calibration: which samples artifacts were calibrated with, once for each distinct choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from quantbench.results import Results, TrialRow, rows
from quantbench.runs.assembly.trial_state import Row, View
from quantbench.runs.states import Built
from quantbench.runs.store import Store
from quantbench.spec import Draw
from quantbench.steps import draw, split_samples
from quantbench.system import entry


def calibration(views: Iterable[View]) -> list[Row]:
    """Rows of ``calibration.parquet``: what the workers recorded that built the artifacts."""
    return _rows(
        (view.id, view.cell.model.task, view.cell.trial.method.seed, _draw(recorded))
        for view in views
        if (recorded := view.built.record.get("calibration"))
    )


def drawn_again(results: Results, store: Store) -> list[Row]:
    """The same of a run whose workers recorded nothing, as its seeds choose again.

    Only where the data are still in the cache, which tell how many samples there were to choose
    from, and NumPy is the one that chose: its streams of random numbers may change with its version.
    """
    if (results.machine.get("packages") or {}).get("numpy") != np.__version__:
        return []
    return _rows(
        (trial.trial, trial.task, trial.seed, Draw(count, _indices(count, samples, trial.seed)))
        for trial in rows(TrialRow, results.trials)
        if (samples := int(trial.axes["samples"] or 0))
        and (built := store.get(Built, trial.trial)) is not None
        and (data := built.inputs.get("data"))
        and (count := split_samples(entry("data", data), "calibration"))
    )


def _indices(count: int, samples: int, seed: int) -> tuple[int, ...]:
    return tuple(draw(count, samples, seed).tolist())


def _draw(recorded: Mapping[str, Any]) -> Draw:
    return Draw(int(recorded["split_samples"]), tuple(recorded["samples"]))


def _rows(known: Iterable[tuple[str, str, int, Draw]]) -> list[Row]:
    """One row for each choice of samples of a task, with all trials that were given it."""
    owners: dict[tuple[str, int, Draw], list[str]] = {}
    for trial, task, seed, chosen in known:
        owners.setdefault((task, seed, chosen), []).append(trial)
    return [
        {
            "trials": trials, "task": task, "seed": seed, "split_samples": chosen.split_samples,
            "samples": list(chosen.samples),
        }
        for (task, seed, chosen), trials in owners.items()
    ]  # fmt: skip
