"""Summary: everything a report says, as text ready to be shown; made from Results alone."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from harness import advice
from harness.advice import Choice, interval
from harness.report import figures
from harness.report.batches import batches
from harness.report.canvas import Picture
from harness.report.changes import Change, changes
from harness.report.distributions import Distribution, distributions
from harness.report.fidelity import Fidelity, fidelity
from harness.report.figures import palette
from harness.report.glossary import FLAG_MEANING, STATUS_MARK, STATUS_MEANING
from harness.report.heatmaps import HeatMaps, Matrix, heatmaps, support
from harness.report.quantities import (
    MISSING,
    Formatter,
    decibels,
    joules,
    loss_writer,
    milliseconds,
    one_line,
    per_second,
    percent,
    quality_writer,
    ratio,
    seconds,
    size,
    span,
)  # fmt: skip
from harness.report.quantities import place_name as _place
from harness.report.quantities import text_of as _text
from harness.report.ranges import ranges
from harness.report.spans import Weights, weights
from harness.report.sweeps import sweeps
from harness.report.training import Training, training
from harness.report.why import Why, explanations, specifications
from harness.results import FAILURES, Results
from harness.statistics import Interval

Row = Mapping[str, Any]

# of the one file that `quantbench export` writes; other backends' files get no suffix
SUFFIXES: Mapping[str, str] = {"onnxruntime": ".onnx", "tflite": ".tflite"}


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
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A row of the table of trials."""

    trial: str
    backend: str
    label: str
    place: str
    status: str
    mark: str
    reason: str
    flags: tuple[str, ...]
    cells: tuple[Cell, ...]
    chosen: bool
    reference: bool


@dataclass(frozen=True, slots=True)
class Fact:
    """One tile of a card: what it is about, the figure, and sentences under it."""

    name: str
    value: str
    lines: tuple[str, ...] = ()
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """The verdict on one model and target."""

    model: str
    target: str
    place: str
    headline: str
    reason: str
    facts: tuple[Fact, ...]
    command: str
    ties: tuple[str, ...]
    passed_over: tuple[tuple[str, str], ...]
    tradeoff: Picture | None
    bars: Picture | None
    untimed: int
    noise: str


@dataclass(frozen=True, slots=True)
class Page:
    """The whole report."""

    title: str
    experiment: str
    machine: str
    date: str
    precision: str
    preview: str
    warnings: tuple[str, ...]
    counts: tuple[tuple[str, int, str], ...]
    total: int
    failures: int
    limit: str
    verdict: str
    cards: tuple[Card, ...]
    matrices: tuple[Matrix, ...]
    reasons: tuple[str, ...]
    heatmaps: HeatMaps
    distributions: tuple[Distribution, ...]
    fidelity: tuple[Fidelity, ...]
    training: Training | None
    changes: tuple[Change, ...]
    batches: tuple[Picture, ...]
    sweeps: tuple[Picture, ...]
    ranges: tuple[Picture, ...]
    weights: tuple[Weights, ...]
    whys: tuple[Why, ...]
    columns: tuple[Column, ...]
    rows: tuple[TrialRow, ...]
    several_places: bool
    machine_facts: tuple[tuple[str, str], ...]
    packages: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    protocol: tuple[tuple[str, str], ...]
    noise: tuple[tuple[str, str], ...]
    run_facts: tuple[tuple[str, str], ...]
    command: str
    experiment_text: str


def summarise(results: Results, max_drop: float = advice.LARGEST_DROP) -> Page:
    """Everything the page says about a run; figures included."""
    frame = advice.trial_frame(results)
    choices = advice.recommend(results, max_drop)
    chosen = {choice.trial for choice in choices if choice.trial}
    matrices, reasons = support(frame, max_drop)
    run, machine = results.run, results.machine
    cards = tuple(_card(results, frame, choice, max_drop, i) for i, choice in enumerate(choices))
    sizes = advice.batch_sizes(results)
    counts = frame["status"].value_counts() if len(frame) else pd.Series(dtype=int)
    experiment = one_line(_text(run.get("experiment")) or "experiment")
    verdict = _verdict(cards)
    return Page(
        title=f"{experiment}: {verdict}"[:120],
        experiment=experiment,
        machine=one_line(_text(machine.get("cpu")) or "machine not recorded"),
        date=_date(run.get("created")),
        precision=one_line(_precision(run)) or "not recorded",
        preview=_preview(run),
        warnings=_warnings(results),
        counts=tuple((str(s), int(n), STATUS_MEANING.get(str(s), "")) for s, n in counts.items()),
        total=len(frame),
        failures=int(frame["status"].isin(FAILURES).sum()),
        limit=_limit(max_drop),
        verdict=verdict,
        cards=cards,
        matrices=matrices,
        reasons=reasons,
        heatmaps=heatmaps(frame, reasons),
        distributions=distributions(results, frame, choices),
        fidelity=fidelity(results, frame, choices),
        training=training(results, frame),
        changes=changes(frame),
        batches=batches(results),
        sweeps=sweeps(frame, palette(list(frame["backend"])) if len(frame) else {}),
        ranges=ranges(results),
        weights=weights(results),
        whys=explanations(results),
        columns=tuple(column for column, _ in _columns(sizes, frame)),
        rows=_trial_rows(results, frame, chosen, sizes),
        several_places=len(choices) > 1,
        machine_facts=_machine_facts(machine),
        packages=_pairs(machine.get("packages")),
        environment=_pairs(machine.get("environment")),
        protocol=_protocol(run),
        noise=_noise(results, choices),
        run_facts=_run_facts(results, frame),
        command=_text(run.get("command")),
        experiment_text=_text(run.get("experiment_text")),
    )


def _warnings(results: Results) -> tuple[str, ...]:
    """Doubts about the machine, then about single targets on it."""
    said = dict.fromkeys(_list(results.machine.get("warnings")))
    for target, warnings in zip(results.trials["target"], results.trials["warnings"], strict=True):
        for warning in _list(warnings):
            if warning not in results.machine.get("warnings", ()):
                said[f"{target}: {warning}"] = None
    return tuple(map(one_line, said))


# --- the verdict ---------------------------------------------------------------------------------


def _verdict(cards: Sequence[Card]) -> str:
    if not cards:
        return "no trial in this run"
    if len(cards) == 1:
        return one_line(cards[0].headline)
    shipped = sum(bool(card.command) for card in cards)
    return f"an artifact to ship for {shipped} of {len(cards)} models and targets"


def _limit(max_drop: float) -> str:
    return f"{100 * max_drop:g} percentage point" + ("" if max_drop == 0.01 else "s")


def _card(
    results: Results, frame: pd.DataFrame, choice: Choice, max_drop: float, index: int
) -> Card:
    here = frame[(frame["model"] == choice.model) & (frame["target"] == choice.target)]
    rows: dict[str, Row] = {row["trial"]: row for row in _rows(here)}
    pictures = _pictures(frame, here, choice, max_drop, index)
    noise = _noise_sentence(advice.control(results, choice.model, choice.target))
    passed = tuple((_name(rows[p.trial]), p.reason) for p in choice.passed_over[:6])
    place = _place(choice.model, choice.target)
    untimed = int(here["latency_ms"].isna().sum())
    if choice.trial is None:
        return Card(
            choice.model, choice.target, place, "Nothing to ship", choice.reason, (), "", (),
            passed, *pictures, untimed, noise,
        )  # fmt: skip
    row = rows[choice.trial]
    reference = rows.get(_text(row["reference"]))
    headline = f"Ship {_name(row)}"
    if row["is_reference"]:
        headline = f"Keep the float reference, {_name(row)}"
    elif row["method"] == "fp32":
        headline = f"Ship the float model in {_name(row)}"
    return Card(
        model=choice.model,
        target=choice.target,
        place=place,
        headline=headline,
        reason=choice.reason,
        facts=(
            _speed_fact(results, choice.trial, row, rows),
            _size_fact(row, reference),
            _quality_fact(row, reference),
            _loss_fact(row, max_drop),
        ),
        command=export_command(results, choice.trial, str(row["backend"])),
        ties=tuple(
            f"{_name(rows[t])} ({_value(rows[t], 'size_bytes', size)})" for t in choice.ties
        ),
        passed_over=passed,
        tradeoff=pictures[0],
        bars=pictures[1],
        untimed=untimed,
        noise=noise,
    )


def export_command(results: Results, trial: str, backend: str) -> str:
    """The command that writes the deployable file of a trial, quoted for a shell."""
    folder = results.folder
    with contextlib.suppress(ValueError):
        folder = folder.resolve().relative_to(Path.cwd().resolve())
    name = "-".join(part for part in trial.replace("/", " ").split())
    safe = "".join(c if c.isalnum() or c in "._=+-" else "-" for c in name).strip("-.") or "model"
    words = [
        "quantbench",
        "export",
        str(folder),
        trial,
        "-o",
        safe[:100] + SUFFIXES.get(backend, ""),
    ]
    return " ".join(shlex.quote(word) for word in words)


def _speed_fact(results: Results, trial: str, row: Row, rows: Mapping[str, Row]) -> Fact:
    gains = advice.gains(results, trial)
    lines = []
    for gain in gains:
        ends = span(gain.speedup, ratio)
        against = rows.get(gain.reference)
        name = _name(against) if against else one_line(gain.reference)
        verdict = "" if gain.verdict in ("", "faster") else f"; {gain.verdict}"
        measured = f"{ratio(gain.speedup.value)}{f' ({ends})' if ends else ''}"
        lines.append(f"{measured} against {name}, {gain.versus}{verdict}")
    latency = interval(row, "latency_ms")
    if latency is not None:
        ends = span(latency, milliseconds)
        lines.append(f"{milliseconds(latency.value)} per inference{f' ({ends})' if ends else ''}")
    if not gains:
        value = "the reference" if row["is_reference"] else MISSING
        return Fact("Speed", value, tuple(lines))
    first = gains[0].speedup.value
    if first >= 1:
        return Fact("Speed", f"{ratio(first)} faster", tuple(lines), "good")
    return Fact("Speed", f"{ratio(1 / first)} slower", tuple(lines), "bad")


def _size_fact(row: Row, reference: Row | None) -> Fact:
    lines = []
    own, theirs = row["size_bytes"], math.nan if reference is None else reference["size_bytes"]
    if reference is not None and not row["is_reference"] and own > 0 and theirs > 0:
        times = theirs / own
        word = f"{ratio(times)} smaller" if times >= 1 else f"{ratio(1 / times)} larger"
        lines.append(f"{word} than the reference's {size(theirs)}")
    if not math.isnan(row["size_gzip_bytes"]):
        lines.append(f"{size(row['size_gzip_bytes'])} compressed with gzip")
    return Fact("Size", _value(row, "size_bytes", size), tuple(lines))


def _quality_fact(row: Row, reference: Row | None) -> Fact:
    write = _quality_writer(row)
    found = interval(row, "quality")
    lines = []
    if found is not None and (ends := span(found, write)):
        samples = "" if math.isnan(row["quality_n"]) else f", {row['quality_n']:.0f} test samples"
        lines.append(f"{ends} with 95 % confidence{samples}")
    if reference is not None and not row["is_reference"]:
        lines.append(f"float reference: {_value(reference, 'quality', write)}")
    if not math.isnan(row["agreement"]):
        lines.append(f"same answer as float on {percent(row['agreement'])} of samples")
    return Fact("Quality", _value(row, "quality", write), tuple(lines))


def _loss_fact(row: Row, max_drop: float) -> Fact:
    write = _loss_writer(row)
    drop, bound = interval(row, "quality_drop"), row["quality_drop_bound"]
    if drop is None:
        return Fact("Loss", MISSING, ("not measured",))
    if row["is_reference"]:
        return Fact("Loss", "none", ("it is the reference",))
    lines = []
    if ends := span(drop, write):
        lines.append(f"{ends} with 95 % confidence")
    lines.append(f"at most {write(bound)} (one-sided 95 %), allowed {write(max_drop)}")
    if drop.low <= 0 <= drop.high:
        lines.append("not distinguishable from no loss")
    elif drop.low > 0:
        lines.append("a real loss, within what is allowed")
    value = f"gains {write(-drop.value)}" if drop.high < 0 else write(drop.value)
    return Fact("Loss", value, tuple(lines), "good" if bound <= max_drop else "bad")


def _pictures(
    frame: pd.DataFrame, here: pd.DataFrame, choice: Choice, max_drop: float, index: int
) -> tuple[Picture | None, Picture | None]:
    """The scatter and the bars of a comparison, each None where there is nothing to draw."""
    # of the whole run, so that a colour means the same in every figure
    colors = figures.palette(list(frame["backend"]))
    shapes = figures.markers(list(frame["method"]))
    timed = here[here["latency_ms"].notna() & here["quality"].notna()]
    timed = timed[(timed["latency_ms"] > 0) & timed["status"].isin(("ok", "no-op"))]
    known = here[here["latency_ms"].notna() | here["size_bytes"].notna()]
    scatter = bars = None
    if len(timed):
        scatter = figures.tradeoff(
            timed, colors, shapes, max_drop=max_drop, chosen=choice.trial, name=f"tradeoff-{index}"
        )
    if len(known):
        bars = figures.bars(known, colors, chosen=choice.trial, name=f"bars-{index}")
    return scatter, bars


# --- the table of trials -------------------------------------------------------------------------


def _columns(
    sizes: Sequence[int], frame: pd.DataFrame
) -> list[tuple[Column, Callable[[Row], Cell]]]:
    """The columns and how each fills its cell from a row of `harness.advice.trial_frame`."""
    batch = f", batch {sizes[0]}" if len(sizes) > 1 else ""
    energy = (
        Column(
            "Energy", "per inference beyond what the machine takes idling; range of the windows"
        ),
        lambda row: _cell(row, "energy_net_j", joules),
    )
    offline = (
        Column(
            "Offline",
            "samples per second at the batch size that suits the trial best, all timed interleaved; "
            "the speed-up over the reference at its own best",
        ),
        _offline_cell,
    )
    counted = [energy] if frame["energy_net_j"].notna().any() else []
    if frame["offline_throughput_per_s"].notna().any():
        counted.append(offline)
    return [
        (
            Column(
                f"Latency{batch}",
                "median time of the inference call alone, with 95 % interval; below it the bounds of "
                "its 90th and 99th percentile, where there are calls enough",
            ),
            _latency_cell,
        ),
        (
            Column(
                f"Speed-up{batch}",
                "time of the reference over time of this trial, paired in rounds",
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
            Column("Agreement", "share of test samples answered as the reference does"),
            lambda row: _cell(row, "agreement", percent),
        ),
        (
            Column("SQNR", "float signal over quantization noise at the outputs; 6 dB is one bit"),
            lambda row: _cell(row, "sqnr_db", decibels),
        ),
        (
            Column(
                "Size",
                "bytes of all files needed at run time; smaller than the same backend's fp32",
            ),
            _size_cell,
        ),
        (
            Column(
                "Integer MACs",
                "share of multiply-accumulates really executed on integers; what the file holds, and "
                "≠ where another backend's file of the same method holds something else",
            ),
            lambda row: _lines_under(_cell(row, "integer_macs_fraction", percent), row),
        ),
        (
            Column(
                "Memory",
                "peak resident memory of a fresh process, runtime included; the model's share of it",
            ),
            _memory_cell,
        ),
        (
            Column(
                "Activations",
                "largest sum of bytes of activations that are live at once, of one sample",
            ),
            lambda row: _cell(row, "activation_bytes", size),
        ),
        (
            Column(
                "Build",
                "seconds to quantize and convert; before that, to make the float form and to train",
            ),
            _build_cell,
        ),
        (
            Column("Load", "from the file to a session ready to run, then the first inference"),
            _load_cell,
        ),
        *counted,
    ]


def _trial_rows(
    results: Results, frame: pd.DataFrame, chosen: Iterable[str], sizes: Sequence[int]
) -> tuple[TrialRow, ...]:
    chosen = set(chosen)
    others = {
        batch: {row["trial"]: row for row in _rows(advice.trial_frame(results, batch))}
        for batch in sizes[1:]
    }
    found = []
    held = specifications(results)
    for row in _rows(frame):
        row = {**row, "specification": held.get(str(row["trial"]), ())}
        cells = [fill(row) for _, fill in _columns(sizes, frame)]
        for batch in sizes[1:]:
            other = others[batch][row["trial"]]
            cells[0] = _more(cells[0], batch, other, "latency_ms", milliseconds)
            cells[1] = _more(cells[1], batch, other, "speedup", ratio)
        status = str(row["status"])
        found.append(
            TrialRow(
                trial=one_line(row["trial"]),
                backend=one_line(row["backend"]),
                label=one_line(row["label"]),
                place=_place(row["model"], row["target"]) + _seed(row, frame),
                status=status,
                mark=STATUS_MARK.get(status, "✗"),
                reason=one_line(_text(row["reason"])),
                flags=tuple(map(_flag, _list(row["flags"]))),
                cells=tuple(cells),
                chosen=row["trial"] in chosen,
                reference=bool(row["is_reference"]),
            )
        )
    return tuple(found)


def _flag(flag: str) -> str:
    meaning, _, batch = flag.partition("-at-batch-")
    text = FLAG_MEANING.get(meaning, one_line(meaning))
    return f"{text} (batch {batch})" if batch else text


def _lines_under(cell: Cell, row: Row) -> Cell:
    """A cell with what the artifact's file holds in small print."""
    return Cell(cell.text, (*cell.notes, *row.get("specification", ())), cell.sort, cell.tone)


def _more(cell: Cell, batch: int, other: Row, metric: str, write: Formatter) -> Cell:
    """A cell with the same figure at another batch size in small print."""
    if math.isnan(other[metric]):
        return cell
    note = f"batch {batch}: {write(other[metric])}"
    return Cell(cell.text, (*cell.notes, note), cell.sort, cell.tone)


def _seed(row: Row, frame: pd.DataFrame) -> str:
    return f", seed {row['seed']}" if frame["seed"].nunique() > 1 else ""


def _cell(row: Row, metric: str, write: Formatter, tone: str = "") -> Cell:
    found = interval(row, metric)
    if found is None:
        return Cell(MISSING, _lines(one_line(_text(row[f"{metric}_reason"]), 120)))
    return Cell(write(found.value), _lines(span(found, write, unit=False)), repr(found.value), tone)


def _lines(*notes: str) -> tuple[str, ...]:
    return tuple(note for note in notes if note)


def _latency_cell(row: Row) -> Cell:
    cell = _cell(row, "latency_ms", milliseconds)
    tails = (
        f"p{percentile} ≤ {milliseconds(row[metric])}"
        for percentile in (90, 99)
        if not math.isnan(row[metric := f"latency_p{percentile}_ms"])
    )
    return Cell(cell.text, (*cell.notes, *tails), cell.sort, cell.tone)


def _quality_cell(row: Row) -> Cell:
    cell = _cell(row, "quality", _quality_writer(row))
    notes = _lines(_text(row["quality_reason"])) if cell.sort else ()
    return Cell(cell.text, (*cell.notes, *notes), cell.sort)


def _speedup_cell(row: Row) -> Cell:
    if row["is_reference"] and row["status"] == "ok":
        return Cell("1×", ("the reference",), "1.0")
    verdict = row["speedup_verdict"]
    tone = "good" if verdict == "faster" else ("bad" if verdict.startswith("slower") else "")
    cell = _cell(row, "speedup", ratio, tone)
    if verdict in ("", "faster", "slower"):
        return cell
    why = row["speedup_reason"] if verdict == "undecided" else ""
    return Cell(cell.text, (*cell.notes, *_lines(verdict, why)), cell.sort, tone)


def _offline_cell(row: Row) -> Cell:
    cell, speedup = _cell(row, "offline_throughput_per_s", per_second), row["offline_speedup"]
    if not cell.sort:
        return cell
    notes = [f"batch {row['offline_batch_size']:.0f}"]
    if not math.isnan(speedup):
        notes.append(f"{ratio(speedup)} {row['offline_speedup_verdict']}".strip())
    return Cell(cell.text, (*cell.notes, *notes), cell.sort)


def _loss_cell(row: Row) -> Cell:
    if row["is_reference"] and not math.isnan(row["quality"]):
        return Cell("0", ("the reference",), "0.0")
    write = _loss_writer(row)
    cell = _cell(row, "quality_drop", write)
    if not cell.sort:
        return cell
    verdict = row["quality_drop_verdict"]
    bound = f"at most {write(row['quality_drop_bound']).removesuffix(' pp')}"
    tone = {"keeps": "good", "loses": "bad"}.get(verdict, "")
    kept = row["quality_kept_verdict"] if verdict == "keeps" else verdict
    return Cell(cell.text, _lines(bound, kept, _text(row["quality_drop_reason"])), cell.sort, tone)


def _size_cell(row: Row) -> Cell:
    cell, times = _cell(row, "size_bytes", size), row["compression"]
    if not cell.sort or math.isnan(times) or row["is_reference"] or ratio(times) == ratio(1.0):
        return cell
    note = f"{ratio(times)} smaller" if times > 1 else f"{ratio(1 / times)} larger"
    return Cell(cell.text, (note,), cell.sort)


def _memory_cell(row: Row) -> Cell:
    cell, model = _cell(row, "peak_rss_bytes", size), row["model_rss_bytes"]
    notes = cell.notes if math.isnan(model) else (f"model {size(model)}",)
    return Cell(cell.text, notes, cell.sort)


def _build_cell(row: Row) -> Cell:
    built = row["built_s"]
    if built is None or math.isnan(built):
        return Cell(MISSING)
    before = {"form": row["converted_s"], "trained": row["trained_s"]}
    notes = (
        f"{name} {seconds(s)}" for name, s in before.items() if s is not None and not math.isnan(s)
    )
    return Cell(seconds(built), tuple(notes), repr(built))


def _load_cell(row: Row) -> Cell:
    cell, first = _cell(row, "load_ms", milliseconds), row["first_inference_ms"]
    notes = cell.notes if math.isnan(first) else (f"first run {milliseconds(first)}",)
    return Cell(cell.text, notes, cell.sort)


# --- how it was measured -------------------------------------------------------------------------


def _precision(run: Row) -> str:
    value = run.get("precision")
    return _text(value.get("name") if isinstance(value, Mapping) else value)


def _preview(run: Row) -> str:
    """What the preview setting means for a reader; empty for other settings."""
    if _precision(run) != "preview":
        return ""
    settings = run.get("protocol") or {}
    generations, rounds = settings.get("generations"), settings.get("rounds")
    shape = ""
    if generations and rounds:
        shape = f" ({generations} generations of {rounds} rounds, with a short warm-up)"
    return (
        f"A short measurement{shape}, made to see what deserves a closer look. The intervals hold, "
        "but they are wide, and small differences stay undecided; memory was read only once per "
        "artifact. Measure again with precision: standard before you publish a number."
    )


_PROTOCOL: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "generations": ("generations, at least", str),
    "max_generations": ("generations, at most", str),
    "rounds": ("rounds per generation", str),
    "width": ("wanted width of each interval", lambda x: percent(float(x))),
    "time_limit_s": ("time limit per artifact", lambda x: f"{x:g} s"),
    "warmup_s": ("shortest warm-up", lambda x: f"{x:g} s"),
    "burst_ms": ("one burst", lambda x: f"{x:g} ms of timed calls"),
    "memory_processes": ("processes per artifact for memory and start", str),
    "batch_sizes": ("batch sizes", lambda x: ", ".join(map(str, x))),
    "offline": ("each at its best batch size too", lambda x: "yes" if x else "no"),
    "quality_margin": ("margin of quality, of the float score", lambda x: percent(float(x))),
    "valid_sqnr_db": ("invalid below an SQNR of", lambda x: f"{x:g} dB"),
    "limit_build_s": ("time limit of a build", lambda x: f"{x:g} s"),
    "limit_score_s": ("time limit of a scoring", lambda x: f"{x:g} s"),
    "limit_start_s": ("time limit of a start", lambda x: f"{x:g} s"),
    "limit_memory_mb": ("memory limit of a trial", lambda x: f"{x:g} MB"),
}


def _protocol(run: Row) -> tuple[tuple[str, str], ...]:
    pairs = []
    for key, value in (run.get("protocol") or {}).items():
        name, write = _PROTOCOL.get(key, (str(key).replace("_", " "), _text))
        if key != "name":
            pairs.append((one_line(name), one_line(write(value))))
    return tuple(pairs)


def _noise(results: Results, choices: Sequence[Choice]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (_place(c.model, c.target), _noise_sentence(advice.control(results, c.model, c.target)))
        for c in choices
    )


def _noise_sentence(aa: Interval | None) -> str:
    if aa is None:
        return "no A/A control in this run: the noise is not known"
    ends = span(aa, "{:.3f}".format)
    return (
        f"the reference timed against itself: ratio {aa.value:.3f}{f' ({ends})' if ends else ''}; "
        f"differences in time under {percent(advice.smallest_claim(aa))} are not called differences"
    )


def _machine_facts(machine: Row) -> tuple[tuple[str, str], ...]:
    memory = machine.get("memory_bytes")
    facts = {
        "CPU": machine.get("cpu"),
        "physical cores": machine.get("cores"),
        "instruction sets": ", ".join(map(str, _list(machine.get("isa")))),
        "memory": size(float(memory)) if isinstance(memory, int | float) else None,
        "kernel": machine.get("kernel"),
        "frequency governor": machine.get("governor"),
        "virtualisation": machine.get("virtualization"),
        "Python": machine.get("python"),
        "source commit": machine.get("git_commit"),
        "fingerprint": machine.get("fingerprint"),
    }
    return tuple((k, one_line(_text(v)) or "not recorded") for k, v in facts.items())


def _run_facts(results: Results, frame: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    run = results.run
    seeds = sorted({int(s) for s in frame["seed"].dropna()})
    references = (run.get("reference") or {}).items()
    facts = [
        ("run", _text(run.get("run"))),
        ("made by quantbench", _text(run.get("quantbench"))),
        ("seed of the run", _text(run.get("seed"))),
        ("seeds of the trials", ", ".join(map(str, seeds))),
        *((f"reference of {key}", _text(trial)) for key, trial in references),
    ]
    return tuple((one_line(k), one_line(v) or "not recorded") for k, v in facts)


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    items = value.items() if isinstance(value, Mapping) else ()
    return tuple((one_line(str(k)), one_line(_text(v))) for k, v in items)


def _date(created: Any) -> str:
    try:
        when = datetime.fromisoformat(str(created))
    except ValueError:
        return one_line(_text(created)) or "date not recorded"
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


# --- rows and values -----------------------------------------------------------------------------


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _name(row: Row) -> str:
    return one_line(f"{row['backend']} {row['label']}")


def _value(row: Row, metric: str, write: Formatter) -> str:
    value = row[metric]
    return MISSING if math.isnan(value) else write(value)


def _quality_writer(row: Row) -> Formatter:
    return quality_writer(row["quality_unit"])


def _loss_writer(row: Row) -> Formatter:
    return loss_writer(row["quality_unit"])


def _list(value: Any) -> list[Any]:
    """A list from JSON or a list column of Parquet; empty for null."""
    if value is None or isinstance(value, float | str):
        return []
    return list(value)
