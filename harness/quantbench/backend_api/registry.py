"""Registry: names to backends, converters, models and tasks, through entry points, imported lazily."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from quantbench.backend_api.descriptor import Backend, Converter
from quantbench.errors import BadInput, did_you_mean
from quantbench.spec import Model, Shift, Task
from quantbench.system import locate

T = TypeVar("T")


@cache
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


def _get(group: str, kind: str, name: str, expected: type[T]) -> T:
    entries = _entry_points(group)
    if name not in entries:
        raise BadInput(f"unknown {kind} '{name}'.{did_you_mean(name, entries)}")
    found = entries[name].load()
    if not isinstance(found, expected):
        raise BadInput(f"{kind} '{name}' ({entries[name].value}) is not a {expected.__name__}")
    return found


def names(kind: str) -> list[str]:
    """Registered names: ``backends``, ``models``, ``tasks``, ``converters`` or ``experiments``."""
    return list(_entry_points(f"quantbench.{kind}"))


def backend(name: str) -> Backend:
    """The backend registered under ``name``; raises `BadInput` with the nearest name."""
    return _get("quantbench.backends", "backend", name, Backend)


def model(name: str) -> Model:
    """The model registered under ``name``; raises `BadInput` with the nearest name.

    ``NAME@SHIFT`` is that model with shifted test inputs; see `quantbench.spec.shift`.
    """
    base, at, shift = name.partition("@")
    found = _get("quantbench.models", "model", base, Model)
    if not at:
        return found
    Shift.read(shift)
    return replace(found, name=name, shift=shift)


def task(name: str) -> Task:
    """The task registered under ``name``; raises `BadInput` with the nearest name.

    A locator of a task, or of a function that returns one, gives a task that is not registered.
    """
    if ":" in name:
        found: Task = locate(name)
        return found() if callable(found) else found
    return _get("quantbench.tasks", "task", name, Task)


def experiments() -> dict[str, Path]:
    """Experiment files that are installed, by the name to run them by."""
    folders = (
        _get("quantbench.experiments", "folder", name, Path) for name in names("experiments")
    )
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def converter(source: str, target: str) -> Converter | None:
    """The registered way from form ``source`` to form ``target``, or None."""
    for name in names("converters"):
        found = _get("quantbench.converters", "converter", name, Converter)
        if (found.source, found.target) == (source, target):
            return found
    return None


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """Those of the distributions that are not installed."""
    missing = []
    for package in packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    return missing
