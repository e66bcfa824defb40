"""Verdict: what to ship in words, what it gains and what it costs; of one row, ready to be shown."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantbench.analysis import (
    Constraints,
    Gain,
    MeasuredTrial,
    Resolution,
    confirmed,
    gains_of,
    recommendation,
    size_limit,
)
from quantbench.results import Results, parts
from quantbench.spec import Verdict
from quantbench.stats import Interval
from quantbench.units import (
    ABOUT,
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
    "Losses are judged together, by the upper ends of one-sided 95 % intervals on the test samples of "
    "this run, times by rounds in which both trials ran on this machine. Other data or another machine may "
    "rank differently."
)

CONFIRMED = "confirmed: these times were taken again after the choice, in fresh processes"


@dataclass(frozen=True, slots=True)
class Fact:
    """What a choice gains or costs in one respect: the figure, and sentences under it."""

    name: str
    value: str
    lines: tuple[str, ...] = ()
    tone: str = ""


def headline(row: MeasuredTrial | None) -> str:
    """What to do with a chosen trial, or that there is none."""
    if row is None:
        return "Nothing to ship"
    if row.is_reference:
        return f"Keep the float reference, {name(row)}"
    seed = f", seed {row.seed}" if row.pool is not None else ""
    if row.method == "fp32":
        return f"Ship the float model in {name(row)}{seed}"
    return f"Ship {name(row)}{seed}"


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
    results: Results,
    row: MeasuredTrial,
    trials: Sequence[MeasuredTrial],
    limits: Constraints,
    batch: int | None,
) -> tuple[Fact, ...]:
    """What a chosen trial gains and costs: speed, throughput and energy where asked, size, quality, loss.

    Parameters
    ----------
    row : MeasuredTrial
        The chosen one of ``trials``.
    trials : sequence of MeasuredTrial
        Those of its model and target at batch size ``batch``.
    """
    reference = reference_row(row, trials)
    return (
        *fact_of_objective(row, reference, limits.objective, limits.batch_size),
        speed_fact(results, row, trials, batch),
        size_fact(row, reference),
        quality_fact(row, reference),
        loss_fact(results, row, limits),
    )


def reference_row(row: MeasuredTrial, trials: Sequence[MeasuredTrial]) -> MeasuredTrial | None:
    """The trial that ``row`` is relative to."""
    return next((other for other in trials if other.trial == row.reference), None)


def fact_of_objective(
    row: MeasuredTrial, reference: MeasuredTrial | None, objective: str, batch_size: int | None
) -> tuple[Fact, ...]:
    """The energy or the throughput, where that is wanted; a latency is part of the speed."""
    if objective == "energy":
        return (_energy_fact(row, reference),)
    if objective == "throughput":
        return (_throughput_fact(row, reference, batch_size is None),)
    return ()


def _energy_fact(row: MeasuredTrial, reference: MeasuredTrial | None) -> Fact:
    found, lines = row.interval("energy_net_j"), []
    if found is None:
        return Fact("Energy", MISSING, ("not measured",))
    if ends := span(found, joules):
        lines.append(f"{ends} in the windows measured")
    if reference is not None and not row.is_reference and reference.value("energy_net_j") > 0:
        share = found.value / reference.value("energy_net_j")
        lines.append(
            f"{percent(share)} of the reference's {joules(reference.value('energy_net_j'))}"
        )
    return Fact("Energy", joules(found.value), tuple(lines))


def _throughput_fact(row: MeasuredTrial, reference: MeasuredTrial | None, at_best: bool) -> Fact:
    metric = "throughput_per_s"
    if at_best and not math.isnan(row.value("offline_throughput_per_s")):
        metric = "offline_throughput_per_s"
    found = row.interval(metric)
    if found is None:
        return Fact("Throughput", MISSING, ("not measured",))
    batch = row.offline_batch_size if metric.startswith("offline") else row.batch_size
    ends = span(found, per_second)
    lines = [f"{ends} at batch size {batch:.0f}" if ends else f"at batch size {batch:.0f}"]
    if reference is not None and not row.is_reference and reference.value(metric) > 0:
        lines.append(f"the reference: {per_second(reference.value(metric))}")
    return Fact("Throughput", shown(row, metric, per_second), tuple(lines))


def speed_fact(
    results: Results, row: MeasuredTrial, trials: Sequence[MeasuredTrial], batch: int | None
) -> Fact:
    """The speed-ups: in the same runtime, over the fastest float, over the reference; and the latency."""
    gains = gains_of(results, row.trial, batch, trials)
    by_name = {other.trial: other for other in trials}
    lines = []
    for gain in gains:
        verdict = "" if gain.verdict in ("", Verdict.FASTER) else f"; {gain.verdict}"
        measured = _with_ends(gain.quoted, ratio)
        before = f"; {ratio(gain.speedup.value)} when it was chosen" if gain.confirmed else ""
        lines.append(
            f"{measured} against {_against(gain, by_name)}, {gain.versus}{before}{verdict}"
        )
    latency = row.interval("latency_ms")
    again = confirmed(results, row.trial, "confirmed_ms")
    if again is not None and again.interval is not None and again.batch_size == batch:
        text = shown(row, "latency_ms", milliseconds)
        lines.append(
            f"{_with_ends(again.interval, milliseconds)} per inference; {text} when it was chosen"
        )
        lines.append(CONFIRMED)
    elif latency is not None:
        ends = span(latency, milliseconds)
        text = shown(row, "latency_ms", milliseconds)
        lines.append(f"{text} per inference{f' ({ends})' if ends else ''}")
        if gains and len(trials) > len(gains) + 1:
            lines.append(
                f"not confirmed: not timed again after it was chosen of {len(trials)} trials"
            )
    if not gains:
        value = "the reference" if row.is_reference else MISSING
        return Fact("Speed", value, tuple(lines))
    first = gains[0].quoted.value
    return Fact("Speed", faster(first), tuple(lines), "good" if first >= 1 else "bad")


def _with_ends(interval: Interval, write: Formatter) -> str:
    """A value with its interval in brackets; ``about`` where it has none."""
    ends = span(interval, write)
    return f"{write(interval.value)} ({ends})" if ends else f"{ABOUT}{write(interval.value)}"


def faster(times: float) -> str:
    """How many times faster, or slower.

    >>> faster(4.0), faster(0.5)
    ('4.00× faster', '2.00× slower')
    """
    return f"{ratio(times)} faster" if times >= 1 else f"{ratio(1 / times)} slower"


def _against(gain: Gain, trials: Mapping[str, MeasuredTrial]) -> str:
    """The name of the float trial of a gain."""
    known = trials.get(gain.reference)
    return name(known) if known else one_line(gain.reference)


def size_fact(row: MeasuredTrial, reference: MeasuredTrial | None) -> Fact:
    """The size of the files, and what part it is of the reference's."""
    lines = []
    own, theirs = (
        row.value("size_bytes"),
        math.nan if reference is None else reference.value("size_bytes"),
    )
    if reference is not None and not row.is_reference and own > 0 and theirs > 0:
        lines.append(f"{smaller(theirs / own)} than the reference's {size(theirs)}")
    if not math.isnan(row.value("size_gzip_bytes")):
        lines.append(f"{size(row.value('size_gzip_bytes'))} compressed with gzip")
    return Fact("Size", shown(row, "size_bytes", size), tuple(lines))


def smaller(times: float) -> str:
    """How many times smaller, or larger.

    >>> smaller(4.0), smaller(0.5)
    ('4.00× smaller', '2.00× larger')
    """
    return f"{ratio(times)} smaller" if times >= 1 else f"{ratio(1 / times)} larger"


def quality_fact(row: MeasuredTrial, reference: MeasuredTrial | None) -> Fact:
    """The score on the test split, and the reference's."""
    write = quality_writer(row)
    found = row.interval("quality")
    lines = []
    if found is not None and (ends := span(found, write)):
        n = row.of("quality").n
        samples = "" if n is None else f", {n} test samples"
        lines.append(f"{ends} with 95 % confidence{samples}")
    if why := row.of("quality").reason:
        lines.append(why)
    if reference is not None and not row.is_reference:
        lines.append(f"float reference: {shown(reference, 'quality', write)}")
    if not math.isnan(row.value("agreement")):
        lines.append(f"same answer as float on {percent(row.value('agreement'))} of samples")
    return Fact("Quality", shown(row, "quality", write), tuple(lines))


def loss_fact(results: Results, row: MeasuredTrial, limits: Constraints) -> Fact:
    """The loss of quality, the most it can be, and whether it is one at all."""
    write = loss_writer(row)
    drop, bound = row.interval("quality_drop"), row.value("quality_drop_bound")
    if drop is None:
        return Fact("Loss", MISSING, ("not measured",))
    if row.is_reference:
        return Fact("Loss", "none", ("it is the reference",))
    lines = []
    over = "" if row.loss is None else recommendation.mean_of(row.loss)
    if ends := span(drop, write):
        lines.append(f"{ends} with 95 % confidence{over}")
    allowed = f"{100 * limits.max_drop:g} pp"
    lines.append(f"at most {write(bound)} (one-sided 95 %), allowed {allowed}")
    lines += [*significance(row), *_confirmed_loss(results, row), *seeds_line(row)]
    value = f"gains {write(-drop.value)}" if drop.high < 0 else write(drop.value)
    return Fact("Loss", value, tuple(lines), "good" if bound <= limits.max_drop else "bad")


def _confirmed_loss(results: Results, row: MeasuredTrial) -> tuple[str, ...]:
    """What a choice loses on samples that took no part in it, where its task has such."""
    drop, bound = (
        confirmed(results, row.trial, f"confirmed_drop{which}") for which in ("", "_bound")
    )
    if drop is None or bound is None:
        return ()
    write = loss_writer(row)
    return (
        f"confirmed: {write(drop.value)}, at most {write(bound.value)}, on {drop.n} samples that took "
        "no part in the choice",
    )


def significance(row: MeasuredTrial) -> tuple[str, ...]:
    """Whether the interval of a loss holds none."""
    drop = row.interval("quality_drop")
    if drop is None or math.isnan(drop.low):
        return ()
    if drop.low <= 0 <= drop.high:
        return ("not distinguishable from no loss",)
    return ("a real loss, within what is allowed",) if drop.low > 0 else ()


def seeds_line(row: MeasuredTrial) -> tuple[str, ...]:
    """Which seed a trial is, of those that it stands for, and how the others fared."""
    if row.pool is None:
        return ()
    known, left = row.pool.losses, row.pool.left_out
    out = f"; {left} more may not be shipped" if left else ""
    others = sorted(loss for seed, loss in known.items() if seed != row.seed)
    if not others:
        return (f"seed {row.seed}, the only one that may be shipped{out}",)
    ends = [f"{100 * loss:.2f}".replace("-", "−") for loss in (others[0], others[-1])]
    lose = ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
    return (f"seed {row.seed}, the median of {len(known)}; the others lose {lose} points{out}",)


def in_short(
    results: Results, row: MeasuredTrial, trials: Sequence[MeasuredTrial], batch: int | None
) -> str:
    """Gains and costs of a chosen trial in half a sentence, each with what it is over; empty for the reference.

    Parameters are those of `speed_fact`.
    """
    reference = reference_row(row, trials)
    if row.is_reference or reference is None:
        return ""
    by_name = {other.trial: other for other in trials}
    said = [
        f"{faster(gain.quoted.value)} than {_against(gain, by_name)} ({gain.versus})"
        for gain in gains_of(results, row.trial, batch, trials)
    ]
    own, theirs = row.value("size_bytes"), reference.value("size_bytes")
    if own > 0 and theirs > 0:
        said.append(smaller(theirs / own))
    if not math.isnan(row.value("quality_drop_bound")):
        said.append(f"loses at most {loss_writer(row)(row.value('quality_drop_bound'))}")
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


def resolution_sentence(found: Resolution | None) -> str:
    """What the test samples can tell of losses, and how many the limit would take; empty where nothing is known."""
    if found is None:
        return ""
    together = "" if found.judged < 2 else f", {found.judged} judged together"
    first = (
        f"Resolution: {found.samples} test samples can show a limit of {_points(found.shown)} points "
        f"for a method that loses nothing{together} (in 4 runs of 5)"
    )
    if found.needed is None:
        return f"{first}; a limit of 0 can never be shown."
    limit = points_limit(found.limit)
    if not found.possible and found.never is not None:
        return (
            f"{first}, and never {limit}: {_points(found.never)} points are the least, though no "
            f"answer changes. About {found.needed} samples would do."
        )
    if found.needed > found.samples:
        return f"{first}; {limit} would take about {found.needed} samples."
    return f"{first}; {limit} takes about {found.needed}."


def _points(share: float) -> str:
    """A loss in points, rounded up: no smaller limit is promised.

    >>> _points(0.01151), _points(0.25)
    ('1.16', '25')
    """
    return f"{math.ceil(round(1e4 * share, 6)) / 100:g}"


# --- words of a row ------------------------------------------------------------------------------


def name(row: MeasuredTrial) -> str:
    """Backend and label."""
    return one_line(f"{row.backend} {row.label}")


def shown(row: MeasuredTrial, metric: str, write: Formatter) -> str:
    """A metric as text, or the sign of what is missing."""
    value = row.value(metric)
    about = ABOUT if row.about(metric) else ""
    return MISSING if math.isnan(value) else f"{about}{write(value)}"


def quality_writer(row: MeasuredTrial) -> Formatter:
    """How a quality is written: a share as such, anything else as a number."""
    return quantities.quality_writer(row.of("quality").unit)


def loss_writer(row: MeasuredTrial) -> Formatter:
    """How a loss of quality is written."""
    return quantities.loss_writer(row.of("quality").unit)


def with_size(row: MeasuredTrial) -> str:
    """A trial's name and, in brackets, its size."""
    return f"{name(row)} ({shown(row, 'size_bytes', size)})"
