"""Fidelity: whether answers are the float model's, whether frameworks agree, and which class loses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from quantbench.analysis import Choice
from quantbench.report.drawing import dots
from quantbench.report.drawing.grids import Cell, Grid, grids, rising
from quantbench.report.drawing.marks import markers, palette
from quantbench.report.drawing.style import LEVEL
from quantbench.report.drawing.svg import Picture
from quantbench.report.sections.section import Section
from quantbench.results import Results, TrialRow, rows
from quantbench.stats import Interval, statistics
from quantbench.units import one_line, percent, place_name, span

SHARES = (0.9, 0.97, 0.99, 0.999)
"""Where the colour of an agreement changes; all answers alike has one of its own."""
ALIKE = LEVEL + 2
FLOAT = "float"
"""The reference form in a matrix of agreement."""
MOST_PLACES = 3
MOST_METHODS = 6
"""Matrices of agreement of one place; those that agree least."""
MOST_TRIALS = 3
"""Trials whose classes are drawn: the choice, and those that lose most."""


@dataclass(frozen=True, slots=True)
class Shared:
    """On how many of ``n`` samples two trials give the ``same`` answer."""

    same: int
    n: int

    @property
    def share(self) -> Interval:
        """The share with Wilson's 95 % interval."""
        return statistics.wilson(self.same, self.n)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two trials of one method: their shared answers, as texts."""

    label: str
    one: str
    other: str
    same: str
    ends: str
    different: str


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What one model on one target keeps of the float model's answers; a picture may be missing.

    ``alike``: the methods with which all backends give the float model's answers to all samples.
    """

    place: str
    overview: Picture | None
    agreement: Picture | None
    pairs: tuple[Pair, ...]
    classes: Picture | None
    alike: tuple[str, ...]
    samples: int
    left_out: str


def fidelity(
    results: Results,
    frame: pd.DataFrame,
    choices: Sequence[Choice],
) -> tuple[Fidelity, ...]:
    """Fidelity of each model and target whose answers are classes; of the first `MOST_PLACES`.

    Parameters
    ----------
    frame : DataFrame
        Of `quantbench.analysis.trial_table.trial_frame`.
    """
    colors, shapes = palette(list(frame["backend"])), markers(list(frame["method"]))
    found: list[Fidelity] = []
    for choice in choices:
        here = frame[(frame["model"] == choice.model) & (frame["target"] == choice.target)]
        answered, given, reference = with_answers(results, here)
        if answered.empty or len(found) == MOST_PLACES:
            continue
        place, name = place_name(choice.model, choice.target), str(len(found))
        groups = same_method(answered, given)
        shares = {label: matrix(group, given, reference) for label, group in groups.items()}
        alike = [label for label in shares if _least(shares[label]) == 1]
        shares = {label: found for label, found in shares.items() if label not in alike}
        least = sorted(shares, key=lambda label: _least(shares[label]))[:MOST_METHODS]
        backends = dict.fromkeys(row.backend for group in groups.values() for row in group)
        shown = [grid(la, shares[la], (FLOAT, *backends)) for la in shares if la in least]
        lossy = answered[answered["sqnr_db"] < dots.LOSSLESS_DB]
        drops = class_drops(given, reference, of_interest(answered, choice.trial, reference))
        title = f"Same answers by two backends, one matrix per method, in per cent: {place}"
        losing = f"Loss by class, in percentage points: {place}"
        overview = f"Answers that differ from the float model's, by SQNR: {place}"
        one = Fidelity(
            place,
            dots.overview(lossy, colors, shapes, overview, name=f"fidelity-{name}")
            if len(lossy) > 1 and (lossy["agreement"] < 1).any()
            else None,
            grids(shown, title, name=f"agreement-{name}") if shown else None,
            tuple(_pairs({label: shares[label] for label in shares if label in least})),
            dots.classes(drops, losing, name=f"classes-{name}") if len(drops) else None,
            tuple(map(one_line, alike)),
            len(given),
            _left_out(len(shares) - len(least), drops),
        )
        if one.overview or one.agreement or one.alike or one.classes:
            found.append(one)
    return tuple(found)


def with_answers(
    results: Results, frame: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, str | None]:
    """The trials of one place whose answers are classes; their `answers`; the float model's trial."""
    rows = results.measurements
    agreed = rows[(rows["metric"] == "agreement") & rows["trial"].isin(frame["trial"])]
    named = agreed["reference"].dropna()
    reference = str(named.iloc[0]) if len(named) else None
    mine = frame[frame["agreement"].notna() | (frame["trial"] == reference)]
    return mine, answers(results, [*mine["trial"], str(reference)]), reference


def answers(results: Results, trials: Sequence[str]) -> pd.DataFrame:
    """Predicted classes: a row per test sample, a column per trial, and the ``label``."""
    rows = results.predictions[results.predictions["trial"].isin(trials)]
    columns = {
        str(trial): own.set_index("sample")["prediction"]
        for trial, own in rows.groupby("trial", sort=False)
    }
    labels = rows.drop_duplicates("sample").set_index("sample")["label"]
    return pd.DataFrame({**columns, "label": labels})


def same_method(frame: pd.DataFrame, given: pd.DataFrame) -> dict[str, tuple[TrialRow, ...]]:
    """By label, the trials of several backends: the first seed of each."""
    known = frame[frame["trial"].isin(given.columns)]
    first = known.drop_duplicates(["label", "backend"])
    return {
        str(label): rows(TrialRow, group)
        for label, group in first.groupby("label", sort=False)
        if group["backend"].nunique() > 1
    }


def matrix(
    trials: Sequence[TrialRow], given: pd.DataFrame, reference: str | None
) -> dict[tuple[str, str], Shared | None]:
    """How often every two backends give the same answer, and each the float model's.

    Returns
    -------
    dict
        By the names of two of them; of `FLOAT` too where it is none of ``trials``. None where no
        sample is shared.
    """
    names = {row.backend: row.trial for row in trials}
    if reference in given.columns and reference not in names.values():
        names = {FLOAT: str(reference), **names}
    return {
        (one, other): agreement(given[a], given[b])
        for (one, a), (other, b) in combinations(names.items(), 2)
    }


def agreement(one: pd.Series[float], other: pd.Series[float]) -> Shared | None:
    """Of the samples that both answered; None where there is none."""
    shared = one.notna() & other.notna()
    n = int(shared.sum())
    return Shared(int((one[shared] == other[shared]).sum()), n) if n else None


def grid(
    label: str, shares: Mapping[tuple[str, str], Shared | None], names: tuple[str, ...]
) -> Grid:
    """A matrix of agreement of ``names`` with its colours; a dot where there is nothing to say."""

    def cell(one: str, other: str) -> Cell:
        found = shares.get((one, other)) or shares.get((other, one))
        if found is None:
            return Cell("" if one == other else "·")
        if found.same == found.n:
            return Cell("100", ALIKE)
        share = found.same / found.n
        return Cell(f"{min(100 * share, 99.99):.2f}", rising(share, SHARES))

    return Grid(label, names, names, tuple(tuple(cell(a, b) for b in names) for a in names))


def _least(shares: Mapping[tuple[str, str], Shared | None]) -> float:
    return min((found.same / found.n for found in shares.values() if found), default=2.0)


def _pairs(
    shares: Mapping[str, Mapping[tuple[str, str], Shared | None]],
) -> Iterator[Pair]:
    """The pairs of backends, those of a method together."""
    for label, of_method in shares.items():
        for (one, other), found in of_method.items():
            if found is None or FLOAT in (one, other):
                continue
            yield Pair(
                one_line(label), one_line(one), one_line(other), percent(found.share.value),
                span(found.share, percent), f"{found.n - found.same:,} of {found.n:,}",
            )  # fmt: skip


# --- losses by class -----------------------------------------------------------------------------


def of_interest(frame: pd.DataFrame, chosen: str | None, reference: str | None) -> dict[str, str]:
    """Names of the trials whose classes are worth a look: the choice, and what loses most."""
    measured = frame[(frame["trial"] != reference) & frame["quality_drop"].notna()]
    worst = measured.sort_values("quality_drop", ascending=False, kind="stable")
    first = worst[worst["trial"] == chosen]
    shown = pd.concat([first, worst]).drop_duplicates("trial")[:MOST_TRIALS]
    return {row.trial: one_line(f"{row.backend} {row.label}") for row in rows(TrialRow, shown)}


def class_drops(
    given: pd.DataFrame, reference: str | None, trials: Mapping[str, str]
) -> pd.DataFrame:
    """The loss of each class of each of ``trials`` against the float model.

    Returns
    -------
    DataFrame
        Columns ``trial``, ``name``, ``label``, ``n``, ``drop``, ``low``, ``high`` (shares; null
        where the class has too few samples) and ``p`` after Holm's correction over the classes.
    """
    rows = []
    for trial, name in trials.items():
        if reference not in given.columns or trial not in given.columns:
            continue
        known = given[[reference, trial, "label"]].dropna()
        labels = known["label"].to_numpy(dtype=np.float64)
        before, after = (
            np.asarray(known[column] == known["label"], np.float64) for column in (reference, trial)
        )
        judged = {drop.label: drop for drop in statistics.class_drops(before, after, labels)}
        for label, n in zip(*np.unique(labels, return_counts=True), strict=True):
            row: dict[str, Any] = {"trial": trial, "name": name, "label": int(label), "n": int(n)}
            if found := judged.get(int(label)):
                ends = found.drop.interval
                row |= {"drop": ends.value, "low": ends.low, "high": ends.high, "p": found.p}
            rows.append(row)
    columns = ["trial", "name", "label", "n", "drop", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame if frame["drop"].fillna(0.0).any() else frame.iloc[:0]


def _left_out(methods: int, drops: pd.DataFrame) -> str:
    parts = []
    if methods > 0:
        parts.append(f"{methods} more methods, in which backends agree more")
    classes = drops["label"].nunique() if len(drops) else 0
    if classes > dots.MOST_CLASSES:
        parts.append(f"{classes - dots.MOST_CLASSES} more classes, that lose less")
    return " and ".join(parts)


SECTION = Section(
    "fidelity", "Fidelity", "Fidelity", 80,
    lambda seen: fidelity(seen.results, seen.frame, seen.choices), "fidelity.html.j2",
)  # fmt: skip
