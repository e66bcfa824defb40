"""Cards: the verdict on each model and target, as the page shows it before anybody asks for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from quantbench.analysis import (
    Choice,
    Constraints,
    Judged,
    MeasuredTrial,
    Standings,
    choose,
    control,
    recommendation,
    smallest_claim,
)
from quantbench.report import verdict
from quantbench.report.drawing.bars import bars
from quantbench.report.drawing.marks import markers, palette
from quantbench.report.drawing.svg import Picture
from quantbench.report.drawing.tradeoff import tradeoff
from quantbench.results import Results
from quantbench.spec import RAN
from quantbench.stats import Interval
from quantbench.units import percent, place_name, size, span

MOST_PASSED = 6
"""Trials passed over that a card names."""
MOST_MARKS = 60
"""Trials in one figure: those that a choice may fall on, then the fastest."""
MOST_DRAWN = 160
"""Trials in all figures of a page; the models and targets after that are in the table alone."""
STATES = (
    "recommended", "as good within noise", "on the front", "allowed", "too large",
    "may lose too much", "loses too much", "not to be shipped", "another seed", "not measured",
)  # fmt: skip
"""What a choice makes of a trial, best first; another seed stands for one that differs by seed alone."""


@dataclass(frozen=True, slots=True)
class Card:
    """The verdict on one model and target.

    ``drawn``: how many trials its figures show, where they leave some out; ``spoken``: gains and
    costs in half a sentence.
    """

    model: str
    target: str
    place: str
    headline: str
    spoken: str
    reason: str
    facts: tuple[verdict.Fact, ...]
    command: str
    ties: tuple[str, ...]
    passed_over: tuple[tuple[str, str], ...]
    more_passed: int
    tradeoff: Picture | None
    bars: Picture | None
    drawn: str
    noise: str
    states: dict[str, str]


def cards(
    results: Results,
    trials: Sequence[MeasuredTrial],
    frame: pd.DataFrame,
    places: Sequence[Standings],
    limits: Constraints,
) -> tuple[Card, ...]:
    """A card per model and target.

    Parameters
    ----------
    trials, frame
        All of the run at the smallest batch size, seeds pooled; the same as a frame, with what was
        measured of each.
    places : sequence of Standings
        By the objective of ``limits``.
    """
    found, left = [], MOST_DRAWN
    candidates = {row.trial for row in trials if row.is_candidate}
    drawn = frame[frame["trial"].isin(candidates)]
    for index, place in enumerate(places):
        here = drawn[(drawn["model"] == place.model) & (drawn["target"] == place.target)]
        pictures, used, said = _pictures(frame, here, place, limits, index, left)
        left -= used
        own = [t for t in trials if (t.model, t.target) == (place.model, place.target)]
        if (seeds := sum(not row.is_candidate for row in own)) and any(pictures):
            said += f" {seeds} trials differ from those drawn by their seed alone."
        found.append(_card(results, own, place, limits, pictures, said))
    return tuple(found)


def _card(
    results: Results,
    here: Sequence[MeasuredTrial],
    place: Standings,
    limits: Constraints,
    pictures: tuple[Picture | None, Picture | None],
    drawn: str,
) -> Card:
    choice = choose(place, limits)
    rows = {row.trial: row for row in here}
    row = rows[choice.trial] if choice.trial else None
    facts: tuple[verdict.Fact, ...] = ()
    command = spoken = ""
    if row is not None:
        facts = verdict.facts(results, row, here, limits, choice.batch_size)
        command = verdict.export_command(results, row.trial, row.backend)
        spoken = verdict.in_short(results, row, here, choice.batch_size)
    return Card(
        model=place.model,
        target=place.target,
        place=place_name(place.model, place.target),
        headline=verdict.headline(row),
        spoken=spoken,
        reason=choice.reason,
        facts=facts,
        command=command,
        ties=tuple(verdict.with_size(rows[trial]) for trial in choice.ties),
        passed_over=tuple(
            (verdict.name(rows[passed.trial]), passed.reason)
            for passed in choice.passed_over[:MOST_PASSED]
        ),
        more_passed=max(0, len(choice.passed_over) - MOST_PASSED),
        tradeoff=pictures[0],
        bars=pictures[1],
        drawn=drawn,
        noise=noise_sentence(
            control(results, place.model, place.target), results.samples["session"].nunique()
        ),
        states=states(place, choice, rows, limits),
    )


def states(
    place: Standings, choice: Choice, rows: dict[str, MeasuredTrial], limits: Constraints
) -> dict[str, str]:
    """What the choice makes of each trial, in the words of `STATES`."""
    measured, judged = {one.row.trial: one.row for one in place.places}, place.judged(limits)
    return {
        trial: _state(trial, measured.get(trial), choice, limits, judged)
        if row.is_candidate
        else "another seed"
        for trial, row in rows.items()
    }


def _state(
    trial: str, row: MeasuredTrial | None, choice: Choice, limits: Constraints, judged: Judged
) -> str:
    if row is None:
        return "not measured"
    if trial == choice.trial:
        return "recommended"
    if trial in choice.ties:
        return "as good within noise"
    if recommendation.refusal(row, limits, judged) is None:
        return "on the front" if trial in choice.front else "allowed"
    if recommendation.refusal(row, recommendation.WITHOUT_LIMITS) is not None:
        return "not to be shipped"
    if trial in judged.within:
        return "too large"
    return "loses too much" if row.value("quality_drop") > limits.max_drop else "may lose too much"


def sentence(found: Sequence[Card]) -> str:
    """The verdict on the whole run in one sentence."""
    if not found:
        return "No trial in this run."
    if len(found) == 1:
        (card,) = found
        return f"{card.headline}{f': {card.spoken}' if card.spoken else ''}."
    shipped = sum(bool(card.command) for card in found)
    return f"An artifact to ship for {shipped} of {len(found)} models and targets."


def _pictures(
    frame: pd.DataFrame,
    here: pd.DataFrame,
    place: Standings,
    limits: Constraints,
    index: int,
    left: int,
) -> tuple[tuple[Picture | None, Picture | None], int, str]:
    """The scatter and the bars of a comparison, each None where there is nothing to draw.

    With how many marks they took of those that are ``left``, and what they leave out in words.
    """
    # of the whole run, so that a colour means the same in every figure
    colors = palette(list(frame["backend"]))
    shapes = markers(list(frame["method"]))
    timed = here[here["latency_ms"].notna() & here["quality"].notna()]
    timed = timed[(timed["latency_ms"] > 0) & timed["status"].isin(RAN)]
    known = here[here["latency_ms"].notna() | here["size_bytes"].notna()]
    if left <= 0 and len(known):
        return (
            (None, None),
            0,
            f"Not drawn: this page draws {MOST_DRAWN} trials at most; all are in the table.",
        )
    shown, known = _worth(timed, place), _worth(known, place)
    chosen = choose(place, limits)
    sizes = shown["size_bytes"].dropna()
    said = ""
    if len(sizes):
        said = f"Areas from {size(sizes.min())} to {size(sizes.max())}. "
    if len(shown) < len(timed):
        said += f"{len(shown)} of {len(timed)} timed trials are drawn, the fastest and all that could be chosen."
    scatter = lengths = None
    if len(shown):
        scatter = tradeoff(
            shown, colors, shapes, max_drop=limits.max_drop, choice=chosen, name=f"tradeoff-{index}"
        )
    if len(known):
        lengths = bars(known, colors, chosen=chosen.trial, name=f"bars-{index}")
    return (scatter, lengths), len(known), said


def _worth(frame: pd.DataFrame, place: Standings) -> pd.DataFrame:
    """At most `MOST_MARKS` rows: the references, what could be chosen, then the fastest."""
    if len(frame) <= MOST_MARKS:
        return frame
    first = frame["is_reference"] | frame["trial"].isin(list(place.contenders()))
    order = frame.assign(first=~first).sort_values(["first", "latency_ms"]).index[:MOST_MARKS]
    return frame.loc[sorted(order)]


def noise_sentence(aa: Interval | None, sessions: int) -> str:
    """What an A/A control says of the noise of a comparison, and how many sessions intervals know."""
    if aa is None:
        return "no A/A control in this run: the noise is not known"
    ends = span(aa, "{:.3f}".format)
    return (
        f"the reference timed against itself: ratio {aa.value:.3f}{f' ({ends})' if ends else ''}; "
        f"differences to it under {percent(smallest_claim(aa))} are not called differences; "
        + (
            f"intervals of time are of {sessions} sessions"
            if sessions > 1
            else "intervals of time are of this session: quantbench run --again times another"
        )
    )
