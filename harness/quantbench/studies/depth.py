"""Depth: the error of each activation of the whole quantized model against float, layer after layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import Artifact, Quantizer, Record, Transparent, observed_name
from quantbench.errors import QuantbenchError
from quantbench.execution import Ending, Job, run_jobs
from quantbench.results import SensitivityRow
from quantbench.runs import Built, Store
from quantbench.spec import Array, Data, Method, Model, Samples, Status
from quantbench.steps import read_split
from quantbench.studies.variants import TARGET, Source
from quantbench.system import (
    ENVIRONMENT,
    content_key,
    entry,
    filling,
    locate,
    locator,
    read_json,
    source_digest,
    write_json,
)

MODE = "depth"
"""Of rows of the sensitivity table: an activation of the whole model, named in ``change``."""
SAMPLES = 128
"""Test samples; all activations of some of them are held at once."""
MOST_BYTES = 256 << 20
"""Of activations of one kind that are held at once, unless one sample's are more."""
_ERRORS = "errors.json"


@dataclass(slots=True)
class Error:
    """Sums over all values of one activation.

    Parameters
    ----------
    name, layer : str
        The tensor of the quantized file, and the canonical name of the layer that gives it.
    signal, noise, product, square : float
        Of the squares in float, of the squared differences, of the products of both, of the squares
        in the quantized model.
    count : int
        Values.
    """

    name: str
    layer: str
    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    square: float = 0.0
    count: int = 0

    def add(self, full: Array, own: Array) -> None:
        """Take values of some samples, of the same shape once flat, into account."""
        r, o = (np.ravel(values).astype(np.float64) for values in (full, own))
        self.signal += float(r @ r)
        self.noise += float((r - o) @ (r - o))
        self.product += float(r @ o)
        self.square += float(o @ o)
        self.count += r.size

    @property
    def sqnr_db(self) -> float:
        """``10 log10(signal / noise)``; infinite without noise."""
        if self.noise == 0:
            return float("inf")
        return float(10 * np.log10(self.signal / self.noise)) if self.signal > 0 else float("-inf")

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return self.noise / self.count

    @property
    def cosine(self) -> float:
        """Of the angle between both; not a number where one is 0 everywhere."""
        both = float(np.sqrt(self.signal * self.square))
        return self.product / both if both > 0 else float("nan")


def errors(source: Source, store: Store) -> list[SensitivityRow]:
    """A row for each activation that can be read in both models, in the order of execution.

    One row with the reason where none can. What is known is read from the cache.
    """
    method, backend = source.cell.trial.method, source.cell.backend
    quantizer: Quantizer = locate(backend.quantizer)()
    if method.scales != "static":
        return [_refused(f"the activations of {method.name} have no grid of their own in the file")]
    if not isinstance(quantizer, Transparent):
        return [_refused(f"{backend.name} does not show what its files compute on the way")]
    built = store.get(Built, source.cell.trial.id)
    assert built is not None  # noqa: S101 - only what was built is examined
    known = content_key(
        source=source.key, method=method.to_json(), artifact=built.artifact,
        samples=source.samples, code=source_digest(locator(work)),
    )  # fmt: skip
    folder = entry("depth", known)
    if not folder.exists() and (problem := _ask(source, store, built.artifact, folder)):
        return [_refused(problem)]
    told = read_json(folder / _ERRORS)
    if told["reason"]:
        return [_refused(told["reason"])]
    return [_row(Error(**one), told["samples"]) for one in told["errors"]]


def _row(error: Error, samples: int) -> SensitivityRow:
    return SensitivityRow(
        MODE, error.layer, error.name, status=Status.OK, samples=samples,
        sqnr_db=error.sqnr_db, mse=error.mse, cosine=error.cosine,
    )  # fmt: skip


def _refused(reason: str) -> SensitivityRow:
    return SensitivityRow(MODE, "", "", status=Status.UNSUPPORTED, reason=reason)


def _ask(source: Source, store: Store, artifact: str, folder: Path) -> str:
    """Have a worker fill ``folder``; why it could not, where it did not end well."""
    backend, endings = source.cell.backend, []

    def ended(job: Job, ending: Ending) -> list[Job]:
        endings.append(ending)
        return []

    arguments = {
        "model": source.model.to_json(), "quantizer": backend.quantizer,
        "method": source.cell.trial.method.to_json(), "artifact": str(entry("artifacts", artifact)),
        "data": str(source.data), "samples": source.samples, "folder": str(folder),
    }  # fmt: skip
    environment = {**ENVIRONMENT, **locate(backend.runtime)().environment(TARGET)}
    job = Job(f"depth {backend.name}", work, arguments, environment, (), 600.0, 8000.0)
    store.logs.mkdir(parents=True, exist_ok=True)
    run_jobs([job], store.logs, ended, slots=1)
    return "" if endings[0].status == Status.OK else f"its worker stopped: {endings[0].reason}"


# --- the worker ----------------------------------------------------------------------------------


def work(
    *, model: Mapping[str, Any], quantizer: str, method: Mapping[str, Any], artifact: str,
    data: str, samples: int, folder: str,
) -> None:  # fmt: skip
    """Worker function: leave the errors, or the reason why there are none, in ``folder``."""
    described, chosen = Model.from_json(model), Method.from_json(method)
    tool, opened = locate(quantizer)(), Artifact.open(Path(artifact))
    test = read_split(Path(data), "test", described)
    subset = test.take(np.arange(min(samples, SAMPLES, len(test))))
    found: list[Error] = []
    try:
        found, reason = list(measure(described, chosen, tool, opened, subset)), ""
        if not found:
            reason = "no activation of the file bears the name of one of the float model"
    except QuantbenchError as error:
        reason = str(error)
    with filling(Path(folder)) as made:
        told = {"reason": reason, "samples": len(subset), "errors": [asdict(e) for e in found]}
        write_json(made / _ERRORS, told)


def measure(
    model: Model, method: Method, tool: Any, artifact: Artifact, test: Samples
) -> Iterator[Error]:
    """Compare what `Quantizer.observe` and `Transparent.activations` show of the same samples.

    ``tool`` is both. Activations are compared where the file's tensor bears the name of an observed
    one (`observed_name`) and has as many values.
    """
    layer_of = {t.name: t.layer for t in _record(tool, artifact, model).tensors}
    found: dict[str, Error] = {}
    for part in _parts(model, method, tool, test):
        full: dict[str, list[Array]] = {}
        own: dict[str, list[Array]] = {}
        _observe(model, method, tool, part, full)
        tool.activations(artifact, part.inputs, _keep(own))
        for tensor, values in own.items():
            layer = layer_of.get(tensor, "")
            name = observed_name(tensor, layer, full)
            if name is None:
                continue
            error = found.setdefault(name, Error(tensor, layer))
            pair = [
                np.concatenate([np.ravel(b) for b in batches]) for batches in (full[name], values)
            ]
            if error.name == tensor and pair[0].size == pair[1].size:
                error.add(*pair)
    yield from (error for error in found.values() if error.count)


def _record(tool: Quantizer, artifact: Artifact, model: Model) -> Record:
    return tool.inspect(artifact, tool.layers(model))


def _parts(model: Model, method: Method, tool: Quantizer, test: Samples) -> Iterator[Samples]:
    """The samples, so many at a time that their activations fit into memory."""
    first: dict[str, list[Array]] = {}
    _observe(model, method, tool, test.take(np.arange(1)), first)
    each = sum(4 * prod(batch.shape) for batches in first.values() for batch in batches)
    size = max(1, min(len(test), MOST_BYTES // max(each, 1)))
    for start in range(0, len(test), size):
        yield test.take(np.arange(start, min(start + size, len(test))))


def _observe(
    model: Model, method: Method, tool: Quantizer, part: Samples, into: dict[str, list[Array]]
) -> None:
    tool.observe(model, method, Data(part, None, method.seed), _keep(into))


def _keep(into: dict[str, list[Array]]) -> Any:
    """Takes batches by name, as copies: what shows them may use the memory again."""
    return lambda name, values: into.setdefault(name, []).append(np.array(values, np.float32))
