"""The inference call of the quickstart's artifacts, one thread, batch 1, by pytest-benchmark.

Run once, untimed, by `make test`; `--benchmark-enable` times it (CONTRIBUTING.md).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.build import build
from harness.data import read_split, write
from harness.experiment import Experiment
from harness.plan import Cell, plan
from harness.protocol import Artifact
from harness.registry import locate, task
from harness.target import Target

ROOT = Path(__file__).parents[2]
CELLS = {
    cell.trial.id: cell
    for cell in plan(Experiment.load(ROOT / "experiments" / "quickstart.yaml"))
    if not cell.refusal
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits data, prepared once."""
    folder = tmp_path_factory.mktemp("benchmarks")
    cell = next(iter(CELLS.values()))
    write(
        load=task(cell.model.task).load, model=cell.model.to_json(),
        splits=["calibration", "test"], folder=str(folder / "data"),
    )  # fmt: skip
    return folder


def artifact(cell: Cell, folder: Path) -> Artifact:
    model = cell.model
    if cell.converter is not None:
        form = folder / "form"
        form.mkdir(exist_ok=True)
        path = locate(cell.converter.convert)(model, form)
        forms = {**model.forms, cell.converter.target: str(path)}
        model = dataclasses.replace(model, forms=forms)
    target = folder / cell.trial.id.replace("/", "-")
    build(
        model=model.to_json(), method=cell.trial.method.to_json(),
        quantizer=cell.backend.quantizer, data=str(folder / "data"), folder=str(target),
    )  # fmt: skip
    return Artifact.open(target)


@pytest.mark.slow
@pytest.mark.parametrize("trial", list(CELLS))
def test_inference(benchmark, folder, trial):
    cell = CELLS[trial]
    samples = read_split(folder / "data", "test", cell.model)
    session = locate(cell.backend.runtime)().load(artifact(cell, folder), Target("here"), 1)
    session.bind(next(iter(samples.batches(1))))

    benchmark(session.run)

    logits = session.read()["logits"]
    assert logits.shape == (1, 10)
    assert np.argmax(logits) == samples.labels[0]
