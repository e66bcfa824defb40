"""Confusion: what float gets right and a quantized model calls by another name, class by class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from quantbench.analysis import Choice, MeasuredTrial
from quantbench.report.drawing.grids import DROPS, Cell, Grid, falling, grids
from quantbench.report.drawing.svg import Picture
from quantbench.report.sections.fidelity import MOST_PLACES, of_interest, with_answers
from quantbench.report.sections.section import Section
from quantbench.results import Results
from quantbench.units import number, percent, place_name, span

MOST_NAMES = 12
"""Classes along each side of a matrix; of more, those of the largest cells."""
MOST_ROWS = 8
"""Classes of a trial in the table of precision and recall; those that change most."""

Cells = Mapping[tuple[int, int], int]
"""By class, and what it was called: samples."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Samples on which one of two models alone is right.

    Parameters
    ----------
    lost : mapping
        What float gets right: by class, and what the other calls it, how many samples.
    won : int
        Samples that the other alone gets right.
    sizes : mapping
        Samples of each class.
    """

    lost: Cells
    won: int
    sizes: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Rates:
    """Precision and recall of one class in float and quantized; not a number where never answered."""

    label: int
    n: int
    recall: tuple[float, float]
    precision: tuple[float, float]

    @property
    def change(self) -> float:
        """The larger of the two changes, a share."""
        pairs = (self.recall, self.precision)
        return max((abs(a - b) for a, b in pairs if not math.isnan(a - b)), default=0.0)


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a place shows, as texts; the picture is missing where nothing is confused.

    ``rates``: by trial, rows of class, samples, recall and precision in float and quantized.
    ``calibration``: rows of trial, calibration error, what chance makes of it, Brier score, its rise.
    """

    place: str
    picture: Picture | None
    rates: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    calibration: tuple[tuple[str, ...], ...]
    left_out: str


def confusion(
    results: Results,
    trials: Sequence[MeasuredTrial],
    frame: pd.DataFrame,
    choices: Sequence[Choice],
) -> tuple[Confusion, ...]:
    """Of each place whose answers are classes; of the first `MOST_PLACES`.

    Shown are the recommended trial and those that lose most.
    """
    found: list[Confusion] = []
    for choice in choices:
        here = frame[(frame["model"] == choice.model) & (frame["target"] == choice.target)]
        answered, given, reference = with_answers(results, here)
        if answered.empty or reference not in given.columns or len(found) == MOST_PLACES:
            continue
        shown = of_interest(answered, choice.trial, reference)
        between = {
            name: differences(given, str(reference), trial)
            for trial, name in shown.items()
            if trial in given.columns
        }
        drawn = [matrix(name, one) for name, one in between.items() if one.lost]
        place = place_name(choice.model, choice.target)
        title = f"What float gets right, and what it is called instead: {place}"
        one = Confusion(
            place,
            grids(drawn, title, name=f"confusion-{len(found)}") if drawn else None,
            tuple(_rates(given, str(reference), shown)),
            tuple(_calibration(trials, {str(reference): "float reference", **shown})),
            _left_out(between, drawn),
        )
        if one.picture or one.rates or one.calibration:
            found.append(one)
    return tuple(found)


def differences(given: pd.DataFrame, reference: str, trial: str) -> Differences:
    """Count where one of two trials alone is right.

    Parameters
    ----------
    given : DataFrame
        Of `quantbench.report.sections.fidelity.answers`.
    """
    label, before, after = _answers(given, reference, trial)
    lost = (before == label) & (after != label)
    pairs = zip(label[lost].tolist(), after[lost].tolist(), strict=True)
    won = int(((before != label) & (after == label)).sum())
    return Differences(Counter(pairs), won, Counter(label.tolist()))


def class_rates(given: pd.DataFrame, reference: str, trial: str) -> tuple[Rates, ...]:
    """Precision and recall of every class that is a label or an answer, in float and quantized."""
    label, before, after = _answers(given, reference, trial)

    def rates(name: int) -> Rates:
        whole = label == name
        one, other = before == name, after == name
        return Rates(
            name, int(whole.sum()),
            (_share(one & whole, whole), _share(other & whole, whole)),
            (_share(one & whole, one), _share(other & whole, other)),
        )  # fmt: skip

    return tuple(rates(int(name)) for name in np.unique(np.concatenate([label, before, after])))


def _answers(given: pd.DataFrame, *trials: str) -> list[NDArray[np.int64]]:
    """The label, and what each of ``trials`` answered, of the samples that all have answered."""
    known = given[["label", *dict.fromkeys(trials)]].dropna().astype(np.int64)
    return [known[name].to_numpy() for name in ("label", *trials)]


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else math.nan


def matrix(name: str, found: Differences) -> Grid:
    """Classes by what they are called, coloured by the share of the class; the largest cells first."""
    rows: list[int] = []
    columns: list[int] = []
    for label, called in sorted(found.lost, key=lambda cell: (-found.lost[cell], cell)):
        for names, new in ((rows, label), (columns, called)):
            if new not in names and len(names) < MOST_NAMES:
                names.append(new)

    def cell(label: int, called: int) -> Cell:
        n = found.lost.get((label, called), 0)
        if not n:
            return Cell("" if label == called else "·")
        return Cell(f"{n:,}", falling(n / found.sizes[label], DROPS))

    return Grid(
        f"{name}: {sum(found.lost.values()):,} lost, {found.won:,} won",
        tuple(f"class {label}" for label in sorted(rows)),
        tuple(map(str, sorted(columns))),
        tuple(tuple(cell(label, called) for called in sorted(columns)) for label in sorted(rows)),
    )


def _rates(
    given: pd.DataFrame, reference: str, shown: Mapping[str, str]
) -> Iterator[tuple[str, tuple[tuple[str, ...], ...]]]:
    """The classes that change, of each trial."""
    for trial, name in shown.items():
        if trial not in given.columns:
            continue
        changed = [one for one in class_rates(given, reference, trial) if one.change]
        worst = sorted(changed, key=lambda one: -one.change)[:MOST_ROWS]
        if worst:
            yield (
                name,
                tuple(
                    (str(one.label), f"{one.n:,}", *map(_percent, (*one.recall, *one.precision)))
                    for one in worst
                ),
            )


def _calibration(
    trials: Sequence[MeasuredTrial], shown: Mapping[str, str]
) -> Iterator[tuple[str, ...]]:
    for row in sorted(trials, key=lambda row: row.trial not in shown):
        score, rise = row.of("brier"), row.of("brier_rise")
        if row.trial not in shown or not score.known:
            continue
        yield (
            shown[row.trial],
            _percent(row.value("ece")),
            _percent(row.value("ece_by_chance")),
            number(score.value),
            f"{number(rise.value)} ({span(rise.interval, number)})" if rise.interval else "",
        )


def _percent(value: float) -> str:
    return "never answered" if math.isnan(value) else percent(value)


def _left_out(found: Mapping[str, Differences], drawn: Sequence[Grid]) -> str:
    lost = sum(sum(one.lost.values()) for one in found.values())
    seen = sum(
        int(cell.text.replace(",", ""))
        for grid in drawn
        for row in grid.cells
        for cell in row
        if cell.text not in ("", "·")
    )
    return f"{lost - seen:,} of {lost:,} samples, in smaller cells" if lost > seen else ""


SECTION = Section(
    "confusion", "Confusion and confidence", "Confusion", 85,
    lambda seen: confusion(seen.results, seen.trials, seen.frame, seen.choices),
    "confusion.html.j2",
)  # fmt: skip
