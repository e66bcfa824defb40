"""Distributions: the times of the rounds behind each latency, and how they moved meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quantbench.analysis import Choice, pareto
from quantbench.report.drawing import traces
from quantbench.report.drawing.svg import Picture
from quantbench.report.sections.section import Section
from quantbench.results import Results, TrialRow, rows
from quantbench.spec import Scenario
from quantbench.stats import bursts
from quantbench.stats.statistics import FloatArray
from quantbench.units import milliseconds, one_line, percent, place_name

MOST = 12
"""Trials of one comparison that are drawn: the reference, its control, the choice and the front first."""
MOST_IN_ALL = 24
MOST_PLACES = 3
CONTROL = "@control"
"""What the reference is called when it is timed a second time."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The rounds of one model and target: two pictures, and what they show in words."""

    place: str
    latencies: Picture
    rounds: Picture
    words: str
    left_out: int


def distributions(
    results: Results, frame: pd.DataFrame, choices: Sequence[Choice]
) -> tuple[Distribution, ...]:
    """The rounds of each comparison that was timed; of the first `MOST_PLACES`.

    Parameters
    ----------
    frame : DataFrame
        Of `quantbench.analysis.trial_table.trial_frame`.
    """
    found: list[Distribution] = []
    most = max(4, MOST if len(choices) < 2 else MOST_IN_ALL // max(1, len(choices)))
    for choice in choices:
        if len(found) == MOST_PLACES:
            break
        here = frame[(frame["model"] == choice.model) & (frame["target"] == choice.target)]
        drawn = interesting(here, choice.trial, most)
        times = rounds(results, here, drawn)
        if times.empty:
            continue
        place, name = place_name(choice.model, choice.target), f"{len(found)}"
        timed = int(here["latency_ms"].notna().sum())
        shown = sum(not str(trial).endswith(CONTROL) for trial in times["trial"].unique())
        found.append(
            Distribution(
                place,
                traces.latencies(times, f"Latency of each round: {place}", name=f"rounds-{name}"),
                traces.drifts(times, f"Latency over the rounds: {place}", name=f"drifts-{name}"),
                _words(times),
                max(0, timed - shown),
            )
        )
    return tuple(found)


def interesting(frame: pd.DataFrame, chosen: str | None, most: int = MOST) -> list[str]:
    """The trials of one comparison to look at first, with the control of the reference.

    The reference and its control, the choice, the Pareto front, then the fastest; at most ``most``.
    The reference and the choice are first.
    """
    timed = frame.dropna(subset=["latency_ms"]).sort_values("latency_ms")
    reference = [str(trial) for trial in timed.loc[timed["is_reference"], "trial"]]
    front = [str(trial) for trial in timed.loc[pareto(timed), "trial"]]
    others = [*([chosen] if chosen else []), *front, *map(str, timed["trial"])]
    known = [*reference, *(f"{name}{CONTROL}" for name in reference), *others]
    return list(dict.fromkeys(known))[:most]


def rounds(results: Results, frame: pd.DataFrame, trials: Sequence[str]) -> pd.DataFrame:
    """The bursts of ``trials`` at the batch size of ``frame``, in the order of ``trials`` and of time.

    Returns
    -------
    DataFrame
        A row per burst: ``trial``, ``name`` (for people), ``role`` (reference, control or trial),
        ``generation``, ``place`` (of its round in time, from 0), ``ms``, ``median_ms`` of the trial
        and ``off``, the burst's relative distance from it.
    """
    samples = results.samples
    batch = frame["batch_size"].iloc[0] if len(frame) else None
    timed = samples[
        samples["trial"].isin(trials)
        & (samples["batch_size"] == batch)
        & samples["scenario"].isin((Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM))
    ]
    found = bursts(timed)
    if found.empty:
        return found
    order = found[["generation", "round"]].drop_duplicates().sort_values(["generation", "round"])
    places = {key: i for i, key in enumerate(order.itertuples(index=False, name=None))}
    keys = found[["generation", "round"]].itertuples(index=False, name=None)
    found = found.assign(place=[places[key] for key in keys], ms=found["ns"] / 1e6)
    found["median_ms"] = found.groupby("trial")["ms"].transform("median")
    found["off"] = found["ms"] / found["median_ms"] - 1
    known = {row.trial: row for row in rows(TrialRow, frame)}
    references = set(frame.loc[frame["is_reference"], "trial"])
    described = {
        trial: _described(str(trial), known, references) for trial in dict.fromkeys(found["trial"])
    }
    found["name"] = [described[trial][0] for trial in found["trial"]]
    found["role"] = [described[trial][1] for trial in found["trial"]]
    rank = {trial: i for i, trial in enumerate(trials)}
    return found.sort_values(
        ["trial", "place"],
        key=lambda column: column.map(rank) if column.name == "trial" else column,
    ).reset_index(drop=True)


def _described(
    trial: str, known: Mapping[str, TrialRow], references: Collection[str]
) -> tuple[str, str]:
    own = known[trial.removesuffix(CONTROL)]
    name = one_line(f"{own.backend} {own.label}")
    if trial.endswith(CONTROL):
        return f"{name}, again", "control"
    return name, "reference" if trial in references else "trial"


def _words(times: pd.DataFrame) -> str:
    """How much the reference's rounds differ, and whether it drifted, in words."""
    reference = times[times["role"] == "reference"]
    if reference.empty:
        return ""
    ms = reference["ms"].to_numpy()
    low, high = np.quantile(ms, [0.25, 0.75])
    text = (
        f"Half of the reference's {len(ms)} rounds took {milliseconds(low)} to {milliseconds(high)}"
    )
    third = len(ms) // 3
    if third >= 3:
        moved = drifted(ms)
        way = "slower" if moved > 0 else "faster"
        text += f"; its last third was {percent(abs(moved))} {way} than its first"
    return f"{text}."


def drifted(ms: FloatArray) -> float:
    """How much slower the last third of the rounds was than the first, as a share."""
    third = len(ms) // 3
    return float(np.median(ms[-third:]) / np.median(ms[:third]) - 1)


SECTION = Section(
    "distributions", "Distributions and drift", "Distributions", 10,
    lambda seen: distributions(seen.results, seen.frame, seen.choices), "distributions.html.j2",
)  # fmt: skip
