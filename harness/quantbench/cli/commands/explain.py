"""``quantbench explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.consoles import out


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
    from quantbench.analysis import other_work
    from quantbench.results import load_results

    results = load_results(run)
    found = explain_trial(results, trial)
    out.print(f"{found.trial}: {found.summary}", markup=False, soft_wrap=True)
    if work := other_work(results).get(found.trial):
        out.print(work.sentence, markup=False)
    if not found.causes:
        out.print("Nothing that was recorded speaks against its speed.")
    for cause in found.causes:
        out.print(f"\n{cause.name}", style="bold", markup=False)
        out.print(cause.sentence, markup=False)
        if cause.remedy:
            out.print(cause.remedy, style="dim", markup=False)
