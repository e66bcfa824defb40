"""Plan: each trial with what it is made of, or the reason why it cannot run here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantbench.backend_api import LOSSES, Backend, Converter, Quantizer, Runtime, as_is, registry
from quantbench.experiment.expand import Experiment
from quantbench.spec import Method, Model, Target, Trial, preset
from quantbench.system import locate

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
    return [resolve(trial, experiment.models.get(trial.model)) for trial in experiment.trials]


def resolve(trial: Trial, model: Model | None = None) -> Cell:
    """One trial as a cell, refused where a package, target, method or form is missing.

    ``model``: the trial's, where it is not a registered one.
    """
    model, backend = model or registry.model(trial.model), registry.backend(trial.backend)
    missing = registry.missing_packages(backend.packages)
    if missing:
        reason = f"{', '.join(missing)} is not installed; {backend.install}"
        return Cell(trial, model, backend, None, reason)
    runtime: Runtime = locate(backend.runtime)()
    quantizer: Quantizer = locate(backend.quantizer)()
    refusal = (
        runtime.refuse(trial.target, trial.method)
        or quantizer.refuse(model, trial.method)
        or _untrainable(model, backend, trial.method)
    )
    if refusal:
        return Cell(trial, model, backend, None, refusal)
    need = quantizer.form(trial.method)
    if need in model.forms or trial.method.name == as_is.PRESET:
        return Cell(trial, model, backend, None, "")
    for source in model.forms:
        converter = registry.converter(source, need)
        if converter is None:
            continue
        missing = registry.missing_packages(converter.packages)
        reason = (
            f"the {need} form of {model.name} is made from its {source} form, which needs "
            f"{', '.join(missing)}; {converter.install}"
        )
        return Cell(trial, model, backend, converter, reason if missing else "")
    return Cell(
        trial, model, backend, None,
        f"{backend.name} needs a {need} form; {model.name} has {', '.join(model.forms)} and nothing "
        "converts them",
    )  # fmt: skip


def _untrainable(model: Model, backend: Backend, method: Method) -> str | None:
    """Why the method's training cannot happen, or None."""
    if method.training == "ptq":
        return None
    if not backend.trainer:
        return f"{backend.name} does not train; use training: ptq"
    task = registry.task(model.task)
    if "train" not in task.splits:
        return (
            f"task '{task.name}' has no training samples; give it a train split, "
            "or use a method that is not trained"
        )
    if task.metric not in LOSSES:
        return (
            f"no loss is known for the metric {task.metric} of task '{task.name}'; "
            "use a method that is not trained"
        )
    return None


def float_form(cell: Cell) -> str:
    """The backend with the fp32 route whose float function the cell's artifact starts from.

    A model that is but a ready file has no other form: it is judged by itself.
    """
    if not cell.model.forms:
        return f"{cell.backend.name} {as_is.PRESET}"
    route = _float_route(cell)
    return f"{cell.backend.name} {route}".strip()


def parity_cell(cell: Cell) -> Cell:
    """The fp32 trial of the form that the cell starts from, by which parity is judged."""
    if not cell.model.forms:
        return replace(cell, trial=replace(cell.trial, target=PARITY_TARGET))
    route = _float_route(cell)
    usual = cell.backend.axes("fp32").get("route", "")
    label = "fp32" if route == usual else f"fp32+route={route}"
    method = preset("fp32", cell.backend.axes("fp32", {"route": route}))
    trial = Trial(cell.model.name, cell.backend.name, method, label, PARITY_TARGET, 0)
    return resolve(trial, cell.model)


def _float_route(cell: Cell) -> str:
    quantizer: Quantizer = locate(cell.backend.quantizer)()
    return quantizer.takes[quantizer.form(cell.trial.method)]


def estimate_seconds(experiment: Experiment, runnable: int) -> tuple[float, float]:
    """Rough seconds of building and scoring, and of timing, for a dry run.

    From the protocol: a start of about 1 s and a burst per round for each artifact; 8 s a build. Of what
    is confirmed there is a choice, its control and up to three float trials for each model and target.
    """
    precision = experiment.precision
    per_artifact = precision.generations * (
        1.0 + precision.warmup_s + precision.rounds * 1.1 * precision.burst_ms / 1000
    )
    timed = len(experiment.batch_sizes) * experiment.sessions
    places = len({(trial.model, trial.target.name) for trial in experiment.trials})
    again = min(5 * places, runnable) if experiment.confirm else 0
    return runnable * 8.0, (runnable * timed + again) * per_artifact
