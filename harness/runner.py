"""Runner: drives the phases of a run, continues an interrupted one, and writes its results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import __version__, assembly, energy, machine
from harness.cache import content_key, entry, sweep
from harness.clock import Comparison, Contender, resume, run_comparison, why_stop
from harness.errors import NotComparable
from harness.experiment import Experiment, Trial, describe, matches
from harness.files import write_json
from harness.jobs import Ending, Job, run_jobs
from harness.pipeline import Pipeline
from harness.plan import Cell, plan
from harness.progress import Reporter
from harness.protocol import Runtime
from harness.registry import locate
from harness.results import SCHEMA_VERSION, Results, load_results, read_json
from harness.store import Store, locked, open_run
from harness.target import usable_cpus


@dataclass(frozen=True, slots=True)
class Context:
    """What every phase of one run shares."""

    experiment: Experiment
    cells: tuple[Cell, ...]
    store: Store
    machine: Mapping[str, Any]
    reporter: Reporter

    def scored(self) -> list[Cell]:
        """The cells whose artifact is valid and may be timed."""
        return [c for c in self.cells if self.status(c) == "ok"]

    def status(self, cell: Cell) -> str:
        """The status so far, of the latest of build and score."""
        state = self.store.get("score", cell.trial.id) or self.store.get("build", cell.trial.id)
        return str(state["status"]) if state else "failed"


def run(
    experiment: Experiment | str | Path,
    *,
    results: str | Path = "results",
    fresh: bool = False,
    seed: int | None = None,
    only: Sequence[str] = (),
    command: str = "",
    reporter: Reporter | None = None,
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
    seed, only
        As in `Experiment.load`; only with a path.

    Returns
    -------
    Results
        The frames, with ``folder`` where the Parquet files and ``report.html`` are.

    Raises
    ------
    QuantbenchError
        For a bad experiment or an unwritable results folder; a trial's failure is a row instead.
    """
    from harness.report import write_report

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
        if not description.get("finished"):
            sweep()
            cells = tuple(plan(experiment))
            context = Context(experiment, cells, store, here, report)
            _measure(context)
            report.phase("write", 1)
            assembly.write(context.experiment, cells, store, comparisons(context))
            description["finished"] = "" if store.unfinished() else _now()
            description["reference"] = {c.id: c.reference for c in comparisons(context)}
            write_json(store.folder / "run.json", description)
        found = load_results(store.folder)
        write_report(found, store.folder / "report.html")
    return found


def _measure(context: Context) -> None:
    Pipeline(
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
        "description": experiment.description,
        "created": _now(),
        "finished": "",
        "command": command,
        "seed": experiment.seed,
        "precision": experiment.precision.name,
        "protocol": {
            **described["precision"],
            "batch_sizes": described["batch_sizes"],
            "quality_margin": experiment.quality_margin,
            "valid_sqnr_db": experiment.valid_sqnr_db,
            **{f"limit_{k}": v for k, v in described["limits"].items()},
        },
        "experiment_text": experiment.text,
        "reference": {},
        "quantbench": __version__,
        "schema": SCHEMA_VERSION,
    }


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


# --- start-up and memory -------------------------------------------------------------------------


def _start_up(context: Context) -> None:
    """Memory, load time and first inference, in processes of their own."""
    store, experiment = context.store, context.experiment
    todo = [c for c in context.scored() if store.done("start", c.trial.id) is None]
    cells = {c.trial.id: c for c in todo}
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in cells}
    context.reporter.phase("start", len(todo))

    def on_end(job: Job, ending: Ending) -> list[Job]:
        trial = str(job.arguments["artifact"]) and job.name.rpartition(" #")[0].removeprefix(
            "start "
        )
        if ending.status != "ok":
            failed = {"status": ending.status, "reason": ending.reason, "again": ending.again}
            store.put("start", trial, {**failed, "observed": []})
            context.reporter.done(f"{trial}: {ending.status}")
            return []
        seen[trial].append(ending.value)
        if len(seen[trial]) < experiment.precision.memory_processes:
            return [_start_job(context, cells[trial], len(seen[trial]))]
        store.put("start", trial, {"status": "ok", "reason": "", "observed": seen[trial]})
        context.reporter.done()
        return []

    run_jobs(
        [_start_job(context, cell, 0) for cell in todo], store.logs, on_end,
        slots=min(2, len(usable_cpus())), on_start=lambda job: context.reporter.step(job.name),
    )  # fmt: skip


def _start_job(context: Context, cell: Cell, number: int) -> Job:
    runtime: Runtime = locate(cell.backend.runtime)()
    target = cell.trial.target
    return Job(
        f"start {cell.trial.id} #{number}", "harness.startup:start",
        {**_session(context, cell), "modules": list(cell.backend.run_modules),
         "batch_size": context.experiment.batch_sizes[0]},
        runtime.environment(target), (), context.experiment.limits.start_s,
        context.experiment.limits.memory_mb,
    )  # fmt: skip


def _session(context: Context, cell: Cell) -> dict[str, Any]:
    """Arguments by which a worker opens the cell's artifact."""
    built = context.store.get("build", cell.trial.id) or {}
    scored = context.store.get("score", cell.trial.id) or {}
    return {
        "artifact": str(entry("artifacts", built["artifact"])),
        "runtime": cell.backend.runtime,
        "target": cell.trial.target.to_json(),
        "data": scored["data"],
    }


# --- timing --------------------------------------------------------------------------------------


def comparisons(context: Context) -> list[Comparison]:
    """Every comparison of the run: the valid artifacts of a model on a target at a batch size."""
    found = []
    scored = context.scored()
    groups = dict.fromkeys((c.trial.model, c.trial.target.name) for c in scored)
    for model, name in groups:
        cells = [c for c in scored if (c.trial.model, c.trial.target.name) == (model, name)]
        target = cells[0].trial.target
        chosen = reference([c.trial for c in cells], context.experiment.reference)
        for batch_size in context.experiment.batch_sizes:
            contenders = [_contender(context, cell, batch_size, cell.trial.id) for cell in cells]
            comparison = Comparison(model, target, batch_size, tuple(contenders), chosen.id)
            anchor = next(c for c in cells if c.trial.id == chosen.id)
            control = _contender(context, anchor, batch_size, comparison.control)
            found.append(Comparison(model, target, batch_size, (*contenders, control), chosen.id))
    return found


def reference(trials: Sequence[Trial], selector: Mapping[str, str]) -> Trial:
    """The trial that ratios are taken against: as selected, else the first fp32, else the first."""
    chosen = [t for t in trials if selector and matches(t, selector)]
    floats = [t for t in trials if t.method.name == "fp32" and t.method.training == "ptq"]
    return (chosen or floats or list(trials))[0]


def _contender(context: Context, cell: Cell, batch_size: int, name: str) -> Contender:
    runtime: Runtime = locate(cell.backend.runtime)()
    precision = context.experiment.precision
    arguments = {
        **_session(context, cell),
        "batch_size": batch_size,
        "warmup_s": precision.warmup_s,
        "burst_ms": precision.burst_ms,
    }
    limits = context.experiment.limits
    return Contender(
        name,
        Job(
            f"clock {name}", "harness.burst:serve", arguments,
            runtime.environment(cell.trial.target), (), limits.start_s, limits.memory_mb,
        ),
    )  # fmt: skip


def _clock(context: Context) -> None:
    """Time every comparison, continuing where generations are stored."""
    precision, store = context.experiment.precision, context.store
    todo = comparisons(context)
    stored = {c.id: resume(c, store.generations(c.id)) for c in todo}
    left = [c for c in todo if why_stop(c, stored[c.id], precision) is None]
    rounds = precision.rounds * precision.generations
    context.reporter.phase("clock", rounds * len(left))
    for comparison in left:
        context.reporter.done(steps=len(stored[comparison.id]) * precision.rounds)

        def on_round(generation: int, round_: int, comparison: Comparison = comparison) -> None:
            context.reporter.step(f"{comparison.id} generation {generation + 1} round {round_ + 1}")
            context.reporter.done(
                f"{comparison.id}: generation {generation + 1}" if round_ == 0 else ""
            )

        try:
            run_comparison(
                comparison, precision, context.experiment.seed,
                store.generations(comparison.id), store.logs, on_round,
            )  # fmt: skip
        except NotComparable as error:
            context.reporter.say(f"{comparison.id}: {error}")


def _energy(context: Context) -> None:
    """Count the energy of every comparison, where it was asked for and can be."""
    precision, store = context.experiment.precision, context.store
    todo = [c for c in comparisons(context) if store.done("energy", c.id) is None]
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
            refused = {"status": "unsupported", "reason": code, "again": again}
            store.put("energy", comparison.id, refused)
            if asked:
                context.reporter.say(f"{comparison.id}: no energy: {energy.REASONS[code]}")
            continue
        found = {"status": "ok", "reason": "", "windows": [asdict(w) for w in windows]}
        store.put("energy", comparison.id, found)


def exit_code(found: Results) -> int:
    """0 done; 1 some trial failed; 3 nothing measured."""
    from harness.results import FAILURES

    if found.trials["status"].isin(FAILURES).any():
        return 1
    measured = found.measurements.query("metric == 'latency_ms' and value == value")
    return 0 if len(measured) else 3


def summarise(found: Results) -> dict[str, int]:
    """Trials by status."""
    counts: dict[str, int] = json.loads(found.trials["status"].value_counts().to_json())
    return counts
