"""Literature: what others published, next to what this run measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from quantbench.analysis import MeasuredTrial, batch_sizes, trial_rows
from quantbench.report.sections.section import Section
from quantbench.results import Results
from quantbench.spec import Published
from quantbench.units import MISSING, Formatter, one_line, quality_writer, ratio, size, span

Tables = Mapping[int | None, Mapping[str, MeasuredTrial]]


@dataclass(frozen=True, slots=True)
class Pair:
    """One figure as published and as measured here, the latter with its interval or a remark."""

    published: str
    ours: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A published row and the trial beside it; ``source`` is who published it."""

    what: str
    source: str
    trial: str
    quality: Pair
    size: Pair
    speedup: Pair


def beside(results: Results) -> tuple[Line, ...]:
    """One line per published row of the run, in its order; none where the run has none."""
    rows = [Published(**row) for row in results.run.get("published") or ()]
    if not rows:
        return ()
    batches: list[int | None] = [*batch_sizes(results)] or [None]
    tables = {batch: {row.trial: row for row in trial_rows(results, batch)} for batch in batches}
    return tuple(_line(row, tables) for row in rows)


def _line(row: Published, tables: Tables) -> Line:
    trial = next(iter(tables.values())).get(row.trial)
    unit = "" if trial is None else trial.of("quality").unit
    return Line(
        one_line(row.what),
        one_line(row.source),
        MISSING if trial is None else one_line(f"{trial.backend} {trial.label}"),
        _pair(row.quality, trial, "quality", quality_writer(unit)),
        _pair(row.size_bytes, trial, "size_bytes", size),
        _speed(row, tables),
    )


def _pair(
    published: float | None, trial: MeasuredTrial | None, metric: str, write: Formatter
) -> Pair:
    found = None if trial is None else trial.interval(metric)
    if found is None:
        return Pair(_said(published, write), MISSING)
    ends = span(found, write)
    return Pair(_said(published, write), write(found.value), (ends,) if ends else ())


def _speed(row: Published, tables: Tables) -> Pair:
    """The speed-up at the first batch size, and at the others below it."""
    ours = []
    for batch, table in tables.items():
        at = f" at batch {batch}" if len(tables) > 1 else ""
        trial = table.get(row.trial)
        if trial is not None and trial.is_reference:
            ours.append(f"{ratio(1.0)}{at}")
        elif trial is not None and not math.isnan(trial.value("speedup")):
            ours.append(f"{ratio(trial.value('speedup'))}{at}")
    first, *rest = ours or [MISSING]
    return Pair(_said(row.speedup, ratio), first, tuple(rest))


def _said(value: float | None, write: Formatter) -> str:
    return MISSING if value is None else write(value)


SECTION = Section(
    "published", "Published, and measured here", "Published", 20,
    lambda seen: beside(seen.results), "beside.html.j2",
)  # fmt: skip
