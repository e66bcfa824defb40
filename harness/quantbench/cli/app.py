"""The ``quantbench`` command."""

from __future__ import annotations

import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from quantbench import __version__
from quantbench.errors import NotComparable, QuantbenchError

app = typer.Typer(
    name="quantbench",
    help="Quantize one model with every method of every framework, measure all of them under one "
    "protocol, and see which to deploy.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Kind(StrEnum):
    """What `quantbench list` can list."""

    models = "models"
    tasks = "tasks"
    backends = "backends"
    methods = "methods"
    targets = "targets"
    experiments = "experiments"


class Parts(StrEnum):
    """What of a layer `quantbench diagnose` quantizes."""

    both = "both"
    weights = "weights"
    activations = "activations"


class Mode(StrEnum):
    """What `quantbench diagnose` does with one layer at a time."""

    quantized = "quantized"
    kept = "kept"


class Objective(StrEnum):
    """What `quantbench tune` makes small."""

    latency = "latency"
    size = "size"


class Format(StrEnum):
    """What `quantbench report` writes."""

    html = "html"
    markdown = "markdown"


MaxDrop = Annotated[
    str,
    typer.Option(
        metavar="DROP",
        help="Largest loss of quality, e.g. 0.5pp (percentage points) or 0.005; its one-sided "
        "95 % bound on the test samples must stay below.",
    ),
]


def _version(value: bool) -> None:
    if value:
        out.print(f"quantbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
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


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs' folders, or experiments' (newest run)."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write it. Default: report.html in the run, in the working directory for "
            "several; Markdown is printed.",
        ),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="A page, or a comment.", show_choices=True)
    ] = Format.html,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", help="Write the figures too, as SVG and PNG, to this folder."),
    ] = None,
) -> None:
    """Write the HTML report of one or several runs, or its short form for a pull request.

    Several runs become one page. Nothing is compared across them: a target
    that two runs share is told apart by the run's name.

    [bold]Examples[/bold]

      quantbench report results/quickstart -o quickstart.html

      quantbench report results/laptop results/board -o both.html

      quantbench report results/quickstart --format markdown

      quantbench report results/quickstart --figures slides
    """
    from quantbench.report import write_figures, write_report
    from quantbench.report.markdown import brief
    from quantbench.results import load_results
    from quantbench.results.merge import merge
    from quantbench.system import write_atomically

    found = merge([load_results(run) for run in runs])
    page = (found.folder if len(runs) == 1 else Path()) / "report.html"
    if form is Format.html:
        out.print(f"report: {write_report(found, output or page)}", markup=False, soft_wrap=True)
    else:
        text = brief(found, report=str(page) if page.exists() else "")
        if output is None:
            out.print(text, markup=False, soft_wrap=True)
        else:
            write_atomically(output, text)
            out.print(f"report: {output}", markup=False, soft_wrap=True)
    for written in write_figures(found, figures) if figures else ():
        out.print(f"figure: {written}", markup=False, soft_wrap=True)


@app.command()
def assemble(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs' folders, or experiments' (newest run)."),
    ],
) -> None:
    """Compute a finished run again: tables, verdicts and report, with the code of today.

    From the raw samples, predictions and readings that the run holds. Nothing
    is built or timed, and no framework is needed. What an older run has not
    stored is kept as it was measured. docs/results.md says what that is.

    [bold]Example[/bold]

      quantbench assemble results/resnet20_cifar10
    """
    from quantbench.report import write_report
    from quantbench.results import find_run, load_results
    from quantbench.runs import assemble as compute
    from quantbench.runs import changes

    for folder in map(find_run, runs):
        before = load_results(folder)
        after = compute(folder)
        told = changes(before, after)
        for line in told[:10]:
            out.print(line, markup=False, soft_wrap=True)
        more = f" ({len(told) - 10} more)" if len(told) > 10 else ""
        count = f"{len(after.measurements):,} measurements, {len(told)} changed{more}"
        out.print(f"{folder}: {count}", markup=False, soft_wrap=True)
        page = write_report(after, folder / "report.html")
        out.print(f"report: {page}", markup=False, soft_wrap=True)


@app.command()
def advise(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs' folders, or experiments' (newest run)."),
    ],
    max_drop: MaxDrop = "1pp",
    max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Largest size, e.g. 500kB or 2MB. Default: any."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What decides: latency, size, energy or throughput.")
    ] = "latency",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="A batch size that was timed. Default: the smallest; for throughput, each trial at "
            "its best."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Only this target. Default: each.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model. Default: each.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which trial to ship under your limits, what it gains and costs, and how sure that is.

    The best by the objective among the trials whose loss is surely small
    enough; what ties with it within noise is named, and the smallest file of
    those is chosen. The form in the report's page computes the same. Exit
    code 1 where no trial qualifies for some model and target.

    [bold]Examples[/bold]

      quantbench advise results/resnet20_cifar10 --max-drop 0.5pp

      quantbench advise results/resnet20_cifar10 --target cpu-1 --max-drop 1pp --max-size 2MB --objective size

      quantbench advise results/quickstart --objective throughput --json
    """
    import json

    from quantbench.analysis import Constraints, parse_drop, parse_size, recommend
    from quantbench.cli import advising
    from quantbench.results import load_results
    from quantbench.results.merge import merge

    limits = Constraints(
        parse_drop(max_drop), parse_size(max_size) if max_size else None, objective, batch_size,
        target, model,
    )  # fmt: skip
    found = merge([load_results(run) for run in runs])
    choices = recommend(found, limits)
    if as_json:
        text = json.dumps(advising.to_json(found, limits, choices), indent=2, allow_nan=False)
        out.print(text, markup=False, soft_wrap=True)
    else:
        advising.show(found, limits, choices, out)
    raise typer.Exit(0 if choices and all(choice.trial for choice in choices) else 1)


@app.command()
def compare(
    baseline: Annotated[
        Path, typer.Argument(help="The run to compare with: its folder, or an experiment's.")
    ],
    candidate: Annotated[Path, typer.Argument(help="The run that is judged.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[GATE]...", hidden=True)] = None,
    gate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A gate file (YAML); see docs/regression.md."),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GATE",
            help="A gate, e.g. 'quality_drop > 0.5pp', 'size_bytes > +1%', 'speedup < -5%'; "
            "several may follow, beside those of the file.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML, a case per trial.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a text for a pull request; - shows it instead."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every change; - shows them instead."),
    ] = None,
) -> None:
    """Check a run against a baseline, trial by trial; exit code 1 where a gate failed.

    A gate fails where the whole 95 % interval of a change lies beyond its limit.

    Speed is the ratio to the run's own reference; on one machine, milliseconds too.

    [bold]Examples[/bold]

      quantbench compare results/main results/branch

      quantbench compare OLD NEW --fail-on "speedup < -10%" "missing > 0"

      quantbench compare OLD NEW --gate gates.yaml --junit gates.xml --markdown -
    """
    from quantbench.analysis import gates
    from quantbench.cli import checks
    from quantbench.results import load_results
    from quantbench.system import write_atomically

    asked = (
        *(gates.read(gate) if gate else ()),
        *map(gates.parse, (*(fail_on or ()), *(more or ()))),
    )
    found = checks.Checks.of(
        load_results(baseline), load_results(candidate), asked or gates.DEFAULT
    )
    shown = Path("-")
    if shown not in (markdown, json):
        checks.show(found, out)
    for path, write in (
        (markdown, checks.markdown), (json, checks.to_json), (junit, checks.junit),
    ):  # fmt: skip
        if path == shown:
            out.print(write(found), markup=False, soft_wrap=True, end="")
        elif path is not None:
            write_atomically(path, write(found))
            err.print(f"wrote {path}", markup=False, soft_wrap=True)
    raise typer.Exit(1 if found.failed else 0)


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A run's folder, or an experiment's (newest run).")],
    trial: Annotated[
        str, typer.Argument(help="The trial's name, e.g. resnet20/onnxruntime/static-int8/cpu-1.")
    ],
) -> None:
    """Say in plain words why a trial is, or is not, faster than its float model.

    From what was recorded: the file, the operations that were executed, the times, the machine.

    [bold]Example[/bold]

      quantbench explain results/resnet20_cifar10 resnet20/tflite/static-int16x8/cpu-1
    """
    from quantbench.analysis import explain as explain_trial
    from quantbench.results import load_results

    found = explain_trial(load_results(run), trial)
    out.print(f"{found.trial}: {found.summary}", markup=False, soft_wrap=True)
    if not found.causes:
        out.print("Nothing that was recorded speaks against its speed.")
    for cause in found.causes:
        out.print(f"\n{cause.name}", style="bold", markup=False)
        out.print(cause.sentence, markup=False)
        if cause.remedy:
            out.print(cause.remedy, style="dim", markup=False)


@app.command()
def diagnose(
    subject: Annotated[str, typer.Argument(help="A model's name, or an experiment file (YAML).")],
    method: Annotated[
        str, typer.Option(help="The method's preset, or a label of the experiment file.")
    ] = "static-int8",
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Only this backend; repeatable. Default: all that are installed."),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=VALUE", help="Another value of the method's axis; repeatable."),
    ] = None,
    parts: Annotated[
        Parts, typer.Option(help="Which part of a layer is quantized.", show_choices=True)
    ] = Parts.both,
    mode: Annotated[
        list[Mode] | None,
        typer.Option(
            help="One layer at a time 'quantized' alone, or 'kept' in float alone; repeatable."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Test samples of each variant.")] = 1000,
    worst: Annotated[int, typer.Option(min=0, help="Layers that get a guide of their own.")] = 3,
    results: Annotated[Path, typer.Option(help="Folder that results are written to.")] = Path(
        "results"
    ),
) -> None:
    """Find the layers that quantization hurts, and what to try next, with the evidence.

    Each layer is quantized alone (or kept in float alone) and compared with the float model on the
    same test samples. What is known is read from the cache: the same command continues.

    [bold]Examples[/bold]

      quantbench diagnose resnet20 --backend onnxruntime

      quantbench diagnose resnet20 --backend tflite --mode quantized --mode kept

      quantbench diagnose experiments/resnet20_cifar10.yaml --axis granularity=per-tensor
    """
    from quantbench.cli.terminal import show_diagnosis
    from quantbench.report import write_diagnosis
    from quantbench.studies import diagnose as examine
    from quantbench.studies import requests

    for request in requests(
        subject, method, backend or (), axis or (), parts=parts.value,
        modes=tuple(m.value for m in mode or [Mode.quantized]), samples=samples, worst=worst,
    ):  # fmt: skip
        found = examine(request, results=results)
        show_diagnosis(found, out)
        out.print(f"page: {write_diagnosis(found)}", markup=False, soft_wrap=True)


@app.command()
def tune(
    subject: Annotated[
        str, typer.Argument(help="A model's name, or an experiment file (YAML) with one model.")
    ],
    backend: Annotated[str, typer.Option(help="The backend to tune for.")],
    max_drop: MaxDrop = "1pp",
    objective: Annotated[
        Objective, typer.Option(help="What is made small.", show_choices=True)
    ] = Objective.latency,
    method: Annotated[str, typer.Option(help="The preset to start from.")] = "static-int8",
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=VALUE", help="Another value of the method's axis; repeatable."),
    ] = None,
    precision: Annotated[str, typer.Option(help="How precisely it is timed.")] = "preview",
    samples: Annotated[
        int, typer.Option(min=1, help="Test samples that layers are ranked on.")
    ] = 1000,
    results: Annotated[Path, typer.Option(help="Folder that results are written to.")] = Path(
        "results"
    ),
) -> None:
    """Mix precisions to a budget: more bits where it hurts, checked by real scoring and timing.

    Layers are ranked by their sensitivity; candidates keep the most sensitive in float and give the
    least sensitive 4 bits. All are kept as a run with its report. Exit code 1 where none is within
    the budget; the best effort is shown.

    [bold]Example[/bold]

      quantbench tune resnet20 --backend onnxruntime --max-drop 0.5pp --objective size

      quantbench tune mine.yaml --backend onnxruntime
    """
    from quantbench.analysis import parse_drop
    from quantbench.backend_api import backend as backend_of
    from quantbench.cli.terminal import show_tuning
    from quantbench.errors import BadInput
    from quantbench.report import write_report
    from quantbench.spec import preset
    from quantbench.studies import Budget, requests
    from quantbench.studies import tune as search

    drop = parse_drop(max_drop)
    asked = requests(subject, method, [backend], axis or ())
    if len(asked) > 1:
        models = ", ".join(one.model for one in asked)
        raise BadInput(f"{subject} has several models ({models}); tune one of them by its name")
    (request,) = asked
    start = preset(request.preset, backend_of(backend).axes(request.preset, request.axes))
    found = search(
        request.model, backend, Budget(drop, objective.value), own=request.own, method=start,
        precision=precision, samples=samples, results=results, write_report=write_report,
    )  # fmt: skip
    show_tuning(found, out)
    raise typer.Exit(0 if found.qualified else 1)


@app.command(name="list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_choices=True)],
) -> None:
    """List what can be named in an experiment file, and the experiments themselves.

    [bold]Example[/bold]

      quantbench list methods
    """
    from quantbench.experiment.catalogue import rows

    columns, lines = rows(kind.value)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*line)
    out.print(table)


@app.command()
def doctor() -> None:
    """Say what is installed, which backends and targets work here, and how to get the rest."""
    from quantbench.cli.doctor import diagnose

    for line in diagnose():
        mark = {"ok": "[green]ok     [/green]", "missing": "[yellow]missing[/yellow]"}.get(
            line.status, "[yellow]note   [/yellow]"
        )
        out.print(mark, f"{line.subject}: {line.text}", sep=" ", markup=True, soft_wrap=True)


@app.command()
def probe(
    backend: Annotated[
        list[str] | None, typer.Option(help="Probe only this backend; repeatable.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the matrix: FILE.json, or FILE.md and both."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="A matrix written before: show what differs, and exit with 1 if any does."
        ),
    ] = None,
) -> None:
    """Try every method of every installed backend on models of three layers; show what it does.

    Weights and inputs come from a seed. The first time takes half an hour.

    [bold]Examples[/bold]

      quantbench probe --backend onnxruntime

      quantbench probe --output docs/capabilities.md

      quantbench probe --check docs/capabilities.md
    """
    from quantbench.cli.terminal import show_differences, show_matrix
    from quantbench.studies import capability
    from quantbench.studies.probe import probe as probe_backends

    if output:
        capability.check_output(output)
    kept = capability.read(check) if check else None
    found = probe_backends(backends=backend or ())
    show_matrix(found, out)
    if output:
        for path in capability.write(found, output):
            out.print(f"wrote {path}", soft_wrap=True, markup=False)
    if kept:
        raise typer.Exit(show_differences(kept, found, out))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or an experiment's (newest run).")],
    trial: Annotated[
        str, typer.Argument(help="The trial's name, e.g. digits/tflite/static-int8/cpu-1.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the file.")],
) -> None:
    """Copy a trial's deployable file out of a run.

    [bold]Example[/bold]

      quantbench export results/quickstart digits/tflite/static-int8/cpu-1 -o digits.tflite
    """
    from quantbench.runs import export as export_trial

    for path in export_trial(run, trial, output):
        out.print(f"wrote {path} ({path.stat().st_size:,} bytes)", soft_wrap=True, markup=False)


def _fail(text: str, code: int) -> NoReturn:
    for line in text.splitlines():
        err.print(f"error: {line}", markup=False, soft_wrap=True)
    sys.exit(code)


def main() -> None:
    """Entry point: the command with its exit codes (0 done, 1 failed, 2 usage, 3 not comparable)."""

    def terminate(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminate)
    try:
        app()
    except NotComparable as error:
        _fail(str(error), 3)
    except QuantbenchError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        err.print("interrupted; the same command continues where this stopped")
        sys.exit(130)
