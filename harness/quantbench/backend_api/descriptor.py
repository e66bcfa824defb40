"""Descriptor: a backend and a form converter, described without importing a framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what trains is not for a device
    pass


@dataclass(frozen=True, slots=True)
class Backend:
    """A framework's Quantizer with its Runtime, described without importing either.

    Parameters
    ----------
    name : str
        ``pytorch``, ``tflite``, ``onnxruntime``...
    quantizer, runtime : str
        Locators of the two classes. Importing their modules imports no framework: ``refuse`` is
        asked in the parent process.
    build_packages, run_packages : tuple of str
        Distribution names that building, and scoring or timing, need.
    install : str
        The command that installs them.
    run_modules : tuple of str
        Modules of the runtime, imported before the memory of the bare runtime is read.
    methods : mapping
        Preset name -> the axes whose default in this framework differs from the preset's.
    trainer : str
        Locator of the `Trainer` whose work its quantizer takes; empty where it takes none.
    routes : mapping
        Preset name -> every route there is -> the axes whose default on it differs from
        ``methods``. A preset that is not here has one route.
    optional_packages : tuple of str
        Distribution names that single routes need, which are refused without them.
    kinds : tuple of str
        What it reads of a user's own models: keys of a ``model`` in an experiment file.
    graphs : mapping
        Route of a quantized method -> the ``fp32`` route whose graph runs its artifact, where that
        is not the default one: like is compared with like.
    own : str
        The module that does it, with ``outputs(source, folder)`` and the builders of forms.
    """

    name: str
    quantizer: str
    runtime: str
    build_packages: tuple[str, ...]
    run_packages: tuple[str, ...]
    install: str
    run_modules: tuple[str, ...] = ()
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trainer: str = ""
    routes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    optional_packages: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    graphs: Mapping[str, str] = field(default_factory=dict)
    own: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """Everything that must be installed, each once."""
        return tuple(dict.fromkeys(self.build_packages + self.run_packages))

    def ways(self, preset: str) -> tuple[str, ...]:
        """Every route of a preset, the default one first."""
        usual = self.methods.get(preset, {}).get("route", "")
        return tuple(dict.fromkeys((usual, *self.routes.get(preset, {}))))

    def graph(self, route: str, *, floats: bool) -> str:
        """The ``fp32`` route whose graph runs what ``route`` leaves; ``floats``: of a float method."""
        if floats and route in self.routes.get("fp32", {}):
            return route
        usual: str = self.methods.get("fp32", {}).get("route", "")
        return self.graphs.get(route, usual)

    def axes(self, preset: str, chosen: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The axes of a preset here: the defaults, those of the chosen route, what is chosen."""
        own, chosen = self.methods.get(preset, {}), chosen or {}
        route = chosen.get("route", own.get("route", ""))
        return {**own, **self.routes.get(preset, {}).get(route, {}), **chosen}


@dataclass(frozen=True, slots=True)
class Converter:
    """A registered way from one form of a model to another, e.g. ``torch`` to ``onnx``.

    ``convert`` is the locator of ``(model: Model, folder: Path) -> Path``; the file is
    ``folder/model.*``. ``model.trained`` may name a trained folder to start from.
    """

    source: str
    target: str
    convert: str
    packages: tuple[str, ...]
    install: str
