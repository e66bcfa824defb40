"""``quantbench run``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from quantbench.cli.consoles import out


def run(
    experiment: Annotated[
        Path, typer.Argument(help="The experiment file (YAML), or the name of an installed one.")
    ],
    results: Annotated[Path, typer.Option(help="Folder that runs are written to.")] = Path(
        "results"
    ),
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Run only trials with this model, backend, method, target or label; repeatable.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Time again; cached artifacts and scores are used.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="Time a finished run once more, as a further session of it."),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Replace the experiment's seeds.")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the trials, the refusals and the estimated time."),
    ] = False,
) -> None:
    """Run an experiment: build, score and time every trial, then write Parquet and a report.

    The same command continues an interrupted run, and only reports on a finished one.

    [bold]Examples[/bold]

      quantbench run quickstart

      quantbench run experiments/resnet20_cifar10.yaml --only backend=tflite --dry-run

      quantbench run quickstart --again
    """
    from quantbench.experiment import Experiment

    chosen = Experiment.load(experiment, seed=seed, only=only or ())
    if dry_run:
        _show_plan(chosen)
        return
    from quantbench.api import run as run_experiment
    from quantbench.runs import exit_code

    found = run_experiment(
        chosen,
        results=results,
        fresh=fresh,
        again=again,
        command=shlex.join(["quantbench", *sys.argv[1:]]),
    )
    from quantbench.cli.terminal import show

    show(found, out)
    raise typer.Exit(exit_code(found))


def _show_plan(experiment: object) -> None:
    from quantbench.experiment import Experiment, estimate_seconds
    from quantbench.experiment.plan import plan

    assert isinstance(experiment, Experiment)  # noqa: S101 - for the type checker
    cells = plan(experiment)
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", overflow="fold")
    table.add_column("runs", justify="center")
    table.add_column("why not", overflow="fold")
    for cell in cells:
        table.add_row(cell.trial.id, "no" if cell.refusal else "yes", cell.refusal)
    out.print(table)
    runnable = sum(not cell.refusal for cell in cells)
    built, timed = estimate_seconds(experiment, runnable)
    out.print(
        f"\n{len(cells)} trials, {runnable} to run, {len(cells) - runnable} unsupported. About "
        f"{_duration(timed)} of timing, and up to {_duration(built)} of building and scoring "
        "for what is not cached."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
