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
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Profile it beside its float model, and keep that in the run."
        ),
    ] = False,
    try_: Annotated[
        bool,
        typer.Option("--try", help="Build what may help, and time it against the trial."),
    ] = False,
) -> None:
    """Say why a trial is, or is not, faster than its float model.

    From what was recorded (the file, the operations that were executed, the machine) follows what
    could explain it; a profile tells where the time goes, and a cause is named where its operators
    hold at least half of the time that differs.

    [bold]Example[/bold]

      quantbench explain results/resnet20_cifar10 resnet20/tflite/static-int16x8/cpu-1

      quantbench explain results/resnet20_cifar10 resnet20/onnxruntime/dynamic-int8/cpu-1 --profile --try
    """
    import tempfile

    from quantbench.analysis import explain as explain_trial
    from quantbench.analysis import other_work, remedies
    from quantbench.backend_api import backend
    from quantbench.cli import explaining
    from quantbench.errors import BadInput
    from quantbench.results import load_profile, load_results, save_profile
    from quantbench.runs import Reporter, attempt, offered, rebuilt, trials_of
    from quantbench.runs import profile as profile_trial

    results = load_results(run)
    kept = load_profile(results.folder, trial)
    found = explain_trial(results, trial, kept)
    with tempfile.TemporaryDirectory() as folder, Reporter() as reporter:
        if profile or (try_ and kept is None):
            if found.reference == trial:
                raise BadInput(
                    f"{trial} is the float model itself: there is nothing to profile it against"
                )
            trials = trials_of(results)
            at_hand = rebuilt(
                results,
                [trials[trial], trials[found.reference]],
                Path(folder) / "profiled",
                reporter,
            )
            kept = profile_trial(at_hand, trial, found.reference, reporter=reporter)
            save_profile(results.folder, kept)
            found = explain_trial(results, trial, kept)
        explaining.show(found, kept, out)
        if work := other_work(results).get(found.trial):
            out.print(work.sentence, markup=False)
        if try_:
            trials = trials_of(results)
            own, twin = trials[trial], trials[found.reference]
            ways = [w for w in backend(own.backend).ways(own.method.name) if w != own.method.route]
            methods = [
                (remedy.method, remedy.axes)
                for cause in found.causes
                for remedy in remedies(cause, own.method.name, own.method.scales, ways)
            ]
            others = offered(results, own, methods)
            tried = attempt(results, own, twin, others, Path(folder), reporter)
            explaining.show_tried(tried, out)
