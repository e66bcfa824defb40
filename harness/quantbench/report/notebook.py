"""Notebook: a run in a few lines, for a notebook and a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from quantbench.analysis import (
    Choice,
    MeasuredTrial,
    gains_of,
    pooled,
    recommend,
    trial_rows,
    unbeaten,
)
from quantbench.results import SHOWN_AS_HTML, Results
from quantbench.units import (
    MISSING,
    loss_writer,
    milliseconds,
    one_line,
    place_name,
    quality_writer,
    ratio,
    size,
)

MOST = 10
"""Places that have a sentence, and trials that have a row."""
_HEADINGS = ("trial", "latency", "speed-up", "quality", "loss", "size")


def notebook(results: Results) -> str:
    """A run as HTML without scripts: what to ship, how many trials did what, and the Pareto front."""
    trials = [row for row in pooled(trial_rows(results)) if row.is_candidate]
    choices = recommend(results) if trials else []
    sentences = [_sentence(results, trials, choice) for choice in choices[:MOST]]
    if len(choices) > MOST:
        sentences.append(f"{len(choices) - MOST} more models and targets.")
    front = _front(trials, choices)
    cells = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td>{}</td>").format(text) for text in row)
        )
        for row in front[:MOST]
    )
    head = Markup("").join(Markup("<th>{}</th>").format(text) for text in _HEADINGS)
    title = Markup("<p><b>{}</b>: {}</p>").format(results.name, results.counts)
    said = Markup("").join(Markup("<li>{}</li>").format(text) for text in sentences)
    table = Markup(
        "<table><caption>No other trial is both faster and better{}</caption>"
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table>"
    ).format(f" ({len(front) - MOST} more)" if len(front) > MOST else "", head, cells)
    parts = [title, Markup("<ul>{}</ul>").format(said) if sentences else "", table if front else ""]
    return str(Markup("<div>{}</div>").format(Markup("").join(parts)))


def _sentence(results: Results, trials: Sequence[MeasuredTrial], choice: Choice) -> str:
    """What to ship in one place, what it gains and what it costs."""
    place = place_name(choice.model, choice.target)
    if choice.trial is None:
        return f"{place}: nothing to ship; {choice.reason}."
    row = next(row for row in trials if row.trial == choice.trial)
    seed = "" if row.pool is None else f", seed {row.seed}"
    gains = gains_of(results, row.trial, trials=trials)
    gained = "".join(
        f", {ratio(gain.quoted.value)} the speed of {_label(gain.reference, trials)} ({gain.versus})"
        for gain in gains
    )
    drop = row.value("quality_drop")
    lost = "" if math.isnan(drop) else f", loss {loss_writer(row.of('quality').unit)(drop)}"
    return f"{place}: ship {_name(row)}{seed}{gained}{lost}; {choice.reason}."


def _front(trials: Sequence[MeasuredTrial], choices: Sequence[Choice]) -> list[tuple[str, ...]]:
    """The Pareto front of each place, fastest first, as texts."""
    several = len(choices) > 1
    return [_row(row, several) for choice in choices for row in _of(trials, choice)]


def _of(trials: Sequence[MeasuredTrial], choice: Choice) -> list[MeasuredTrial]:
    here = [t for t in trials if (t.model, t.target) == (choice.model, choice.target)]
    best = unbeaten([(t.value("latency_ms"), -t.value("quality")) for t in here])
    front = [row for row, unbeat in zip(here, best, strict=True) if unbeat]
    return sorted(front, key=lambda row: row.value("latency_ms"))


def _row(row: MeasuredTrial, several: bool) -> tuple[str, ...]:
    where = f"{place_name(row.model, row.target)}: " if several else ""
    write, loss = quality_writer(row.of("quality").unit), loss_writer(row.of("quality").unit)
    pairs = (
        ("latency_ms", milliseconds), ("speedup", ratio), ("quality", write),
        ("quality_drop", loss), ("size_bytes", size),
    )  # fmt: skip
    values = (to(row.value(metric)) if row.of(metric).known else MISSING for metric, to in pairs)
    return (f"{where}{_name(row)}", *values)


def _label(trial: str, trials: Sequence[MeasuredTrial]) -> str:
    return next((_name(row) for row in trials if row.trial == trial), one_line(trial, 80))


def _name(row: MeasuredTrial) -> str:
    return one_line(f"{row.backend} {row.label}", 80)


SHOWN_AS_HTML.append(notebook)
