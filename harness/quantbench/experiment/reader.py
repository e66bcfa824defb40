"""Reader: an experiment file, validated; every problem is told with its line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from quantbench.backend_api import registry
from quantbench.errors import BadExperiment, BadInput, QuantbenchError, did_you_mean
from quantbench.experiment import user_data
from quantbench.experiment import user_model as own
from quantbench.experiment.file_schema import (
    BRANCHES,
    FIELDS,
    ExperimentFile,
    ModelEntry,
    TargetEntry,
    TaskEntry,
)
from quantbench.spec import (
    LISTS,
    PRECISIONS,
    PRESETS,
    RECIPE,
    Model,
    Precision,
    Shift,
    Target,
    check_axis,
    presets,
)

T = TypeVar("T")
SELECTORS = ("backend", "method", "label", "route")


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """One line under ``methods``: a preset, its axes with their lists, its backends and seeds."""

    name: str
    axes: Mapping[str, tuple[Any, ...]]
    backends: tuple[str, ...]
    seeds: tuple[int, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Read:
    """What an experiment file says.

    Parameters
    ----------
    file : ExperimentFile
        Its keys, validated; ``models`` holds names and descriptions.
    text : str
        As it was written.
    own : mapping
        The models that it describes itself, by name.
    targets, methods, precision
        What its names stand for.
    published : tuple of int
        The line of each entry under ``published``.
    """

    file: ExperimentFile
    text: str
    own: Mapping[str, Model]
    targets: tuple[Target, ...]
    methods: tuple[MethodEntry, ...]
    precision: Precision
    published: tuple[int, ...]


class Reader:
    """Reads one file and gathers every problem with its line before it gives up."""

    def __init__(self, path: Path) -> None:
        installed = registry.experiments() if not path.suffix and not path.exists() else {}
        self.path = installed.get(str(path), path)
        self.problems: list[tuple[int, str]] = []

    def read(self) -> Read:
        """What the file says, validated; raises `BadExperiment` with every problem found."""
        text = self._text()
        tree = self._tree(text)
        file = self._validate(tree)
        self.check()
        assert file is not None  # noqa: S101 - for the type checker: no problem means a file
        own = self._own_models(tree, file)
        self._check_names(tree, file)
        targets = self._targets(tree, file)
        methods = self._methods(tree, file)
        precision = self._precision(tree, file)
        self._recipe(tree, file)
        self.check()
        return Read(
            file=file, text=text, own=own, targets=tuple(targets), methods=tuple(methods),
            precision=precision,
            published=tuple(_line(tree, ("published", i)) for i in range(len(file.published))),
        )  # fmt: skip

    def problem(self, line: int, text: str) -> None:
        """Note a problem; `check` raises them together."""
        if (line, text) not in self.problems:
            self.problems.append((line, text))

    def check(self) -> None:
        """Raise `BadExperiment` where problems were found: one line ``file:line: problem`` for each."""
        if self.problems:
            found = sorted(self.problems, key=lambda problem: problem[0])
            lines = [f"{self.path}:{line}: {text}" for line, text in found]
            raise BadExperiment("\n".join(lines))

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            installed = registry.experiments()
            names = (*(p.name for p in self.path.parent.glob("*.yaml")), *installed)
            near = did_you_mean(self.path.name, names)
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

    def _validate(self, tree: CommentedMap) -> ExperimentFile | None:
        try:
            return ExperimentFile.model_validate(_plain(tree))
        except ValidationError as error:
            for problem in error.errors():
                # a union reports each of its branches; the one that fits the kind of value speaks
                if problem["type"] == "string_type" and isinstance(problem["input"], dict):
                    continue
                where = tuple(p for p in problem["loc"] if p not in BRANCHES)
                self.problem(_line(tree, where), self._say(where, problem))
            return None

    def _say(self, where: tuple[Any, ...], problem: Any) -> str:
        name = ".".join(str(p) for p in where)
        kind = problem["type"]
        if kind == "extra_forbidden":
            parent = str(where[0]) if len(where) > 1 else ""
            return (
                f"unknown key '{where[-1]}'.{did_you_mean(str(where[-1]), FIELDS.get(parent, ()))}"
            )
        if kind == "missing":
            return f"key '{name}' is missing"
        if kind == "too_short":
            return f"'{name}' is empty; list at least one"
        got = problem.get("input")
        return f"'{name}': {problem['msg'].lower()}, not {got!r}"

    def _own_models(self, tree: CommentedMap, file: ExperimentFile) -> dict[str, Model]:
        """The models that the file describes itself; ``model`` becomes one of ``models``."""
        places: list[tuple[Any, ...]] = [("models", i) for i in range(len(file.models))]
        if file.model is not None:
            file.models.append(file.model)
            places.append(("model",))
        if not file.models:
            empty = "'models' is empty; list at least one"
            missing = "key 'models' is missing; name one, or describe your own as 'model'"
            self.problem(_line(tree, ("models",)), empty if "models" in tree else missing)
        found: dict[str, Model] = {}
        for entry, where in zip(file.models, places, strict=True):
            if isinstance(entry, ModelEntry):
                model = self._own_model(tree, entry, where, file.task)
                if model is not None and model.name in found:
                    self.problem(
                        _line(tree, where), f"two models are called '{model.name}'; name them"
                    )
                elif model is not None:
                    found[model.name] = model
        return found

    def _own_model(
        self,
        tree: CommentedMap,
        entry: ModelEntry,
        where: tuple[Any, ...],
        shared: str | TaskEntry | None,
    ) -> Model | None:
        line, known = _line(tree, where), own.readers()
        given = entry.model_dump(exclude_none=True, exclude={"task"})
        kinds = [kind for kind in known if kind in given]
        if len(kinds) != 1:
            self.problem(line, f"a model is given as one of {', '.join(known)}")
            return None
        at = (*where, "task") if entry.task is not None else ("task",)
        own.importable(self.path.parent)
        task = self._own_task(_line(tree, at), entry.task or shared, given)
        if task is None:
            return None
        try:
            return own.model(given, task, self.path.parent)
        except (QuantbenchError, ImportError, AttributeError) as error:
            self.problem(line, str(error))
            return None

    def _own_task(
        self, line: int, task: str | TaskEntry | None, model: Mapping[str, Any]
    ) -> str | None:
        """Name or locator of a task; seeded noise of the model's shape where none is given."""
        if isinstance(task, str):
            known = registry.names("tasks")
            if task not in known:
                self.problem(line, f"unknown task '{task}'.{did_you_mean(task, known)}")
                return None
            return task
        shape = model.get("input")
        if task is None and not isinstance(shape, list):
            self.problem(
                line, "key 'task' is missing; say what data it is scored on, or give 'input'"
            )
            return None
        entry = {"noise": shape} if task is None else task.model_dump(exclude_none=True)
        kinds = [kind for kind in user_data.KINDS if kind in entry]
        if len(kinds) != 1:
            self.problem(line, f"data are given as one of {', '.join(user_data.KINDS)}")
            return None
        try:
            return user_data.task_locator(entry, self.path.parent)
        except (QuantbenchError, ImportError, AttributeError) as error:
            self.problem(line, str(error))
            return None

    def _check_names(self, tree: CommentedMap, file: ExperimentFile) -> None:
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
                        self.problem(_line(tree, (key, i)), str(error))
                if name not in known:
                    self.problem(
                        _line(tree, (key, i)),
                        f"unknown {key[:-1]} '{name}'.{did_you_mean(name, known)}",
                    )
        for i, size in enumerate(file.batch_sizes):
            if size < 1:
                self.problem(_line(tree, ("batch_sizes", i)), f"batch size {size} is below 1")
        if file.offline and len(file.batch_sizes) < 2:
            self.problem(
                _line(tree, ("offline",)),
                "'offline' times each artifact at its best batch size; list several in batch_sizes",
            )
        for key in file.reference:
            if key not in SELECTORS:
                self.problem(
                    _line(tree, ("reference", key)),
                    f"unknown key '{key}' in reference.{did_you_mean(key, SELECTORS)}",
                )
        for key in ("models", "backends", "seeds", "batch_sizes"):
            values = getattr(file, key)
            for i, value in enumerate(values):
                if value in values[:i]:
                    self.problem(_line(tree, (key, i)), f"'{value}' is listed twice in {key}")

    def _targets(self, tree: CommentedMap, file: ExperimentFile) -> list[Target]:
        known = presets()
        found: list[Target] = []
        for i, item in enumerate(file.targets):
            line = _line(tree, ("targets", i))
            if isinstance(item, str):
                if item not in known:
                    self.problem(line, f"unknown target '{item}'.{did_you_mean(item, known)}")
                    continue
                target = known[item]
            else:
                target = _target(item)
            if target.name in (t.name for t in found):
                self.problem(line, f"target '{target.name}' is listed twice")
            found.append(target)
        return found

    def _methods(self, tree: CommentedMap, file: ExperimentFile) -> list[MethodEntry]:
        entries = []
        for i, item in enumerate(file.methods):
            line = _line(tree, ("methods", i))
            if isinstance(item, str):
                name, axes = item, dict[str, Any]()
            elif len(item) == 1 and isinstance(next(iter(item.values())), dict):
                name, axes = next(iter(item.items()))
            else:
                self.problem(line, "a method is a name, or 'name: {axis: value}' with one name")
                continue
            if name not in PRESETS:
                self.problem(line, f"unknown method '{name}'.{did_you_mean(name, PRESETS)}")
                continue
            where = ("methods", i, name)
            backends = self._own(tree, where, axes, "backends", file.backends)
            seeds = self._own(tree, where, axes, "seeds", file.seeds)
            swept: dict[str, tuple[Any, ...]] = {}
            for axis, value in axes.items():
                swept[axis] = self._axis(_line(tree, ("methods", i, name, axis)), axis, value)
            for unknown in [b for b in backends if b not in file.backends]:
                self.problem(
                    line,
                    f"'{unknown}' is not among the experiment's backends."
                    f"{did_you_mean(unknown, file.backends)}",
                )
            entries.append(MethodEntry(name, swept, tuple(backends), tuple(seeds), line))
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
        self.problem(_line(tree, (*where, key)), f"'{key}' takes a list of {words}, not {value!r}")
        return default

    def _axis(self, line: int, axis: str, value: Any) -> tuple[Any, ...]:
        # an axis that is a list of names is swept by a list of lists
        nested = axis not in LISTS or any(isinstance(one, list) for one in value or ())
        values = tuple(value) if isinstance(value, list) and nested else (value,)
        if not values:
            self.problem(line, f"axis '{axis}' has an empty list")
        for one in values:
            try:
                check_axis(axis, one)
            except BadInput as error:
                self.problem(line, str(error))
        return values

    def _precision(self, tree: CommentedMap, file: ExperimentFile) -> Precision:
        if isinstance(file.precision, str):
            if file.precision not in PRECISIONS:
                self.problem(
                    _line(tree, ("precision",)),
                    f"unknown precision '{file.precision}'."
                    f"{did_you_mean(file.precision, PRECISIONS)}",
                )
            return PRECISIONS.get(file.precision, PRECISIONS["standard"])
        return Precision(**file.precision.model_dump())

    def _recipe(self, tree: CommentedMap, file: ExperimentFile) -> None:
        for axis, value in file.recipe.items():
            line = _line(tree, ("recipe", axis))
            if axis not in RECIPE:
                self.problem(line, f"unknown axis '{axis}' in recipe.{did_you_mean(axis, RECIPE)}")
                continue
            try:
                check_axis(axis, value)
            except BadInput as error:
                self.problem(line, str(error))


def declared_targets(text: str) -> dict[str, Target]:
    """The targets that the text of an experiment declares itself, by name; not what presets are.

    ``text``: of an experiment that was read before; one that cannot be read declares none.
    """
    try:
        tree = YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return {}
    items = tree.get("targets") if isinstance(tree, dict) else None
    found = {}
    for item in items if isinstance(items, list) else []:
        with contextlib.suppress(ValidationError):  # of another version
            if isinstance(item, dict):
                target = _target(TargetEntry.model_validate(item))
                found[target.name] = target
    return found


def _target(entry: TargetEntry) -> Target:
    return Target(**{**entry.model_dump(), "affinity": tuple(entry.affinity)})


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
