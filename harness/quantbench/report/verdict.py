"""Verdict: what to ship in words, what it gains and what it costs; of one row, ready to be shown."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from quantbench.analysis import (
    Constraints,
    Row,
    interval,
    recommendation,
    rows_of,
    size_limit,
    word,
)
from quantbench.results import Results, parts
from quantbench.spec import Verdict
from quantbench.units import (
    MISSING,
    Formatter,
    joules,
    milliseconds,
    one_line,
    per_second,
    percent,
    quantities,
    ratio,
    size,
    span,
)

# of the one file that `quantbench export` writes; other backends' files get no suffix
SUFFIXES: Mapping[str, str] = {"onnxruntime": ".onnx", "tflite": ".tflite"}

CAVEAT = (
    "Losses are judged by the upper end of their one-sided 95 % interval on the test samples of this "
    "run, times by rounds in which both trials ran on this machine. Other data or another machine may "
    "rank differently."
)


@dataclass(frozen=True, slots=True)
class Fact:
    """What a choice gains or costs in one respect: the figure, and sentences under it."""

    name: str
    value: str
    lines: tuple[str, ...] = ()
    tone: str = ""


def headline(row: Row | None) -> str:
    """What to do with a chosen trial, or that there is none."""
    if row is None:
        return "Nothing to ship"
    if row["is_reference"]:
        return f"Keep the float reference, {name(row)}"
    if row["method"] == "fp32":
        return f"Ship the float model in {name(row)}"
    return f"Ship {name(row)}"


def rule(limits: Constraints) -> str:
    """How a choice is made, in one sentence."""
    allowed = (
        f"loses no more than {points_limit(limits.max_drop)} of quality against the float model"
    )
    if limits.max_size_bytes is not None:
        allowed += f" and takes no more than {size_limit(limits.max_size_bytes)}"
    best = limits.wanted.best.removeprefix("the one ").removeprefix("the ")
    what = f"The {best} artifact that" if best in _ADJECTIVES else f"The artifact {best} that"
    return f"{what} {allowed}, judged by the upper 95 % bound of its loss."


_ADJECTIVES = ("fastest", "smallest")


def points_limit(max_drop: float) -> str:
    """An allowed loss in full words."""
    return f"{100 * max_drop:g} percentage point" + ("" if max_drop == 0.01 else "s")


def facts(
    results: Results, row: Row, frame: pd.DataFrame, limits: Constraints, batch: int | None
) -> tuple[Fact, ...]:
    """What a chosen trial gains and costs: speed, throughput and energy where asked, size, quality, loss.

    Parameters
    ----------
    row : Row
        The chosen trial in ``frame``.
    frame : DataFrame
        `quantbench.analysis.trial_table.trial_frame` of its model and target at batch size ``batch``.
    """
    reference = reference_row(row, frame)
    return (
        *fact_of_objective(row, reference, limits.objective, limits.batch_size),
        speed_fact(results, row, frame, batch),
        size_fact(row, reference),
        quality_fact(row, reference),
        loss_fact(row, limits),
    )


def reference_row(row: Row, frame: pd.DataFrame) -> Row | None:
    """The trial that ``row`` is relative to."""
    return rows_of(frame).get(word(row["reference"]))


def fact_of_objective(
    row: Row, reference: Row | None, objective: str, batch_size: int | None
) -> tuple[Fact, ...]:
    """The energy or the throughput, where that is wanted; a latency is part of the speed."""
    if objective == "energy":
        return (_energy_fact(row, reference),)
    if objective == "throughput":
        return (_throughput_fact(row, reference, batch_size is None),)
    return ()


def _energy_fact(row: Row, reference: Row | None) -> Fact:
    found, lines = interval(row, "energy_net_j"), []
    if found is None:
        return Fact("Energy", MISSING, ("not measured",))
    if ends := span(found, joules):
        lines.append(f"{ends} in the windows measured")
    if reference is not None and not row["is_reference"] and reference["energy_net_j"] > 0:
        share = found.value / reference["energy_net_j"]
        lines.append(f"{percent(share)} of the reference's {joules(reference['energy_net_j'])}")
    return Fact("Energy", joules(found.value), tuple(lines))


def _throughput_fact(row: Row, reference: Row | None, at_best: bool) -> Fact:
    metric = "throughput_per_s"
    if at_best and not math.isnan(row["offline_throughput_per_s"]):
        metric = "offline_throughput_per_s"
    found = interval(row, metric)
    if found is None:
        return Fact("Throughput", MISSING, ("not measured",))
    batch = row["offline_batch_size"] if metric.startswith("offline") else row["batch_size"]
    ends = span(found, per_second)
    lines = [f"{ends} at batch size {batch:.0f}" if ends else f"at batch size {batch:.0f}"]
    if reference is not None and not row["is_reference"] and reference[metric] > 0:
        lines.append(f"the reference: {per_second(reference[metric])}")
    return Fact("Throughput", per_second(found.value), tuple(lines))


def speed_fact(results: Results, row: Row, frame: pd.DataFrame, batch: int | None) -> Fact:
    """The speed-ups over the reference and the fastest floats, and the latency."""
    gains = recommendation.gains(results, str(row["trial"]), batch, frame)
    rows = rows_of(frame)
    lines = []
    for gain in gains:
        ends = span(gain.speedup, ratio)
        against = rows.get(gain.reference)
        other = name(against) if against else one_line(gain.reference)
        verdict = "" if gain.verdict in ("", Verdict.FASTER) else f"; {gain.verdict}"
        measured = f"{ratio(gain.speedup.value)}{f' ({ends})' if ends else ''}"
        lines.append(f"{measured} against {other}, {gain.versus}{verdict}")
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


def size_fact(row: Row, reference: Row | None) -> Fact:
    """The size of the files, and what part it is of the reference's."""
    lines = []
    own, theirs = row["size_bytes"], math.nan if reference is None else reference["size_bytes"]
    if reference is not None and not row["is_reference"] and own > 0 and theirs > 0:
        lines.append(f"{smaller(theirs / own)} than the reference's {size(theirs)}")
    if not math.isnan(row["size_gzip_bytes"]):
        lines.append(f"{size(row['size_gzip_bytes'])} compressed with gzip")
    return Fact("Size", shown(row, "size_bytes", size), tuple(lines))


def smaller(times: float) -> str:
    """How many times smaller, or larger.

    >>> smaller(4.0), smaller(0.5)
    ('4.00× smaller', '2.00× larger')
    """
    return f"{ratio(times)} smaller" if times >= 1 else f"{ratio(1 / times)} larger"


def quality_fact(row: Row, reference: Row | None) -> Fact:
    """The score on the test split, and the reference's."""
    write = quality_writer(row)
    found = interval(row, "quality")
    lines = []
    if found is not None and (ends := span(found, write)):
        samples = "" if math.isnan(row["quality_n"]) else f", {row['quality_n']:.0f} test samples"
        lines.append(f"{ends} with 95 % confidence{samples}")
    if why := quantities.text_of(row["quality_reason"]):
        lines.append(why)
    if reference is not None and not row["is_reference"]:
        lines.append(f"float reference: {shown(reference, 'quality', write)}")
    if not math.isnan(row["agreement"]):
        lines.append(f"same answer as float on {percent(row['agreement'])} of samples")
    return Fact("Quality", shown(row, "quality", write), tuple(lines))


def loss_fact(row: Row, limits: Constraints) -> Fact:
    """The loss of quality, the most it can be, and whether it is one at all."""
    write = loss_writer(row)
    drop, bound = interval(row, "quality_drop"), row["quality_drop_bound"]
    if drop is None:
        return Fact("Loss", MISSING, ("not measured",))
    if row["is_reference"]:
        return Fact("Loss", "none", ("it is the reference",))
    lines = []
    if ends := span(drop, write):
        lines.append(f"{ends} with 95 % confidence")
    allowed = f"{100 * limits.max_drop:g} pp"
    lines.append(f"at most {write(bound)} (one-sided 95 %), allowed {allowed}")
    lines += significance(row)
    value = f"gains {write(-drop.value)}" if drop.high < 0 else write(drop.value)
    return Fact("Loss", value, tuple(lines), "good" if bound <= limits.max_drop else "bad")


def significance(row: Row) -> tuple[str, ...]:
    """Whether the interval of a loss holds none."""
    drop = interval(row, "quality_drop")
    if drop is None or math.isnan(drop.low):
        return ()
    if drop.low <= 0 <= drop.high:
        return ("not distinguishable from no loss",)
    return ("a real loss, within what is allowed",) if drop.low > 0 else ()


def in_short(row: Row, reference: Row | None) -> str:
    """Gains and costs of a chosen trial in half a sentence; empty for the reference."""
    if row["is_reference"] or reference is None:
        return ""
    said = []
    if (times := float(row["speedup"])) > 0:
        said.append(f"{ratio(times)} faster" if times >= 1 else f"{ratio(1 / times)} slower")
    own, theirs = float(row["size_bytes"]), float(reference["size_bytes"])
    if own > 0 and theirs > 0:
        said.append(smaller(theirs / own))
    if not math.isnan(row["quality_drop_bound"]):
        said.append(f"loses at most {loss_writer(row)(row['quality_drop_bound'])}")
    return ", ".join(said)


def export_command(results: Results, trial: str, backend: str) -> str:
    """The command that writes the deployable file of a trial, quoted for a shell."""
    safe = "".join(c if c.isalnum() or c in "._=+-" else "-" for c in "-".join(_words(trial)))
    output = (safe.strip("-.") or "model")[:100] + SUFFIXES.get(backend, "")
    folder, trial = _origin(results, trial)
    return " ".join(shlex.quote(w) for w in ("quantbench", "export", folder, trial, "-o", output))


def _origin(results: Results, trial: str) -> tuple[str, str]:
    """The folder of a trial's run, and its name there."""
    part = next((part for part in parts(results) if trial in part.trials), None)
    if part is None:
        return run_folder(results.folder), trial
    return run_folder(part.folder), part.trials[trial]


def _words(trial: str) -> list[str]:
    return trial.replace("/", " ").split()


def run_folder(folder: Path) -> str:
    """A run's folder as commands name it: below the working directory where it can be."""
    with contextlib.suppress(ValueError):
        folder = folder.resolve().relative_to(Path.cwd().resolve())
    return str(folder)


# --- words of a row ------------------------------------------------------------------------------


def name(row: Row) -> str:
    """Backend and label."""
    return one_line(f"{row['backend']} {row['label']}")


def shown(row: Row, metric: str, write: Formatter) -> str:
    """A metric as text, or the sign of what is missing."""
    value = row[metric]
    return MISSING if math.isnan(value) else write(value)


def quality_writer(row: Row) -> Formatter:
    """How a quality is written: a share as such, anything else as a number."""
    return quantities.quality_writer(row["quality_unit"])


def loss_writer(row: Row) -> Formatter:
    """How a loss of quality is written."""
    return quantities.loss_writer(row["quality_unit"])


def with_size(row: Row) -> str:
    """A trial's name and, in brackets, its size."""
    return f"{name(row)} ({shown(row, 'size_bytes', size)})"
