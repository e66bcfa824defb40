"""Timing: which comparisons a run times, and what each artifact of them is timed with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import Runtime
from quantbench.execution import Job
from quantbench.experiment import Cell, Experiment, matches
from quantbench.runs.comparison import Comparison, Contender
from quantbench.runs.interleaved_timing import load_generations, log_times, of_session
from quantbench.runs.states import Built, Scored
from quantbench.runs.store import Store
from quantbench.spec import Trial
from quantbench.steps import timed_burst
from quantbench.system import entry, locate


@dataclass(frozen=True, slots=True)
class Timing:
    """The comparisons of a run; ``cells`` are those whose artifact is valid.

    ``copies``: where fresh copies of the artifacts lie that a later session loads; None for the
    artifacts themselves.
    """

    experiment: Experiment
    cells: Sequence[Cell]
    store: Store
    copies: Path | None = None

    def comparisons(self) -> list[Comparison]:
        """The artifacts of a model on a target, once per batch size."""
        return [
            self._comparison([(cell, size) for cell in cells])
            for cells in self._by_place().values()
            for size in self.experiment.batch_sizes
        ]

    def offline(self) -> list[Comparison]:
        """Each artifact at the batch size of its highest throughput, where the experiment asks.

        It is known once `comparisons` are timed; artifacts that have no time then are left out.
        """
        if not self.experiment.offline:
            return []
        timed = self.comparisons()
        found = []
        for (model, target), cells in self._by_place().items():
            here = [c for c in timed if (c.model, c.target.name) == (model, target)]
            sizes = best_batch_sizes({c.contenders[0].batch_size: self._medians(c) for c in here})
            known = [(c, sizes[c.trial.id]) for c in cells if c.trial.id in sizes]
            if known:
                found.append(replace(self._comparison(known), offline=True))
        return found

    def confirmations(self, chosen: Sequence[Sequence[str]]) -> list[Comparison]:
        """What was chosen in each place with the float trials that it is quoted against, by name.

        At the smallest batch size, by which is chosen. Places of which nothing may be timed are left out.
        """
        found = []
        for cells in self._by_place().values():
            names = {name for group in chosen for name in group}
            main = reference([cell.trial for cell in cells], self.experiment.reference).id
            here = [cell for cell in cells if cell.trial.id in {*names, main}]
            if any(cell.trial.id in names for cell in here):
                sizes = [(cell, min(self.experiment.batch_sizes)) for cell in here]
                found.append(replace(self._comparison(sizes), confirms=True))
        return found

    def _by_place(self) -> dict[tuple[str, str], list[Cell]]:
        """The cells of each model on each target."""
        places: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            places.setdefault((cell.trial.model, cell.trial.target.name), []).append(cell)
        return places

    def _medians(self, comparison: Comparison) -> dict[str, float]:
        """The logarithm of each artifact's time of one sample."""
        stored = load_generations(self.store.generations(comparison.id))
        times = log_times(of_session(stored, 0))  # later sessions time the same
        return {
            name: float(np.median([value for g in rounds for value in g.values()]))
            for name, rounds in times.items()
        }

    def _comparison(self, sizes: Sequence[tuple[Cell, int]]) -> Comparison:
        """Cells with their batch sizes, and the reference once more."""
        chosen = reference([cell.trial for cell, _ in sizes], self.experiment.reference)
        found = Comparison(
            chosen.model,
            chosen.target,
            tuple(self._contender(cell, cell.trial.id, size) for cell, size in sizes),
            chosen.id,
        )
        again = next((cell, size) for cell, size in sizes if cell.trial.id == chosen.id)
        control = self._contender(again[0], found.control, again[1])
        return replace(found, contenders=(*found.contenders, control))

    def _contender(self, cell: Cell, name: str, batch_size: int) -> Contender:
        precision, limits = self.experiment.precision, self.experiment.limits
        runtime: Runtime = locate(cell.backend.runtime)()
        arguments = {
            **opened(self.store, cell, self.copies),
            "batch_size": batch_size,
            "warmup_s": precision.warmup_s,
            "burst_ms": precision.burst_ms,
        }
        job = Job(
            f"clock {name}", timed_burst.serve, arguments,
            runtime.environment(cell.trial.target), (), limits.start_s, limits.memory_mb,
        )  # fmt: skip
        return Contender(name, job, batch_size, is_float=is_float(cell.trial))


def opened(store: Store, cell: Cell, copies: Path | None = None) -> dict[str, Any]:
    """Arguments by which a worker opens the cell's artifact, or the copy of it in ``copies``."""
    built, scored = store.get(Built, cell.trial.id), store.get(Scored, cell.trial.id)
    assert built is not None and scored is not None  # noqa: S101, PT018 - only what was scored is timed
    return {
        "artifact": str(copies / built.artifact if copies else entry("artifacts", built.artifact)),
        "runtime": cell.backend.runtime,
        "target": cell.trial.target.to_json(),
        "data": scored.data,
    }


def reference(trials: Sequence[Trial], selector: Mapping[str, str]) -> Trial:
    """The trial that is timed twice: as selected, else the first fp32, else the first."""
    chosen = [t for t in trials if selector and matches(t, selector)]
    return (chosen or list(floats(trials)) or list(trials))[0]


def floats(trials: Sequence[Trial]) -> Iterator[Trial]:
    """Those in fp32 as they were trained."""
    return (trial for trial in trials if is_float(trial))


def is_float(trial: Trial) -> bool:
    """Whether a trial is in fp32 as it was trained."""
    return trial.method.name == "fp32" and trial.method.training == "ptq"


def best_batch_sizes(times: Mapping[int, Mapping[str, float]]) -> dict[str, int]:
    """The batch size of the least time per sample, by name.

    ``times``: batch size -> name -> time of one sample, on any scale that rises with it.

    >>> best_batch_sizes({1: {"a": 1.0, "b": 2.0}, 8: {"a": 1.5, "b": 0.5}})
    {'a': 1, 'b': 8}
    """
    best: dict[str, int] = {}
    for size, known in times.items():
        for name, time in known.items():
            if name not in best or time < times[best[name]][name]:
                best[name] = size
    return best
