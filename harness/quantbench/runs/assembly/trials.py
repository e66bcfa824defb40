"""Trials: a row for each, whatever became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantbench.backend_api import PRESET, WEIGHT, Record, is_narrow
from quantbench.experiment import Experiment
from quantbench.runs.assembly import doubts
from quantbench.runs.assembly.trial_state import Row, View
from quantbench.runs.comparison import Comparison
from quantbench.runs.interleaved_timing import Generation, too_slow
from quantbench.runs.store import Store
from quantbench.spec import AXES, LISTS, Flag, Stage, Status, target_warnings

REPEATED = 0.9
"""One input again and again takes at most 10 % less time than different ones, or results are cached.

Source: audit TEST04 of MLPerf® Inference (mlcommons/inference 0ff06ce, compliance/TEST04/README.md)."""


@dataclass(frozen=True, slots=True)
class Clocked:
    """What the clock phase says of trials: the generations of each comparison, and their flags."""

    compared: Sequence[Comparison]
    timed: Mapping[str, Sequence[Generation]]
    doubtful: Mapping[str, Mapping[str, set[str]]]

    @classmethod
    def of(
        cls, compared: Sequence[Comparison], timed: Mapping[str, Sequence[Generation]]
    ) -> Clocked:
        """With the flags of `quantbench.runs.assembly.doubts`."""
        return cls(compared, timed, {c.id: doubts.flags(c, timed[c.id]) for c in compared})

    def failure(self, trial: str) -> tuple[str, str] | None:
        """Status and reason of a trial that failed while it was timed."""
        for comparison in reversed(self.compared):
            for generation in self.timed[comparison.id]:
                if trial in generation.failures:
                    return generation.failures[trial]
        return None

    def flags(self, view: View) -> set[str]:
        """What makes the times of a trial doubtful, in words of the glossary."""
        found: set[str] = set()
        for comparison in self.compared:
            generations = self.timed[comparison.id]
            ready = [g.ready[view.id] for g in generations if view.id in g.ready]
            if not ready:
                continue
            found |= self.doubtful[comparison.id].get(view.id, set())
            if view.id in too_slow(comparison, generations):
                found.add(Flag.SLOWER_THAN_10X)
            if not all(worker["steady"] for worker in ready):
                found.add(Flag.NOT_STEADY)
            if np.median([worker["repeated"] for worker in ready]) < REPEATED:
                found.add(Flag.CACHES_INPUTS)
            if not all(_same_outputs(view, worker["outputs"]) for worker in ready):
                found.add(f"{Flag.OUTPUTS_DIFFER}-at-batch-{comparison.batch_sizes[view.id]}")
        return found


def trial_row(
    view: View, experiment: Experiment, store: Store, machine: Mapping[str, Any], clocked: Clocked
) -> Row:
    """The row of ``trials.parquet``; ``machine``: as in ``machine.json``."""
    trial, method, target = view.cell.trial, view.cell.trial.method, view.cell.trial.target
    last = view.scored or view.built
    status, stage, reason = str(last.status), last.stage, last.reason
    if status == Status.OK:
        stage = Stage.CLOCK
        status, reason = clocked.failure(trial.id) or (Status.OK, "")
    parity = view.parity()
    summary = view.scored.summary if view.scored is not None else {}
    return {
        "run": store.folder.name,
        "trial": trial.id,
        "experiment": experiment.name,
        "model": trial.model,
        "task": view.cell.model.task,
        "backend": trial.backend,
        "method": method.name,
        "label": trial.label,
        **{axis: getattr(method, axis) for axis in AXES},
        **{axis: list(getattr(method, axis)) for axis in LISTS},
        "target": target.name,
        "device": target.device,
        "threads": target.threads,
        "isa": target.isa,
        "kernels": target.kernels,
        "seed": trial.seed,
        "division": method.division,
        "precision": experiment.precision.name,
        "machine": machine["fingerprint"],
        "status": status,
        "stage": stage,
        "reason": reason,
        "artifact": view.built.artifact or None,
        "sha256": view.built.sha256 or None,
        "parity_max_abs": parity.max_abs if parity is not None else None,
        "parity_samples": parity.samples if parity is not None else None,
        "trained_s": view.built.trained_s,
        "converted_s": view.built.converted_s,
        "observed_s": view.built.observed_s,
        "built_s": view.built.built_s,
        "scored_s": view.scored.scored_s if view.scored is not None else None,
        "effective": json.dumps(summary.get("effective", {}), sort_keys=True),
        "flags": sorted(clocked.flags(view) | _holds_integers(view)),
        "warnings": [*machine["warnings"], *target_warnings(target)],
    }


def _holds_integers(view: View) -> set[str]:
    """A flag on a float artifact whose weights are integers."""
    method = view.cell.trial.method
    if not method.is_float or method.name == PRESET or not view.built.record:
        return set()
    tensors = Record.from_json(view.built.record).tensors
    narrow = any(t.role == WEIGHT and is_narrow(t.dtype) for t in tensors)
    return {"holds-integers"} if narrow else set()


def _same_outputs(view: View, timed: Mapping[str, Any]) -> bool:
    """Whether the timed process computed what was scored: within 1e-5 of the largest output."""
    for name, scored in view.outputs().items():
        seen = np.asarray(timed[name])
        expected = scored[np.arange(len(seen)) % len(scored)]
        if np.abs(seen - expected).max() > 1e-5 * max(float(np.abs(expected).max()), 1e-30):
            return False
    return True
