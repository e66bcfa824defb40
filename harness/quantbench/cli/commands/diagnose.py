"""``quantbench diagnose``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from quantbench.cli.consoles import out


class Parts(StrEnum):
    """What of a layer `quantbench diagnose` quantizes."""

    both = "both"
    weights = "weights"
    activations = "activations"


class Mode(StrEnum):
    """What `quantbench diagnose` does with one layer at a time."""

    quantized = "quantized"
    kept = "kept"


def diagnose(
    subject: Annotated[str, typer.Argument(help="A model's name, or an experiment file (YAML).")],
    method: Annotated[
        str, typer.Option(help="The method's preset, or a label of the experiment file.")
    ] = "static-int8",
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Only this backend; repeatable. Default: all that are installed."),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=VALUE", help="Another value of the method's axis; repeatable."),
    ] = None,
    parts: Annotated[
        Parts, typer.Option(help="Which part of a layer is quantized.", show_choices=True)
    ] = Parts.both,
    mode: Annotated[
        list[Mode] | None,
        typer.Option(
            help="One layer at a time 'quantized' alone, or 'kept' in float alone; repeatable."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Test samples of each variant.")] = 1000,
    worst: Annotated[int, typer.Option(min=0, help="Layers that get a guide of their own.")] = 3,
    results: Annotated[Path, typer.Option(help="Folder that results are written to.")] = Path(
        "results"
    ),
) -> None:
    """Find the layers that quantization hurts, and what to try next, with the evidence.

    Each layer is quantized alone (or kept in float alone) and compared with the float model on the
    same test samples. What is known is read from the cache: the same command continues.

    [bold]Examples[/bold]

      quantbench diagnose resnet20 --backend onnxruntime

      quantbench diagnose resnet20 --backend tflite --mode quantized --mode kept

      quantbench diagnose experiments/resnet20_cifar10.yaml --axis granularity=per-tensor
    """
    from quantbench.cli.terminal import show_diagnosis
    from quantbench.report import write_diagnosis
    from quantbench.studies import diagnose as examine
    from quantbench.studies import requests

    for request in requests(
        subject, method, backend or (), axis or (), parts=parts.value,
        modes=tuple(m.value for m in mode or [Mode.quantized]), samples=samples, worst=worst,
    ):  # fmt: skip
        found = examine(request, results=results)
        show_diagnosis(found, out)
        out.print(f"page: {write_diagnosis(found)}", markup=False, soft_wrap=True)
