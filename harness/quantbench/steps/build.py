"""Build: train, convert and quantize, each in a worker of its own, cached by content."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from quantbench.backend_api import (
    Course,
    Observation,
    Quantizer,
    Trainer,
    weights_by_layer,
)
from quantbench.backend_api import observe as observe_all
from quantbench.spec import Array, Method, Model, save_arrays
from quantbench.steps.prepare_data import calibration_data, read_split
from quantbench.steps.score import peak_rss_bytes, status_bytes
from quantbench.system import (
    filling,
    locate,
    read_json,
    write_json,
)

RECORD = "record.json"
HISTOGRAMS = "histograms.npz"
SIMULATION_BATCH = 100


def resolved(model: Mapping[str, Any], *, trained: str = "", form: str = "") -> Model:
    """A model as later steps see it: with what was trained, and with a form that was converted.

    Parameters
    ----------
    trained, form : str
        Folders that `train` and `convert` have filled; empty for none.
    """
    described = Model.from_json(model)
    if trained:
        described = dataclasses.replace(described, trained=trained)
    if form:
        record = read_record(Path(form))
        path = str(Path(form) / record["file"])
        described = dataclasses.replace(described, forms={**described.forms, record["form"]: path})
    return described


def read_record(folder: Path) -> dict[str, Any]:
    """What a step has recorded of itself; raises `NotComparable` where it cannot be read."""
    return read_json(folder / RECORD)


def train(
    *, model: Mapping[str, Any], method: Mapping[str, Any], trainer: str, loss: str,
    data: str, train: str, folder: str,
) -> dict[str, Any]:  # fmt: skip
    """Worker function: train, from the last checkpoint where there is one; returns the record.

    ``data`` and ``train``: folders that hold the calibration and the training split.
    """
    described, chosen = Model.from_json(model), Method.from_json(method)
    final = Path(folder)
    workspace = final.with_name(f"{final.name}-unfinished")
    samples = read_split(Path(train), "train", described)
    known = calibration_data(Path(data), described, chosen.samples, chosen.seed, samples)
    layouts = {spec.name: spec.layout for spec in described.inputs}
    tool: Trainer = locate(trainer)()
    with filling(final) as temporary:
        course = Course(chosen, samples, layouts, loss, temporary, workspace)
        tool.train(described, chosen, known, course)
        record = {"trained_s": course.seconds}
        write_json(temporary / RECORD, record)
    shutil.rmtree(workspace, ignore_errors=True)
    return record


def simulate(
    *, model: Mapping[str, Any], method: Mapping[str, Any], trainer: str, data: str, trained: str,
    folder: str,
) -> None:  # fmt: skip
    """Worker function: outputs of a fake-quantized model over the test split, one file each."""
    described, chosen = resolved(model, trained=trained), Method.from_json(method)
    samples = read_split(Path(data), "test", described)
    tool: Trainer = locate(trainer)()
    pieces: dict[str, list[Array]] = {spec.name: [] for spec in described.outputs}
    for batch in samples.batches(SIMULATION_BATCH):
        for name, array in tool.outputs(described, chosen, batch).items():
            pieces[name].append(array)
    with filling(Path(folder)) as temporary:
        save_arrays(temporary, {name: np.concatenate(parts) for name, parts in pieces.items()})


def convert(
    *, model: Mapping[str, Any], convert: str, form: str, folder: str, trained: str = ""
) -> dict[str, Any]:
    """Worker function: make a ``form``; returns the record with the name of the new form's file."""
    started = time.monotonic()
    with filling(Path(folder)) as temporary:
        path = locate(convert)(resolved(model, trained=trained), temporary)
        name = path.relative_to(temporary).as_posix()
        record = {"file": name, "form": form, "converted_s": time.monotonic() - started}
        write_json(temporary / RECORD, record)
    return record


def observe(
    *, model: Mapping[str, Any], method: Mapping[str, Any], quantizer: str, data: str, folder: str,
    trained: str = "", form: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Worker function: histograms of the activations over the calibration samples, in one pass."""
    started = time.monotonic()
    described, chosen = resolved(model, trained=trained, form=form), Method.from_json(method)
    tool: Quantizer = locate(quantizer)()
    samples = calibration_data(Path(data), described, chosen.samples, chosen.seed)
    observation = Observation()
    running: list[int] = []

    def see(name: str, batch: ArrayLike) -> None:
        if not running:  # the model is loaded and has run once
            running.append(status_bytes("VmRSS"))
        observation.see(name, batch)

    tool.observe(described, chosen, samples, see)
    # writing them out is not the pass over the samples
    record = {
        "observed_s": time.monotonic() - started,
        "peak_rss_bytes": peak_rss_bytes(),
        "model_rss_bytes": running[0] if running else peak_rss_bytes(),
    }
    with filling(Path(folder)) as temporary:
        observation.save(temporary / HISTOGRAMS)
        write_json(temporary / RECORD, record)
    return record


def weigh(*, model: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Worker function: histograms of the float weights by layer."""
    weights = weights_by_layer(Model.from_json(model))
    with filling(Path(folder)) as temporary:
        observe_all(weights.items()).save(temporary / HISTOGRAMS)
        record = {"layers": len(weights)}
        write_json(temporary / RECORD, record)
    return record


def build(
    *, model: Mapping[str, Any], method: Mapping[str, Any], quantizer: str, data: str, folder: str,
    observed: str = "", trained: str = "", form: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Worker function: quantize, read the artifact back, publish both; returns the record.

    ``observed``: the folder of histograms, from which the ranges are estimated that are injected.
    """
    started = time.monotonic()
    described, chosen = resolved(model, trained=trained, form=form), Method.from_json(method)
    tool: Quantizer = locate(quantizer)()
    samples = calibration_data(Path(data), described, chosen.samples, chosen.seed)
    if observed:
        seen = Observation.load(Path(observed) / HISTOGRAMS)
        ranges = seen.ranges(chosen, tool.levels(chosen))
        samples = dataclasses.replace(samples, ranges=ranges)
    with filling(Path(folder)) as temporary:
        artifact = tool.quantize(described, chosen, samples, temporary)
        built_s = time.monotonic() - started
        read = tool.inspect(artifact, tool.layers(described))
        weighed = {"weight_bytes": read.weight_bytes, "gzip_bytes": artifact.gzip_bytes()}
        record = {**read.to_json(), **weighed, "built_s": built_s}
        if samples.draw is not None and samples.draw.samples:
            record["calibration"] = dataclasses.asdict(samples.draw)
        (temporary / RECORD).write_text(json.dumps(record), encoding="utf-8")
    return record
