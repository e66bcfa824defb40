"""``quantbench tune``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.commands.options import MaxDrop
from quantbench.cli.consoles import out


class Objective(StrEnum):
    """What `quantbench tune` makes small."""

    latency = "latency"
    size = "size"


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
