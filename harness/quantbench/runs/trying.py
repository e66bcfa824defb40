"""Trying: whether another method is faster than a trial, built and timed beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantbench.backend_api import backend
from quantbench.errors import QuantbenchError
from quantbench.experiment import resolve
from quantbench.experiment.expand import trial_of
from quantbench.results import Results
from quantbench.runs.profiling import experiment_of, ratio, rebuilt
from quantbench.runs.reporter import Reporter
from quantbench.spec import AXES, Trial, preset
from quantbench.stats import Interval


@dataclass(frozen=True, slots=True)
class Tried:
    """Another method beside a trial, timed in turns.

    Parameters
    ----------
    trial : str
        Name of the trial that was tried.
    faster : Interval or None
        How many times faster than the trial it is tried against; None where it was not timed.
    against_float : Interval or None
        How many times faster than the float twin; None where it is that itself.
    reason : str
        Why it was not timed.
    """

    trial: str
    faster: Interval | None = None
    against_float: Interval | None = None
    reason: str = ""

    @property
    def helped(self) -> bool:
        """Whether it is faster beyond noise."""
        return self.faster is not None and self.faster.low > 1


def offered(
    results: Results, trial: Trial, methods: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[Trial]:
    """Of ``methods`` (presets with axes), the trials that the plan does not refuse here, each once.

    Where the preset is the trial's own, the axes are changes to the trial's.
    """
    models = experiment_of(results).models
    found: dict[str, Trial] = {}
    for name, axes in methods:
        given = {**(_changed(trial, axes) if name == trial.method.name else {}), **axes}
        other = trial_of(
            trial.model, trial.backend, name, given, trial.target,
            seed=trial.seed, several_seeds=trial.several_seeds,
        )  # fmt: skip
        if other.id != trial.id and not resolve(other, models.get(other.model)).refusal:
            found.setdefault(other.id, other)
    return list(found.values())


def attempt(
    results: Results,
    trial: Trial,
    reference: Trial,
    others: Iterable[Trial],
    folder: Path,
    reporter: Reporter,
) -> list[Tried]:
    """Build each of ``others`` and time it against the trial and its float twin."""
    told: list[Tried] = []
    for other in others:
        try:
            at_hand = rebuilt(results, [trial, reference, other], folder / str(len(told)), reporter)
            faster = ratio(at_hand, other.id, trial.id, reporter=reporter)
            against = (
                None
                if other.id == reference.id
                else ratio(at_hand, other.id, reference.id, reporter=reporter)
            )
            told.append(Tried(other.id, faster, against))
        except QuantbenchError as error:
            told.append(Tried(other.id, reason=str(error)))
    return told


def _changed(trial: Trial, axes: Mapping[str, Any]) -> dict[str, Any]:
    """The trial's axes that are not its backend's own; none that a changed route brings along."""
    method, known = trial.method, backend(trial.backend)
    usual = preset(method.name, known.axes(method.name, {"route": method.route}), seed=method.seed)
    kept = {
        axis: getattr(method, axis)
        for axis in AXES
        if getattr(method, axis) != getattr(usual, axis)
    }
    return kept if "route" in axes else {"route": method.route, **kept}
