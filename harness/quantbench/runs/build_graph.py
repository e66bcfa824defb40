"""Pipeline: builds and scores the trials of a run, float forms and their parity first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from quantbench.backend_api import JOURNAL, LOSSES, Artifact, Runtime, registry
from quantbench.errors import BadArtifact, QuantbenchError
from quantbench.execution import Ending, Job, run_jobs
from quantbench.experiment import Cell, Experiment, float_form, parity_cell
from quantbench.results import read_json
from quantbench.runs.reporter import Reporter
from quantbench.runs.store import Store
from quantbench.spec import Array, Model, Target, read_arrays
from quantbench.stats import PARITY_LIMIT, PARITY_SAMPLES, Parity, parity, sqnr_db
from quantbench.steps import (
    RECORD,
    SUMMARY,
    artifact_key,
    build,
    data_key,
    form_key,
    observation_key,
    prepare_data,
    score,
    training_key,
    weights_digest,
    weights_key,
)
from quantbench.system import (
    ENVIRONMENT,
    content_key,
    entry,
    installed_packages,
    link_folder,
    locate,
    source_digest,
    usable_cpus,
)

SPLITS = ["calibration", "test"]
Then = Callable[[Ending], Iterable[Job]]
_DONE = Ending("ok", "", None, 0.0)
_CRASH_HINT = (
    "the framework's own code crashed on this model and method; leave the method out, "
    "or take another route or backend"
)


@dataclass(slots=True)
class Pipeline:
    """The state of building and scoring while it runs; `run` leaves everything in the store."""

    experiment: Experiment
    cells: list[Cell]
    store: Store
    machine: Mapping[str, Any]
    reporter: Reporter
    _then: dict[str, Then] = field(default_factory=dict)
    _waiting: dict[str, list[Then]] = field(default_factory=dict)
    _weights: dict[str, str] = field(default_factory=dict)
    _data: dict[str, str] = field(default_factory=dict)
    _train: dict[str, str] = field(default_factory=dict)
    _floats: dict[str, dict[str, Ending]] = field(default_factory=dict)

    def run(self) -> None:
        """Build and score every cell that has no state yet."""
        for cell in self.cells:
            if cell.refusal and self.store.get("build", cell.trial.id) is None:
                self._end(cell, "build", "unsupported", cell.refusal)
        todo = [c for c in self.cells if self._open(c)]
        self.reporter.phase("build", len(todo))
        first: list[Job] = []
        for model in dict.fromkeys(cell.model.name for cell in todo):
            first += self._prepare(model)
        run_jobs(
            first,
            self.store.logs,
            lambda job, ending: self._then.pop(job.name)(ending),
            slots=len(usable_cpus()),
            on_start=lambda job: self.reporter.step(job.name),
            on_news=lambda job, text: self.reporter.news(job.name, text),
        )

    def _open(self, cell: Cell) -> bool:
        """Whether the cell still has to be built or scored, also because the cache was emptied."""
        built = self.store.done("build", cell.trial.id)
        if built is None:
            return True
        if built["status"] != "ok":
            return False
        scored = self.store.done("score", cell.trial.id)
        if scored is None or not entry("artifacts", built["artifact"]).exists():
            return True
        return "score" in scored and not (
            entry("scores", scored["score"]).exists() and Path(scored["data"]).exists()
        )

    def _ask(self, job: Job, *, cached: bool, then: Then) -> Iterable[Job]:
        """Run a job, unless its result is there, and go on with ``then``."""
        if cached:
            return then(_DONE)
        self._then[job.name] = then
        return [job]

    def _ask_shared(self, job: Job, folder: Path, then: Then) -> Iterable[Job]:
        """As `_ask`, for a folder that several cells wait for: one job fills it for all."""
        if folder.exists():
            return then(_DONE)
        waiting = self._waiting.setdefault(str(folder), [])
        waiting.append(then)
        if len(waiting) > 1:
            return []

        def ended(ending: Ending) -> Iterable[Job]:
            jobs: list[Job] = []
            for go_on in self._waiting.pop(str(folder)):
                jobs += go_on(ending)
            return jobs

        return self._ask(job, cached=False, then=ended)

    def _end(self, cell: Cell, stage: str, status: str, reason: str, **more: Any) -> None:
        state = {"status": status, "stage": stage, "reason": reason, **more}
        self.store.put(stage, cell.trial.id, state)

    def _of(self, model: str) -> list[Cell]:
        return [c for c in self.cells if c.model.name == model and not c.refusal]

    # --- data, then the float forms --------------------------------------------------------------

    def _prepare(self, name: str) -> Iterable[Job]:
        model = self._of(name)[0].model
        task = registry.task(model.task)
        try:
            self._weights[name] = weights_digest(model)
            key = data_key(model, task.load, task.version, SPLITS)
        except QuantbenchError as error:
            return self._fail_model(name, Ending("failed", str(error), None, 0.0, mendable=True))
        folder = entry("data", key)
        self._data[name] = str(folder)
        job = self._job(
            f"data {name}", prepare_data.write, self.experiment.limits.build_s,
            load=task.load, model=model.to_json(), splits=SPLITS, folder=str(folder),
        )  # fmt: skip
        return self._ask(job, cached=folder.exists(), then=partial(self._after_data, name))

    def _fail_model(self, name: str, ending: Ending) -> list[Job]:
        for cell in self._of(name):
            if self._open(cell):
                self._end(cell, "build", ending.status, ending.reason, again=ending.again)
                self.reporter.done(f"{cell.trial.id}: {ending.status}")
        return []

    def _after_data(self, name: str, ending: Ending) -> Iterable[Job]:
        if ending.status != "ok":
            return self._fail_model(name, ending)
        self._floats[name] = {}
        floats = {float_form(c): parity_cell(c) for c in self._of(name)}
        jobs = list(self._weigh(name))
        for cell in floats.values():
            jobs += self._build(cell, partial(self._after_float, cell, len(floats)))
        return jobs

    def _weigh(self, name: str) -> Iterable[Job]:
        """Histograms of the weights, for the report; a failure shows where the model is built."""
        model = self._of(name)[0].model
        folder = entry("observed", weights_key(model, weights=self._weights[name]))
        self.store.put("weights", name, {"observed": folder.name})
        job = self._job(
            f"weights {name}", build.weigh, self.experiment.limits.build_s,
            model=model.to_json(), folder=str(folder),
        )  # fmt: skip
        return self._ask(job, cached=folder.exists(), then=lambda ending: [])

    def _after_float(self, cell: Cell, count: int, built: Ending) -> Iterable[Job]:
        def scored(ending: Ending) -> Iterable[Job]:
            ended = self._floats[cell.model.name]
            ended[float_form(cell)] = ending
            return self._trials(cell.model.name) if len(ended) == count else []

        return self._score(cell, scored) if built.status == "ok" else scored(built)

    def _trials(self, name: str) -> list[Job]:
        """All float forms are scored: judge parity, then build the trials."""
        self._judge_parity(name)
        jobs: list[Job] = []
        for cell in self._of(name):
            if not self._open(cell):
                continue
            form = float_form(cell)
            ending = self._floats[name][form]
            judged = (self.store.get("parity", name) or {})["forms"].get(form, {})
            if ending.status != "ok":
                reason = f"its float form could not be made: {ending.reason}"
                self._end(cell, "build", ending.status, reason, again=ending.again)
                self.reporter.done(f"{cell.trial.id}: {ending.status}")
            elif not judged["holds"]:
                self._end(cell, "build", "invalid", judged["reason"])
                self.reporter.done(f"{cell.trial.id}: invalid")
            else:
                jobs += self._build(cell, partial(self._after_build, cell))
        return jobs

    def _judge_parity(self, name: str) -> None:
        """Compare each backend's float outputs with those of the model's own form."""
        model = self._of(name)[0].model
        cells = {float_form(c): parity_cell(c) for c in self._of(name)}
        scored = [form for form in cells if self._floats[name][form].status == "ok"]
        scored.sort(key=lambda form: _origin(model, cells[form]))
        judged: dict[str, dict[str, Any]] = {}
        reference = self.outputs(cells[scored[0]]) if scored else {}
        for form in scored:
            own = self.outputs(cells[form])
            found = [parity(reference[key], own[key]) for key in reference]
            worst = max(found, key=lambda p: p.relative)
            holds = worst.holds
            judged[form] = {
                "trial": cells[form].trial.label,
                "max_abs": worst.max_abs,
                "relative": worst.relative,
                "samples": worst.samples,
                "holds": holds,
                "score": self._score_key(cells[form]),
                "artifact": self._artifact_key(cells[form]),
                "reason": "" if holds else _parity_reason(worst, scored[0]),
            }
        self.store.put(
            "parity", name, {"reference": scored[0] if scored else None, "forms": judged}
        )

    # --- one cell --------------------------------------------------------------------------------

    def _build(self, cell: Cell, then: Then) -> Iterable[Job]:
        """Train and convert the form if need be, then quantize; each only if not cached."""
        if cell.trial.method.training == "ptq":
            return self._convert(cell, then)
        return self._training_data(
            cell,
            lambda ending: self._fit(cell, then) if ending.status == "ok" else then(ending),
        )

    def _training_data(self, cell: Cell, then: Then) -> Iterable[Job]:
        """Write the training split, once for all trainings of a model."""
        name, task = cell.model.name, registry.task(cell.model.task)
        folder = entry("data", data_key(cell.model, task.load, task.version, ["train"]))
        self._train[name] = str(folder)
        job = self._job(
            f"data {name} train", prepare_data.write, self.experiment.limits.build_s,
            load=task.load, model=cell.model.to_json(), splits=["train"], folder=str(folder),
            apart=self._data[name],
        )  # fmt: skip
        return self._ask_shared(job, folder, then)

    def _fit(self, cell: Cell, then: Then) -> Iterable[Job]:
        """Train, then run what was trained with fake quantization, then go on to convert it."""
        folder = entry("trained", self._training_key(cell))
        method = cell.trial.method
        known: dict[str, Any] = {
            "method": method.to_json(), "trainer": cell.backend.trainer,
            "data": self._data[cell.model.name],
        }  # fmt: skip
        job = self._job(
            f"train {cell.trial.id}", build.train, self.experiment.limits.train_s,
            model=cell.model.to_json(), **known, train=self._train[cell.model.name],
            loss=LOSSES[registry.task(cell.model.task).metric], folder=str(folder),
        )  # fmt: skip

        def trained(ending: Ending) -> Iterable[Job]:
            if ending.status != "ok":
                return then(ending)
            if method.training == "finetune":
                return self._convert(cell, then)
            model = self._trained(cell)
            outputs = entry("simulations", self._training_key(cell))
            simulation = self._job(
                f"simulate {cell.trial.id}", build.simulate,
                self.experiment.limits.score_s,
                model=model.to_json(), **known, folder=str(outputs),
            )  # fmt: skip
            return self._ask_shared(
                simulation,
                outputs,
                lambda done: self._convert(cell, then) if done.status == "ok" else then(done),
            )

        return self._ask_shared(job, folder, trained)

    def _training_key(self, cell: Cell) -> str:
        name = cell.model.name
        return training_key(
            cell.model, cell.trial.method, cell.backend,
            weights=self._weights[name], data=Path(self._data[name]).name,
            train=Path(self._train[name]).name,
        )  # fmt: skip

    def _trained(self, cell: Cell) -> Model:
        """The cell's model, with what its training left where it has one."""
        if cell.trial.method.training == "ptq":
            return cell.model
        return replace(cell.model, trained=str(entry("trained", self._training_key(cell))))

    def _convert(self, cell: Cell, then: Then) -> Iterable[Job]:
        model, converter = self._trained(cell), cell.converter
        if converter is None:
            return self._quantize(cell, model, then)
        folder = entry("forms", self._form_key(cell))
        job = self._job(
            f"convert {model.name} {converter.source} to {converter.target} {folder.name[:8]}",
            build.convert, self.experiment.limits.build_s,
            model=model.to_json(), convert=converter.convert, folder=str(folder),
        )  # fmt: skip

        def converted(ending: Ending) -> Iterable[Job]:
            if ending.status != "ok":
                return then(ending)
            path = folder / read_json(folder / RECORD)["file"]
            forms = {**model.forms, converter.target: str(path)}
            return self._quantize(cell, replace(model, forms=forms), then)

        return self._ask_shared(job, folder, converted)

    def _quantize(self, cell: Cell, model: Model, then: Then) -> Iterable[Job]:
        if cell.trial.method.ranges == "injected":
            return self._observe(cell, model, then)
        return self._make(cell, model, then)

    def _observe(self, cell: Cell, model: Model, then: Then) -> Iterable[Job]:
        """Write histograms of the activations, once for all calibrators; then build with them."""
        folder = entry("observed", self._observation_key(cell))
        job = self._job(
            f"observe {cell.trial.id}", build.observe, self.experiment.limits.build_s,
            model=model.to_json(), method=cell.trial.method.to_json(),
            quantizer=cell.backend.quantizer, data=self._data[model.name], folder=str(folder),
        )  # fmt: skip
        return self._ask_shared(
            job,
            folder,
            lambda ending: (
                self._make(cell, model, then, observed=str(folder))
                if ending.status == "ok"
                else then(ending)
            ),
        )

    def _make(self, cell: Cell, model: Model, then: Then, observed: str = "") -> Iterable[Job]:
        folder = entry("artifacts", self._artifact_key(cell))
        job = self._job(
            f"build {cell.trial.id}", build.build, self.experiment.limits.build_s,
            model=model.to_json(), method=cell.trial.method.to_json(),
            quantizer=cell.backend.quantizer, data=self._data[model.name], folder=str(folder),
            observed=observed,
        )  # fmt: skip
        return self._ask(job, cached=_intact(folder), then=then)

    def _observation_key(self, cell: Cell) -> str:
        name = cell.model.name
        return observation_key(
            self._trained(cell), cell.trial.method, cell.backend,
            weights=self._weights[name], data=Path(self._data[name]).name,
            form=self._form_key(cell),
        )  # fmt: skip

    def source(self, cell: Cell) -> tuple[Model, str]:
        """The model with the form that a built cell starts from, and the key of it and its data."""
        name = cell.model.name
        if name not in self._data:  # everything was built before
            task = registry.task(cell.model.task)
            self._weights[name] = weights_digest(cell.model)
            key = data_key(cell.model, task.load, task.version, SPLITS)
            self._data[name] = str(entry("data", key))
        model = self._trained(cell)
        if cell.converter is not None:
            folder = entry("forms", self._form_key(cell))
            path = folder / read_json(folder / RECORD)["file"]
            model = replace(model, forms={**model.forms, cell.converter.target: str(path)})
        plain = replace(cell.trial.method, name="", only=(), keep_float=(), parts="both")
        known = artifact_key(
            self._trained(cell), plain, cell.backend,
            weights=self._weights[name], data=Path(self._data[name]).name,
            form=self._form_key(cell),
        )  # fmt: skip
        return model, known

    def _form_key(self, cell: Cell) -> str:
        if cell.converter is None:
            return ""
        return form_key(self._trained(cell), cell.converter, self._weights[cell.model.name])

    def _artifact_key(self, cell: Cell) -> str:
        name = cell.model.name
        return artifact_key(
            self._trained(cell), cell.trial.method, cell.backend,
            weights=self._weights[name], data=Path(self._data[name]).name,
            form=self._form_key(cell),
        )  # fmt: skip

    def _after_build(self, cell: Cell, ending: Ending) -> Iterable[Job]:
        trial = cell.trial
        if ending.status != "ok":
            reason = ending.reason
            if ending.status == "crashed" and not ending.killed:
                reason = f"{reason}; {_CRASH_HINT}"
            self._end(cell, "build", ending.status, reason, again=ending.again)
            self.reporter.done(f"{trial.id}: {ending.status}")
            return []
        key = self._artifact_key(cell)
        folder = entry("artifacts", key)
        artifact = Artifact.open(folder, verify=False)
        link_folder(folder, self.store.artifact(key))
        record = read_json(folder / RECORD)
        if self.store.done("build", trial.id) is None:
            self._end(
                cell, "build", "ok", "",
                artifact=key, sha256=artifact.digest, built_s=record["built_s"], record=record,
                simulated=artifact.details.get("simulated", ""), **self._before(cell),
            )  # fmt: skip
        return self._score(cell, partial(self._after_score, cell))

    def _before(self, cell: Cell) -> dict[str, Any]:
        """What training and conversion left: their times, the journal and the simulation."""
        left: dict[str, Any] = {}
        if cell.converter is not None:
            record = read_json(entry("forms", self._form_key(cell)) / RECORD)
            left["converted_s"] = record["converted_s"]
        if cell.trial.method.ranges == "injected":
            left["observation"] = self._observation_key(cell)
            seen = read_json(entry("observed", left["observation"]) / RECORD)
            left["observed_s"] = seen["observed_s"]
            left["observed_bytes"] = seen["peak_rss_bytes"] - seen["model_rss_bytes"]
        if cell.trial.method.training != "ptq":
            key = self._training_key(cell)
            folder = entry("trained", key)
            left["trained_s"] = read_json(folder / RECORD)["trained_s"]
            text = (folder / JOURNAL).read_text(encoding="utf-8")
            left["journal"] = [json.loads(line) for line in text.splitlines()]
            if cell.trial.method.training == "qat":
                left["simulation"] = key
        return left

    def _score(self, cell: Cell, then: Then) -> Iterable[Job]:
        artifact = entry("artifacts", self._artifact_key(cell))
        folder = entry("scores", self._score_key(cell))
        runtime: Runtime = locate(cell.backend.runtime)()
        target = _unpinned(cell.trial.target)
        job = self._job(
            f"score {cell.trial.id}", score.score, self.experiment.limits.score_s,
            environment=runtime.environment(target),
            artifact=str(artifact), runtime=cell.backend.runtime, target=target.to_json(),
            batch_size=self.experiment.batch_sizes[0], data=self._data[cell.model.name],
            split="test", folder=str(folder),
        )  # fmt: skip
        return self._ask(job, cached=folder.exists(), then=then)

    def _score_key(self, cell: Cell) -> str:
        """Scores depend on the artifact, the runtime, the target and the CPU, not on its clock."""
        artifact = Artifact.open(entry("artifacts", self._artifact_key(cell)), verify=False)
        target = _unpinned(cell.trial.target).to_json()
        used = ("numpy", *cell.backend.run_packages, *cell.backend.optional_packages)
        return content_key(
            # the same file may be run in two ways (eager, compiled): the manifest's details differ
            artifact=artifact.digest, details=dict(artifact.details), runtime=cell.backend.runtime, batch_size=self.experiment.batch_sizes[0],
            data=Path(self._data[cell.model.name]).name,
            target={k: v for k, v in target.items() if k != "name"},
            source=[
                source_digest(cell.backend.runtime),
                source_digest("quantbench.steps.score"),
                source_digest("quantbench.spec.tensor"),
            ],
            packages={p: installed_packages().get(p) for p in used},
            machine=[self.machine["cpu"], self.machine["isa"]],
        )  # fmt: skip

    def outputs(self, cell: Cell) -> dict[str, Array]:
        """A scored cell's outputs over the test split, by output name."""
        return read_arrays(entry("scores", self._score_key(cell)))

    def _after_score(self, cell: Cell, ending: Ending) -> list[Job]:
        trial = cell.trial
        status, reason = ending.status, ending.reason
        more: dict[str, Any] = {"scored_s": ending.seconds, "again": ending.again}
        if ending.status == "ok":
            key = self._score_key(cell)
            folder = entry("scores", key)
            summary = read_json(folder / SUMMARY)
            noise = self._sqnr(cell)
            status, reason = self._judge(cell, noise)
            more = {
                "score": key,
                "data": self._data[cell.model.name],
                "sqnr_db": noise,
                "scored_s": summary["seconds"],
                "summary": summary,
            }
        self._end(cell, "score", status, reason, **more)
        self.reporter.done(f"{trial.id}: {status}" + (f" ({reason})" if reason else ""))
        return []

    def _sqnr(self, cell: Cell) -> float:
        """Smallest SQNR of the outputs against the model's reference form, dB."""
        parity_state = self.store.get("parity", cell.model.name) or {}
        score = parity_state["forms"][parity_state["reference"]]["score"]
        reference = read_arrays(entry("scores", score))
        own = self.outputs(cell)
        return min(sqnr_db(reference[name], array) for name, array in own.items())

    def _judge(self, cell: Cell, noise: float) -> tuple[str, str]:
        """Status of a scored artifact: ``invalid``, ``no-op`` or ``ok``, with the reason."""
        if noise == float("-inf"):
            return "invalid", "its outputs are not finite"
        floor = self.experiment.valid_sqnr_db
        if noise < floor:
            return "invalid", (
                f"its outputs are far from fp32: SQNR {noise:.1f} dB, below the limit of {floor:g} dB"
            )
        built = self.store.get("build", cell.trial.id) or {}
        if built["simulated"]:
            return "simulated", built["simulated"]
        wanted = cell.trial.method.weights
        held = built["record"]["weight_bytes"]
        if wanted != "float32" and not any(_same_width(wanted, dtype) for dtype in held):
            found = ", ".join(sorted(held)) or "none"
            return "no-op", f"the method changed nothing: no {wanted} weights in the file ({found})"
        return "ok", ""

    def _job(
        self,
        name: str,
        function: Callable[..., Any],
        limit: float,
        environment: Mapping[str, str] = ENVIRONMENT,
        **arguments: Any,
    ) -> Job:
        return Job(
            name, function, arguments, environment, (), limit, self.experiment.limits.memory_mb
        )


def _origin(model: Model, cell: Cell) -> tuple[int, int]:
    """How near a form is to the model's own: its place among them, those converted last."""
    forms = list(model.forms)
    if not forms:  # a ready file, judged by itself
        return 0, 0
    need = locate(cell.backend.quantizer)().form(cell.trial.method)
    source = cell.converter.source if cell.converter else need
    return int(cell.converter is not None), forms.index(source)


def _unpinned(target: Target) -> Target:
    """The target without its pin: outputs do not depend on which CPU computes them."""
    return Target.from_json({**target.to_json(), "affinity": []})


def _intact(folder: Path) -> bool:
    """Whether a cached artifact is there and whole; one that is not is removed."""
    if not folder.exists():
        return False
    try:
        Artifact.open(folder)
        read_json(folder / RECORD)
    except (BadArtifact, QuantbenchError):
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def _same_width(wanted: str, dtype: str) -> bool:
    return dtype == wanted or (wanted == "int8" and dtype == "uint8")


def _parity_reason(found: Parity, reference: str) -> str:
    return (
        f"its float form is not the same function as {reference}'s: largest difference "
        f"{found.max_abs:.3g} on {found.samples} samples, {found.relative:.2%} of the largest "
        f"output (limit {PARITY_LIMIT:.1%})"
        + ("" if found.samples >= PARITY_SAMPLES else f"; fewer than {PARITY_SAMPLES} samples")
    )
