"""``quantbench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantbench.cli.consoles import err, out

if TYPE_CHECKING:
    from quantbench.results import Results
    from quantbench.runs import Retimed


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
    retime: Annotated[
        bool,
        typer.Option(
            "--retime",
            help="Time both runs' artifacts again, interleaved on this machine, and judge times by that.",
        ),
    ] = False,
    across_machines: Annotated[
        bool,
        typer.Option(
            "--across-machines",
            help="Compare times of different machines as if they were of one.",
        ),
    ] = False,
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

    Times are compared where both runs are of one machine, and allow for what two sessions differ by.

    With --retime they hold on any machine, and smaller changes are found.

    [bold]Examples[/bold]

      quantbench compare results/main results/branch

      quantbench compare OLD NEW --fail-on "speedup < -10%" "missing > 0"

      quantbench compare OLD NEW --retime --gate gates.yaml --junit gates.xml
    """
    from quantbench.analysis import gates
    from quantbench.cli import checks
    from quantbench.results import load_results
    from quantbench.system import write_atomically

    asked = (
        *(gates.read(gate) if gate else ()),
        *map(gates.parse, (*(fail_on or ()), *(more or ()))),
    )
    before, after = load_results(baseline), load_results(candidate)
    found = checks.Checks.of(
        before, after, asked or gates.DEFAULT, across_machines=across_machines,
        retimed=_retimed(before, after) if retime else (),
    )  # fmt: skip
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
    raise typer.Exit(found.exit_code)


def _retimed(baseline: Results, candidate: Results) -> tuple[Retimed, ...]:
    """The trials of both runs, timed again here; raises `NotComparable` where there are none."""
    from quantbench.analysis import common
    from quantbench.errors import NotComparable
    from quantbench.runs import Reporter, other_versions
    from quantbench.runs import retime as time_again

    trials = common(baseline, candidate)
    if not trials:
        raise NotComparable(
            f"{baseline.folder} and {candidate.folder} have no trial in common that is ok in both: "
            "there is nothing to time again"
        )
    for line in other_versions(baseline, candidate, trials):
        err.print(line, markup=False, soft_wrap=True)
    return time_again(baseline, candidate, trials, reporter=Reporter(err))
