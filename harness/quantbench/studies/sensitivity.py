"""Sensitivity: which layers quantization hurts, why, and what to try next, with the evidence.

One schema over all backends: each layer quantized alone, and each kept in float alone, measured on
the same test samples against the same backend's float outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML
from scipy.stats import spearmanr

from quantbench.backend_api import (
    ACTIVATION,
    OUTPUT,
    WEIGHT,
    Histogram,
    Quantizer,
    Record,
    observed_name,
    registry,
    squared_error,
)
from quantbench.errors import BadInput, NotComparable, did_you_mean
from quantbench.experiment import Cell, Experiment, contents, resolve
from quantbench.results import SensitivityRow, read_table, rows, write_table
from quantbench.runs import BuildGraph, Built, Reporter, Scored, Store, locked, open_run
from quantbench.spec import (
    AXES,
    PRECISIONS,
    PRESETS,
    Arrays,
    Limits,
    Method,
    Model,
    Status,
    Trial,
    check_axis,
    preset,
    presets,
)
from quantbench.stats import FIDELITY, answers, cosine, metric_of, sqnr_db
from quantbench.steps import read_labels
from quantbench.studies.depth import MODE as DEPTH
from quantbench.studies.depth import errors
from quantbench.studies.variants import ON_TEST, Answer, Source, answer, observed
from quantbench.system import content_key, locate, machine, write_json

MODES = ("quantized", "kept")
"""Of one layer at a time: quantized alone, or kept in float alone."""
IDEAL = 1 / math.sqrt(12)
"""Root mean square of an ideal rounding error, in steps: 0.289."""
WORST = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What to diagnose.

    Parameters
    ----------
    model : str
        A registered model, or ``own``'s name.
    preset : str
        The method's preset, with ``axes`` over each backend's own defaults.
    backends : tuple of str
        Those without the method are reported as unsupported.
    modes : tuple of str
        Of `MODES`.
    parts : str
        ``both``, ``weights`` or ``activations``: which part of the layer is quantized.
    samples : int
        Test samples, the first of the split.
    worst : int
        How many of the most sensitive layers get a guide of their own.
    own : Model, optional
        The model that an experiment file describes itself.
    """

    model: str
    preset: str
    axes: Mapping[str, Any]
    backends: tuple[str, ...]
    modes: tuple[str, ...] = ("quantized",)
    parts: str = "both"
    samples: int = 1000
    worst: int = WORST
    own: Model | None = None

    @property
    def name(self) -> str:
        """The folder of its runs."""
        return f"diagnose-{self.model}-{self.preset}"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finished diagnosis: ``sensitivity`` has the columns of `quantbench.results.schema.SENSITIVITY`.

    ``refused``: backend -> why it was left out.
    """

    request: Request
    folder: Path
    sensitivity: pd.DataFrame
    refused: Mapping[str, str]

    def rows(self, backend: str, mode: str, layer: str | None = None) -> list[SensitivityRow]:
        """What was asked of a backend in one mode, of one layer where it is named."""
        known = self.sensitivity
        own = rows(SensitivityRow, known[(known["backend"] == backend) & (known["mode"] == mode)])
        return [row for row in own if layer in (None, row.layer)]

    def ranking(self, backend: str, mode: str = "quantized") -> list[SensitivityRow]:
        """The layers of a backend, most sensitive first."""
        sign = 1 if mode == "quantized" else -1
        return sorted(
            self.rows(backend, mode),
            key=lambda row: math.inf if math.isnan(row.sqnr_db) else sign * row.sqnr_db,
        )

    def whole(self, backend: str) -> SensitivityRow:
        """The row of the whole model, everything quantized."""
        return self.rows(backend, "all")[0]

    def alone(self, backend: str, layer: str) -> float:
        """SQNR of a layer quantized alone, or of the whole model (""), dB."""
        if not layer:
            return self.whole(backend).sqnr_db
        return self.rows(backend, "quantized", layer)[0].sqnr_db

    def remedies(self, backend: str, layer: str) -> list[SensitivityRow]:
        """What was tried to mend a layer, or the whole model ("")."""
        return self.rows(backend, "remedy", layer)

    def parts(self, backend: str, layer: str) -> list[SensitivityRow]:
        """A layer's weights alone, and its activations alone."""
        return self.rows(backend, "part", layer)

    def depth(self, backend: str) -> list[SensitivityRow]:
        """The errors of the whole model's activations in the order of execution; or why there are none."""
        return self.rows(backend, DEPTH)

    def keep_float(self, backend: str, share: float = 0.5) -> list[str]:
        """The fewest layers that together make ``share`` of the noise, if errors add up."""
        return _noisiest(self.ranking(backend), share)

    def noise(self, backend: str) -> dict[str, float]:
        """Share of each layer in the noise of all that were quantized alone, the largest first."""
        return _noise(self.ranking(backend))

    def agreement(self) -> list[tuple[str, str, float]]:
        """Spearman's rank correlation of the layers' sensitivities, for each pair of backends."""
        table = self.sensitivity[self.sensitivity["mode"] == "quantized"].pivot_table(
            index="layer", columns="backend", values="sqnr_db"
        )
        names = list(table.columns)
        found = []
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                both = table[[a, b]].dropna()
                if len(both) > 2:
                    found.append((a, b, float(spearmanr(both[a], both[b]).statistic)))
        return found


def requests(
    subject: str, method: str, backends: Sequence[str] = (), axes: Sequence[str] = (), **more: Any
) -> list[Request]:
    """What a command asks for: one request for each model.

    Parameters
    ----------
    subject : str
        A registered model, or the path of an experiment file: its models, its backends, and the
        axes of its method ``method`` (a label, or a preset that it has once).
    axes : sequence of str
        ``axis=value``.

    Raises
    ------
    BadInput
        For names, axes or labels that do not exist.
    """
    chosen = dict(_axis(text) for text in axes)
    if not subject.endswith((".yaml", ".yml")):
        names = tuple(backends) or tuple(registry.names("backends"))
        if method not in PRESETS:
            raise BadInput(f"unknown method '{method}'.{did_you_mean(method, PRESETS)}")
        return [Request(subject, method, chosen, names, **more)]
    experiment = Experiment.load(subject)
    trials = [t for t in experiment.trials if method in (t.label, t.method.name)]
    if not trials:
        labels = sorted({t.label for t in experiment.trials})
        raise BadInput(f"{subject} has no method '{method}'.{did_you_mean(method, labels)}")
    exact = [t for t in trials if t.label == method] or trials
    first = exact[0].method
    usual = preset(first.name, registry.backend(exact[0].backend).axes(first.name))
    own = {
        axis: getattr(first, axis)
        for axis in AXES
        if axis not in ("only", "parts") and getattr(first, axis) != getattr(usual, axis)
    }
    names = tuple(dict.fromkeys(t.backend for t in exact))
    return [
        Request(
            model,
            first.name,
            {**own, **chosen},
            tuple(backends) or names,
            own=experiment.models.get(model),
            **more,
        )
        for model in dict.fromkeys(t.model for t in exact)
    ]


def _axis(text: str) -> tuple[str, Any]:
    """``axis=value`` with the value read as YAML would be."""
    axis, separator, value = text.partition("=")
    if not separator:
        raise BadInput(f"an axis is given as AXIS=VALUE, not '{text}'")
    read: Any = YAML(typ="safe", pure=True).load(value)
    check_axis(axis, read)
    return axis, tuple(read) if isinstance(read, list) else read


def diagnose(
    request: Request,
    *,
    results: str | Path = "results",
    fresh: bool = False,
    reporter: Reporter | None = None,
) -> Diagnosis:
    """Diagnose, or continue an interrupted diagnosis; what is known is read from the cache.

    Raises
    ------
    BadInput
        For an unknown model, backend or mode.
    NotComparable
        If no backend can build the method.
    """
    _check(request)
    here = machine.describe()
    cells = {name: _cells(request, name) for name in request.backends}
    refused = {name: refusal for name, pair in cells.items() if (refusal := _refusal(pair))}
    if len(refused) == len(cells):
        raise NotComparable("; ".join(f"{name}: {why}" for name, why in refused.items()))
    experiment = _experiment(
        request, [c for n, pair in cells.items() if n not in refused for c in pair]
    )
    key = content_key(
        request=str(request),
        contents=contents(request.own) if request.own else {},
        fingerprint=here["fingerprint"],
    )
    store = open_run(Path(results), request.name, key, fresh=fresh)
    with locked(store), reporter or Reporter() as report:
        write_json(store.folder / "machine.json", here)
        every = [cell for name, pair in cells.items() if name not in refused for cell in pair]
        graph = BuildGraph(experiment, every, store, here, report)
        graph.run()
        found: list[SensitivityRow] = []
        for name, (full, method) in cells.items():
            if name in refused:
                continue
            if problem := _problem(store, full) or _problem(store, method):
                refused[name] = problem
                continue
            source = _source(graph, full, method, request)
            found += _Patient(request, source, store, report, full.trial.method).examine()
            found += [_asked_of(row, request, name) for row in errors(source, store)]
        write_table(store.folder, "sensitivity", found)
    return Diagnosis(request, store.folder, read_table(store.folder, "sensitivity"), refused)


def _asked_of(row: SensitivityRow, request: Request, backend: str) -> SensitivityRow:
    return replace(row, model=request.model, backend=backend, method=request.preset, parts="both")


def _check(request: Request) -> None:
    models = [] if request.own else [request.model]
    for kind, wanted in (("models", models), ("backends", request.backends)):
        known = registry.names(kind)
        for name in wanted:
            if name not in known:
                raise BadInput(f"unknown {kind[:-1]} '{name}'.{did_you_mean(name, known)}")
    for mode in request.modes:
        if mode not in MODES:
            raise BadInput(f"unknown mode '{mode}'.{did_you_mean(mode, MODES)}")
    if request.samples < 1:
        raise BadInput(f"samples is {request.samples}; take at least 1")


def _cells(request: Request, name: str) -> tuple[Cell, Cell]:
    """The float trial that the method's route starts from, and the method's own."""
    backend = registry.backend(name)
    target = presets()["cpu-1"]
    method = preset(request.preset, backend.axes(request.preset, request.axes))
    quantizer: Quantizer = locate(backend.quantizer)()
    route = quantizer.takes.get(quantizer.form(method), "")
    plain = preset("fp32", backend.axes("fp32", {"route": route} if route else {}))
    return (
        resolve(Trial(request.model, name, plain, "fp32", target, 0), request.own),
        resolve(Trial(request.model, name, method, request.preset, target, 0), request.own),
    )


def _refusal(cells: tuple[Cell, Cell]) -> str:
    return next((cell.refusal for cell in cells if cell.refusal), "")


def _experiment(request: Request, cells: Sequence[Cell]) -> Experiment:
    return Experiment(
        name=request.name, description="", trials=tuple(cell.trial for cell in cells),
        batch_sizes=(1,), offline=False, precision=PRECISIONS["preview"], reference={}, limits=Limits(),
        quality_margin=0.01, valid_sqnr_db=-math.inf, seed=0, text="", path="",
        models={request.model: request.own} if request.own else {},
    )  # fmt: skip


def _problem(store: Store, cell: Cell) -> str:
    """Why a cell has no outputs; empty where it has."""
    scored, built = store.get(Scored, cell.trial.id), store.get(Built, cell.trial.id)
    if scored is not None and scored.score:
        return ""
    state = scored or built
    return f"{cell.trial.label}: {state.reason if state else 'not built'}"


def _source(graph: BuildGraph, full: Cell, method: Cell, request: Request) -> Source:
    model, key = graph.source(method)
    scored = graph.store.get(Scored, full.trial.id)
    assert scored is not None  # noqa: S101 - only what was scored is examined
    return Source(method, model, key, Path(scored.data), request.samples)


# --- one backend ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Patient:
    """One backend's model under examination."""

    request: Request
    source: Source
    store: Store
    reporter: Reporter
    plain: Method

    def examine(self) -> list[SensitivityRow]:
        """The whole model, each layer in each mode, then what might help."""
        method = self.source.cell.trial.method
        self.reporter.phase(f"diagnose {self.source.cell.backend.name}", 1)
        layers = self._layers()
        asked: list[tuple[SensitivityRow, Method]] = [
            (SensitivityRow("float", "", ""), self.plain),
            (SensitivityRow("all", "", ""), method),
        ]
        if self.request.parts != "both":
            whole = replace(method, parts=self.request.parts)
            asked.append((SensitivityRow("all", "", self.request.parts), whole))
        for mode in self.request.modes:
            for layer in layers:
                asked.append((SensitivityRow(mode, layer, ""), self._one(mode, layer)))
        found = self._ask(asked)
        ranked = [r for r in found if r.mode == "quantized" and r.status == Status.OK]
        ranked.sort(key=lambda row: row.sqnr_db)
        worst = [row.layer for row in ranked[: self.request.worst]]
        found += self._ask(list(self._remedies(worst, ranked)))
        return list(self._looked(found))

    def _layers(self) -> list[str]:
        """Layers that hold weights in the file, in the model's order."""
        built = self.store.get(Built, self.source.cell.trial.id)
        assert built is not None  # noqa: S101 - only what was built is examined
        record = Record.from_json(built.record)
        layers = [t.layer for t in record.tensors if t.role == WEIGHT and t.layer]
        if not layers:
            raise BadInput(f"{self.source.cell.backend.name} names no layers in its file")
        quantizer: Quantizer = locate(self.source.cell.backend.quantizer)()
        order = {name: place for place, name in enumerate(quantizer.layers(self.source.cell.model))}
        return sorted(dict.fromkeys(layers), key=lambda name: order.get(name, len(order)))

    def _one(self, mode: str, layer: str) -> Method:
        method = replace(self.source.cell.trial.method, parts=self.request.parts)
        if mode == "quantized":
            return replace(method, only=(layer,))
        return replace(method, keep_float=(*method.keep_float, layer))

    def _remedies(
        self, worst: Sequence[str], ranked: Sequence[SensitivityRow]
    ) -> Iterator[tuple[SensitivityRow, Method]]:
        """Changes to the whole model, and to each of the worst layers alone."""
        method = self.source.cell.trial.method
        for change, changed in remedies(method):
            yield SensitivityRow("remedy", "", change), changed
        noisiest = _noisiest(ranked)
        if noisiest:
            kept = replace(method, keep_float=(*method.keep_float, *noisiest))
            yield SensitivityRow("remedy", "", f"keep_float: [{', '.join(noisiest)}]"), kept
        for layer in worst:
            alone = replace(method, only=(layer,))
            for part in ("weights", "activations"):
                yield SensitivityRow("part", layer, part), replace(alone, parts=part)
            for change, changed in remedies(method):
                yield SensitivityRow("remedy", layer, change), replace(changed, only=(layer,))

    def _ask(self, asked: Sequence[tuple[SensitivityRow, Method]]) -> list[SensitivityRow]:
        """Answers as rows; a refused method has its reason instead."""
        quantizer: Quantizer = locate(self.source.cell.backend.quantizer)()
        model = self.source.cell.model
        refused = {m: why for _, m in asked if (why := quantizer.refuse(model, m))}
        todo = [m for _, m in asked if m not in refused]
        answers = dict(
            zip(
                todo,
                answer(
                    self.source, todo, self.store, observed=[self.source.cell.trial.method],
                    on_news=self.reporter.news,
                ),
                strict=True,
            )
        )  # fmt: skip
        return [
            self._row(known, answers.get(m) or Answer(Status.UNSUPPORTED, refused[m], {}, None))
            for known, m in asked
        ]

    def _row(self, known: SensitivityRow, found: Answer) -> SensitivityRow:
        row = replace(
            known, model=self.request.model, backend=self.source.cell.backend.name,
            method=self.request.preset, parts=self.request.parts,
            status=found.status, reason=found.reason, samples=self.source.samples,
        )  # fmt: skip
        if found.status != Status.OK:
            return row
        floats = self._floats()
        near = fidelity(floats, found.outputs)
        return replace(row, **near, **self._quality(floats, found.outputs))

    def _floats(self) -> Arrays:
        return Answer.read(self.source.folder(self.plain)).outputs

    def _quality(self, floats: Arrays, outputs: Arrays) -> dict[str, Any]:
        model = self.source.cell.model
        name, output = registry.task(model.task).metric, model.outputs[0].name
        labels = read_labels(self.source.data, "test")[: len(outputs[output])]
        if name == FIDELITY:
            name, labels = answers(floats[output])
        metric = metric_of(name)
        own, full = metric(outputs[output], labels), metric(floats[output], labels)
        same = float((own.prediction == full.prediction).mean()) if own.classes else math.nan
        return {
            "quality": own.score, "quality_drop": full.score - own.score, "agreement": same,
        }  # fmt: skip

    def _looked(self, found: Sequence[SensitivityRow]) -> Iterator[SensitivityRow]:
        """The rows, those of layers with what their activations show."""
        method = self.source.cell.trial.method
        calibration = observed(self.source, method, "calibration").histograms
        test = observed(self.source, method, ON_TEST).histograms
        whole = Answer.read(self.source.folder(method)).record
        owners = _activations(whole, list(calibration)) if whole else {}
        for row in found:
            names = owners.get(row.layer, []) if row.mode in MODES else []
            if not names:
                yield row
                continue
            name, (low, high), levels = names[0]
            yield replace(row, **_evidence(calibration[name], test[name], low, high, levels))


def remedies(method: Method) -> Iterator[tuple[str, Method]]:
    """What people are taught to try, each as one change of a method."""
    if method.granularity == "per-tensor":
        yield "granularity: per-channel", replace(method, granularity="per-channel")
    if method.scales == "static":
        for calibrator in ("percentile", "mse", "entropy"):
            if (method.ranges, method.calibrator) != ("injected", calibrator):
                yield (
                    f"ranges: injected, calibrator: {calibrator}",
                    replace(method, ranges="injected", calibrator=calibrator),
                )
        yield f"samples: {4 * method.samples}", replace(method, samples=4 * method.samples)
        if method.activations != "int16":
            wide = replace(
                method, name="static-int16x8", activations="int16", symmetric_activations=True,
                io="float32",
            )  # fmt: skip
            yield "static-int16x8", wide


def fidelity(floats: Arrays, outputs: Arrays) -> dict[str, Any]:
    """SQNR (dB), mean squared error and cosine of all outputs together, against the float's."""
    flat = np.concatenate([np.ravel(floats[name]) for name in sorted(floats)]).astype(np.float64)
    own = np.concatenate([np.ravel(outputs[name]) for name in sorted(floats)]).astype(np.float64)
    return {
        "sqnr_db": sqnr_db(flat, own),
        "mse": float(((flat - own) ** 2).mean()),
        "cosine": cosine(flat, own),
    }


def _noise(ranked: Sequence[SensitivityRow]) -> dict[str, float]:
    """Share of each layer in the noise of all, in their order."""
    noise = {row.layer: 10 ** (-row.sqnr_db / 10) for row in ranked if not math.isnan(row.sqnr_db)}
    return {layer: power / sum(noise.values()) for layer, power in noise.items()}


def _noisiest(ranked: Sequence[SensitivityRow], share: float = 0.5) -> list[str]:
    """The fewest layers, the worst first, that together make ``share`` of the noise."""
    shares = _noise(ranked)
    needed = int(np.searchsorted(np.cumsum(list(shares.values())), share)) + 1
    return list(shares)[:needed]


def _activations(
    record: Record, names: Sequence[str]
) -> dict[str, list[tuple[str, tuple[float, float], int]]]:
    """By layer: the observed name, range and levels of each quantized activation it gives."""
    found: dict[str, list[tuple[str, tuple[float, float], int]]] = {}
    for tensor in record.tensors:
        low, high = tensor.low, tensor.high
        if tensor.role in _COMPUTED and tensor.layer and low is not None and high is not None:
            name = observed_name(tensor.name, tensor.layer, names)
            if name is not None:
                known = (name, (low, high), tensor.levels)
                found.setdefault(tensor.layer, []).append(known)
    return found


_COMPUTED = (ACTIVATION, OUTPUT)


def _evidence(
    calibration: Histogram, test: Histogram, low: float, high: float, levels: int
) -> dict[str, Any]:
    """What a layer's output shows: clipping, rounding, unseen values, outliers."""
    middles, counts = test.used
    total = counts.sum()
    scale = (high - low) / (levels - 1)
    error = math.sqrt(squared_error(middles, counts, (low, high), levels) / total)
    outside = counts[(middles < low - scale / 2) | (middles > high + scale / 2)].sum() / total
    unseen = counts[(middles < calibration.minimum) | (middles > calibration.maximum)].sum() / total
    reach = max(abs(test.minimum), abs(test.maximum))
    return {
        "error_over_scale": error / scale if scale else math.nan,
        "saturation": float(outside),
        "unseen": float(unseen),
        "outlier_ratio": reach / test.std if test.std else math.nan,
    }
