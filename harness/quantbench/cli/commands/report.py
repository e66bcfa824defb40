"""``quantbench report``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.consoles import out


class Format(StrEnum):
    """What `quantbench report` writes."""

    html = "html"
    markdown = "markdown"


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
