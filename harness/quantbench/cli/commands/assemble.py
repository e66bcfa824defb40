"""``quantbench assemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.consoles import out


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
