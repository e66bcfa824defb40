"""Build graph: the table of steps that build and score the trials of a run, float forms first.

For each model its data, then its float forms, built and scored; where they are the same function, the
trials: train, simulate, convert, observe, build, score. What is true of a step stands in its row.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from quantbench.backend_api import (
    JOURNAL,
    LOSSES,
    PRESET,
    Artifact,
    Backend,
    Runtime,
    registry,
)
from quantbench.errors import BadArtifact, QuantbenchError
from quantbench.execution import Ending, LocalExecutor, Resources, Step, StepGraph
from quantbench.experiment import Cell, Experiment, float_form, parity_cell
from quantbench.runs.reporter import Reporter
from quantbench.runs.states import Built, Compared, Confirmed, Form, Scored, Weighed
from quantbench.runs.store import Store
from quantbench.spec import CONFIRMATION, RECIPE, Model, Status, Task
from quantbench.stats import PARITY_LIMIT, PARITY_SAMPLES, Parity, parity, sqnr_db
from quantbench.steps import SUMMARY, build, prepare_data, score
from quantbench.steps.build import read_record
from quantbench.system import ENVIRONMENT, entry, file_sha256, link_folder, locate, read_json

TEST = "test"
SPLITS = ["calibration", TEST]
_OF_WEIGHTS = ("weights", "granularity", "group_size", "symmetric_weights", "int4_weights")
_CRASH_HINT = (
    "the framework's own code crashed on this model and method; leave the method out, "
    "or take another route or backend"
)


@dataclass(slots=True)
class BuildGraph:
    """Building and scoring of a run's cells; `run` leaves everything in the store."""

    experiment: Experiment
    cells: Sequence[Cell]
    store: Store
    machine: Mapping[str, Any]
    reporter: Reporter
    _graph: StepGraph = field(default_factory=lambda: StepGraph(()))

    def run(self) -> None:
        """Build and score every cell that has no state yet."""
        for cell in self.cells:
            if cell.refusal and self.store.get(Built, cell.trial.id) is None:
                self.store.put(cell.trial.id, Built(Status.UNSUPPORTED, cell.refusal))
        todo = [c for c in self.cells if self._open(c)]
        self.reporter.phase("build", len(todo))
        steps: dict[str, Step] = {}
        for model in dict.fromkeys(cell.model.name for cell in todo):
            try:
                # a step that several trials need stands once
                steps |= {step.name: step for step in self.steps(model)}
            except QuantbenchError as error:
                failed = Ending(Status.FAILED, str(error), None, 0.0, mendable=True)
                for cell in self._todo(model):
                    self._built(cell, failed)
        self._graph = StepGraph(steps.values())
        self._graph.execute(
            LocalExecutor(self.store.logs),
            on_start=lambda job: self.reporter.step(job.name),
            on_news=lambda job, text: self.reporter.news(job.name, text),
        )

    def confirm(self, names: Collection[str]) -> None:
        """Score trials of those names again, where their task has samples that took no part so far."""
        cells = [
            cell for cell in self.cells
            if cell.trial.id in names and CONFIRMATION in registry.task(cell.model.task).splits
            and self.store.done(Confirmed, cell.trial.id) is None
        ]  # fmt: skip
        if not cells:
            return
        floats = {cell.model.name: self._reference(cell.model.name) for cell in cells}
        steps: dict[str, Step] = {}
        for cell in cells:
            model, known = cell.model, _identity(cell.model)
            task = registry.task(model.task)
            for one in (floats[model.name], cell):
                made = (
                    self._data(model, task, SPLITS), self._data(model, task, [CONFIRMATION]),
                    *self._artifact(one, task, known), self._scores(one, CONFIRMATION),
                )  # fmt: skip
                steps |= {step.name: step for step in made}
        self.reporter.phase("confirm", len(cells))
        self._graph = StepGraph(steps.values())
        self._graph.execute(
            LocalExecutor(self.store.logs), on_start=lambda job: self.reporter.step(job.name)
        )
        for cell in cells:
            self.store.put(cell.trial.id, self._confirmed(cell, floats[cell.model.name]))
            self.reporter.done(
                f"{cell.trial.id}: scored on samples that took no part in the choice"
            )

    def _reference(self, model: str) -> Cell:
        """The cell of the float form that a model's trials are judged by."""
        compared = self.store.get(Compared, model)
        assert compared is not None  # noqa: S101 - its trials were scored
        forms = (cell for cell in self._of(model) if float_form(cell) == compared.reference)
        return parity_cell(next(forms))

    def _confirmed(self, cell: Cell, full: Cell) -> Confirmed:
        data = f"data {cell.model.name} {CONFIRMATION}"
        names = (data, *(_score(one, CONFIRMATION) for one in (cell, full)))
        endings = [self._graph.done[name].ending for name in names]
        failed = [ending for ending in endings if ending.status != Status.OK]
        if failed:
            return Confirmed(Status(failed[0].status), failed[0].reason, failed[0].again)
        score, reference = (self._folder(name).name for name in names[1:])
        return Confirmed(Status.OK, score=score, reference=reference, data=str(self._folder(data)))

    def _open(self, cell: Cell) -> bool:
        """Whether the cell still has to be built or scored, also because the cache was emptied."""
        built = self.store.done(Built, cell.trial.id)
        if built is None:
            return True
        if built.status != Status.OK:
            return False
        scored = self.store.done(Scored, cell.trial.id)
        if scored is None or not entry("artifacts", built.artifact).exists():
            return True
        return bool(scored.score) and not (
            entry("scores", scored.score).exists() and Path(scored.data).exists()
        )

    def _of(self, model: str) -> list[Cell]:
        return [c for c in self.cells if c.model.name == model and not c.refusal]

    def _todo(self, model: str) -> list[Cell]:
        return [c for c in self._of(model) if self._open(c)]

    # --- the table -------------------------------------------------------------------------------

    def steps(self, name: str) -> Iterator[Step]:
        """Every step of a model, in the order in which they are worth starting.

        Raises
        ------
        QuantbenchError
            If its weights are missing, or its task is not there.
        """
        cells = self._of(name)
        model = cells[0].model
        task, known = registry.task(model.task), _identity(model)
        yield self._data(model, task, SPLITS)
        yield self._weights(model, known)
        floats = {float_form(cell): parity_cell(cell) for cell in cells}
        for cell in floats.values():
            yield from self._artifact(cell, task, known)
            yield self._scores(cell)
        yield Step(
            f"parity {name}", after=tuple(_score(cell) for cell in floats.values()), whatever=True,
            settle=partial(self._judge_parity, name, floats),
        )  # fmt: skip
        for form, cell in floats.items():
            yield Step(
                f"gate {name} {form}", after=(f"data {name}", f"parity {name}"),
                settle=partial(self._gate, name, form, cell),
            )  # fmt: skip
        for cell in self._todo(name):
            gate = f"gate {name} {float_form(cell)}"
            *before, last = self._artifact(cell, task, known, gate)
            yield from before
            yield replace(last, settle=partial(self._built, cell))
            yield replace(self._scores(cell), settle=partial(self._scored, cell))

    def _data(self, model: Model, task: Task, splits: Sequence[str]) -> Step:
        """The splits, written once for all that read them; others apart from calibration and test."""
        more = "" if list(splits) == SPLITS else f" {splits[0]}"
        prepared = [model.preprocess] if model.preprocess else []
        return Step(
            f"data {model.name}{more}", "data", prepare_data.write,
            arguments={"load": task.load, "model": model.to_json(), "splits": list(splits)},
            identity={
                "load": task.load, "version": task.version, "splits": list(splits),
                "preprocess": model.preprocess, "shift": model.shift,
                "inputs": [spec.to_json() for spec in model.inputs],
            },
            beside={"apart": f"data {model.name}"} if more else {},
            source=(task.load, *prepared), packages=("numpy",),
            resources=self._resources(self.experiment.limits.build_s),
        )  # fmt: skip

    def _weights(self, model: Model, known: Mapping[str, Any]) -> Step:
        """Histograms of the weights, for the report; a failure shows where the model is built."""
        return Step(
            f"weights {model.name}", "observed", build.weigh,
            arguments={"model": model.to_json()}, identity={"model": known},
            after=(f"data {model.name}",), source=_code(model), packages=("numpy",),
            resources=self._resources(self.experiment.limits.build_s),
            settle=partial(self._weighed, model.name),
        )  # fmt: skip

    def _artifact(
        self, cell: Cell, task: Task, known: Mapping[str, Any], gate: str = ""
    ) -> Iterator[Step]:
        """The steps to a cell's artifact, the last of which builds it."""
        model, method, backend = cell.model, cell.trial.method, cell.backend
        limits, data = self.experiment.limits, f"data {cell.model.name}"
        described = {"model": model.to_json(), "method": method.to_json()}
        after = (gate,) if gate else ()
        code = (backend.quantizer, *_code(model))
        made: dict[str, str] = {}  # argument of the builder -> the step that makes it
        if method.training != "ptq":
            yield self._data(model, task, ["train"])
            made["trained"] = train = f"train {cell.trial.id}"
            trainer = {"trainer": backend.trainer}
            inputs, beside = _reads(cell, data, train=f"{data} train")
            yield Step(
                train, "trained", build.train,
                arguments={**described, **trainer, "loss": LOSSES[task.metric]},
                identity={"model": known, "method": _trained_axes(cell), **trainer},
                inputs=inputs, beside=beside, after=after,
                source=(backend.trainer, *_code(model)), packages=_trainer(backend).packages,
                resources=self._resources(limits.train_s),
            )  # fmt: skip
            if method.training == "qat":
                yield Step(
                    f"simulate {cell.trial.id}", "simulations", build.simulate,
                    arguments={**described, **trainer},
                    inputs={"trained": train, "data": data}, after=after,
                    identity={"model": known, **trainer},
                    source=(backend.trainer, *_code(model)), packages=_trainer(backend).packages,
                    resources=self._resources(limits.score_s),
                )  # fmt: skip
                after = (*after, f"simulate {cell.trial.id}")
        if (converter := cell.converter) is not None:
            of = f" of {cell.trial.id}" if made else ""
            convert = f"convert {model.name} {converter.source} to {converter.target}{of}"
            asked = {"convert": converter.convert, "form": converter.target}
            yield Step(
                convert, "forms", build.convert,
                arguments={"model": model.to_json(), **asked}, identity={"model": known, **asked},
                inputs=dict(made), after=(data, *(after if made else ())),
                source=(converter.convert, *_code(model)), packages=converter.packages,
                resources=self._resources(limits.build_s),
            )  # fmt: skip
            made["form"] = convert
        if method.ranges == "injected":
            yield Step(
                f"observe {cell.trial.id}", "observed", build.observe,
                arguments={**described, "quantizer": backend.quantizer},
                identity={"model": known, "method": _observed_axes(cell), "backend": backend.name},
                inputs={**made, "data": data}, after=after,
                source=code, packages=("numpy", *backend.build_packages),
                resources=self._resources(limits.build_s),
            )  # fmt: skip
            made["observed"] = f"observe {cell.trial.id}"
        ready = model.ready.items() if method.name == PRESET else ()
        inputs, beside = _reads(cell, data, **made)
        yield Step(
            _build(cell), "artifacts", build.build,
            arguments={**described, "quantizer": backend.quantizer},
            identity={
                "model": known, "method": method.to_json(), "backend": backend.name,
                "ready": {route: file_sha256(locate(file)()) for route, file in ready},
            },
            inputs=inputs, beside=beside, after=after,
            source=code, packages=(*backend.packages, *backend.optional_packages),
            resources=self._resources(limits.build_s), complete=_intact, content=_content,
        )  # fmt: skip

    def _scores(self, cell: Cell, split: str = TEST) -> Step:
        """Outputs depend on the artifact, the runtime, the target and the CPU, not on its clock."""
        runtime: Runtime = locate(cell.backend.runtime)()
        target = replace(cell.trial.target, affinity=())  # nor on which CPU it is
        size = self.experiment.batch_sizes[0]
        asked = {"runtime": cell.backend.runtime, "batch_size": size, "split": split}
        more = "" if split == TEST else f" {split}"
        return Step(
            _score(cell, split), "scores", score.score,
            arguments={**asked, "target": target.to_json()},
            identity={
                **asked, "machine": [self.machine["cpu"], self.machine["isa"]],
                "target": {k: v for k, v in target.to_json().items() if k != "name"},
            },
            inputs={"artifact": _build(cell), "data": f"data {cell.model.name}{more}"},
            source=(cell.backend.runtime,),
            packages=("numpy", *cell.backend.run_packages, *cell.backend.optional_packages),
            resources=self._resources(self.experiment.limits.score_s, runtime.environment(target)),
        )  # fmt: skip

    def _resources(self, limit_s: float, environment: Mapping[str, str] = ENVIRONMENT) -> Resources:
        return Resources(limit_s, self.experiment.limits.memory_mb, environment)

    # --- what is made of the endings -------------------------------------------------------------

    def _folder(self, step: str) -> Path:
        """Where the result of a step that ended well lies."""
        folder = self._graph.done[step].folder
        assert folder is not None  # noqa: S101 - it ended well
        return folder

    def _weighed(self, model: str, ending: Ending) -> Ending:
        folder = self._graph.done[f"weights {model}"].folder
        if folder is not None:
            self.store.put(model, Weighed(Status.OK, observed=folder.name))
        return ending

    def _judge_parity(self, name: str, floats: Mapping[str, Cell], ending: Ending) -> Ending:
        """Compare each backend's float outputs with those of the model's own form."""
        done = self._graph.done
        scored = [
            form for form, cell in floats.items() if done[_score(cell)].ending.status == Status.OK
        ]
        model = next(iter(floats.values())).model
        scored.sort(key=lambda form: _origin(model, floats[form]))
        judged: dict[str, Form] = {}
        reference = (
            self.store.outputs.read(self._folder(_score(floats[scored[0]]))) if scored else {}
        )
        for form in scored:
            cell = floats[form]
            own = self.store.outputs.read(self._folder(_score(cell)))
            found = [parity(reference[key], own[key]) for key in reference]
            worst = max(found, key=lambda p: p.relative)
            judged[form] = Form(
                trial=cell.trial.label,
                max_abs=worst.max_abs,
                relative=worst.relative,
                samples=worst.samples,
                holds=worst.holds,
                score=self._folder(_score(cell)).name,
                artifact=self._folder(_build(cell)).name,
                reason="" if worst.holds else _parity_reason(worst, scored[0]),
            )
        self.store.put(
            name, Compared(Status.OK, reference=scored[0] if scored else None, forms=judged)
        )
        return ending

    def _gate(self, name: str, form: str, cell: Cell, ending: Ending) -> Ending:
        """Trials of a form go on where it could be made and is the same function."""
        if ending.status != Status.OK:  # of the data
            return ending
        made = self._graph.done[_score(cell)].ending
        if made.status != Status.OK:
            return replace(made, reason=f"its float form could not be made: {made.reason}")
        compared = self.store.get(Compared, name)
        assert compared is not None  # noqa: S101 - this stands after the comparison
        judged = compared.forms[form]
        return ending if judged.holds else Ending(Status.INVALID, judged.reason, None, 0.0)

    def _built(self, cell: Cell, ending: Ending) -> Ending:
        trial = cell.trial
        if ending.status != Status.OK:
            reason = ending.reason
            if ending.status == Status.CRASHED and not ending.killed and _CRASH_HINT not in reason:
                reason = f"{reason}; {_CRASH_HINT}"
            self.store.put(trial.id, Built(Status(ending.status), reason, ending.again))
            self.reporter.done(f"{trial.id}: {ending.status}")
            return ending
        folder = self._folder(_build(cell))
        artifact = Artifact.open(folder, verify=False)
        link_folder(folder, self.store.artifact(folder.name))
        if self.store.done(Built, trial.id) is None:
            record = read_record(folder)
            built = Built(
                Status.OK, artifact=folder.name, sha256=artifact.digest, built_s=record["built_s"],
                record=record, simulated=artifact.details.get("simulated", ""),
                **self._before(cell),
            )  # fmt: skip
            self.store.put(trial.id, built)
        return ending

    def _before(self, cell: Cell) -> dict[str, Any]:
        """What the steps before the artifact left: their times, the journal and the simulation."""
        step = self._graph.steps[_build(cell)]
        given = {name: self._folder(need) for name, need in {**step.inputs, **step.beside}.items()}
        left: dict[str, Any] = {"inputs": {name: folder.name for name, folder in given.items()}}
        if "form" in given:
            left["converted_s"] = read_record(given["form"])["converted_s"]
        if "observed" in given:
            seen = read_record(given["observed"])
            left["observation"] = given["observed"].name
            left["observed_s"] = seen["observed_s"]
            left["observed_bytes"] = seen["peak_rss_bytes"] - seen["model_rss_bytes"]
        if "trained" in given:
            left["trained_s"] = read_record(given["trained"])["trained_s"]
            text = (given["trained"] / JOURNAL).read_text(encoding="utf-8")
            left["journal"] = [json.loads(line) for line in text.splitlines()]
            if cell.trial.method.training == "qat":
                left["simulation"] = self._folder(f"simulate {cell.trial.id}").name
        return left

    def _scored(self, cell: Cell, ending: Ending) -> Ending:
        if self._graph.done[_build(cell)].ending.status != Status.OK:
            return ending
        status, reason = Status(ending.status), ending.reason
        if status == Status.OK:
            folder = self._folder(_score(cell))
            summary = read_json(folder / SUMMARY)
            noise = self._sqnr(cell)
            status, reason = self._judge(cell, noise)
            state = Scored(
                status, reason, score=folder.name,
                data=str(self._folder(f"data {cell.model.name}")), sqnr_db=noise,
                scored_s=summary["seconds"], summary=summary,
            )  # fmt: skip
        else:
            state = Scored(status, reason, ending.again, scored_s=ending.seconds)
        self.store.put(cell.trial.id, state)
        self.reporter.done(f"{cell.trial.id}: {status}" + (f" ({reason})" if reason else ""))
        return ending

    def _sqnr(self, cell: Cell) -> float:
        """Smallest SQNR of the outputs against the model's reference form, dB."""
        compared = self.store.get(Compared, cell.model.name)
        assert compared is not None  # noqa: S101 - trials are scored after the comparison
        reference = self.store.outputs.read(entry("scores", compared.full.score))
        own = self.store.outputs.read(self._folder(_score(cell)))
        return min(sqnr_db(reference[name], array) for name, array in own.items())

    def _judge(self, cell: Cell, noise: float) -> tuple[Status, str]:
        """Status of a scored artifact: ``invalid``, ``no-op`` or ``ok``, with the reason."""
        if noise == float("-inf"):
            return Status.INVALID, "its outputs are not finite"
        floor = self.experiment.valid_sqnr_db
        if noise < floor:
            return Status.INVALID, (
                f"its outputs are far from fp32: SQNR {noise:.1f} dB, below the limit of {floor:g} dB"
            )
        built = self.store.get(Built, cell.trial.id)
        assert built is not None  # noqa: S101 - it is scored
        if built.simulated:
            return Status.SIMULATED, built.simulated
        wanted = cell.trial.method.weights
        held = built.record["weight_bytes"]
        if wanted != "float32" and not any(_same_width(wanted, dtype) for dtype in held):
            found = ", ".join(sorted(held)) or "none"
            return (
                Status.NO_OP,
                f"the method changed nothing: no {wanted} weights in the file ({found})",
            )
        return Status.OK, ""

    def source(self, cell: Cell) -> tuple[Model, str]:
        """What variants of a built cell start from.

        Returns
        -------
        tuple
            The model with its converted form, and the key of all that a variant's artifact depends
            on but its method.
        """
        built = self.store.get(Built, cell.trial.id)
        assert built is not None  # noqa: S101 - asked of cells that were built
        given = built.inputs
        folders = {
            name: str(entry(kind, given[name]))
            for name, kind in (("trained", "trained"), ("form", "forms"))
            if name in given
        }
        model = build.resolved(cell.model.to_json(), **folders)
        plain = replace(cell.trial.method, name="", only=(), keep_float=(), parts="both")
        alike = replace(cell, trial=replace(cell.trial, method=plain))
        *_, step = self._artifact(alike, registry.task(cell.model.task), _identity(cell.model))
        return model, step.key({"data": given["data"], **folders})


def _build(cell: Cell) -> str:
    return f"build {cell.trial.id}"


def _score(cell: Cell, split: str = TEST) -> str:
    return f"score {cell.trial.id}" + ("" if split == TEST else f" {split}")


def _reads(cell: Cell, data: str, **made: str) -> tuple[dict[str, str], dict[str, str]]:
    """What a step that reads the data depends on, and what it is but given.

    Data decide its result where it calibrates.
    """
    if cell.trial.method.samples:
        return {**made, "data": data}, {}
    return made, {"data": data}


def _identity(model: Model) -> dict[str, Any]:
    """The model without prose and places, with a digest of its weights.

    Raises
    ------
    DataMissing
        If the weights file is absent.
    """
    described = model.to_json()
    described["weights_sha256"] = file_sha256(locate(model.weights)())
    # a shift changes data, which have a key of their own
    described["name"] = model.name.partition("@")[0]
    for other in ("description", "source", "published", "shift", "ready", "trained"):
        del described[other]
    # what a file holds is told by its digest, or by the key of its conversion
    described["forms"] = {n: f if ":" in f else Path(f).name for n, f in model.forms.items()}
    return described


def _code(model: Model) -> tuple[str, ...]:
    """Locators of the code that makes the model's forms."""
    return tuple(c for c in (model.state, *model.forms.values()) if ":" in c)


def _trained_axes(cell: Cell) -> dict[str, Any]:
    """What of a method decides its training.

    A finetune depends on its recipe alone, fake quantization on what it imitates too; the same
    training serves every backend whose trainer it is.
    """
    axes = cell.trial.method.to_json()
    if cell.trial.method.training == "finetune":
        return {axis: axes[axis] for axis in ("training", "seed", *RECIPE)}
    return {axis: value for axis, value in axes.items() if axis not in ("name", "io")}


def _observed_axes(cell: Cell) -> dict[str, Any]:
    """What of a method decides its histograms: the same ones serve all calibrators."""
    estimated = ("name", "calibrator", "percentile", "sigmas", *_OF_WEIGHTS)
    axes = cell.trial.method.to_json()
    return {axis: value for axis, value in axes.items() if axis not in estimated}


def _trainer(backend: Backend) -> Backend:
    """The backend whose own trainer it is: another may export what that one trains."""
    home = backend.trainer.partition(":")[0].rpartition(".")[0]
    known = (registry.backend(name) for name in registry.names("backends"))
    own = [b for b in known if b.quantizer.startswith(f"{home}.")]
    return own[0] if own else backend


def _origin(model: Model, cell: Cell) -> tuple[int, int]:
    """How near a form is to the model's own: its place among them, those converted last."""
    forms = list(model.forms)
    if not forms:  # a ready file, judged by itself
        return 0, 0
    need = locate(cell.backend.quantizer)().form(cell.trial.method)
    source = cell.converter.source if cell.converter else need
    return int(cell.converter is not None), forms.index(source)


def _intact(folder: Path) -> bool:
    """Whether a cached artifact is there and whole; one that is not is removed."""
    if not folder.exists():
        return False
    try:
        Artifact.open(folder)
        read_record(folder)
    except (BadArtifact, QuantbenchError):
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def _content(folder: Path) -> list[Any]:
    """An artifact as later keys see it: the same file may be run in two ways, as its details say."""
    artifact = Artifact.open(folder, verify=False)
    return [artifact.digest, dict(artifact.details)]


def _same_width(wanted: str, dtype: str) -> bool:
    return dtype == wanted or (wanted == "int8" and dtype == "uint8")


def _parity_reason(found: Parity, reference: str) -> str:
    return (
        f"its float form is not the same function as {reference}'s: largest difference "
        f"{found.max_abs:.3g} on {found.samples} samples, {found.relative:.2%} of the largest "
        f"output (limit {PARITY_LIMIT:.1%})"
        + ("" if found.samples >= PARITY_SAMPLES else f"; fewer than {PARITY_SAMPLES} samples")
    )
