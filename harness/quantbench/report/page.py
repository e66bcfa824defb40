"""Page: everything a report says, as text ready to be shown; made from Results alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from quantbench.analysis import (
    OBJECTIVES,
    Constraints,
    MeasuredTrial,
    batch_sizes,
    choose,
    frame_of,
    other_work,
    pooled,
    same_runtime,
    standings,
    trial_rows,
)
from quantbench.report import mlperf, verdict
from quantbench.report.glossary import FLAG_MEANING, STATUS_MARK, STATUS_MEANING, VERDICT_TONE
from quantbench.report.provenance import Provenance, listed, provenances
from quantbench.report.sections.cards import STATES, Card, cards, sentence
from quantbench.report.sections.heatmaps import HeatMaps, Matrix, heatmaps, support
from quantbench.report.sections.interactive_choice import choosing
from quantbench.report.sections.section import Seen, Shown
from quantbench.report.sections.section import shown as sections_shown
from quantbench.report.sections.slowdowns import specifications
from quantbench.report.verdict import loss_writer, quality_writer
from quantbench.results import Results, parts
from quantbench.spec import FAILURES, Status, Verdict
from quantbench.units import (
    ABOUT,
    METRICS,
    MISSING,
    Formatter,
    decibels,
    joules,
    milliseconds,
    number,
    one_line,
    per_second,
    percent,
    place_name,
    ratio,
    seconds,
    size,
    span,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A number as text, the lines of small print under it, and what it sorts by."""

    text: str
    notes: tuple[str, ...] = ()
    sort: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of trials: its heading, and how it was measured."""

    name: str
    help: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the table of trials."""

    trial: str
    backend: str
    label: str
    method: str
    division: str
    place: str
    status: str
    mark: str
    reason: str
    flags: tuple[str, ...]
    cells: tuple[Cell, ...]
    state: str
    rank: int
    reference: bool


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report."""

    title: str
    experiment: str
    runs: tuple[Provenance, ...]
    warnings: tuple[str, ...]
    counts: tuple[tuple[str, int, str], ...]
    total: int
    failures: int
    limits: Constraints
    objectives: tuple[str, ...]
    first_batch: str
    caveat: str
    rule: str
    limit: str
    verdict: str
    cards: tuple[Card, ...]
    choosing: Mapping[str, Any]
    matrices: tuple[Matrix, ...]
    reasons: tuple[str, ...]
    heatmaps: HeatMaps
    sections: tuple[Shown, ...]
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    several_places: bool
    noise: tuple[tuple[str, str], ...]
    footnote: mlperf.Footnote | None

    def section(self, name: str) -> Any:
        """What a section of that id shows; None where it is absent."""
        return next((one.found for one in self.sections if one.id == name), None)


def summarise(
    results: Results, limits: Constraints | None = None, page: Path | None = None
) -> Page:
    """Everything the page says about a run; figures included.

    ``page``: where it is written, if it is: links are relative to it.
    """
    limits = limits or Constraints()
    trials = trial_rows(results)
    candidates = pooled(trials)
    frame = frame_of(results, trials)
    places = list(standings(results, limits.objective))
    choices = [choose(place, limits) for place in places]
    shown = cards(results, candidates, frame, places, limits)
    matrices, reasons = support(trials, limits.max_drop)
    runs = provenances(results, page)
    sizes = batch_sizes(results)
    columns = _columns(sizes, trials, _macs_notes(results, trials))
    counts = frame["status"].value_counts() if len(frame) else pd.Series(dtype=int)
    experiment = " + ".join(dict.fromkeys(run.experiment for run in runs))
    return Page(
        title=f"{experiment}: {sentence(shown)}"[:120],
        experiment=experiment,
        runs=runs,
        warnings=_warnings(results),
        counts=tuple((str(s), int(n), STATUS_MEANING.get(str(s), "")) for s, n in counts.items()),
        total=len(frame),
        failures=int(frame["status"].isin(FAILURES).sum()),
        limits=limits,
        objectives=tuple(OBJECTIVES),
        first_batch=str(sizes[0]) if sizes else "1",
        caveat=verdict.CAVEAT,
        rule=verdict.rule(limits),
        limit=verdict.points_limit(limits.max_drop),
        verdict=sentence(shown),
        cards=shown,
        choosing=choosing(results, candidates, limits) if trials else {},
        matrices=matrices,
        reasons=reasons,
        heatmaps=heatmaps(trials, reasons),
        sections=tuple(sections_shown(Seen(results, trials, frame, choices))),
        columns=tuple(column for column, _ in columns),
        rows=_table_rows(results, trials, columns, shown, sizes),
        several_places=len(shown) > 1,
        noise=tuple((card.place, card.noise) for card in shown),
        footnote=mlperf.footnote(results),
    )


def _warnings(results: Results) -> tuple[str, ...]:
    """Doubts about the machines, then about single targets on them."""
    runs = parts(results)
    machines = {part.name: listed(part.machine.get("warnings")) for part in runs}
    said: dict[str, None] = {}
    for run, warnings in machines.items():
        for warning in warnings:
            common = all(warning in others for others in machines.values())
            said[warning if common else f"run {run}: {warning}"] = None
    known = {warning for warnings in machines.values() for warning in warnings}
    for target, warnings in zip(results.trials["target"], results.trials["warnings"], strict=True):
        said |= {f"{target}: {w}": None for w in listed(warnings) if w not in known}
    return tuple(map(one_line, said))


# --- the table of trials -------------------------------------------------------------------------


def _macs_notes(results: Results, trials: Sequence[MeasuredTrial]) -> dict[str, tuple[str, ...]]:
    """What stands under the integer multiply-accumulates of a trial: its file, and its other work."""
    held, other = specifications(results), other_work(results, trials)
    return {
        row.trial: (
            *((other[row.trial].short,) if row.trial in other else ()),
            *held.get(row.trial, ()),
        )
        for row in trials
    }


def _columns(
    sizes: Sequence[int],
    trials: Sequence[MeasuredTrial],
    held: Mapping[str, tuple[str, ...]],
) -> list[tuple[Column, Callable[[MeasuredTrial], Cell]]]:
    """The columns and how each fills its cell for a trial; ``held``: lines of `_macs_notes` by trial."""
    batch = f", batch {sizes[0]}" if len(sizes) > 1 else ""
    energy = (
        Column(
            "Energy",
            "per inference beyond what the machine takes idling; range of the windows",
            "J",
        ),
        lambda row: _cell(row, "energy_net_j", joules),
    )
    offline = (
        Column(
            "Offline",
            "samples per second at the batch size that suits the trial best, all timed interleaved; "
            "the speed-up over the reference at its own best",
            "1/s",
        ),
        _offline_cell,
    )
    counted = [energy] if _measured(trials, "energy_net_j") else []
    if _measured(trials, "offline_throughput_per_s"):
        counted.append(offline)
    return [
        (
            Column(
                f"Latency{batch}",
                "median time of the inference call alone, with 95 % interval; below it the 90th and "
                "99th percentile of a process's calls and what they are at most in half of all processes, "
                "where there are calls enough; end to end: with binding of inputs and reading of outputs",
                "ms",
            ),
            _latency_cell,
        ),
        (
            Column(
                f"Speed-up{batch}",
                "time of the reference over time of this trial, paired in rounds; below it over the "
                "float of the same runtime and graph, which is what quantization gives",
                "ratio",
            ),
            _speedup_cell,
        ),
        (
            Column("Quality", "score on the test split, with 95 % interval"),
            _quality_cell,
        ),
        (
            Column(
                "Loss",
                "quality lost against the reference on the same samples; at most: one-sided 95 % bound; "
                "the share of the float score that is surely kept, 99 % or 99.9 %",
            ),
            _loss_cell,
        ),
        (
            Column("Agreement", "share of test samples answered as the reference does", "fraction"),
            lambda row: _cell(row, "agreement", percent),
        ),
        (
            Column(
                "SQNR", "float signal over quantization noise at the outputs; 6 dB is one bit", "dB"
            ),
            lambda row: _cell(row, "sqnr_db", decibels),
        ),
        (
            Column(
                "Size",
                "bytes of all files needed at run time; smaller than the same backend's fp32",
                "bytes",
            ),
            _size_cell,
        ),
        (
            Column(
                "Integer MACs",
                "share of multiply-accumulates really executed on integers; how many more or fewer than the "
                "reference executes, where its form does other work; what the file holds, and "
                "≠ where another backend's file of the same method holds something else",
                "fraction",
            ),
            lambda row: _lines_under(
                _cell(row, "integer_macs_fraction", percent), held.get(row.trial, ())
            ),
        ),
        (
            Column(
                "Memory",
                "peak resident memory of a fresh process, runtime included; the model's share of it",
                "bytes",
            ),
            _memory_cell,
        ),
        (
            Column(
                "Activations",
                "largest sum of bytes of activations that are live at once, of one sample",
                "bytes",
            ),
            lambda row: _cell(row, "activation_bytes", size),
        ),
        (
            Column(
                "Build",
                "seconds to quantize and convert; before that, to make the float form and to train",
                "s",
            ),
            _build_cell,
        ),
        (
            Column(
                "Load", "from the file to a session ready to run, then the first inference", "ms"
            ),
            _load_cell,
        ),
        *counted,
        *_further(trials),
    ]


def _measured(trials: Sequence[MeasuredTrial], metric: str) -> bool:
    return any(row.of(metric).known for row in trials)


def _further(
    trials: Sequence[MeasuredTrial],
) -> list[tuple[Column, Callable[[MeasuredTrial], Cell]]]:
    """Metrics whose description alone says that they are shown."""
    return [
        (
            Column(spec.title, spec.help, spec.unit),
            partial(_cell, metric=spec.column, write=spec.write),
        )
        for spec in METRICS.values()
        if spec.title and _measured(trials, spec.column)
    ]


def _table_rows(
    results: Results,
    trials: Sequence[MeasuredTrial],
    columns: Sequence[tuple[Column, Callable[[MeasuredTrial], Cell]]],
    found_cards: Sequence[Card],
    sizes: Sequence[int],
) -> tuple[TableRow, ...]:
    states = {trial: state for card in found_cards for trial, state in card.states.items()}
    others = {batch: {row.trial: row for row in trial_rows(results, batch)} for batch in sizes[1:]}
    seeds = len({row.seed for row in trials}) > 1
    own = same_runtime(results, trials, sizes[0] if sizes else None)
    labels = {row.trial: row.label for row in trials}
    found = []
    for row in trials:
        cells = [fill(row) for _, fill in columns]
        if (gain := own.get(row.trial)) is not None:
            against = f"{ratio(gain.speedup.value)} over {one_line(labels[gain.reference])}"
            cells[1] = _lines_under(cells[1], (f"{against}, {gain.versus}",))
        for batch in sizes[1:]:
            other = others[batch][row.trial]
            cells[0] = _more(cells[0], batch, other, "latency_ms", milliseconds)
            cells[1] = _more(cells[1], batch, other, "speedup", ratio)
        seed = f", seed {row.seed}" if seeds else ""
        found.append(
            TableRow(
                trial=one_line(row.trial),
                backend=one_line(row.backend),
                label=one_line(row.label),
                method=one_line(row.method),
                division=one_line(row.division),
                place=place_name(row.model, row.target) + seed,
                status=row.status,
                mark=STATUS_MARK.get(row.status, "✗"),
                reason=one_line(row.reason),
                flags=tuple(map(_flag, row.flags)),
                cells=tuple(cells),
                state=(state := states[row.trial]),
                rank=STATES.index(state),
                reference=row.is_reference,
            )
        )
    return tuple(found)


def _flag(flag: str) -> str:
    meaning, _, batch = flag.partition("-at-batch-")
    text = FLAG_MEANING.get(meaning, one_line(meaning))
    return f"{text} (batch {batch})" if batch else text


def _lines_under(cell: Cell, notes: tuple[str, ...]) -> Cell:
    """A cell with more in small print."""
    return Cell(cell.text, (*cell.notes, *notes), cell.sort, cell.tone)


def _more(cell: Cell, batch: int, other: MeasuredTrial, metric: str, write: Formatter) -> Cell:
    """A cell with the same figure at another batch size in small print."""
    known = other.of(metric).known
    text = f"{ABOUT if other.about(metric) else ''}{write(other.value(metric))}"
    return _lines_under(cell, (f"batch {batch}: {text}",)) if known else cell


def _cell(row: MeasuredTrial, metric: str, write: Formatter, tone: str = "") -> Cell:
    found = row.interval(metric)
    if found is None:
        return Cell(MISSING, _lines(one_line(row.of(metric).reason, 120)))
    text = f"{ABOUT if row.about(metric) else ''}{write(found.value)}"
    return Cell(text, _lines(span(found, write, unit=False)), repr(found.value), tone)


def _lines(*notes: str) -> tuple[str, ...]:
    return tuple(note for note in notes if note)


def _latency_cell(row: MeasuredTrial) -> Cell:
    cell = _cell(row, "latency_ms", milliseconds)
    notes = [_tail(row, percentile) for percentile in (90, 99)]
    whole = row.interval("end_to_end_ms")
    if whole is not None:
        about = ABOUT if row.about("end_to_end_ms") else ""
        notes.append(f"end to end {about}{milliseconds(whole.value)}")
    return _lines_under(cell, _lines(*notes))


def _tail(row: MeasuredTrial, percentile: int) -> str:
    """A percentile of calls with its bound; empty where there is none."""
    found = row.of(f"latency_p{percentile}_ms")
    if not found.known:
        return ""
    bound = "" if math.isnan(found.high) else f", at most {number(found.high)}"
    return f"p{percentile} {number(found.value)}{bound} ms"


def _quality_cell(row: MeasuredTrial) -> Cell:
    cell = _cell(row, "quality", quality_writer(row))
    notes = _lines(row.of("quality").reason) if cell.sort else ()
    return Cell(cell.text, (*cell.notes, *notes), cell.sort)


def _speedup_cell(row: MeasuredTrial) -> Cell:
    if row.is_reference and row.status == Status.OK:
        return Cell("1×", ("the reference",), "1.0")
    verdict = row.of("speedup").verdict
    tone = (
        "good"
        if verdict == Verdict.FASTER
        else ("bad" if verdict in (Verdict.SLOWER, Verdict.LEFT) else "")
    )
    cell = _cell(row, "speedup", ratio, tone)
    if verdict in ("", Verdict.FASTER, Verdict.SLOWER):
        return cell
    why = row.of("speedup").reason if verdict in (Verdict.UNDECIDED, Verdict.LEFT) else ""
    return Cell(cell.text, (*cell.notes, *_lines(verdict, why)), cell.sort, tone)


def _offline_cell(row: MeasuredTrial) -> Cell:
    cell, speedup = _cell(row, "offline_throughput_per_s", per_second), row.value("offline_speedup")
    if not cell.sort:
        return cell
    notes = [f"batch {row.offline_batch_size}"]
    if not math.isnan(speedup):
        text = f"{ABOUT if row.about('offline_speedup') else ''}{ratio(speedup)}"
        notes.append(f"{text} {row.of('offline_speedup').verdict}".strip())
    return Cell(cell.text, (*cell.notes, *notes), cell.sort)


def _loss_cell(row: MeasuredTrial) -> Cell:
    if row.is_reference and not math.isnan(row.value("quality")):
        return Cell("0", ("the reference",), "0.0")
    write = loss_writer(row)
    cell = _cell(row, "quality_drop", write)
    if not cell.sort:
        return cell
    verdict = row.of("quality_drop").verdict
    bound = f"at most {write(row.value('quality_drop_bound')).removesuffix(' pp')}"
    tone = VERDICT_TONE.get(verdict, "")
    kept = row.of("quality_kept").verdict if verdict == Verdict.KEEPS else verdict
    return Cell(cell.text, _lines(bound, kept, row.of("quality_drop").reason), cell.sort, tone)


def _size_cell(row: MeasuredTrial) -> Cell:
    cell, times = _cell(row, "size_bytes", size), row.value("compression")
    if not cell.sort or math.isnan(times) or row.is_reference or ratio(times) == ratio(1.0):
        return cell
    note = f"{ratio(times)} smaller" if times > 1 else f"{ratio(1 / times)} larger"
    return Cell(cell.text, (note,), cell.sort)


def _memory_cell(row: MeasuredTrial) -> Cell:
    cell, model = _cell(row, "peak_rss_bytes", size), row.value("model_rss_bytes")
    notes = cell.notes if math.isnan(model) else (f"model {size(model)}",)
    return Cell(cell.text, notes, cell.sort)


def _build_cell(row: MeasuredTrial) -> Cell:
    built = row.built_s
    if math.isnan(built):
        return Cell(MISSING)
    before = {"form": row.converted_s, "trained": row.trained_s}
    notes = (f"{name} {seconds(s)}" for name, s in before.items() if not math.isnan(s))
    return Cell(seconds(built), tuple(notes), repr(built))


def _load_cell(row: MeasuredTrial) -> Cell:
    cell, first = _cell(row, "load_ms", milliseconds), row.value("first_inference_ms")
    notes = cell.notes if math.isnan(first) else (f"first run {milliseconds(first)}",)
    return Cell(cell.text, notes, cell.sort)
