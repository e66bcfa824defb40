"""Training: what was trained in a run, how its loss fell, and what it gained against its control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantbench.analysis import MeasuredTrial
from quantbench.report.drawing.losses import losses
from quantbench.report.drawing.svg import Picture
from quantbench.report.glossary import VERDICT_TONE
from quantbench.report.sections.section import Section
from quantbench.results import Measurement, Results, rows
from quantbench.units import MISSING, one_line, plain, points

QUALITIES = ("Post-training", "Fake-quantized", "Converted", "Float fine-tune")
"""What a row tells the quality of: untrained, before and after conversion, and the control."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean, and from what to what it goes where there are several."""

    mean: str
    ends: str = ""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One method of one backend, all its seeds together; texts ready to be shown."""

    backend: str
    label: str
    seeds: str
    minutes: str
    qualities: tuple[Spread, ...]
    drop: str
    bound: str
    verdict: str
    tone: str


@dataclass(frozen=True, slots=True)
class Training:
    """The section on training."""

    picture: Picture | None
    rows: tuple[TrainingRow, ...]
    qualities: tuple[str, ...] = QUALITIES


def training(
    results: Results, trials: Sequence[MeasuredTrial], frame: pd.DataFrame
) -> Training | None:
    """The section, or None where nothing was trained.

    Parameters
    ----------
    trials, frame
        All of the run; the same as a frame.
    """
    trained = [row for row in trials if row.training != "ptq"]
    if not trained:
        return None
    names = frame.loc[frame["training"] != "ptq", ["trial", "backend", "label", "seed"]]
    steps = results.training.merge(names, on="trial", how="inner")
    steps = steps.assign(method=steps["backend"] + " " + steps["label"])
    picture = losses(steps, name="losses") if len(steps) else None
    # fine-tunes are the controls of what was trained with fake quantization
    told = [row for row in trained if row.training == "qat"] or trained
    groups: dict[tuple[str, ...], list[MeasuredTrial]] = {}
    for row in told:
        groups.setdefault((row.model, row.target, row.backend, row.label), []).append(row)
    measured: dict[str, dict[str, Measurement]] = {}
    for found in rows(Measurement, results.measurements):
        if found.known:
            measured.setdefault(found.trial, {}).setdefault(found.metric, found)
    return Training(picture, tuple(_row(trials, group, measured) for group in groups.values()))


def _row(
    trials: Sequence[MeasuredTrial],
    group: Sequence[MeasuredTrial],
    measured: Mapping[str, Mapping[str, Measurement]],
) -> TrainingRow:
    first = group[0]
    share = first.of("quality").unit in ("", "fraction")
    write, lose = (two_digits, points) if share else (plain, plain)

    def each(metric: str) -> list[Measurement]:
        own = (measured.get(row.trial, {}).get(metric) for row in group)
        return [found for found in own if found is not None]

    several = each("seeds_control_drop")
    drop = next(iter(several or each("control_drop")), None)
    bound = next(iter(each(f"{'seeds_' if several else ''}control_drop_bound")), None)
    controls = {found.reference for found in each("control_drop")}
    minutes = [row.trained_s / 60 for row in group if not math.isnan(row.trained_s)]
    verdict = drop.verdict if drop else ""
    return TrainingRow(
        backend=one_line(first.backend),
        label=one_line(first.label),
        seeds=", ".join(map(str, sorted(row.seed for row in group))),
        minutes=f"{sum(minutes) / len(minutes):.1f}" if minutes else MISSING,
        qualities=(
            _spread(_post_training(trials, first), write),
            _spread([found.value for found in each("fake_quantized_quality")], write),
            _spread([row.value("quality") for row in group], write),
            _spread([row.value("quality") for row in trials if row.trial in controls], write),
        ),
        drop=lose(drop.value) if drop else MISSING,
        bound=f"at most {lose(bound.value)}" if bound else "",
        verdict=verdict,
        tone=VERDICT_TONE.get(verdict, ""),
    )


def two_digits(x: float) -> str:
    """A share with two digits behind the point: trainings differ in the second.

    >>> two_digits(0.91634)
    '91.63 %'
    """
    return f"{100 * x:.2f} %"


_SAME = ("weights", "granularity", "keep_float", "int4_weights", "int4_activations")


def _post_training(trials: Sequence[MeasuredTrial], row: MeasuredTrial) -> list[float]:
    """Quality of what differs from a QAT in nothing but that it was not trained."""
    if row.training != "qat":
        return []
    found = [
        other
        for other in trials
        if (other.training, other.axes["scales"]) == ("ptq", "static")
        and (other.model, other.target, other.backend) == (row.model, row.target, row.backend)
        and all(other.axes[axis] == row.axes[axis] for axis in _SAME)
        and other.of("quality").known
    ]
    # a training that another framework's artifact is made from has its route
    plain = [other for other in found if other.label == other.method]
    routed = [other for other in found if other.route == row.route]
    return [other.value("quality") for other in routed or plain]


def _spread(values: Sequence[float], write: Any) -> Spread:
    """The mean, and the least and the most where there are several."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Spread(MISSING)
    ends = f"{write(min(known))} to {write(max(known))}" if len(known) > 1 else ""
    return Spread(write(sum(known) / len(known)), ends)


SECTION = Section(
    "training", "Training", "Training", 30,
    lambda seen: training(seen.results, seen.trials, seen.frame), "training.html.j2",
)  # fmt: skip
