"""``quantbench advise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.commands.options import MaxDrop
from quantbench.cli.consoles import out


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
    enough, all judged together (Holm); what ties with it within noise is named,
    and the smallest file of those is chosen, of files of one size (1 %) the one
    whose loss has the least bound. Trials that differ by seed alone are one
    candidate. Says which limit the test samples can show. The form in the report's page computes the same. Exit
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
