"""Interventions: trials of published runs built again on noise, profiled, and timed against what a cause
says would help. For speed alone: nothing is scored, so that a case takes a minute and not a run.

    python -m tests.interventions mobilenet_v2 mobilenet-v2/onnxruntime/dynamic-int8/cpu-1 fp32 static-int8

profiles the trial beside its float twin, prints what `quantbench explain` says, and times each method (a
preset, with ``+axis=value`` for axes) against the trial in turns.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from quantbench.analysis import Explanation, explain
from quantbench.backend_api import Quantizer, Runtime
from quantbench.backend_api.registry import converter
from quantbench.execution import Job, run_jobs
from quantbench.experiment import Cell, resolve
from quantbench.experiment.expand import trial_of
from quantbench.results import OperatorProfile, load_results
from quantbench.runs import Reporter, profile, trials_of
from quantbench.spec import AXES, Array, Status, Trial
from quantbench.stats import Interval
from quantbench.steps.build import build, convert
from quantbench.system import locate

PUBLISHED = Path(__file__).parents[1] / "results" / "reference"
SAMPLES, VOCABULARY = 64, 1000


@dataclass(frozen=True)
class Bench:
    """Artifacts of a published run's model, without its data; ``folder`` is scratch.

    What `quantbench.runs.profile` asks of trials at hand (`quantbench.runs.Rebuilt`).
    """

    run: str
    folder: Path

    @cached_property
    def results(self) -> Any:
        return load_results(PUBLISHED / self.run)

    @cached_property
    def trials(self) -> Mapping[str, Trial]:
        return trials_of(self.results)

    @cached_property
    def cells(self) -> dict[str, Cell]:
        return {}

    @cached_property
    def artifacts(self) -> dict[str, tuple[Path, Path]]:
        """Of each trial that was built: the artifact's folder, and that of noise as its samples."""
        return {}

    @property
    def store(self) -> Any:
        return self

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def job(self, trial: str, function: Any, **arguments: Any) -> Job:
        cell, (artifact, data) = self.cells[trial], self.artifacts[trial]
        runtime: Runtime = locate(cell.backend.runtime)()
        given = {
            "artifact": str(artifact), "runtime": cell.backend.runtime, "data": str(data),
            "target": cell.trial.target.to_json(), **arguments,
        }  # fmt: skip
        environment = runtime.environment(cell.trial.target)
        return Job(f"{function.__module__} {trial}", function, given, environment, (), 3600.0)

    def made(self, trial: Trial) -> Trial:
        """Build the artifact of a trial; without its pin to a CPU, which a neighbour may be using."""
        target = dataclasses.replace(trial.target, affinity=())
        cell = resolve(dataclasses.replace(trial, target=target))
        assert not cell.refusal, cell.refusal
        if trial.id not in self.cells:
            place = self.folder / f"trial-{len(self.cells)}"
            data = noise(cell, place / "data")
            model, form = cell.model.to_json(), {}
            quantizer: Quantizer = locate(cell.backend.quantizer)()
            wanted = quantizer.form(trial.method)
            if wanted not in cell.model.forms:
                (source,) = [f for f in cell.model.forms if converter(f, wanted)]
                locator = converter(source, wanted).convert
                made = {"convert": locator, "form": wanted, "folder": str(place / "form")}
                self._work(f"convert {trial.id}", convert, {"model": model, **made})
                form = {"form": str(place / "form")}
            method = dataclasses.replace(
                trial.method, samples=min(trial.method.samples, SAMPLES)
            ).to_json()
            arguments = {
                "model": model, "method": method, "quantizer": cell.backend.quantizer,
                "data": str(data), "folder": str(place / "artifact"), **form,
            }  # fmt: skip
            self._work(f"build {trial.id}", build, arguments)
            self.artifacts[trial.id] = (place / "artifact", data)
            self.cells[trial.id] = cell
        return trial

    def explained(self, name: str) -> tuple[Explanation, OperatorProfile]:
        """What a profile of the trial says."""
        reference = explain(self.results, name).reference
        self.made(self.trials[name])
        self.made(self.trials[reference])
        found = profile(self, name, reference, reporter=Reporter(quiet=True))  # type: ignore[arg-type]
        return explain(self.results, name, found), found

    def other(self, name: str, method: str, **axes: Any) -> Trial:
        """The trial's model, backend and target by another method."""
        own = self.trials[name]
        return self.made(trial_of(own.model, own.backend, method, axes, own.target))

    def ratio(self, trial: str, against: str, *, rounds: int = 5) -> Interval:
        """How many times faster ``trial`` is than ``against``: median, least and most of rounds in turns.

        In calls that are timed as `explain` times them: on one thread in processor time, so that a
        neighbour changes little.
        """
        quiet = Reporter(quiet=True)
        found = profile(self, trial, against, rounds=rounds, reporter=quiet)  # type: ignore[arg-type]
        ratios = sorted(1 / ratio for ratio in found.ratios)
        return Interval(median(ratios), ratios[0], ratios[-1])

    def _work(self, name: str, function: Any, arguments: Mapping[str, Any]) -> None:
        endings: list[Any] = []
        job = Job(name, function, arguments, time_limit_s=3600.0)  # a neighbour may slow it
        run_jobs([job], self.logs, lambda _, ending: endings.append(ending) or (), slots=1)
        assert endings[0].status == Status.OK, endings[0].reason


def noise(cell: Cell, folder: Path) -> Path:
    """Samples of the model's shapes: normal floats, tokens of a small vocabulary, masks of ones."""
    rng = np.random.default_rng(0)
    for split in ("test", "calibration"):
        (folder / split).mkdir(parents=True)
        for spec in cell.model.inputs:
            shape = tuple(SAMPLES if n is None else n for n in (None, *spec.shape[1:]))
            np.save(folder / split / f"{stored(spec.name)}.npy", values(rng, spec, shape))
        np.save(folder / split / "labels.npy", np.zeros(SAMPLES, np.int64))
    return folder


def stored(name: str) -> str:
    from quantbench.system import stored_as

    return stored_as(name)


def values(rng: np.random.Generator, spec: Any, shape: tuple[int, ...]) -> Array:
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return rng.standard_normal(shape).astype(spec.dtype)
    if "mask" in spec.name:
        return np.ones(shape, spec.dtype)
    return rng.integers(1, VOCABULARY, shape).astype(spec.dtype)


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """A preset and its axes: ``dynamic-int8+keep_float=a,b``."""
    method, *changes = text.split("+")
    axes: dict[str, Any] = {}
    for change in changes:
        axis, _, value = change.partition("=")
        assert axis in AXES, axis
        axes[axis] = tuple(value.split(",")) if axis == "keep_float" else value
    return method, axes


def main(run: str, name: str, methods: Sequence[str]) -> None:
    from rich.console import Console

    from quantbench.cli import explaining

    out = Console(width=160)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(run, Path(folder))
        found, made = bench.explained(name)
        explaining.show(found, made, out)
        for text in methods:
            method, axes = parsed(text)
            other = bench.other(name, method, **axes)
            faster = bench.ratio(other.id, name)
            out.print(f"{other.id}: {faster.value:.3f} [{faster.low:.3f}, {faster.high:.3f}]")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
