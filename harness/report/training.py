"""Training: what was trained in a run, how its loss fell, and what it gained against its control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.report import figures
from harness.report.figures import Picture
from harness.report.quantities import MISSING, one_line, percent, plain, points
from harness.results import Results

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One method of one backend, all its seeds together; texts ready to be shown."""

    backend: str
    label: str
    seeds: str
    minutes: str
    post_training: str
    fake_quantized: str
    converted: str
    control: str
    drop: str
    verdict: str
    tone: str


@dataclass(frozen=True, slots=True)
class Training:
    """The section on training."""

    picture: Picture | None
    rows: tuple[TrainingRow, ...]


def training(results: Results, frame: pd.DataFrame) -> Training | None:
    """The section, or None where nothing was trained.

    Parameters
    ----------
    frame : DataFrame
        Of `harness.advice.trial_frame`.
    """
    trained = frame[frame["training"] != "ptq"] if len(frame) else frame
    if trained.empty:
        return None
    steps = results.training.merge(
        trained[["trial", "backend", "label", "seed"]], on="trial", how="inner"
    )
    steps = steps.assign(method=steps["backend"] + " " + steps["label"])
    picture = figures.losses(steps, name="losses") if len(steps) else None
    keys = ["model", "target", "backend", "label"]
    groups = [group for _, group in trained.groupby(keys, sort=False)]
    return Training(picture, tuple(_row(results, frame, group) for group in groups))


def _row(results: Results, frame: pd.DataFrame, group: pd.DataFrame) -> TrainingRow:
    first = {str(k): v for k, v in group.iloc[0].items()}
    write = percent if first["quality_unit"] in ("", "fraction") else plain
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
    said = f"{lose(drop['value'])}" if drop else MISSING
    if drop and bound:
        said += f", at most {lose(bound['value'])}"
    return TrainingRow(
        backend=one_line(first["backend"]),
        label=one_line(first["label"]),
        seeds=", ".join(str(seed) for seed in sorted(group["seed"])),
        minutes=MISSING if minutes.empty else f"{minutes.mean():.1f}",
        post_training=_spread(_post_training(frame, first), write),
        fake_quantized=_spread(_each(results, trials, "fake_quantized_quality"), write),
        converted=_spread(list(group["quality"].dropna()), write),
        control=_spread(list(before.dropna()), write),
        drop=said,
        verdict=verdict,
        tone={"keeps": "good", "loses": "bad"}.get(verdict, ""),
    )


def _post_training(frame: pd.DataFrame, row: Row) -> list[float]:
    """Quality of what differs from a QAT in nothing but that it was not trained."""
    if row["training"] != "qat":
        return []
    same = frame["training"].eq("ptq") & frame["scales"].eq("static")
    for axis in ("model", "target", "backend", "weights", "activations", "granularity", "route"):
        same &= frame[axis].eq(row[axis])
    for axis in ("keep_float", "int4_weights", "int4_activations"):
        wanted = _names(row[axis])
        same &= frame[axis].map(lambda value, wanted=wanted: _names(value) == wanted)
    return list(frame.loc[same, "quality"].dropna())


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


def _spread(values: Sequence[float], write: Any) -> str:
    """The mean, and the least and the most where there are several."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return MISSING
    mean = write(sum(known) / len(known))
    return mean if len(known) < 2 else f"{mean} ({write(min(known))} to {write(max(known))})"
