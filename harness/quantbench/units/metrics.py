"""Metrics: what each measurement of a run is, in one table that everything else is derived from.

The columns of the trial table, the report's further columns, heat maps and glossary, the objectives of a
choice, what runs are compared by, what ``low`` and ``high`` mean, and the table in docs/results.md follow
from `METRICS`. A new metric of scored
outputs is one entry with ``of``: it is then assembled, shown and documented.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from quantbench.spec import TIMED, Scenario, Spread
from quantbench.stats import Fidelity, Interval, Outcome, calibration_error, statistics
from quantbench.units.quantities import (
    Formatter,
    decibels,
    joules,
    milliseconds,
    number,
    per_second,
    percent,
    ratio,
    seconds,
    size,
)


class Better(StrEnum):
    """Which way a metric is better."""

    MORE = "more"
    LESS = "less"


class Change(StrEnum):
    """How two values of a metric are compared: as a difference, or relative to the first."""

    POINTS = "pp"
    PERCENT = "%"
    DECIBELS = "dB"


@dataclass(frozen=True, slots=True)
class Wish:
    """How a metric is asked for when a trial is chosen: "the fastest of 7", "3 that tie as the fastest".

    ``name``: the objective. ``ahead``: what a trial is that is better by it.
    """

    name: str
    best: str
    tie: str
    ahead: str


@dataclass(frozen=True, slots=True)
class Heat:
    """How a metric is called in a heat map: the title of a panel, and the words of a caption."""

    title: str
    words: str


Scored = Callable[[Outcome, Outcome, Fidelity | None], Interval | float | str | None]
"""Own outcome, the float reference's on the same samples, own fidelity: the value; None for none.

A text is why there should be one and is not.
"""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric of ``measurements.parquet``.

    Parameters
    ----------
    name, unit : str
        As in the table.
    help : str
        What it is, in one line.
    scenarios : tuple of Scenario
        Where it stands.
    better : Better or None
        None where more is neither better nor worse.
    spread : Spread or None
        What ``low`` and ``high`` are; None where it has neither.
    write : callable
        Value to text.
    change : Change or None
        How runs are compared by it; None where they are not.
    column : str
        In the trial table it is a column of this name (of the scenario that stands first); empty for
        none.
    title : str
        In the report's table of trials it is a column under this title, where nothing else shows it.
    of : callable or None
        Computes it of scored outputs.
    wish : Wish or None
        How it is an objective, where it is one.
    heat : Heat or None
        How heat maps show it, where they do.
    """

    name: str
    unit: str
    help: str
    scenarios: tuple[Scenario, ...]
    better: Better | None = None
    spread: Spread | None = None
    write: Formatter = number
    change: Change | None = None
    column: str = ""
    title: str = ""
    of: Scored | None = None
    wish: Wish | None = None
    heat: Heat | None = None


def _agreement(own: Outcome, full: Outcome, near: Fidelity | None) -> Interval | None:
    if not own.classes:
        return None
    return statistics.wilson(int((own.prediction == full.prediction).sum()), len(own.outcome))


def _flips(own: Outcome, full: Outcome, near: Fidelity | None) -> Interval | None:
    if not own.classes:
        return None
    right, before = own.prediction == own.label, full.prediction == full.label
    return statistics.wilson(int(np.sum(right != before)), len(right))


def _kl_divergence(own: Outcome, full: Outcome, near: Fidelity | None) -> float | str | None:
    if near is None or near.kl is None:
        return None
    return near.kl_divergence if np.isfinite(near.kl_divergence) else "some output gives no probability to what float thinks possible"  # fmt: skip


def _distributed(of: Callable[[Outcome, Outcome], Interval | float]) -> Scored:
    """A metric of predicted distributions; ``of`` of own outcome and the float reference's."""

    def found(own: Outcome, full: Outcome, near: Fidelity | None) -> Interval | float | str | None:
        if own.confidence is None or full.confidence is None:
            return None
        if without := int(np.isnan(own.confidence).sum()):
            return f"{without} of {len(own.confidence)} outputs are no distribution: not finite, or 0 for every class"
        return of(own, full)

    return found


_A, _S, _M = (Scenario.ARTIFACT,), (Scenario.SCORE,), (Scenario.MEMORY,)
_CI, _RANGE = Spread.CONFIDENCE, Spread.RANGE
_MORE, _LESS = Better.MORE, Better.LESS

_SPECS = (
    MetricSpec("size_bytes", "byte", "bytes of all files needed at run time", _A, _LESS, None, size, Change.PERCENT, "size_bytes", wish=Wish("size", "the smallest", "tie as the smallest", "Smaller")),
    MetricSpec("size_gzip_bytes", "byte", "the same files, each compressed by gzip at its best", _A, _LESS, None, size, Change.PERCENT, "size_gzip_bytes"),
    MetricSpec("weight_bytes", "byte", "bytes of stored weights", _A, _LESS, None, size, Change.PERCENT, "weight_bytes"),
    MetricSpec("weight_bytes_<dtype>", "byte", "of those, the ones of a dtype", _A, None, None, size),
    MetricSpec("compression", "ratio", "size of the same backend's float file over this one's", _A, _MORE, None, ratio, None, "compression", heat=Heat("times smaller", "times smaller than the backend's float file")),
    MetricSpec("integer_macs_fraction", "fraction", "share of the multiply-accumulates that the runtime executes on integers", _A, _MORE, None, percent, Change.POINTS, "integer_macs_fraction"),
    MetricSpec("activation_bytes", "byte", "largest sum of bytes of activations that are live at once, of one sample", _A, _LESS, None, size, Change.PERCENT, "activation_bytes"),
    *(
        MetricSpec(f"{level}_{what}_fraction", "fraction", f"share of {words} in integers, {where}", _A, None, None, percent)
        for level, where in (("requested", "as the method asks"), ("serialized", "as the file says"), ("executed", "as the runtime does it"))
        for what, words in (("nodes", "nodes that multiply"), ("weights", "weights"), ("macs", "multiply-accumulates"))
        if (level, what) != ("executed", "macs")
    ),
    MetricSpec("observed_rss_bytes", "byte", "memory of the pass that observed activations, above the loaded model; where ranges are injected", (Scenario.CALIBRATION,), _LESS, None, size),
    MetricSpec("quality", "of the task", "the task's metric on the test split", _S, _MORE, _CI, percent, Change.POINTS, "quality"),
    MetricSpec("quality_drop", "of the task", "quality of the reference minus this one's, on the same samples", _S, _LESS, _CI, percent, None, "quality_drop", heat=Heat("loss, points", "loss of quality")),
    MetricSpec("quality_drop_bound", "of the task", "one-sided 95 % upper bound of the drop", _S, _LESS, None, percent, None, "quality_drop_bound"),
    MetricSpec("quality_p", "probability", "two-sided p-value of no drop", _S),
    MetricSpec("quality_kept", "of the task", "share of the reference's quality that is kept; low by the one-sided bound", _S, _MORE, Spread.BOUND, percent, None, "quality_kept"),
    MetricSpec("agreement", "fraction", "share of samples answered as the float reference does", _S, _MORE, _CI, percent, Change.POINTS, "agreement", of=_agreement),
    MetricSpec("flips", "fraction", "share of samples that are right in one of the two and wrong in the other", _S, _LESS, _CI, percent, None, "flips", of=_flips),
    MetricSpec("sqnr_db", "dB", "power of the float outputs over the power of the error, of the output where it is smallest", _S, _MORE, None, decibels, Change.DECIBELS, "sqnr_db", of=lambda own, full, near: None if near is None else near.sqnr_db),
    MetricSpec("cosine", "ratio", "cosine of the angle between the outputs and the float reference's", _S, _MORE, of=lambda own, full, near: None if near is None else near.cosine),
    MetricSpec("kl_divergence", "nat", "mean Kullback-Leibler divergence of the predicted distributions from the reference's", _S, _LESS, of=_kl_divergence),
    MetricSpec("ece", "fraction", "expected calibration error: mean distance of accuracy and confidence over 15 bins of confidence", _S, _LESS, None, percent, None, "ece", of=_distributed(lambda own, full: calibration_error.expected_calibration_error(own))),
    MetricSpec("ece_by_chance", "fraction", "what chance makes of that: 95 % of calibrated models of these confidences have less", _S, None, None, percent, None, "ece_by_chance", of=_distributed(lambda own, full: calibration_error.error_by_chance(own))),
    MetricSpec("brier", "ratio", "Brier score: mean squared distance of the predicted distribution to the label, 0 to 2", _S, _LESS, _CI, number, None, "brier", of=_distributed(lambda own, full: calibration_error.brier_score(own))),
    MetricSpec("brier_rise", "ratio", "the score above the float reference's, on the same samples", _S, _LESS, _CI, number, None, "brier_rise", of=_distributed(calibration_error.brier_rise)),
    MetricSpec("ties", "count", "samples whose answer depends on a rule for ties", _S, _LESS),
    MetricSpec("quality_over_tie_rules", "fraction", "quality by the worst rule for ties, and by the best", _S, None, Spread.TIE_RULES, percent),
    MetricSpec("worst_class_drop", "fraction", "the drop of the class that loses most", _S, _LESS, _CI, percent, None, "worst_class_drop"),
    MetricSpec("fake_quantized_quality", "of the task", "of QAT: quality before conversion", _S, _MORE, _CI, percent),
    MetricSpec("control_drop", "of the task", "of QAT: quality of the float fine-tune of the same recipe and seed minus this one's", _S, _LESS, _CI, percent),
    MetricSpec("control_drop_bound", "of the task", "its one-sided 95 % upper bound", _S, _LESS, None, percent),
    MetricSpec("control_kept", "of the task", "share of the fine-tune's quality that is kept; low by the one-sided bound", _S, _MORE, Spread.BOUND, percent),
    MetricSpec("control_p", "probability", "two-sided p-value of no such drop", _S),
    MetricSpec("seeds_quality", "of the task", "mean quality over the seeds, on the first seed's trial", (Scenario.SEEDS,), _MORE, _CI, percent),
    MetricSpec("seeds_control_drop", "of the task", "mean drop against the fine-tunes over the seeds", (Scenario.SEEDS,), _LESS, _CI, percent),
    MetricSpec("seeds_control_drop_bound", "of the task", "its one-sided 95 % upper bound", (Scenario.SEEDS,), _LESS, None, percent),
    MetricSpec("peak_rss_bytes", "byte", "peak resident memory: of fresh processes that load and run it, of the one that scored, of the timed ones", (Scenario.MEMORY, Scenario.SCORE, *TIMED), _LESS, _RANGE, size, None, "peak_rss_bytes"),
    MetricSpec("model_rss_bytes", "byte", "the peak above what the runtime's imports take", _M, _LESS, _RANGE, size, None, "model_rss_bytes"),
    MetricSpec("runtime_rss_bytes", "byte", "resident after the runtime's imports", _M, _LESS, _RANGE, size, None, "runtime_rss_bytes"),
    MetricSpec("load_peak_rss_bytes", "byte", "peak while loading", _M, _LESS, _RANGE, size),
    MetricSpec("run_peak_rss_bytes", "byte", "peak while running", _M, _LESS, _RANGE, size),
    *(
        MetricSpec(f"{point}_{part}_bytes", "byte", f"{words} after {when}", _M, _LESS, _RANGE, size)
        for point, when in (("imports", "the imports"), ("load", "loading"), ("run", "the runs"))
        for part, words in (("pss", "proportional share of memory"), ("pss_anon", "of that, anonymous"), ("pss_file", "of that, of files"), ("private_dirty", "private memory that was written"))
    ),
    MetricSpec("load_ms", "ms", "from the file to a session that is ready", (Scenario.START,), _LESS, _RANGE, milliseconds, None, "load_ms"),
    MetricSpec("first_inference_ms", "ms", "the first inference of a process", (Scenario.START,), _LESS, _RANGE, milliseconds, None, "first_inference_ms"),
    MetricSpec("energy_j", "J", "joules of an inference, idle power included", (Scenario.ENERGY,), _LESS, _RANGE, joules),
    MetricSpec("energy_net_j", "J", "joules of an inference beyond what the machine takes anyway", (Scenario.ENERGY,), _LESS, _RANGE, joules, None, "energy_net_j", wish=Wish("energy", "the one that takes the least energy", "tie for the least energy", "Less energy")),
    MetricSpec("latency_ms", "ms", "median time of an inference call", TIMED, _LESS, _CI, milliseconds, Change.PERCENT, "latency_ms", wish=Wish("latency", "the fastest", "tie as the fastest", "Faster")),
    MetricSpec("latency_p90_ms", "ms", "90th percentile of the calls of a process, in half of all processes; high by an order statistic of the generations", TIMED, _LESS, Spread.BOUND, milliseconds, None, "latency_p90_ms"),
    MetricSpec("latency_p99_ms", "ms", "the same of the 99th percentile", TIMED, _LESS, Spread.BOUND, milliseconds, None, "latency_p99_ms"),
    MetricSpec("throughput_per_s", "1/s", "samples a second", TIMED, _MORE, _CI, per_second, None, "throughput_per_s", wish=Wish("throughput", "the one of the highest throughput", "tie for the highest throughput", "Higher throughput")),
    MetricSpec("speedup", "ratio", "time of a float trial over this one's, paired in rounds; a row for each float trial of the comparison", TIMED, _MORE, _CI, ratio, Change.PERCENT, "speedup", heat=Heat("speed-up", "speed-up over the float reference")),
    MetricSpec("confirmed_quality", "of the task", "of what was chosen, on samples that took no part in the choice (split confirmation)", (Scenario.CONFIRMATION,), _MORE, _CI, percent),
    MetricSpec("confirmed_drop", "of the task", "quality of the reference minus that, on the same samples", (Scenario.CONFIRMATION,), _LESS, _CI, percent),
    MetricSpec("confirmed_drop_bound", "of the task", "one-sided 95 % upper bound of that drop", (Scenario.CONFIRMATION,), _LESS, None, percent),
    MetricSpec("confirmed_ms", "ms", "median time of an inference call of what was chosen, timed again after that", (Scenario.CONFIRMATION,), _LESS, Spread.SESSION, milliseconds),
    MetricSpec("confirmed_speedup", "ratio", "time of a float trial over that of what was chosen, both timed again after that", (Scenario.CONFIRMATION,), _MORE, Spread.SESSION, ratio),
    MetricSpec("end_to_end_ms", "ms", "median time of a call with binding its inputs and reading its outputs, from rounds of its own", TIMED[:2], _LESS, _CI, milliseconds, None, "end_to_end_ms"),
    MetricSpec("cpu_s_per_inference", "s", "processor time of a sample, of the timed calls alone", TIMED, _LESS, None, seconds),
    MetricSpec("cpu_share", "ratio", "processor time over wall time of the same calls: 1 for one busy thread", TIMED, None, None, ratio),
    MetricSpec("aa_control", "ratio", "the reference over itself under another name: the noise of the comparison", TIMED, None, _CI, ratio),
    MetricSpec("clock_overhead", "fraction", "share of the comparison's time that is the harness's own", TIMED, _LESS, None, percent),
)  # fmt: skip

METRICS: Mapping[str, MetricSpec] = {spec.name: spec for spec in _SPECS}
"""Every metric, by name."""


def spec_of(metric: str) -> MetricSpec | None:
    """The entry of a metric; None for one that nobody has described."""
    found = METRICS.get(metric)
    if found is None and metric.startswith("weight_bytes_"):
        return METRICS["weight_bytes_<dtype>"]
    return found


def spread_of(metric: str, scenario: str) -> Spread | None:
    """What ``low`` and ``high`` of a measurement mean, where it has them.

    >>> str(spread_of("peak_rss_bytes", "memory")), str(spread_of("speedup", "offline"))
    ('range of the repetitions', '95 % confidence')
    """
    found = spec_of(metric)
    return Spread.CONFIDENCE if found is None or found.spread is None else found.spread


def as_table() -> str:
    """Markdown: every metric with its scenarios, unit, the meaning of its ends, and what it is."""
    lines = ["| metric | scenario | unit | low and high | what |", "|---|---|---|---|---|"]
    for spec in _SPECS:
        where = ", ".join(spec.scenarios)
        lines.append(
            f"| `{spec.name}` | {where} | {spec.unit} | {spec.spread or ''} | {spec.help} |"
        )
    return "\n".join(lines) + "\n"
