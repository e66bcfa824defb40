"""Training: what was trained in a run, how its loss fell, and what it gained against its control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantbench.report.drawing.losses import losses
from quantbench.report.drawing.svg import Picture
from quantbench.report.sections.section import Section
from quantbench.results import Results
from quantbench.units import MISSING, one_line, plain, points

Row = Mapping[str, Any]
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


def training(results: Results, frame: pd.DataFrame) -> Training | None:
    """The section, or None where nothing was trained.

    Parameters
    ----------
    frame : DataFrame
        Of `quantbench.analysis.trial_table.trial_frame`.
    """
    trained = frame[frame["training"] != "ptq"] if len(frame) else frame
    if trained.empty:
        return None
    steps = results.training.merge(
        trained[["trial", "backend", "label", "seed"]], on="trial", how="inner"
    )
    steps = steps.assign(method=steps["backend"] + " " + steps["label"])
    picture = losses(steps, name="losses") if len(steps) else None
    keys = ["model", "target", "backend", "label"]
    quantized = trained[trained["training"] == "qat"]
    told = trained if quantized.empty else quantized  # fine-tunes are the controls of these
    groups = [group for _, group in told.groupby(keys, sort=False)]
    return Training(picture, tuple(_row(results, frame, group) for group in groups))


def _row(results: Results, frame: pd.DataFrame, group: pd.DataFrame) -> TrainingRow:
    first = {str(k): v for k, v in group.iloc[0].items()}
    write = two_digits if first["quality_unit"] in ("", "fraction") else plain
    lose = points if first["quality_unit"] in ("", "fraction") else plain
    trials = list(group["trial"])
    several = _first(results, trials, "seeds_control_drop")
    drop = several or _first(results, trials, "control_drop")
    bound = _first(results, trials, f"{'seeds_' if several else ''}control_drop_bound")
    controls = [_measured(results, trial, "control_drop") for trial in trials]
    names = [str(c["reference"]) for c in controls if c]
    before = frame[frame["trial"].isin(names)]["quality"]
    minutes = group["trained_s"].dropna() / 60
    verdict = str(drop.get("verdict") or "") if drop else ""
    return TrainingRow(
        backend=one_line(first["backend"]),
        label=one_line(first["label"]),
        seeds=", ".join(str(seed) for seed in sorted(group["seed"])),
        minutes=MISSING if minutes.empty else f"{minutes.mean():.1f}",
        qualities=(
            _spread(_post_training(frame, first), write),
            _spread(_each(results, trials, "fake_quantized_quality"), write),
            _spread(list(group["quality"].dropna()), write),
            _spread(list(before.dropna()), write),
        ),
        drop=lose(drop["value"]) if drop else MISSING,
        bound=f"at most {lose(bound['value'])}" if bound else "",
        verdict=verdict,
        tone={"keeps": "good", "loses": "bad"}.get(verdict, ""),
    )


def two_digits(x: float) -> str:
    """A share with two digits behind the point: trainings differ in the second.

    >>> two_digits(0.91634)
    '91.63 %'
    """
    return f"{100 * x:.2f} %"


def _post_training(frame: pd.DataFrame, row: Row) -> list[float]:
    """Quality of what differs from a QAT in nothing but that it was not trained."""
    if row["training"] != "qat":
        return []
    same = frame["training"].eq("ptq") & frame["scales"].eq("static")
    for axis in ("model", "target", "backend", "weights", "granularity"):
        same &= frame[axis].eq(row[axis])
    for axis in ("keep_float", "int4_weights", "int4_activations"):
        wanted = _names(row[axis])
        same &= frame[axis].map(lambda value, wanted=wanted: _names(value) == wanted)
    found = frame[same & frame["quality"].notna()]
    route = found[found["route"] == row["route"]]
    if route.empty:  # a training that another framework's artifact is made from has its route
        route = found[found["label"].eq(found["method"])]
    return list(route["quality"])


def _names(value: Any) -> tuple[str, ...]:
    return () if value is None or isinstance(value, float) else tuple(map(str, value))


def _measured(results: Results, trial: str, metric: str) -> Row | None:
    rows = results.measurements
    found = rows[(rows["trial"] == trial) & (rows["metric"] == metric)].dropna(subset=["value"])
    return None if found.empty else {str(k): v for k, v in found.iloc[0].items()}


def _first(results: Results, trials: Sequence[str], metric: str) -> Row | None:
    known = (_measured(results, trial, metric) for trial in trials)
    return next((row for row in known if row), None)


def _each(results: Results, trials: Sequence[str], metric: str) -> list[float]:
    known = (_measured(results, trial, metric) for trial in trials)
    return [float(row["value"]) for row in known if row]


def _spread(values: Sequence[float], write: Any) -> Spread:
    """The mean, and the least and the most where there are several."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Spread(MISSING)
    ends = f"{write(min(known))} to {write(max(known))}" if len(known) > 1 else ""
    return Spread(write(sum(known) / len(known)), ends)


SECTION = Section(
    "training", "Training", "Training", 30,
    lambda seen: training(seen.results, seen.frame), "training.html.j2",
)  # fmt: skip
