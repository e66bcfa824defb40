"""Plan: each trial with what it is made of, or the reason why it cannot run here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness import registry
from harness.experiment import Experiment, Trial
from harness.method import preset
from harness.model import Model
from harness.protocol import Backend, Converter, Quantizer, Runtime
from harness.registry import locate
from harness.target import Target

PARITY_TARGET = Target("parity")


@dataclass(frozen=True, slots=True)
class Cell:
    """A trial with its model, its backend and the conversion its form needs.

    ``refusal`` is the reason why it is unsupported, or empty.
    """

    trial: Trial
    model: Model
    backend: Backend
    converter: Converter | None
    refusal: str


def plan(experiment: Experiment) -> list[Cell]:
    """Resolve every trial of an experiment; imports no framework."""
    return [resolve(trial) for trial in experiment.trials]


def resolve(trial: Trial) -> Cell:
    """One trial as a cell, refused where a package, target, method or form is missing."""
    model, backend = registry.model(trial.model), registry.backend(trial.backend)
    missing = registry.missing_packages(backend.packages)
    if missing:
        reason = f"{', '.join(missing)} is not installed; {backend.install}"
        return Cell(trial, model, backend, None, reason)
    runtime: Runtime = locate(backend.runtime)()
    quantizer: Quantizer = locate(backend.quantizer)()
    refusal = runtime.refuse(trial.target, trial.method) or quantizer.refuse(model, trial.method)
    if refusal:
        return Cell(trial, model, backend, None, refusal)
    if quantizer.takes & model.forms.keys():
        return Cell(trial, model, backend, None, "")
    for source in model.forms:
        for target in quantizer.takes:
            converter = registry.converter(source, target)
            if converter is None:
                continue
            missing = registry.missing_packages(converter.packages)
            reason = (
                f"the {target} form of {model.name} is made from its {source} form, which needs "
                f"{', '.join(missing)}; {converter.install}"
            )
            return Cell(trial, model, backend, converter, reason if missing else "")
    have, need = ", ".join(model.forms), " or ".join(sorted(quantizer.takes))
    return Cell(
        trial, model, backend, None,
        f"{backend.name} needs a {need} form; {model.name} has {have} and nothing converts them",
    )  # fmt: skip


def parity_cell(cell: Cell) -> Cell:
    """The plain fp32 trial of the cell's model and backend, by which parity is judged."""
    own = cell.backend.methods.get("fp32", {})
    trial = Trial(cell.model.name, cell.backend.name, preset("fp32", own), "fp32", PARITY_TARGET, 0)
    return resolve(trial)


def with_form(cell: Cell, path: str) -> Model:
    """The cell's model with its converted form."""
    assert cell.converter is not None  # noqa: S101 - for the type checker
    forms = {**cell.model.forms, cell.converter.target: path}
    return dataclasses.replace(cell.model, forms=forms)


def estimate_seconds(experiment: Experiment, runnable: int) -> tuple[float, float]:
    """Rough seconds of building and scoring, and of timing, for a dry run.

    From the protocol: a start of about 1 s and a burst per round for each artifact; 8 s a build.
    """
    precision = experiment.precision
    per_artifact = precision.generations * (
        1.0 + precision.warmup_s + precision.rounds * 1.1 * precision.burst_ms / 1000
    )
    return runnable * 8.0, runnable * len(experiment.batch_sizes) * per_artifact
