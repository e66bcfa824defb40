"""Runner: drives the phases of a run, continues an interrupted one, and writes its results."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from quantbench import __version__
from quantbench.backend_api import Runtime
from quantbench.errors import NotComparable
from quantbench.execution import Ending, Job, run_jobs
from quantbench.experiment import Cell, Experiment, describe, literature
from quantbench.experiment.plan import plan
from quantbench.results import SCHEMA_VERSION, Results, load_results
from quantbench.runs import assembly, energy
from quantbench.runs.build_graph import BuildGraph
from quantbench.runs.comparison import Comparison
from quantbench.runs.interleaved_timing import of_session, resume, run_comparison, why_stop
from quantbench.runs.reporter import Reporter
from quantbench.runs.states import Built, Metered, Scored, Started
from quantbench.runs.store import Store, locked, open_run
from quantbench.runs.timing_plan import Timing, opened
from quantbench.spec import Status
from quantbench.steps import startup
from quantbench.system import content_key, entry, locate, machine, read_json, sweep, write_json


@dataclass(frozen=True, slots=True)
class Context:
    """What every phase of one run shares."""

    experiment: Experiment
    cells: tuple[Cell, ...]
    store: Store
    machine: Mapping[str, Any]
    reporter: Reporter
    sessions: int = 1

    def scored(self) -> list[Cell]:
        """The cells whose artifact is valid and may be timed."""
        return [c for c in self.cells if self.status(c) == Status.OK]

    def timing(self, copies: Path | None = None) -> Timing:
        """What is timed of them, or of fresh copies of their files."""
        return Timing(self.experiment, self.scored(), self.store, copies)

    def status(self, cell: Cell) -> Status:
        """The status so far, of the latest of build and score."""
        name = cell.trial.id
        state = self.store.get(Scored, name) or self.store.get(Built, name)
        return state.status if state else Status.FAILED


def run(
    experiment: Experiment | str | Path,
    *,
    results: str | Path = "results",
    fresh: bool = False,
    again: bool = False,
    seed: int | None = None,
    only: Sequence[str] = (),
    command: str = "",
    reporter: Reporter | None = None,
    write_report: Callable[[Results, Path], object] | None = None,
    choose: Callable[[Results], Sequence[Sequence[str]]] | None = None,
) -> Results:
    """Run an experiment, or continue an interrupted run of it; a finished one is only read.

    Parameters
    ----------
    experiment
        An experiment, or the path of its YAML file.
    results
        Folder for runs; this run goes to ``results/<experiment>/<run>/``.
    fresh
        Start a new run: everything is timed again; cached artifacts and scores are used.
    again
        Time a finished run once more, as a further session of it: its intervals then hold what
        one session differs from another by.
    seed, only
        As in `Experiment.load`; only with a path.
    write_report
        Writes the run's page to a path; it is called where the page is missing or not of this run.
    choose
        Says of a run that is timed what of it is chosen, and then the float trials that it is quoted
        against, by name. These are timed again: the best of many by a noisy time is quoted too fast.

    Returns
    -------
    Results
        The frames, with ``folder`` where the Parquet files and ``report.html`` are.

    Raises
    ------
    QuantbenchError
        For a bad experiment or an unwritable results folder; a trial's failure is a row instead.
    """
    if not isinstance(experiment, Experiment):
        experiment = Experiment.load(experiment, seed=seed, only=only)
    here = machine.describe()
    key = content_key(
        experiment=describe(experiment), machine=here["fingerprint"], schema=SCHEMA_VERSION
    )
    store = open_run(Path(results), experiment.name, key, fresh=fresh)
    with locked(store), reporter or Reporter() as report:
        if not (store.folder / "run.json").exists():
            write_json(store.folder / "machine.json", here)
            write_json(store.folder / "run.json", _description(experiment, store, command))
        description = read_json(store.folder / "run.json")
        finished = bool(description.get("finished"))
        sessions = max(experiment.sessions, int(description.get("sessions", 1)))
        sessions += int(again and finished)
        if sessions != description.get("sessions", 1):
            description |= {"sessions": sessions, "finished": ""}
            write_json(store.folder / "run.json", description)
            finished = False
        if not finished:
            sweep()
            cells = tuple(plan(experiment))
            context = Context(experiment, cells, store, here, report, sessions)
            _measure(context)
            report.phase("write", 1)
            timing = context.timing()
            compared = [*timing.comparisons(), *timing.offline()]
            description |= assembly.write(context.experiment, cells, store, compared)
            if choose is not None and experiment.confirm:
                chosen = choose(load_results(store.folder, run=description))
                if confirmed := _confirm(context, chosen):
                    description |= assembly.write(experiment, cells, store, [*compared, *confirmed])
            description["finished"] = "" if store.unfinished() else _now()
            write_json(store.folder / "run.json", description)
        # what the file says beside what decides the run may have changed since
        told = {**description, **_told(experiment)}
        if told != description:
            write_json(store.folder / "run.json", told)
        found = load_results(store.folder)
        page = store.folder / "report.html"
        stale = told != description or not finished or not page.exists()
        if write_report is not None and stale:
            report.step("writing the report")
            write_report(found, page)
    return found


def score(experiment: Experiment, folder: Path, *, reporter: Reporter) -> Results:
    """Build and score an experiment's trials, and time nothing: the frames of a run, without times.

    Parameters
    ----------
    folder
        Where the run goes. One that was interrupted there is continued, a finished one is only
        read; where another process works on it, its results are waited for.
    """
    store = Store(folder)
    (folder / "state").mkdir(parents=True, exist_ok=True)
    with locked(store, wait=True), reporter:
        if not (folder / "run.json").exists():
            here = machine.describe()
            write_json(folder / "machine.json", here)
            cells = tuple(plan(experiment))
            BuildGraph(experiment, list(cells), store, here, reporter).run()
            told = {**_description(experiment, store, ""), "finished": _now()}
            told |= assembly.write(experiment, cells, store, [])
            write_json(folder / "run.json", told)
    return load_results(folder)


def _measure(context: Context) -> None:
    BuildGraph(
        context.experiment, list(context.cells), context.store, context.machine, context.reporter
    ).run()
    _start_up(context)
    _clock(context)
    _energy(context)


def _description(experiment: Experiment, store: Store, command: str) -> dict[str, Any]:
    described = describe(experiment)
    return {
        "run": store.folder.name,
        "experiment": experiment.name,
        "created": _now(),
        "finished": "",
        "command": command,
        "seed": experiment.seed,
        "sessions": experiment.sessions,
        "precision": experiment.precision.name,
        "protocol": {
            **described["precision"],
            "batch_sizes": described["batch_sizes"],
            "offline": experiment.offline,
            "quality_margin": experiment.quality_margin,
            "valid_sqnr_db": experiment.valid_sqnr_db,
            **{f"limit_{k}": v for k, v in described["limits"].items()},
        },
        "reference": [],
        "quantbench": __version__,
        "schema": SCHEMA_VERSION,
        **_told(experiment),
    }


def _told(experiment: Experiment) -> dict[str, Any]:
    """What an experiment file says that changes nothing of what its run measures."""
    return {
        "description": experiment.description,
        "experiment_text": experiment.text,
        "published": [row.to_json() for row in literature.rows(experiment)],
    }


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


# --- start-up and memory -------------------------------------------------------------------------


def _start_up(context: Context) -> None:
    """Memory, load time and first inference, in processes of their own."""
    store, experiment = context.store, context.experiment
    todo = [c for c in context.scored() if store.done(Started, c.trial.id) is None]
    cells = {c.trial.id: c for c in todo}
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in cells}
    started: dict[str, str] = {}  # the job's name -> the trial's
    context.reporter.phase("start", len(todo))

    def start(cell: Cell) -> Job:
        job = _start_job(context, cell, len(seen[cell.trial.id]))
        started[job.name] = cell.trial.id
        return job

    def on_end(job: Job, ending: Ending) -> list[Job]:
        trial = started[job.name]
        if ending.status != Status.OK:
            store.put(trial, Started(Status(ending.status), ending.reason, ending.again))
            context.reporter.done(f"{trial}: {ending.status}")
            return []
        seen[trial].append(ending.value)
        if len(seen[trial]) < experiment.precision.memory_processes:
            return [start(cells[trial])]
        store.put(trial, Started(Status.OK, observed=seen[trial]))
        context.reporter.done()
        return []

    run_jobs(
        [start(cell) for cell in todo], store.logs, on_end,
        slots=1, on_start=lambda job: context.reporter.step(job.name),
    )  # fmt: skip


def _start_job(context: Context, cell: Cell, number: int) -> Job:
    runtime: Runtime = locate(cell.backend.runtime)()
    target = cell.trial.target
    return Job(
        f"start {cell.trial.id} #{number}", startup.start,
        {**opened(context.store, cell), "modules": list(cell.backend.run_modules),
         "batch_size": context.experiment.batch_sizes[0]},
        runtime.environment(target), (), context.experiment.limits.start_s,
        context.experiment.limits.memory_mb,
    )  # fmt: skip


# --- timing --------------------------------------------------------------------------------------


SESSION_GAP_S = 60.0
"""Seconds between two sessions of one command."""


def _clock(context: Context) -> None:
    """Time every comparison; then each artifact at its best batch size, where that is asked for.

    Each session does all of it. A later one begins after a pause and loads fresh copies of the
    files: processes that share a file share its pages in memory, and where these lie changes its
    speed for as long as they lie there.
    """
    timed = False
    for session in range(context.sessions):
        with tempfile.TemporaryDirectory(dir=context.store.folder) as folder:
            copies = Path(folder) if session else None
            timing = context.timing(copies)
            left = _left(context, timing.comparisons(), session)
            if left and timed:
                context.reporter.step(f"{SESSION_GAP_S:g} s until session {session + 1}")
                time.sleep(SESSION_GAP_S)
            if copies is not None:
                _copy(context, copies)
            if left or not session:
                _time(context, "clock", left, session)
            if later := _left(context, timing.offline(), session):
                _time(context, "offline", later, session)
            timed = timed or bool(left or later)


def _left(
    context: Context, comparisons: Sequence[Comparison], session: int
) -> list[tuple[Comparison, int]]:
    """What a session has still to time, with the number of generations that are stored of it."""
    stored = (resume(c, context.store.generations(c.id)) for c in comparisons)
    known = [(c, of_session(own, session)) for c, own in zip(comparisons, stored, strict=True)]
    precision = context.experiment.precision
    return [(c, len(own)) for c, own in known if why_stop(c, own, precision) is None]


def _copy(context: Context, folder: Path) -> None:
    """Fresh copies of all artifacts that are timed."""
    for cell in context.scored():
        built = context.store.get(Built, cell.trial.id)
        if built is not None and not (folder / built.artifact).exists():
            shutil.copytree(entry("artifacts", built.artifact), folder / built.artifact)


def _time(
    context: Context, phase: str, left: Sequence[tuple[Comparison, int]], session: int
) -> None:
    """Time a session of comparisons, continuing after the generations that are stored."""
    precision, store = context.experiment.precision, context.store
    told = f" session {session + 1}" if context.sessions > 1 else ""
    context.reporter.phase(phase, precision.rounds * precision.generations * len(left))
    for comparison, known in left:
        context.reporter.done(steps=known * precision.rounds)

        def on_round(generation: int, round_: int, comparison: Comparison = comparison) -> None:
            context.reporter.step(
                f"{comparison.id}{told} generation {generation + 1} round {round_ + 1}"
            )
            context.reporter.done(
                f"{comparison.id}: generation {generation + 1}" if round_ == 0 else ""
            )

        try:
            run_comparison(
                comparison, precision, context.experiment.seed,
                store.generations(comparison.id), store.logs, on_round, session,
            )  # fmt: skip
        except NotComparable as error:
            context.reporter.say(f"{comparison.id}: {error}")


def _confirm(context: Context, chosen: Sequence[Sequence[str]]) -> list[Comparison]:
    """Score and time what was chosen again, on samples and in processes that took no part in the choice.

    ``chosen``: of each place the choice, then what it is quoted against.
    """
    names = {trials[0] for trials in chosen if trials}
    BuildGraph(
        context.experiment, list(context.cells), context.store, context.machine, context.reporter
    ).confirm(names)
    comparisons = context.timing().confirmations(chosen)
    if left := _left(context, comparisons, 0):
        _time(context, "confirm", left, 0)
    return comparisons


def _energy(context: Context) -> None:
    """Count the energy of every comparison, where it was asked for and can be."""
    precision, store = context.experiment.precision, context.store
    every = context.timing().comparisons()
    todo = [c for c in every if store.done(Metered, c.id) is None]
    asked = bool(precision.energy_window_s)
    context.reporter.phase("energy", precision.energy_windows * len(todo) if asked else 0)
    for comparison in todo:
        try:
            windows = energy.measure(
                comparison,
                energy.meter(comparison.target.device, precision.energy_window_s),
                windows=precision.energy_windows, window_s=precision.energy_window_s,
                seed=context.experiment.seed, scratch=store.logs,
                on_window=lambda name: context.reporter.step(f"energy of {name}"),
            )  # fmt: skip
        except energy.NoMeter as refusal:
            code = str(refusal)
            again = code in energy.MENDABLE  # the user can; then the same command measures it
            store.put(comparison.id, Metered(Status.UNSUPPORTED, code, again))
            if asked:
                context.reporter.say(f"{comparison.id}: no energy: {energy.REASONS[code]}")
            continue
        store.put(comparison.id, Metered(Status.OK, windows=[asdict(w) for w in windows]))


def exit_code(found: Results) -> int:
    """0 done; 1 some trial failed; 3 nothing measured."""
    from quantbench.spec import FAILURES

    if found.trials["status"].isin(FAILURES).any():
        return 1
    measured = found.measurements.query("metric == 'latency_ms' and value == value")
    return 0 if len(measured) else 3


def summarise(found: Results) -> dict[str, int]:
    """Trials by status."""
    counts: dict[str, int] = json.loads(found.trials["status"].value_counts().to_json())
    return counts
