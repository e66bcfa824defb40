"""Profiling: trials of a run built again or taken from the cache, profiled and timed beside each other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantbench.backend_api import Runtime
from quantbench.errors import BadInput, NotProfiled, QuantbenchError
from quantbench.execution import Ending, Job
from quantbench.experiment import Cell, Experiment, resolve
from quantbench.experiment.expand import trial_of
from quantbench.results import OperatorProfile, Results, TrialRow, rows, typical_call
from quantbench.runs.interleaved_timing import Worker, log_times, run_generation
from quantbench.runs.reporter import Reporter
from quantbench.runs.runner import score
from quantbench.runs.store import Store
from quantbench.runs.timing_plan import Timing, opened
from quantbench.spec import PRECISIONS, RAN, Precision, Trial, presets
from quantbench.stats import Interval, paired, statistics
from quantbench.steps import profile as worker
from quantbench.system import locate

ROUNDS, SECONDS = 3, 0.5
QUICK = replace(PRECISIONS["preview"], name="explain", generations=3, rounds=7)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Trials whose artifacts are at hand, scored, in a folder of their own."""

    experiment: Experiment
    cells: Mapping[str, Cell]
    store: Store

    def job(self, trial: str, function: Any, **arguments: Any) -> Job:
        """A worker of ``function`` with the trial's artifact on its target."""
        cell, limits = self.cells[trial], self.experiment.limits
        runtime: Runtime = locate(cell.backend.runtime)()
        return Job(
            f"{function.__module__.rpartition('.')[2]} {trial}", function,
            {**opened(self.store, cell), **arguments},
            runtime.environment(cell.trial.target), cell.trial.target.affinity,
            limits.start_s, limits.memory_mb,
        )  # fmt: skip


def trials_of(results: Results) -> dict[str, Trial]:
    """The trials of a run as they can be run again, by name.

    From the experiment's file as the run keeps it; where it keeps none, from the rows of its trials.

    Raises
    ------
    BadInput
        If a trial has a target that only its experiment's file describes.
    """
    return {trial.id: trial for trial in experiment_of(results).trials}


def experiment_of(results: Results) -> Experiment:
    """A run's experiment: as its file says, or its trials alone where the run keeps none."""
    text = str(results.run.get("experiment_text") or "")
    if text:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "experiment.yaml"
            path.write_text(text, encoding="utf-8")
            return Experiment.load(path)
    known, trials = presets(), []
    for row in rows(TrialRow, results.trials):
        if row.target not in known:
            raise BadInput(f"target '{row.target}' of {row.trial} is none that quantbench has")
        given = {key: value for key, value in row.axes.items() if value is not None}
        trials.append(
            trial_of(
                row.model,
                row.backend,
                row.method,
                given,
                known[row.target],
                seed=row.seed,
                several_seeds=row.trial.endswith(f"/seed{row.seed}"),
            )
        )
    return Experiment.of(str(results.run["experiment"]), trials, PRECISIONS["preview"])


def rebuilt(results: Results, trials: Sequence[Trial], folder: Path, reporter: Reporter) -> Rebuilt:
    """``trials`` built and scored, or taken from the cache, in ``folder``.

    Raises
    ------
    BadInput
        If one cannot run here; says why.
    QuantbenchError
        If one failed, or is not valid.
    """
    source = experiment_of(results)
    cells = {t.id: resolve(t, source.models.get(t.model)) for t in trials}
    for name, cell in cells.items():
        if cell.refusal:
            raise BadInput(f"{name} cannot run here: {cell.refusal}")
    experiment = replace(
        Experiment.of("explain", [c.trial for c in cells.values()], QUICK, seed=source.seed),
        models=dict(source.models), valid_sqnr_db=source.valid_sqnr_db, limits=source.limits,
    )  # fmt: skip
    scored = score(experiment, folder, reporter=reporter)
    for row in rows(TrialRow, scored.trials):
        if row.status not in RAN:
            raise QuantbenchError(f"{row.trial}: {row.status} in {row.stage}: {row.reason}")
    return Rebuilt(experiment, cells, Store(folder))


def profile(
    at_hand: Rebuilt,
    trial: str,
    reference: str,
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    reporter: Reporter,
) -> OperatorProfile:
    """A trial and its float twin, each in a worker of its own, profiled in turns.

    Raises
    ------
    NotProfiled
        If the runtime cannot tell, or a worker ends; says why.
    """
    workers: dict[str, Worker] = {}
    answers: dict[str, list[Mapping[str, Any]]] = {trial: [], reference: []}
    reporter.phase("profile", rounds * len(answers))
    try:
        for name in answers:
            job = at_hand.job(name, worker.serve, seconds=seconds)
            several = at_hand.cells[name].trial.target.threads > 1
            workers[name] = Worker(job, at_hand.store.logs, stop=several)
            if (ending := workers[name].wait_ready()) is not None:
                raise NotProfiled(f"{name} cannot be profiled: {ending.reason}")
        for number in range(rounds):
            # each is first as often as the other, but for one round
            for name in list(answers)[:: 1 if number % 2 == 0 else -1]:
                reporter.step(f"{name} round {number + 1}")
                answer = workers[name].ask("profile", takes_s=2 * seconds)
                if isinstance(answer, Ending):
                    raise NotProfiled(f"{name} cannot be profiled: {answer.reason}")
                if "refusal" in answer:
                    raise NotProfiled(f"{name} cannot be profiled: {answer['refusal']}")
                answers[name].append(answer)
                reporter.done()
    finally:
        for one in workers.values():
            one.process.kill()
    pairs = zip(answers[trial], answers[reference], strict=True)
    return OperatorProfile(
        trial, reference, rounds, typical_call(answers[trial]), typical_call(answers[reference]),
        tuple(own["call_ns"] / full["call_ns"] for own, full in pairs),
    )  # fmt: skip


def ratio(
    at_hand: Rebuilt, trial: str, against: str, *, precision: Precision = QUICK, reporter: Reporter
) -> Interval:
    """How many times faster ``trial`` is than ``against``, from rounds of both in turns.

    Raises
    ------
    QuantbenchError
        If one of them cannot be timed.
    """
    cells = [at_hand.cells[against], at_hand.cells[trial]]
    timing = Timing(replace(at_hand.experiment, reference={}), cells, at_hand.store)
    (comparison,) = timing.comparisons()
    reporter.phase("clock", precision.generations)
    generations = []
    for number in range(precision.generations):
        reporter.step(f"{trial} against {against}")
        generation = run_generation(
            comparison, [against, trial], number, precision, 0, at_hand.store.logs
        )
        for name, (status, reason) in generation.failures.items():
            raise QuantbenchError(f"{name} cannot be timed: {status}: {reason}")
        generations.append(generation)
        reporter.done()
    pairs = paired(log_times(generations), against, trial)
    return statistics.exp_interval(statistics.rounds_interval(pairs))
