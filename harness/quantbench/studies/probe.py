"""Probe: every method of every installed backend on models of three layers, and what becomes of it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quantbench.backend_api import Backend, Operation, Runtime, integer_macs_fraction, registry
from quantbench.errors import BadInput, did_you_mean
from quantbench.experiment import Cell, Experiment, resolve
from quantbench.runs import BuildGraph, Built, Reporter, Scored, Store, locked
from quantbench.spec import (
    PRECISIONS,
    PRESETS,
    Arrays,
    Limits,
    Method,
    Model,
    Stage,
    Status,
    Target,
    Trial,
    preset,
)
from quantbench.studies.capability import BY_INSTALLATION, BY_MACHINE, Capability, Matrix
from quantbench.system import content_key, entry, locate, locator, machine, source_digest, sweep

MODELS = "quantbench_experiments.models.probe:MODELS"
"""Locator of the models that are probed where nobody says otherwise."""

SAMPLES = 32  # that calibrate
# a few steps: that it trains is what is probed
RECIPE: Mapping[str, Any] = {"epochs": 1, "batch_size": 16, "learning_rate": 0.001}
TARGET = Target("cpu-1")
LIMITS = Limits(train_s=300, build_s=300, score_s=300)
VALID_SQNR_DB = 3.0
EXACT_DB = 100.0


def probe(
    *,
    backends: Sequence[str] = (),
    methods: Sequence[str] = (),
    models: Sequence[Model] = (),
    limits: Limits = LIMITS,
    reporter: Reporter | None = None,
) -> Matrix:
    """Build, run and judge every method, by every route, on every model.

    What was probed before with the same sources, packages and machine is read from the cache; an
    interrupted probe continues.

    Parameters
    ----------
    backends, methods
        Names; all there are where none is given.
    models
        The models; those at `MODELS` where none is given.

    Raises
    ------
    BadInput
        For an unknown name.
    """
    chosen = tuple(models) or locate(MODELS)
    named = [registry.backend(name) for name in backends or registry.names("backends")]
    for name in methods:
        if name not in PRESETS:
            raise BadInput(f"unknown method '{name}'.{did_you_mean(name, PRESETS)}")
    missing = {b.name: registry.missing_packages(b.packages) for b in named}
    there = [b for b in named if not missing[b.name]]
    trials = [t for b in there for m in methods or PRESETS for t in _trials(b, m, chosen)]
    by_name = {model.name: model for model in chosen}
    cells = [resolve(trial, by_name[trial.model]) for trial in trials]
    here = machine.describe()
    store = Store(entry("probes", _key(chosen, here)))
    store.logs.mkdir(parents=True, exist_ok=True)
    with locked(store), reporter or Reporter() as report:
        sweep()
        BuildGraph(_experiment(trials, limits), cells, store, here, report).run()
        found = tuple(_settled(store, cell) for cell in cells)
    return Matrix(
        found,
        machine={
            "architecture": here["architecture"],
            "isa": here["isa"],
            "compiler": shutil.which("g++") is not None,
        },
        versions=_versions(there),
        absent={
            b.name: f"{', '.join(missing[b.name])} is not installed; {b.install}"
            for b in named
            if missing[b.name]
        },
    )


def _trials(backend: Backend, name: str, models: Iterable[Model]) -> list[Trial]:
    """A preset by every route the backend has for it, on every model."""
    routes = backend.ways(name)
    trials = []
    for route in routes:
        method = _method(name, backend.axes(name, {"route": route} if route else {}))
        label = name if route == routes[0] else f"{name}+route={route}"
        trials += [Trial(m.name, backend.name, method, label, TARGET, 0) for m in models]
    return trials


def _method(name: str, axes: Mapping[str, Any]) -> Method:
    """A preset with a backend's axes, calibrated and trained shortly."""
    method = preset(name, axes)
    if method.samples:
        method = dataclasses.replace(method, samples=SAMPLES)
    if method.training != "ptq":
        method = dataclasses.replace(method, **RECIPE)
    return method


def _experiment(trials: Sequence[Trial], limits: Limits) -> Experiment:
    return Experiment(
        name="probe", description="", trials=tuple(trials), batch_sizes=(1,), offline=False,
        precision=PRECISIONS["preview"], reference={}, limits=limits, quality_margin=0.01,
        valid_sqnr_db=VALID_SQNR_DB, seed=0, text="", path="",
    )  # fmt: skip


def _key(models: Sequence[Model], here: Mapping[str, Any]) -> str:
    """Key of a probe's state: all source code and all packages that it may depend on."""
    backends = [registry.backend(name) for name in registry.names("backends")]
    locators = {locator(probe)}
    for backend in backends:
        locators |= {backend.quantizer, backend.runtime, *filter(None, [backend.trainer])}
    for model in models:
        forms = (form for form in model.forms.values() if ":" in form)
        locators |= {model.state, registry.task(model.task).load, *forms}
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    return content_key(
        models=[model.to_json() for model in models],
        source={named: source_digest(named) for named in sorted(locators)},
        packages=installed, machine=[here["cpu"], here["isa"]], python=sys.version,
    )  # fmt: skip


def _settled(store: Store, cell: Cell) -> Capability:
    """What became of a cell, which is then done: there is nothing for a user to mend in it."""
    trial, method = cell.trial, cell.trial.method
    built, scored = store.get(Built, trial.id), store.get(Scored, trial.id)
    state: Built | Scored | None = scored or built
    assert state is not None  # noqa: S101 - every cell was settled by the run
    if state.again and state.status != Status.CRASHED:  # else somebody else killed it
        store.put(trial.id, dataclasses.replace(state, again=False))
    place = (trial.backend, method.name, method.route, cell.model.name)
    stage, status, reason = state.stage, state.status, lasting(state.reason)
    if status in (
        Status.CRASHED,
        Status.TIMEOUT,
        Status.OUT_OF_MEMORY,
    ):  # reasons that do not say where
        reason = f"while it was {'built' if stage == Stage.BUILD else 'run'}, {reason}"
    if status == Status.UNSUPPORTED:
        return Capability(*place, status, reason, _refused_by(cell))
    share = integers = noise = None
    if scored is not None and scored.sqnr_db is not None:
        operations = tuple(Operation.from_json(op) for op in scored.summary["operations"])
        share = integer_macs_fraction(operations)
        integers = _integers(method) if share else None
        noise = scored.sqnr_db
    return Capability(
        *place, status, reason,
        integers=integers or "",
        integer_macs=None if share is None else round(share, 4),
        sqnr_db=None if noise is None or noise != noise else round(_clipped(noise), 1),
        weight_bytes=_weight_bytes(cell.model, built),
    )  # fmt: skip


def _integers(method: Method) -> str:
    """The wider of what a method multiplies: its activations."""
    kept = method.activations.removeprefix("u")
    return kept if kept.startswith("int") else "int"


def _clipped(noise: float) -> float:
    return min(max(noise, -EXACT_DB), EXACT_DB)


def _weight_bytes(model: Model, built: Built | None) -> float | None:
    """Bytes of a file's constants against those of the model's weights in float32."""
    if built is None or not built.record:
        return None
    state: Arrays = locate(model.state)(locate(model.weights)())
    floats: int = sum(4 * array.size for array in state.values())
    held: int = sum(built.record["weight_bytes"].values())
    return round(held / floats, 3)


def _refused_by(cell: Cell) -> str:
    """Whether the machine refuses a cell, or the installation, whose remedies name a command."""
    runtime: Runtime = locate(cell.backend.runtime)()
    if runtime.refuse(cell.trial.target, cell.trial.method) == cell.refusal:
        return BY_MACHINE
    return BY_INSTALLATION if "pip install" in cell.refusal else ""


def _versions(backends: Iterable[Backend]) -> dict[str, str]:
    """Versions of the packages that the matrix depends on."""
    packages = {p for backend in backends for p in backend.packages}
    found = {p: importlib.metadata.version(p) for p in sorted(packages)}
    return {**machine.installed_packages(), **found}


def lasting(reason: str) -> str:
    """A reason without what differs from run to run: addresses, folders, a crash's last words.

    >>> lasting("the worker was killed by signal 11 (SIGSEGV): I0000 00:00:1795 port.cc:153] x; y")
    'the worker was killed by signal 11 (SIGSEGV)'
    >>> lasting("ValueError: /tmp/a-b/c.py holds <object at 0x7f01>")
    'ValueError: c.py holds <object at 0x>'
    """
    death = re.match(
        r"(.*?the worker (was killed by signal \d+ \(\w+\)|exited with code \d+))", reason
    )
    if death:
        return death[1]
    reason = re.sub(r"(?<![\w:.])(/[\w.+@-]+)+/([\w.+@-]+)", r"\2", reason)
    return re.sub(r"0x[0-9a-f]+", "0x", reason)
