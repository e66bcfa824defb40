"""Heat maps: what ran and how it fared, models by methods, and why the rest did not run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantbench.analysis import MeasuredTrial
from quantbench.errors import BadInput, did_you_mean
from quantbench.report.drawing.grids import DROPS, RATIOS, Cell, Grid, falling, grids, rising
from quantbench.report.drawing.style import LEVEL
from quantbench.report.drawing.svg import Picture
from quantbench.report.glossary import STATUS_MARK
from quantbench.spec import FAILURES, Status
from quantbench.units import METRICS as SPECS
from quantbench.units import MISSING, Heat, loss_writer, number, one_line, place_name, ratio

METRICS: Mapping[str, Heat] = {
    spec.name: spec.heat for spec in reversed(list(SPECS.values())) if spec.heat
}
"""What a heat map can show: the speed-up first, the size last."""
MOST_CELLS = 400
"""Trials in the heat maps of all targets; of one with more, the methods that most models have."""
MOST_MODELS = 24
_VALUED = (Status.OK, Status.SIMULATED)


@dataclass(frozen=True, slots=True)
class HeatMaps:
    """The pictures with their captions, and what was left out of them, in words."""

    pictures: tuple[Picture, ...] = ()
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Support:
    """A cell of the support matrix; ``notes`` are the numbers of its reasons below it."""

    status: str
    text: str
    detail: str = ""
    notes: tuple[int, ...] = ()
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Methods by backend for one model and target."""

    place: str
    backends: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Support, ...]], ...]


def heatmaps(trials: Sequence[MeasuredTrial], reasons: Sequence[str]) -> HeatMaps:
    """Speed-up, loss and size of every method, for each target.

    One model: its three metrics side by side, a column per backend. Several: a picture per metric,
    a panel per backend, a column per model.

    Parameters
    ----------
    trials : sequence of MeasuredTrial
        All of a run.
    reasons : sequence of str
        Of `support`: an empty cell holds the number of its reason, from 1 on.
    """
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    pictures: list[Picture] = []
    left_out: list[str] = []
    room = MOST_CELLS
    targets = list(dict.fromkeys(row.target for row in trials))
    for target in targets:
        here = [row for row in trials if row.target == target]
        models = list(dict.fromkeys(row.model for row in here))
        backends = list(dict.fromkeys(row.backend for row in here))
        if len(models) > MOST_MODELS:
            left_out.append(f"{len(models) - MOST_MODELS} more models")
            models = models[:MOST_MODELS]
            here = [row for row in here if row.model in models]
        labels = _labels(here)
        columns = len(models) * len(backends)
        if pictures and columns * len(labels) > room:
            left_out.append(f"target {one_line(target)}")
            continue
        room -= columns * len(labels)
        kept = _most_shared(here, max(5, MOST_CELLS // columns))
        if len(labels) > len(kept):
            left_out.append(f"{len(labels) - len(kept)} more methods")
        table = _Table([row for row in here if row.label in kept], numbers)
        where = f" on {one_line(target)}" if len(targets) > 1 else ""
        name = f"heatmap-{len(pictures)}"
        if len(models) == 1:
            shown = [table.of_backends(metric, models[0]) for metric in METRICS]
            title = f"Speed-up, loss and size by method and backend: {one_line(models[0])}{where}"
            pictures.append(grids(shown, title, name=name))
            continue
        for metric, heat in METRICS.items():
            shown = [table.of_models(metric, backend) for backend in backends]
            words = f"{heat.words[0].upper()}{heat.words[1:]}"
            title = f"{words} by method and model, a panel per backend{where}"
            pictures.append(grids(shown, title, name=f"{name}-{metric}"))
    return HeatMaps(tuple(pictures), ", ".join(dict.fromkeys(left_out)))


def heatmap(
    trials: Sequence[MeasuredTrial],
    reasons: Sequence[str],
    metric: str,
    *,
    backend: str | None = None,
    model: str | None = None,
) -> Grid:
    """One heat map of the trials of one target: models of ``backend``, or backends of ``model``.

    Raises
    ------
    BadInput
        For an unknown metric; says which is nearest.
    """
    if metric not in METRICS:
        raise BadInput(f"unknown metric '{metric}'.{did_you_mean(metric, METRICS)}")
    table = _Table(trials, {reason: number for number, reason in enumerate(reasons, 1)})
    if backend is not None:
        return table.of_models(metric, backend)
    return table.of_backends(metric, str(model))


def _most_shared(trials: Sequence[MeasuredTrial], most: int) -> list[str]:
    """The labels that most models and backends have."""
    labels = _labels(trials)
    shared = Counter(row.label for row in trials)
    best = sorted(labels, key=lambda label: -shared[label])[:most]
    return [label for label in labels if label in set(best)]


def _labels(rows: Iterable[MeasuredTrial]) -> list[str]:
    """Labels in order of appearance, those of one method together."""
    methods: dict[str, dict[str, None]] = {}
    for row in rows:
        methods.setdefault(row.method, {})[row.label] = None
    return [label for labels in methods.values() for label in labels]


class _Table:
    """The trials of one target by method, backend and model, and the numbers of the reasons."""

    def __init__(self, trials: Sequence[MeasuredTrial], numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self.trials: dict[tuple[str, str, str], list[MeasuredTrial]] = {}
        for row in trials:
            self.trials.setdefault((row.label, row.backend, row.model), []).append(row)
        self.labels = tuple(_labels(trials))
        self.backends = tuple(dict.fromkeys(backend for _, backend, _ in self.trials))
        self.models = tuple(dict.fromkeys(model for _, _, model in self.trials))

    def of_backends(self, metric: str, model: str) -> Grid:
        return self._grid(
            metric,
            METRICS[metric].title,
            self.backends,
            [(backend, model) for backend in self.backends],
        )

    def of_models(self, metric: str, backend: str) -> Grid:
        return self._grid(metric, backend, self.models, [(backend, m) for m in self.models])

    def _grid(
        self, metric: str, title: str, columns: Sequence[str], places: Sequence[tuple[str, str]]
    ) -> Grid:
        cells = tuple(
            tuple(self._cell(metric, self.trials.get((label, *place), [])) for place in places)
            for label in self.labels
        )
        return Grid(title, self.labels, tuple(columns), cells)

    def _cell(self, metric: str, rows: Sequence[MeasuredTrial]) -> Cell:
        if not rows:
            return Cell("·")
        worst = _worst(rows)
        status = worst.status
        known = [row.value(metric) for row in rows if row.of(metric).known]
        if status in _VALUED and known:
            return _valued(metric, sum(known) / len(known), worst)
        if status == Status.OK:
            return Cell("1×", LEVEL) if worst.is_reference else Cell(MISSING)
        marks = dict.fromkeys(self.numbers[_reason(row)] for row in rows if row.status != Status.OK)
        return Cell(f"{STATUS_MARK.get(status, '✗')} {','.join(map(str, marks))}")


def _valued(metric: str, value: float, row: MeasuredTrial) -> Cell:
    """A number on its colour; for seeds of one method, of their mean."""
    if metric != "quality_drop":
        return Cell(ratio(value), rising(value, RATIOS))
    share = row.of("quality").unit in ("", "fraction")
    text = f"{100 * value:.2f}" if share else number(value, 2)
    text = text.replace("-", "−")
    scale = 1.0 if share else abs(row.value("quality") + row.value("quality_drop")) or 1.0
    return Cell("0.00" if text == "−0.00" else text, falling(value / scale, DROPS))


# --- what ran, and why the rest did not ----------------------------------------------------------


def support(
    trials: Sequence[MeasuredTrial], max_drop: float
) -> tuple[tuple[Matrix, ...], tuple[str, ...]]:
    """One matrix per model and target, and the numbered reasons they refer to."""
    reasons: dict[str, int] = {}
    matrices = []
    for model, target in dict.fromkeys((row.model, row.target) for row in trials):
        here = [row for row in trials if (row.model, row.target) == (model, target)]
        backends = list(dict.fromkeys(row.backend for row in here))
        cells: dict[tuple[str, str], list[MeasuredTrial]] = {}
        for row in here:
            cells.setdefault((row.label, row.backend), []).append(row)
        labels = _labels(here)
        matrices.append(
            Matrix(
                place_name(model, target),
                tuple(one_line(b) for b in backends),
                tuple(
                    (
                        one_line(label),
                        tuple(
                            _support_cell(cells.get((label, b), []), reasons, max_drop)
                            for b in backends
                        ),
                    )
                    for label in labels
                ),
            )
        )
    return tuple(matrices), tuple(reasons)


def _support_cell(
    rows: Sequence[MeasuredTrial], reasons: dict[str, int], max_drop: float
) -> Support:
    if not rows:
        return Support("absent", MISSING)
    worst = _worst(rows)
    status = worst.status
    if status == Status.OK:
        if worst.is_reference:
            return Support("ok", "reference")
        speed = worst.value("speedup")
        drop = worst.value("quality_drop")
        return Support(
            "ok" if worst.value("quality_drop_bound") <= max_drop else "over",
            ratio(speed) if not math.isnan(speed) else "ok",
            "" if math.isnan(drop) else f"loss {loss_writer(worst.of('quality').unit)(drop)}",
            tone="good" if speed > 1 else "",
        )
    notes = tuple(
        reasons.setdefault(_reason(row), len(reasons) + 1)
        for row in rows
        if row.status != Status.OK
    )
    return Support(status, status, "", tuple(dict.fromkeys(notes)))


_SEVERITY: Mapping[str, int] = {
    Status.OK: 0, Status.NO_OP: 1, Status.SIMULATED: 1, Status.UNSUPPORTED: 2,
    **dict.fromkeys(FAILURES, 3),
}  # fmt: skip


def _worst(rows: Sequence[MeasuredTrial]) -> MeasuredTrial:
    """The row whose status says most of a cell of several seeds."""
    return max(rows, key=lambda row: _SEVERITY.get(row.status, 1))


def _reason(row: MeasuredTrial) -> str:
    text = one_line(row.reason) or "no reason was recorded"
    stage = row.stage
    return f"{text} (while: {stage})" if stage and row.status in FAILURES else text
