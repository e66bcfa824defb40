"""Experiment: a YAML file that says what is compared, expanded to Trials."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from harness import dataset, own, registry
from harness.errors import BadExperiment, BadInput, QuantbenchError, did_you_mean
from harness.method import AXES, LISTS, PRESETS, RECIPE, Method, check_axis, preset
from harness.model import Model
from harness.precision import PRECISIONS, Precision
from harness.published import Published
from harness.shift import Shift
from harness.target import Target, presets

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trial:
    """One model x backend x method x target x seed."""

    model: str
    backend: str
    method: Method
    label: str
    target: Target
    seed: int
    several_seeds: bool = False

    @classmethod
    def of(
        cls,
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
        return cls(model, backend, method, label, target, seed, several_seeds)

    @property
    def id(self) -> str:
        """Readable and unique within an experiment: ``digits/tflite/static-int8/cpu-1``."""
        parts = [self.model, self.backend, self.label, self.target.name]
        return "/".join([*parts, f"seed{self.seed}"] if self.several_seeds else parts)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one trial may use before it is stopped: seconds per phase, MB resident."""

    train_s: float = 3600.0
    build_s: float = 900.0
    score_s: float = 1800.0
    start_s: float = 300.0
    memory_mb: float = 8000.0


@dataclass(frozen=True, slots=True)
class Experiment:
    """A validated experiment.

    ``reference`` selects, per model and target, the trial that ratios are taken against:
    the first trial whose backend, method and axes match; without it the fastest ``fp32`` trial.
    ``models``: those that the file describes itself, by name.
    ``offline``: each artifact is timed once more at that of ``batch_sizes`` which suits it best.
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
        return _Reader(Path(path)).read(seed, only)


# --- the file, as Pydantic sees it ---------------------------------------------------------------

_Names = list[str]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _TargetEntry(_Strict):
    name: str = Field(min_length=1)
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = Field(default=1, ge=1)
    affinity: list[int] = []
    isa: Literal["native", "avx2"] = "native"
    kernels: Literal["default", "reference"] = "default"
    optimize: bool = True
    environment: dict[str, str] = {}


class _PrecisionEntry(_Strict):
    name: str = "custom"
    generations: int = Field(default=5, ge=1)
    max_generations: int = Field(default=20, ge=1)
    rounds: int = Field(default=7, ge=1)
    width: float = Field(default=0.02, gt=0)
    time_limit_s: float = Field(default=30.0, gt=0)
    warmup_s: float = Field(default=0.5, ge=0)
    burst_ms: float = Field(default=50.0, gt=0)
    memory_processes: int = Field(default=3, ge=1)
    energy_window_s: float = Field(default=0.0, ge=0)
    energy_windows: int = Field(default=5, ge=1)


_LIMITS = Limits()


class _TaskEntry(_Strict):
    name: str = Field(default="data", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    arrays: str | None = None
    parquet: str | dict[str, str] | None = None
    imagefolder: str | None = None
    python: str | None = None
    noise: list[int] | None = None
    metric: str | None = None
    image: str | None = None
    label: str | None = None
    resize: list[int] | None = Field(default=None, min_length=2, max_length=2)
    normalize: dict[Literal["mean", "std"], list[float]] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None


class _ModelEntry(_Strict):
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    torch: str | None = None
    pt2: str | None = None
    onnx: str | None = None
    keras: str | None = None
    tflite: str | None = None
    weights: str | None = None
    input: list[int] | dict[str, list[int]] | None = None
    preprocess: str | None = None
    pretrained: bool | None = None
    trust: bool | None = None
    task: str | _TaskEntry | None = None


class _PublishedEntry(_Strict):
    what: str = Field(min_length=1)
    beside: dict[str, str] = Field(min_length=1)
    quality: float | None = None
    size_bytes: float | None = Field(default=None, gt=0)
    speedup: float | None = Field(default=None, gt=0)
    source: str = ""


class _LimitsEntry(_Strict):
    train_s: float = Field(default=_LIMITS.train_s, gt=0)
    build_s: float = Field(default=_LIMITS.build_s, gt=0)
    score_s: float = Field(default=_LIMITS.score_s, gt=0)
    start_s: float = Field(default=_LIMITS.start_s, gt=0)
    memory_mb: float = Field(default=_LIMITS.memory_mb, gt=0)


class _File(_Strict):
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    model: str | _ModelEntry | None = None
    models: list[str | _ModelEntry] = []
    task: str | _TaskEntry | None = None
    backends: _Names = Field(min_length=1)
    methods: list[str | dict[str, Any]] = Field(min_length=1)
    targets: list[str | _TargetEntry] = Field(default=["cpu-1"], min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    batch_sizes: list[int] = Field(default=[1], min_length=1)
    offline: bool = False
    precision: str | _PrecisionEntry = "standard"
    recipe: dict[str, Any] = {}
    reference: dict[str, str] = {}
    limits: _LimitsEntry = _LimitsEntry()
    quality_margin: float = Field(default=0.01, gt=0, lt=1)
    valid_sqnr_db: float = 3.0
    published: list[_PublishedEntry] = []


_FIELDS: Mapping[str, tuple[str, ...]] = {
    "": tuple(_File.model_fields),
    "targets": tuple(_TargetEntry.model_fields),
    "precision": tuple(_PrecisionEntry.model_fields),
    "limits": tuple(_LimitsEntry.model_fields),
    "published": tuple(_PublishedEntry.model_fields),
    "model": tuple(_ModelEntry.model_fields),
    "models": tuple(_ModelEntry.model_fields),
    "task": tuple(_TaskEntry.model_fields),
}
_BRANCHES = ("str", "dict[str,any]", "_TargetEntry", "_PrecisionEntry", "_ModelEntry", "_TaskEntry")
_SELECTORS = ("backend", "method", "label", "route")
_BESIDE = ("model", *_SELECTORS)


@dataclass(frozen=True, slots=True)
class _MethodEntry:
    """One line under ``methods``: a preset, its axes with their lists, its backends and seeds."""

    name: str
    axes: Mapping[str, tuple[Any, ...]]
    backends: tuple[str, ...]
    seeds: tuple[int, ...]
    line: int


class _Reader:
    """Reads one file and gathers every problem with its line before it gives up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[tuple[int, str]] = []

    def read(self, seed: int | None, only: Sequence[str]) -> Experiment:
        text = self._text()
        tree = self._tree(text)
        file = self._validate(tree)
        self._raise()
        assert file is not None  # noqa: S101 - for the type checker: no problem means a file
        own = self._own_models(tree, file)
        self._check_names(tree, file)
        targets = self._targets(tree, file)
        methods = self._methods(tree, file)
        precision = self._precision(tree, file)
        self._recipe(tree, file)
        self._raise()
        if seed is not None:
            methods = [dataclasses.replace(entry, seeds=(seed,)) for entry in methods]
        seeds = [seed] if seed is not None else file.seeds
        names = [one for one in file.models if isinstance(one, str)]
        trials = self._expand(file, [*names, *own], methods, targets)
        published = self._published(tree, file, trials)
        self._raise()
        return Experiment(
            name=file.name or self.path.stem,
            description=file.description,
            trials=_filter(trials, only),
            batch_sizes=tuple(file.batch_sizes),
            offline=file.offline,
            precision=precision,
            reference=dict(file.reference),
            limits=Limits(**file.limits.model_dump()),
            quality_margin=file.quality_margin,
            valid_sqnr_db=file.valid_sqnr_db,
            seed=seeds[0],
            text=text,
            path=str(self.path),
            models=own,
            published=published,
        )

    def _problem(self, line: int, text: str) -> None:
        if (line, text) not in self.problems:
            self.problems.append((line, text))

    def _raise(self) -> None:
        if self.problems:
            found = sorted(self.problems, key=lambda problem: problem[0])
            lines = [f"{self.path}:{line}: {text}" for line, text in found]
            raise BadExperiment("\n".join(lines))

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            near = did_you_mean(self.path.name, (p.name for p in self.path.parent.glob("*.yaml")))
            raise BadExperiment(
                f"no experiment file {self.path}.{near} "
                "'quantbench list experiments' shows those that there are"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise BadExperiment(f"{self.path} cannot be read: {error}") from error

    def _tree(self, text: str) -> CommentedMap:
        try:
            tree = YAML(typ="rt", pure=True).load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise BadExperiment(
                f"{self.path}:{mark.line + 1 if mark else 1}: not valid YAML: "
                f"{str(error.problem or error.context).splitlines()[0]}"
            ) from error
        except YAMLError as error:
            first = str(error).splitlines()[0]
            raise BadExperiment(f"{self.path}:1: not valid YAML: {first}") from error
        if not isinstance(tree, CommentedMap):
            raise BadExperiment(
                f"{self.path}:1: an experiment is a mapping with the keys models, backends, methods"
            )
        return tree

    def _validate(self, tree: CommentedMap) -> _File | None:
        try:
            return _File.model_validate(_plain(tree))
        except ValidationError as error:
            for problem in error.errors():
                # a union reports each of its branches; the one that fits the kind of value speaks
                if problem["type"] == "string_type" and isinstance(problem["input"], dict):
                    continue
                where = tuple(p for p in problem["loc"] if p not in _BRANCHES)
                self._problem(_line(tree, where), self._say(where, problem))
            return None

    def _say(self, where: tuple[Any, ...], problem: Any) -> str:
        name = ".".join(str(p) for p in where)
        kind = problem["type"]
        if kind == "extra_forbidden":
            parent = str(where[0]) if len(where) > 1 else ""
            return (
                f"unknown key '{where[-1]}'.{did_you_mean(str(where[-1]), _FIELDS.get(parent, ()))}"
            )
        if kind == "missing":
            return f"key '{name}' is missing"
        if kind == "too_short":
            return f"'{name}' is empty; list at least one"
        got = problem.get("input")
        return f"'{name}': {problem['msg'].lower()}, not {got!r}"

    def _own_models(self, tree: CommentedMap, file: _File) -> dict[str, Model]:
        """The models that the file describes itself; ``model`` becomes one of ``models``."""
        places: list[tuple[Any, ...]] = [("models", i) for i in range(len(file.models))]
        if file.model is not None:
            file.models.append(file.model)
            places.append(("model",))
        if not file.models:
            empty = "'models' is empty; list at least one"
            missing = "key 'models' is missing; name one, or describe your own as 'model'"
            self._problem(_line(tree, ("models",)), empty if "models" in tree else missing)
        found: dict[str, Model] = {}
        for entry, where in zip(file.models, places, strict=True):
            if isinstance(entry, _ModelEntry):
                model = self._own_model(tree, entry, where, file.task)
                if model is not None and model.name in found:
                    self._problem(
                        _line(tree, where), f"two models are called '{model.name}'; name them"
                    )
                elif model is not None:
                    found[model.name] = model
        return found

    def _own_model(
        self,
        tree: CommentedMap,
        entry: _ModelEntry,
        where: tuple[Any, ...],
        shared: str | _TaskEntry | None,
    ) -> Model | None:
        line, known = _line(tree, where), own.readers()
        given = entry.model_dump(exclude_none=True, exclude={"task"})
        kinds = [kind for kind in known if kind in given]
        if len(kinds) != 1:
            self._problem(line, f"a model is given as one of {', '.join(known)}")
            return None
        at = (*where, "task") if entry.task is not None else ("task",)
        own.importable(self.path.parent)
        task = self._own_task(_line(tree, at), entry.task or shared, given)
        if task is None:
            return None
        try:
            return own.model(given, task, self.path.parent)
        except (QuantbenchError, ImportError, AttributeError) as error:
            self._problem(line, str(error))
            return None

    def _own_task(
        self, line: int, task: str | _TaskEntry | None, model: Mapping[str, Any]
    ) -> str | None:
        """Name or locator of a task; seeded noise of the model's shape where none is given."""
        if isinstance(task, str):
            known = registry.names("tasks")
            if task not in known:
                self._problem(line, f"unknown task '{task}'.{did_you_mean(task, known)}")
                return None
            return task
        shape = model.get("input")
        if task is None and not isinstance(shape, list):
            self._problem(
                line, "key 'task' is missing; say what data it is scored on, or give 'input'"
            )
            return None
        entry = {"noise": shape} if task is None else task.model_dump(exclude_none=True)
        kinds = [kind for kind in dataset.KINDS if kind in entry]
        if len(kinds) != 1:
            self._problem(line, f"data are given as one of {', '.join(dataset.KINDS)}")
            return None
        try:
            return dataset.locator(entry, self.path.parent)
        except (QuantbenchError, ImportError, AttributeError) as error:
            self._problem(line, str(error))
            return None

    def _check_names(self, tree: CommentedMap, file: _File) -> None:
        for key, wanted in (("models", file.models), ("backends", file.backends)):
            known = registry.names(key)
            for i, given in enumerate(wanted):
                if not isinstance(given, str):
                    continue
                name, at, shift = given.partition("@") if key == "models" else (given, "", "")
                if at:
                    try:
                        Shift.read(shift)
                    except BadInput as error:
                        self._problem(_line(tree, (key, i)), str(error))
                if name not in known:
                    self._problem(
                        _line(tree, (key, i)),
                        f"unknown {key[:-1]} '{name}'.{did_you_mean(name, known)}",
                    )
        for i, size in enumerate(file.batch_sizes):
            if size < 1:
                self._problem(_line(tree, ("batch_sizes", i)), f"batch size {size} is below 1")
        if file.offline and len(file.batch_sizes) < 2:
            self._problem(
                _line(tree, ("offline",)),
                "'offline' times each artifact at its best batch size; list several in batch_sizes",
            )
        for key in file.reference:
            if key not in _SELECTORS:
                self._problem(
                    _line(tree, ("reference", key)),
                    f"unknown key '{key}' in reference.{did_you_mean(key, _SELECTORS)}",
                )
        for key in ("models", "backends", "seeds", "batch_sizes"):
            values = getattr(file, key)
            for i, value in enumerate(values):
                if value in values[:i]:
                    self._problem(_line(tree, (key, i)), f"'{value}' is listed twice in {key}")

    def _targets(self, tree: CommentedMap, file: _File) -> list[Target]:
        known = presets()
        found: list[Target] = []
        for i, item in enumerate(file.targets):
            line = _line(tree, ("targets", i))
            if isinstance(item, str):
                if item not in known:
                    self._problem(line, f"unknown target '{item}'.{did_you_mean(item, known)}")
                    continue
                target = known[item]
            else:
                target = Target(**{**item.model_dump(), "affinity": tuple(item.affinity)})
            if target.name in (t.name for t in found):
                self._problem(line, f"target '{target.name}' is listed twice")
            found.append(target)
        return found

    def _methods(self, tree: CommentedMap, file: _File) -> list[_MethodEntry]:
        entries = []
        for i, item in enumerate(file.methods):
            line = _line(tree, ("methods", i))
            if isinstance(item, str):
                name, axes = item, dict[str, Any]()
            elif len(item) == 1 and isinstance(next(iter(item.values())), dict):
                name, axes = next(iter(item.items()))
            else:
                self._problem(line, "a method is a name, or 'name: {axis: value}' with one name")
                continue
            if name not in PRESETS:
                self._problem(line, f"unknown method '{name}'.{did_you_mean(name, PRESETS)}")
                continue
            where = ("methods", i, name)
            backends = self._own(tree, where, axes, "backends", file.backends)
            seeds = self._own(tree, where, axes, "seeds", file.seeds)
            swept: dict[str, tuple[Any, ...]] = {}
            for axis, value in axes.items():
                swept[axis] = self._axis(_line(tree, ("methods", i, name, axis)), axis, value)
            for unknown in [b for b in backends if b not in file.backends]:
                self._problem(
                    line,
                    f"'{unknown}' is not among the experiment's backends."
                    f"{did_you_mean(unknown, file.backends)}",
                )
            entries.append(_MethodEntry(name, swept, tuple(backends), tuple(seeds), line))
        return entries

    def _own(
        self,
        tree: CommentedMap,
        where: tuple[Any, ...],
        axes: dict[str, Any],
        key: str,
        default: list[T],
    ) -> list[T]:
        """A method's own list of backends or seeds, taken out of its axes."""
        value = axes.pop(key, default)
        kind = type(default[0])
        if isinstance(value, list) and value and all(type(one) is kind for one in value):
            return value
        words = "names, such as [pytorch]" if kind is str else "whole numbers, such as [0, 1, 2]"
        self._problem(_line(tree, (*where, key)), f"'{key}' takes a list of {words}, not {value!r}")
        return default

    def _axis(self, line: int, axis: str, value: Any) -> tuple[Any, ...]:
        # an axis that is a list of names is swept by a list of lists
        nested = axis not in LISTS or any(isinstance(one, list) for one in value or ())
        values = tuple(value) if isinstance(value, list) and nested else (value,)
        if not values:
            self._problem(line, f"axis '{axis}' has an empty list")
        for one in values:
            try:
                check_axis(axis, one)
            except BadInput as error:
                self._problem(line, str(error))
        return values

    def _precision(self, tree: CommentedMap, file: _File) -> Precision:
        if isinstance(file.precision, str):
            if file.precision not in PRECISIONS:
                self._problem(
                    _line(tree, ("precision",)),
                    f"unknown precision '{file.precision}'."
                    f"{did_you_mean(file.precision, PRECISIONS)}",
                )
            return PRECISIONS.get(file.precision, PRECISIONS["standard"])
        return Precision(**file.precision.model_dump())

    def _recipe(self, tree: CommentedMap, file: _File) -> None:
        for axis, value in file.recipe.items():
            line = _line(tree, ("recipe", axis))
            if axis not in RECIPE:
                self._problem(line, f"unknown axis '{axis}' in recipe.{did_you_mean(axis, RECIPE)}")
                continue
            try:
                check_axis(axis, value)
            except BadInput as error:
                self._problem(line, str(error))

    def _published(
        self, tree: CommentedMap, file: _File, trials: Sequence[Trial]
    ) -> tuple[Published, ...]:
        found = []
        for i, entry in enumerate(file.published):
            line = _line(tree, ("published", i))
            unknown = [key for key in entry.beside if key not in _BESIDE]
            if unknown:
                near = did_you_mean(unknown[0], _BESIDE)
                self._problem(line, f"unknown key '{unknown[0]}' in beside.{near}")
                continue
            trial = next((t.id for t in trials if matches(t, entry.beside)), "")
            if not trial:
                self._problem(line, f"no trial is beside '{entry.what}': none has {entry.beside}")
            found.append(Published(trial=trial, **entry.model_dump(exclude={"beside"})))
        return tuple(found)

    def _expand(
        self,
        file: _File,
        models: list[str],
        methods: list[_MethodEntry],
        targets: list[Target],
    ) -> tuple[Trial, ...]:
        trials: dict[str, Trial] = {}
        for model, target, backend_name, entry in itertools.product(
            models, targets, file.backends, methods
        ):
            if backend_name not in entry.backends:
                continue
            for values in itertools.product(*entry.axes.values()):
                chosen = dict(zip(entry.axes, values, strict=True))
                for seed in entry.seeds:
                    trial = Trial.of(
                        model, backend_name, entry.name, chosen, target,
                        seed=seed, recipe=file.recipe, several_seeds=len(entry.seeds) > 1,
                    )  # fmt: skip
                    if trial.id in trials:
                        self._problem(entry.line, f"trial '{trial.id}' is listed twice")
                    trials[trial.id] = trial
        return tuple(trials.values())


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


def _plain(node: Any) -> Any:
    """The tree as plain dicts, lists and scalars."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _line(tree: Any, where: tuple[Any, ...]) -> int:
    """The 1-based line of the deepest part of ``where`` that the file has."""
    line, node = 1, tree
    for part in where:
        try:
            if isinstance(node, CommentedMap):
                line = node.lc.key(part)[0] + 1
            elif isinstance(node, CommentedSeq):
                line = node.lc.item(part)[0] + 1
            node = node[part]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return line


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
            name: {**m.to_json(), **own.contents(m)} for name, m in experiment.models.items()
        },
        # a task that has changed gives other samples under the same name
        "tasks": {
            name: registry.task(model.task).version
            for name in dict.fromkeys(t.model for t in experiment.trials)
            if (model := experiment.models.get(name) or registry.model(name))
        },
    }
