"""``quantbench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.consoles import err, out


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
