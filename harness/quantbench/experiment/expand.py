"""Expand: an experiment and the trials that it consists of."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from quantbench.backend_api import as_is, registry
from quantbench.errors import BadInput, did_you_mean
from quantbench.experiment import user_model
from quantbench.experiment.reader import SELECTORS, MethodEntry, Read, Reader
from quantbench.spec import (
    AXES,
    PRESETS,
    RECIPE,
    Limits,
    Method,
    Model,
    Precision,
    Published,
    Target,
    Trial,
    preset,
)

_BESIDE = ("model", *SELECTORS)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A validated experiment.

    ``reference`` selects, per model and target, the trial that ratios are taken against:
    the first trial whose backend, method and axes match; without it the fastest ``fp32`` trial.
    ``models``: those that the file describes itself, by name.
    ``offline``: each artifact is timed once more at that of ``batch_sizes`` which suits it best.
    ``sessions``: how often the timing is done, each time apart from the last.
    ``confirm``: what would be recommended is timed again after that.
    ``published``: figures of others that the report shows beside those of the trials.
    """

    name: str
    description: str
    trials: tuple[Trial, ...]
    batch_sizes: tuple[int, ...]
    offline: bool
    precision: Precision
    reference: Mapping[str, str]
    limits: Limits
    quality_margin: float
    valid_sqnr_db: float
    seed: int
    text: str
    path: str
    models: Mapping[str, Model] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    sessions: int = 1
    confirm: bool = True

    @classmethod
    def of(
        cls,
        name: str,
        trials: Sequence[Trial],
        precision: Precision,
        *,
        seed: int = 0,
        models: Mapping[str, Model] = MappingProxyType({}),
    ) -> Experiment:
        """These trials, and for the rest what an experiment file has where it says nothing."""
        return cls(
            name=name, description="", trials=tuple(trials), batch_sizes=(1,), offline=False,
            precision=precision, reference={}, limits=Limits(), quality_margin=0.01,
            valid_sqnr_db=3.0, seed=seed, text="", path="", models=dict(models),
        )  # fmt: skip

    @classmethod
    def load(
        cls, path: str | Path, *, seed: int | None = None, only: Sequence[str] = ()
    ) -> Experiment:
        """Read and validate an experiment file.

        Parameters
        ----------
        path
            The YAML file.
        seed
            Replaces the file's list of seeds.
        only
            ``key=value`` filters (model, backend, method, target, label); repeated keys widen,
            different keys narrow.

        Raises
        ------
        BadExperiment
            With one line ``file:line: problem`` for each problem found.
        """
        reader = Reader(Path(path))
        read = reader.read()
        file = read.file
        methods = read.methods
        if seed is not None:
            methods = tuple(dataclasses.replace(entry, seeds=(seed,)) for entry in methods)
        trials = _expand(read, methods, reader)
        published = _beside(read, trials, reader)
        reader.check()
        return cls(
            name=file.name or reader.path.stem,
            description=file.description,
            trials=_filter(trials, only),
            batch_sizes=tuple(file.batch_sizes),
            offline=file.offline,
            precision=read.precision,
            reference=dict(file.reference),
            limits=Limits(**file.limits.model_dump()),
            quality_margin=file.quality_margin,
            valid_sqnr_db=file.valid_sqnr_db,
            seed=file.seeds[0] if seed is None else seed,
            text=read.text,
            path=str(reader.path),
            models=read.own,
            published=published,
            sessions=file.sessions,
            confirm=file.confirm,
        )


def trial_of(
    model: str,
    backend: str,
    name: str,
    axes: Mapping[str, Any],
    target: Target,
    *,
    seed: int = 0,
    recipe: Mapping[str, Any] = MappingProxyType({}),
    several_seeds: bool = False,
) -> Trial:
    """The preset ``name`` as the backend has it, with ``axes`` overridden; they make its label.

    ``recipe``: the experiment's, where it is trained. Raises `BadInput`.
    """
    axes_of = partial(registry.backend(backend).axes, name)
    method = _method(name, axes_of(axes), recipe, seed)
    # what a route implies is no difference; which route it is, is one
    usual = axes_of({"route": method.route}) | {"route": axes_of().get("route", "")}
    label = _label(method, _method(name, usual, recipe, seed), recipe)
    return Trial(model, backend, method, label, target, seed, several_seeds)


def _method(name: str, axes: Mapping[str, Any], recipe: Mapping[str, Any], seed: int) -> Method:
    """A preset with its axes, and the experiment's recipe where it is trained."""
    trained = {**PRESETS.get(name, {}), **axes}.get("training", "ptq") != "ptq"
    return preset(name, {**recipe, **axes} if trained else axes, seed=seed)


def _label(method: Method, default: Method, recipe: Mapping[str, Any]) -> str:
    """The preset's name with the axes that differ from this backend's own default.

    A method that is trained, though its preset is not, differs by ``training`` and from the
    experiment's recipe.
    """
    if method.training != default.training and method.training != "ptq":
        default = dataclasses.replace(default, **{**RECIPE, **recipe})
    changed = [
        f"{axis}={_word(getattr(method, axis))}"
        for axis in AXES
        if getattr(method, axis) != getattr(default, axis)
    ]
    return "+".join([method.name, *changed])


def _word(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value).lower()


def _traits(trial: Trial) -> dict[str, str]:
    return {
        "model": trial.model,
        "backend": trial.backend,
        "method": trial.method.name,
        "target": trial.target.name,
        "label": trial.label,
    }


def matches(trial: Trial, selector: Mapping[str, str]) -> bool:
    """Whether a trial has the model, backend, method, label and route that ``selector`` names."""
    own = {**_traits(trial), "route": trial.method.route}
    return all(own[key] == value for key, value in selector.items())


def describe(experiment: Experiment) -> dict[str, Any]:
    """Everything that decides what a run of the experiment does, as JSON (its content key)."""
    return {
        "name": experiment.name,
        "trials": [
            {
                "id": t.id,
                "model": t.model,
                "backend": t.backend,
                "method": t.method.to_json(),
                "target": t.target.to_json(),
                "seed": t.seed,
            }
            for t in experiment.trials
        ],
        "batch_sizes": list(experiment.batch_sizes),
        "offline": experiment.offline,
        "precision": dataclasses.asdict(experiment.precision),
        "reference": dict(experiment.reference),
        "limits": dataclasses.asdict(experiment.limits),
        "quality_margin": experiment.quality_margin,
        "valid_sqnr_db": experiment.valid_sqnr_db,
        "models": {
            name: {**m.to_json(), **user_model.contents(m)} for name, m in experiment.models.items()
        },
        # a task that has changed gives other samples under the same name
        "tasks": {
            name: registry.task(model.task).version
            for name in dict.fromkeys(t.model for t in experiment.trials)
            if (model := experiment.models.get(name) or registry.model(name))
        },
    }


def _expand(read: Read, methods: Sequence[MethodEntry], reader: Reader) -> tuple[Trial, ...]:
    """Every trial of the file: models x targets x backends x methods x axes x seeds."""
    file = read.file
    models = [*(one for one in file.models if isinstance(one, str)), *read.own]
    trials: dict[str, Trial] = {}
    for model, target, backend_name, entry in itertools.product(
        models, read.targets, file.backends, methods
    ):
        if backend_name not in entry.backends:
            continue
        for values in itertools.product(*entry.axes.values()):
            chosen = dict(zip(entry.axes, values, strict=True))
            for seed in entry.seeds:
                trial = trial_of(
                    model, backend_name, entry.name, chosen, target,
                    seed=seed, recipe=file.recipe, several_seeds=len(entry.seeds) > 1,
                )  # fmt: skip
                if trial.id in trials:
                    reader.problem(entry.line, f"trial '{trial.id}' is listed twice")
                trials[trial.id] = trial
    if file.twins:
        trials |= _twins(list(trials.values()))
    return tuple(trials.values())


def _twins(trials: Sequence[Trial]) -> dict[str, Trial]:
    """The plain float models that trials are to be compared with and that nobody has listed.

    Where a backend's float model is listed, but runs in another graph than a method of the file does
    (eagerly, and the method is traced), a ratio of the two mixes what quantization gives with what the
    graph does.
    """
    found: dict[str, Trial] = {}
    for trial in trials:
        backend = registry.backend(trial.backend)
        place = (trial.model, trial.backend, trial.target)
        plain = [
            other
            for other in (*trials, *found.values())
            if (other.model, other.backend, other.target) == place
            and (other.method.name, other.method.training) == ("fp32", "ptq")
        ]
        wanted = backend.graph(trial.method.route, floats=trial.method.is_float)
        graphs = {backend.graph(other.method.route, floats=True) for other in plain}
        if plain and trial.method.name != as_is.PRESET and wanted not in graphs:
            twin = trial_of(
                trial.model, trial.backend, "fp32", {"route": wanted}, trial.target,
                seed=plain[0].seed,
            )  # fmt: skip
            found[twin.id] = twin
    return found


def _beside(read: Read, trials: Sequence[Trial], reader: Reader) -> tuple[Published, ...]:
    """The published rows, each beside the first trial that it selects."""
    found = []
    for line, entry in zip(read.published, read.file.published, strict=True):
        unknown = [key for key in entry.beside if key not in _BESIDE]
        if unknown:
            near = did_you_mean(unknown[0], _BESIDE)
            reader.problem(line, f"unknown key '{unknown[0]}' in beside.{near}")
            continue
        trial = next((t.id for t in trials if matches(t, entry.beside)), "")
        if not trial:
            reader.problem(line, f"no trial is beside '{entry.what}': none has {entry.beside}")
        found.append(Published(trial=trial, **entry.model_dump(exclude={"beside"})))
    return tuple(found)


def _filter(trials: tuple[Trial, ...], only: Sequence[str]) -> tuple[Trial, ...]:
    wanted: dict[str, set[str]] = {}
    known = ("model", "backend", "method", "target", "label")
    for item in only:
        key, _, value = item.partition("=")
        if key not in known or not value:
            raise BadInput(
                f"--only takes KEY=VALUE with KEY one of {', '.join(known)}; got '{item}'."
                f"{did_you_mean(key, known)}"
            )
        wanted.setdefault(key, set()).add(value)
    kept = tuple(
        t for t in trials if all(_traits(t)[key] in values for key, values in wanted.items())
    )
    if not kept:
        have = {key: sorted({_traits(t)[key] for t in trials}) for key in wanted}
        raise BadInput(f"--only leaves no trial; the experiment has {have}")
    return kept
