"""``quantbench export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.consoles import out


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or an experiment's (newest run).")],
    trial: Annotated[
        str,
        typer.Argument(help="The trial's name, e.g. digits-mobilenet/tflite/static-int8/cpu-1."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the file.")],
) -> None:
    """Copy a trial's deployable file out of a run.

    [bold]Example[/bold]

      quantbench export results/quickstart digits-mobilenet/tflite/static-int8/cpu-1 -o digits.tflite
    """
    from quantbench.runs import export as export_trial

    for path in export_trial(run, trial, output):
        out.print(f"wrote {path} ({path.stat().st_size:,} bytes)", soft_wrap=True, markup=False)
