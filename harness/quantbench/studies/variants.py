"""Variants: many methods on one form of a model, built and run by one long-lived worker.

A sensitivity analysis asks dozens of small questions of one model; the framework is imported once,
and each answer is a folder in the cache, so that an interrupted analysis goes on where it stopped.
Nothing is timed here.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import Observation, Quantizer, Record, Runtime
from quantbench.errors import QuantbenchError
from quantbench.execution import Ending, Job, run_jobs
from quantbench.experiment import Cell
from quantbench.runs import Store
from quantbench.spec import (
    Array,
    Arrays,
    Data,
    Method,
    Model,
    Samples,
    Status,
    Target,
    read_arrays,
    save_arrays,
)
from quantbench.steps import HISTOGRAMS, RECORD, calibration_data, read_split, run_all
from quantbench.system import (
    ENVIRONMENT,
    content_key,
    entry,
    filling,
    locate,
    locator,
    read_json,
    source_digest,
    stored_as,
    tell,
    write_json,
)

TARGET = Target("cpu-1")
CURRENT = "current.json"
ON_TEST = "test"


@dataclass(frozen=True, slots=True)
class Source:
    """What the variants start from: one backend's form of one model, and its data.

    Parameters
    ----------
    model : Model
        With the converted form, if the backend needs one.
    key : str
        Hash of all that a variant's outputs depend on but its method.
    data : Path
        The folder of the prepared splits.
    samples : int
        Test samples that every variant runs, the first of the split.
    """

    cell: Cell
    model: Model
    key: str
    data: Path
    samples: int

    def folder(self, method: Method) -> Path:
        """Where the answer about a method is, once there is one."""
        known = content_key(
            source=self.key, method=method.to_json(), samples=self.samples,
            code=source_digest(locator(work)),
        )  # fmt: skip
        return entry("variants", known)

    def observation(self, method: Method, split: str) -> Path:
        """Where the histograms of the float activations over a split are."""
        known = content_key(
            source=self.key, method=method.to_json(), samples=self.samples, split=split,
            code=source_digest(locator(Observation)),
        )  # fmt: skip
        return entry("observed", known)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one variant; without outputs where it could not be built or run."""

    status: str
    reason: str
    outputs: Arrays
    record: Record | None

    @classmethod
    def read(cls, folder: Path) -> Answer:
        """The answer in a folder of the cache."""
        found = read_json(folder / RECORD)
        record = found.get("record")
        return cls(
            found["status"],
            found["reason"],
            read_arrays(folder) if found["status"] == Status.OK else {},
            Record.from_json(record) if record else None,
        )


def answer(
    source: Source,
    methods: Sequence[Method],
    store: Store,
    *,
    observed: Sequence[Method] = (),
    on_news: Callable[[str, str], None] = lambda name, text: None,
    memory_mb: float = 8000.0,
) -> list[Answer]:
    """The answers about ``methods``, in their order; cached ones are read.

    A variant that crashes the worker costs itself alone: the others go on in a new worker.

    Parameters
    ----------
    observed : sequence of Method
        Whose float activations are to be observed too, over calibration and test samples.
    on_news : callable
        Told the worker's name and how far it is.
    """
    store.logs.mkdir(parents=True, exist_ok=True)
    current = store.logs / f"{stored_as(source.cell.backend.name)}-{CURRENT}"
    current.unlink(missing_ok=True)

    def jobs() -> list[Job]:
        left = [m for m in dict.fromkeys(methods) if not source.folder(m).exists()]
        blind = [m for m in observed if not source.observation(m, ON_TEST).exists()]
        return [_job(source, left, blind, current, memory_mb)] if left or blind else []

    def ended(job: Job, ending: Ending) -> list[Job]:
        if ending.status == Status.OK:
            return []
        if not current.exists():
            raise QuantbenchError(
                f"the worker of {source.cell.backend.name} stopped: {ending.reason}; "
                f"its log is {store.logs}"
            )
        stuck = Method.from_json(read_json(current))
        current.unlink()
        _leave(source.folder(stuck), ending.status, ending.reason)
        return jobs()

    run_jobs(jobs(), store.logs, ended, slots=1, on_news=lambda job, text: on_news(job.name, text))
    return [Answer.read(source.folder(m)) for m in methods]


def _leave(folder: Path, status: str, reason: str) -> None:
    with filling(folder) as temporary:
        write_json(temporary / RECORD, {"status": status, "reason": reason})


def _job(
    source: Source, left: Sequence[Method], blind: Sequence[Method], current: Path, memory_mb: float
) -> Job:
    backend = source.cell.backend
    runtime: Runtime = locate(backend.runtime)()
    arguments = {
        "model": source.model.to_json(),
        "quantizer": backend.quantizer,
        "runtime": backend.runtime,
        "data": str(source.data),
        "samples": source.samples,
        "questions": [[m.to_json(), str(source.folder(m))] for m in left],
        "observations": [
            [m.to_json(), split, str(source.observation(m, split))]
            for m in blind
            for split in ("calibration", ON_TEST)
        ],
        "current": str(current),
    }
    limit = 120.0 * (len(left) + len(blind) + 2)
    return Job(
        f"variants {backend.name}", work, arguments,
        {**ENVIRONMENT, **runtime.environment(TARGET)}, (), limit, memory_mb,
    )  # fmt: skip


# --- the worker ----------------------------------------------------------------------------------


def work(
    *, model: Mapping[str, Any], quantizer: str, runtime: str, data: str, samples: int,
    questions: list[list[Any]], observations: list[list[Any]], current: str,
) -> None:  # fmt: skip
    """Worker function: answer every question that is not answered yet, each into its folder."""
    described = Model.from_json(model)
    tool: Quantizer = locate(quantizer)()
    engine: Runtime = locate(runtime)()
    test = read_split(Path(data), "test", described)
    subset = test.take(np.arange(min(samples, len(test))))
    seen: dict[str, Observation] = {}
    started = time.monotonic()
    for number, (chosen, folder) in enumerate(questions):
        if Path(folder).exists():
            continue
        method = Method.from_json(chosen)
        write_json(Path(current), chosen)
        tell(f"{number + 1} of {len(questions)}{_left(started, number, len(questions))}")
        known = _data(described, method, tool, data, seen)
        _answer(described, method, tool, engine, known, subset, Path(folder))
    Path(current).unlink(missing_ok=True)
    for chosen, split, folder in observations:
        if not Path(folder).exists():
            method = Method.from_json(chosen)
            tell(f"observe {split}")
            _observe(described, method, tool, data, split, subset, Path(folder))


def _left(started: float, done: int, total: int) -> str:
    """About how long the rest will take: compiled variants take minutes, others a second."""
    if not done:
        return ""
    seconds = (time.monotonic() - started) / done * (total - done)
    return f", about {seconds:.0f} s left"


def _data(
    model: Model, method: Method, tool: Quantizer, data: str, seen: dict[str, Observation]
) -> Data:
    """Calibration samples; with ranges where the method takes them from histograms."""
    samples = calibration_data(Path(data), model, method.samples, method.seed)
    if method.ranges != "injected":
        return samples
    # calibrators share what was observed
    plain = replace(method, calibrator="minmax", percentile=0.0, sigmas=0.0)
    key = json.dumps(plain.to_json(), sort_keys=True)
    if key not in seen:
        observation = Observation()
        tool.observe(model, method, samples, observation.see)
        seen[key] = observation
    return replace(samples, ranges=seen[key].ranges(method, tool.levels(method)))


def _answer(
    model: Model, method: Method, tool: Quantizer, engine: Runtime, data: Data, test: Samples,
    folder: Path,
) -> None:  # fmt: skip
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            artifact = tool.quantize(model, method, data, Path(temporary))
            record = tool.inspect(artifact, tool.layers(model))
            session = engine.load(artifact, TARGET, 1)
            dict(session.effective)  # raises where a setting of the target did not take effect
            outputs, _ = run_all(session, test.inputs, 1)
    except QuantbenchError as error:
        _leave(folder, Status.UNSUPPORTED, str(error))
        return
    except Exception as error:  # of a framework; the next variant may well work
        first = (str(error).strip().splitlines() or [""])[0]
        _leave(folder, Status.FAILED, f"{type(error).__name__}: {first}"[:300])
        return
    with filling(folder) as made:
        save_arrays(made, outputs)
        told = {
            "status": Status.OK, "reason": "", "record": record.to_json(),
            "seconds": time.monotonic() - started,
        }  # fmt: skip
        write_json(made / RECORD, told)


def _observe(
    model: Model,
    method: Method,
    tool: Quantizer,
    data: str,
    split: str,
    test: Samples,
    folder: Path,
) -> None:
    samples = calibration_data(Path(data), model, method.samples, method.seed)
    if split == ON_TEST:
        samples = replace(samples, calibration=test)
    observation = Observation()
    tool.observe(model, method, samples, observation.see)
    with filling(folder) as temporary:
        observation.save(temporary / HISTOGRAMS)


def observed(source: Source, method: Method, split: str) -> Observation:
    """Histograms of the float activations over a split."""
    return Observation.load(source.observation(method, split) / HISTOGRAMS)


def first(arrays: Mapping[str, Array], count: int) -> Arrays:
    """The first samples of each array."""
    return {name: array[:count] for name, array in arrays.items()}
