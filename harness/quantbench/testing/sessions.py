"""Sessions: trials built and scored when a test asks for them, their sessions and their times.

Nothing is built twice: artifacts and scores come from the cache, and one run of an experiment
serves every test of a session, in whichever process they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quantbench.analysis import DEFAULT, TIMED_METRICS, Finding, Gate, changes, judge
from quantbench.backend_api import Artifact, Record, Runtime
from quantbench.errors import BadInput, NotComparable, QuantbenchError
from quantbench.execution import Ending, Job, RemoteSession
from quantbench.experiment import Cell, Experiment, describe, resolve
from quantbench.experiment.expand import trial_of
from quantbench.results import Measurement, Results, TrialRow, rows, trial_row
from quantbench.runs import Built, Reporter, Scored, Store, Timing, score, warm_workers
from quantbench.spec import (
    FAILURES,
    PRECISIONS,
    Array,
    Model,
    Status,
    Trial,
    Verdict,
    presets,
    read_arrays,
)
from quantbench.stats import answers, metric_of, sqnr_db
from quantbench.steps import read_split, session_server
from quantbench.system import content_key, entry, locate


class Refused(QuantbenchError):
    """A trial cannot run here; the reason."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A trial that was built and scored.

    Parameters
    ----------
    artifact : Artifact
        The deployable files.
    record : Record
        What is in them, tensor by tensor.
    results : Results
        The frames of the run that scored it.
    """

    cell: Cell
    artifact: Artifact
    record: Record
    results: Results

    @property
    def trial(self) -> Trial:
        """Which trial it is."""
        return self.cell.trial

    @property
    def quality(self) -> float:
        """The task's metric over the test split."""
        return self.measure("quality")

    @property
    def size_bytes(self) -> int:
        """Bytes of all files that are needed at run time."""
        return self.artifact.size_bytes

    def measure(self, metric: str) -> float:
        """A metric of docs/results.md that needs no timing, such as ``integer_macs_fraction``.

        Raises
        ------
        NotComparable
            If it has no value.
        """
        rows = self.results.measurements
        found = rows[(rows["trial"] == self.trial.id) & (rows["metric"] == metric)][
            "value"
        ].dropna()
        if found.empty:
            raise NotComparable(f"{self.trial.id} has no {metric}")
        return float(found.iloc[0])

    def inputs(self) -> dict[str, Array]:
        """The test split's inputs by name, first axis the samples, as `outputs` has them."""
        return dict(read_split(Path(self._scored.data), "test", self.cell.model).inputs)

    def outputs(self) -> dict[str, Array]:
        """Outputs over the test split by name, float, first axis the samples in the task's order."""
        return read_arrays(entry("scores", self._scored.score))

    @property
    def _scored(self) -> Scored:
        state = Store(self.results.folder).get(Scored, self.trial.id)
        assert state is not None  # noqa: S101 - a quantized trial was scored
        return state

    def agreement(self, other: Quantized) -> float:
        """Share of the test samples to which both give the same class.

        Raises
        ------
        NotComparable
            If they are of different models, or the model does not classify.
        """
        mine, theirs = self._beside(other)
        metric, labels = answers(theirs)
        if metric != "top1":
            raise NotComparable(f"{self.trial.model} does not classify; compare with sqnr_db")
        return metric_of(metric)(mine, labels).score

    def sqnr_db(self, other: Quantized) -> float:
        """Signal to noise of its outputs against those of ``other``, dB."""
        mine, theirs = self._beside(other)
        return sqnr_db(theirs, mine)

    def _beside(self, other: Quantized) -> tuple[Array, Array]:
        if self.trial.model != other.trial.model:
            raise NotComparable(
                f"{self.trial.id} and {other.trial.id} are artifacts of different models"
            )
        name = self.cell.model.outputs[0].name
        return self.outputs()[name], other.outputs()[name]


@dataclass(slots=True)
class Bench:
    """Where the runs of a test session are.

    Parameters
    ----------
    folder : Path
        For runs and logs; shared by all processes of the session.
    reporting : callable
        Gives a context in which progress may be shown, and its reporter.
    models : mapping
        Models that experiment files describe themselves, by name.
    baseline : Results or None
        The run that nothing may be worse than, by ``gates``; those of times are not judged.
    """

    folder: Path
    reporting: Callable[[], AbstractContextManager[Reporter]]
    models: Mapping[str, Model] = field(default_factory=dict)
    baseline: Results | None = None
    gates: Sequence[Gate] = DEFAULT
    _scored: dict[str, Results] = field(default_factory=dict)
    _findings: dict[Path, tuple[Finding, ...]] = field(default_factory=dict)

    def score(self, experiment: Experiment) -> Results:
        """The results of an experiment, built and scored if this was not done before."""
        key = content_key(experiment=describe(experiment))
        if key not in self._scored:
            with self.reporting() as reporter:
                self._scored[key] = score(experiment, self.folder / key, reporter=reporter)
        return self._scored[key]

    def findings(self, experiment: Experiment, trial: Trial) -> list[Finding]:
        """What the gates say of a scored trial against the baseline; nothing of one that is new."""
        if self.baseline is None or not known_in(self.baseline, [trial]):
            return []
        found = self.score(experiment)
        if found.folder not in self._findings:
            # a single process does not measure a time well enough to judge by
            gates = [g for g in self.gates if g.metric not in TIMED_METRICS]
            self._findings[found.folder] = judge(changes(self.baseline, found), gates)
        # without its seed where neither run has several
        names = (trial.id, replace(trial, several_seeds=False).id)
        return [f for f in self._findings[found.folder] if f.trial in names]

    def quantized(
        self,
        model: str,
        backend: str,
        method: str,
        *,
        target: str = "cpu-1",
        seed: int = 0,
        **axes: Any,
    ) -> Quantized:
        """The artifact of a model by a method, scored.

        Parameters
        ----------
        model, backend, method, target : str
            Registered names; a model also one that an experiment file of the session describes.
        axes
            Axes of the method that are overridden.

        Raises
        ------
        BadInput
            For an unknown name or axis.
        Refused
            If the trial cannot run here.
        QuantbenchError
            If it failed or is invalid; with the reason.
        """
        known = presets()
        if target not in known:
            raise BadInput(f"target is one of {', '.join(known)}, not '{target}'")
        trial = trial_of(model, backend, method, axes, known[target], seed=seed)
        cell = resolve(trial, self.models.get(model))
        if cell.refusal:
            raise Refused(cell.refusal)
        found = self.score(
            Experiment.of(
                "quantized", [trial], PRECISIONS["preview"], seed=seed,
                models={model: cell.model} if model in self.models else {},
            )
        )  # fmt: skip
        (row,) = rows(TrialRow, found.trials)
        if row.status not in (Status.OK, Status.SIMULATED):
            raise QuantbenchError(f"{trial.id}: {row.status}: {row.reason}")
        store = Store(found.folder)
        built = store.get(Built, trial.id)
        assert built is not None  # noqa: S101 - it has a status
        artifact = Artifact.open(store.artifact(built.artifact))
        return Quantized(cell, artifact, Record.from_json(built.record), found)

    def open(self, quantized: Quantized, batch_size: int = 1) -> RemoteSession:
        """The artifact, loaded in a worker on its trial's target; to be closed."""
        cell = quantized.cell
        runtime: Runtime = locate(cell.backend.runtime)()
        target = cell.trial.target
        arguments = {
            "artifact": str(quantized.artifact.folder),
            "runtime": cell.backend.runtime,
            "target": target.to_json(),
            "batch_size": batch_size,
        }
        job = Job(
            f"session {cell.trial.id} {batch_size}", session_server.serve, arguments,
            runtime.environment(target), target.affinity,
        )  # fmt: skip
        return RemoteSession(job, self.folder / "logs")

    def time(self, experiment: Experiment, cell: Cell) -> list[float]:
        """Seconds of each timed inference call of a scored trial, in one fresh process.

        As the clock phase times it: warm, inputs bound before, in bursts, `Precision.rounds` of them;
        a value is the mean of so many calls that they take 50 microseconds.

        Raises
        ------
        QuantbenchError
            If the worker ends before it has answered.
        """
        found, name = self.score(experiment), cell.trial.id
        comparison = Timing(experiment, [cell], Store(found.folder)).comparisons()[0]
        seconds: list[float] = []
        with warm_workers(comparison, [name], found.folder / "logs") as (workers, failures):
            for _ in range(experiment.precision.rounds):
                answer = failures.get(name) or workers[name].ask("burst")
                if isinstance(answer, Ending):
                    raise QuantbenchError(f"{answer.status} while timed: {answer.reason}")
                seconds += [ns / answer["calls"] / 1e9 for ns in answer["nanoseconds"]]
        return seconds


def selected(experiment: Experiment, trials: Sequence[Trial]) -> Experiment:
    """An experiment with these of its trials alone."""
    return replace(experiment, trials=tuple(trials))


def known_in(run: Results, trials: Sequence[Trial]) -> bool:
    """Whether a run has any of the trials, whatever their seeds."""
    columns = ["model", "backend", "label", "target"]
    known = set(run.trials[columns].itertuples(index=False, name=None))
    return any((t.model, t.backend, t.label, t.target.name) in known for t in trials)


def shortfall(results: Results, trial: str) -> str:
    """What is wrong with a scored trial by itself, in a sentence; empty where nothing is.

    A failure of building or scoring with its reason, or a quality that the experiment's margin
    does not allow: the verdict on the paired test samples is ``loses``. As in a run's exit code, a
    method without effect is no failure.
    """
    row = trial_row(results.trials, trial)
    if row is not None and row.status in FAILURES:
        return f"{row.status} in {row.stage}: {row.reason}"
    own = results.measurements[results.measurements["trial"] == trial]
    for drop in rows(Measurement, own[own["metric"] == "quality_drop"]):
        if drop.verdict == Verdict.LOSES:
            return (
                f"loses quality: {drop.value:.4g} [{drop.low:.4g}, {drop.high:.4g}] less than "
                f"{drop.reference}, and the margin is "
                f"{results.run['protocol']['quality_margin']:.2%} of its score"
            )
    return ""
