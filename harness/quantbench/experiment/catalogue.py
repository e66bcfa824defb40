"""Catalogue: what an experiment file can name, as rows for people."""

from __future__ import annotations

from pathlib import Path

from quantbench.backend_api import registry
from quantbench.errors import QuantbenchError
from quantbench.experiment.expand import Experiment
from quantbench.spec import PRESETS, preset, presets
from quantbench.system import locate

Rows = tuple[list[str], list[list[str]]]


def rows(kind: str) -> Rows:
    """Column titles and rows of models, tasks, backends, methods, targets or experiments."""
    return {
        "models": _models,
        "tasks": _tasks,
        "backends": _backends,
        "methods": _methods,
        "targets": _targets,
        "experiments": _experiments,
    }[kind]()


def _models() -> Rows:
    found = [registry.model(name) for name in registry.names("models")]
    return ["model", "task", "forms", "about"], [
        [m.name, m.task, ", ".join(m.forms), m.description] for m in found
    ]


def _tasks() -> Rows:
    found = [registry.task(name) for name in registry.names("tasks")]
    return ["task", "metric", "about"], [[t.name, t.metric, t.description] for t in found]


def _backends() -> Rows:
    lines = []
    for name in registry.names("backends"):
        backend = registry.backend(name)
        missing = registry.missing_packages(backend.packages)
        state = f"missing {', '.join(missing)}: {backend.install}" if missing else "ready"
        lines.append([name, ", ".join(m for m in PRESETS if _takes(name, m)), state])
    return ["backend", "methods", "state"], lines


def _methods() -> Rows:
    lines = []
    for name in PRESETS:
        method = preset(name)
        taken = [b for b in registry.names("backends") if _takes(b, name)]
        axes = f"weights {method.weights}, activations {method.activations}, scales {method.scales}"
        lines.append([name, axes, ", ".join(taken)])
    return ["method", "what", "backends"], lines


def _takes(backend: str, method: str) -> bool:
    """Whether a backend builds a preset with its own defaults, for the first model there is."""
    described = registry.backend(backend)
    model = registry.model(registry.names("models")[0])
    resolved = preset(method, described.axes(method))
    return locate(described.quantizer)().refuse(model, resolved) is None


def _targets() -> Rows:
    return ["target", "device", "threads", "kernels"], [
        [t.name, t.device, str(t.threads), f"{t.kernels}, {t.isa}"] for t in presets().values()
    ]


def _experiments() -> Rows:
    installed = {path.resolve(): name for name, path in registry.experiments().items()}
    here = (path.resolve() for path in Path("experiments").glob("*.yaml"))
    lines = []
    for path in sorted({*installed, *here}):
        try:
            loaded = Experiment.load(path)
            text = f"{len(loaded.trials)} trials. {loaded.description}"
        except QuantbenchError as error:
            text = str(error).splitlines()[0]
        shown = installed.get(path) or str(path.relative_to(Path.cwd()))
        lines.append([shown, text.strip()])
    return ["experiment", "about"], lines
