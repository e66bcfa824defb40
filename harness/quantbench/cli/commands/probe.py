"""``quantbench probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.consoles import out


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
