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
    PRESET,
    Backend,
    Converter,
    Course,
    Observation,
    Quantizer,
    Trainer,
    registry,
    weights_by_layer,
)
from quantbench.backend_api import observe as observe_all
from quantbench.spec import RECIPE, Array, Method, Model, save_arrays
from quantbench.steps.prepare_data import calibration_data, read_split
from quantbench.steps.score import peak_rss_bytes, status_bytes
from quantbench.system import (
    content_key,
    file_sha256,
    filling,
    installed_packages,
    locate,
    source_digest,
    write_json,
)

RECORD = "record.json"
HISTOGRAMS = "histograms.npz"
SIMULATION_BATCH = 100


def data_key(model: Model, load: str, version: str, splits: list[str]) -> str:
    """Content key of a model's prepared data."""
    preprocess = model.preprocess and source_digest(model.preprocess)
    return content_key(
        load=load, version=version, splits=splits, preprocess=[model.preprocess, preprocess],
        inputs=[spec.to_json() for spec in model.inputs], shift=model.shift,
        source=source_digest(load), writer=source_digest("quantbench.steps.prepare_data"), packages=_versions("numpy"),
    )  # fmt: skip


def form_key(model: Model, converter: Converter, weights: str) -> str:
    """Content key of a converted form."""
    return content_key(
        model=_identity(model), weights=weights, convert=converter.convert,
        source=source_digest(converter.convert),
        packages=_versions(*converter.packages),
    )  # fmt: skip


def training_key(
    model: Model, method: Method, backend: Backend, *, weights: str, data: str, train: str
) -> str:
    """Content key of a training: the same one serves every backend whose trainer it is.

    A finetune depends on its recipe alone, fake quantization on what it imitates too.
    """
    axes = method.to_json()
    if method.training == "finetune":
        axes = {axis: axes[axis] for axis in ("training", "seed", *RECIPE)}
    else:
        del axes["name"], axes["io"]
    return content_key(
        model=_identity(model), weights=weights, method=axes, train=train,
        data=data if method.samples else "", trainer=backend.trainer,
        source=[source_digest(backend.trainer), source_digest("quantbench.backend_api.training_recipe")],
        packages=_versions(*_trainers(backend).packages),
    )  # fmt: skip


def _trainers(backend: Backend) -> Backend:
    """The backend whose own trainer it is: another may export what that one trains."""
    home = backend.trainer.partition(":")[0].rpartition(".")[0]
    known = (registry.backend(name) for name in registry.names("backends"))
    own = [b for b in known if b.quantizer.startswith(f"{home}.")]
    return own[0] if own else backend


def observation_key(
    model: Model, method: Method, backend: Backend, *, weights: str, data: str, form: str
) -> str:
    """Content key of a model's histograms: the same one serves all calibrators."""
    axes = method.to_json()
    for estimated in ("name", "calibrator", "percentile", "sigmas", *_OF_WEIGHTS):
        del axes[estimated]
    return content_key(
        model=_identity(model), weights=weights, method=axes, form=form, data=data,
        backend=backend.name,
        source=[source_digest(backend.quantizer), source_digest("quantbench.backend_api.calibration")],
        packages=_versions("numpy", *backend.build_packages),
    )  # fmt: skip


def weights_key(model: Model, *, weights: str) -> str:
    """Content key of the histograms of a model's weights."""
    return content_key(
        model=_identity(model), weights=weights, source=source_digest("quantbench.backend_api.calibration"),
        packages=_versions("numpy"),
    )  # fmt: skip


_OF_WEIGHTS = ("weights", "granularity", "group_size", "symmetric_weights", "int4_weights")


def artifact_key(
    model: Model, method: Method, backend: Backend, *, weights: str, data: str, form: str
) -> str:
    """Content key of an artifact: weights, method, calibration data, code and versions."""
    as_is = (
        {r: file_sha256(locate(f)()) for r, f in model.ready.items()}
        if method.name == PRESET
        else {}
    )
    return content_key(
        model=_identity(model), weights=weights, method=method.to_json(), form=form, ready=as_is,
        data=data if method.samples else "", backend=backend.name,
        source=[source_digest(backend.quantizer), *map(source_digest, _engine(method))],
        packages=_versions(*backend.packages, *backend.optional_packages),
    )  # fmt: skip


def _engine(method: Method) -> list[str]:
    """The modules of the engine that an artifact and what is read back of it depend on."""
    own = ["quantbench.backend_api.protocol", "quantbench.backend_api.artifact_record"]
    return [*own, "quantbench.backend_api.calibration"] if method.ranges == "injected" else own


def _identity(model: Model) -> dict[str, Any]:
    """The model without prose, with the source of the code that builds its forms."""
    described = model.to_json()
    described["trained"] = Path(model.trained).name  # its content key
    # a shift changes data, which have a key of their own
    described["name"] = model.name.partition("@")[0]
    for other in ("description", "source", "published", "shift", "ready"):
        del described[other]
    # what a file holds is told by its digest, or by the key of its conversion
    described["forms"] = {n: f if ":" in f else Path(f).name for n, f in model.forms.items()}
    code = [c for c in (model.state, *model.forms.values()) if ":" in c]
    described["code"] = {c: source_digest(c) for c in code}
    return described


def _versions(*names: str) -> dict[str, str]:
    installed = installed_packages()
    return {name: installed.get(name, "") for name in sorted(names)}


def weights_digest(model: Model) -> str:
    """SHA-256 of the model's weights file; raises `DataMissing` where it is absent."""
    return file_sha256(locate(model.weights)())


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
    *, model: Mapping[str, Any], method: Mapping[str, Any], trainer: str, data: str, folder: str
) -> None:
    """Worker function: outputs of a fake-quantized model over the test split, one file each."""
    described, chosen = Model.from_json(model), Method.from_json(method)
    samples = read_split(Path(data), "test", described)
    tool: Trainer = locate(trainer)()
    pieces: dict[str, list[Array]] = {spec.name: [] for spec in described.outputs}
    for batch in samples.batches(SIMULATION_BATCH):
        for name, array in tool.outputs(described, chosen, batch).items():
            pieces[name].append(array)
    with filling(Path(folder)) as temporary:
        save_arrays(temporary, {name: np.concatenate(parts) for name, parts in pieces.items()})


def convert(*, model: Mapping[str, Any], convert: str, folder: str) -> dict[str, Any]:
    """Worker function: convert a form; returns the record with the name of the new form's file."""
    started = time.monotonic()
    with filling(Path(folder)) as temporary:
        path = locate(convert)(Model.from_json(model), temporary)
        name = path.relative_to(temporary).as_posix()
        record = {"file": name, "converted_s": time.monotonic() - started}
        write_json(temporary / RECORD, record)
    return record


def observe(
    *, model: Mapping[str, Any], method: Mapping[str, Any], quantizer: str, data: str, folder: str
) -> dict[str, Any]:
    """Worker function: histograms of the activations over the calibration samples, in one pass."""
    started = time.monotonic()
    described, chosen = Model.from_json(model), Method.from_json(method)
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
    observed: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Worker function: quantize, read the artifact back, publish both; returns the record.

    ``observed``: the folder of histograms, from which the ranges are estimated that are injected.
    """
    started = time.monotonic()
    described, chosen = Model.from_json(model), Method.from_json(method)
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
        (temporary / RECORD).write_text(json.dumps(record), encoding="utf-8")
    return record
