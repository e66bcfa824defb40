"""Confirmation: what is timed again after it was chosen, and what that found.

The best of many by a noisy time is quoted too fast: its noise is part of why it was chosen. The same
artifact timed again, in processes that took no part in the choice, is quoted as it is.
"""

from __future__ import annotations

from quantbench.analysis.gains import gains_of
from quantbench.analysis.recommendation import recommend
from quantbench.results import Measurement, Results, rows


def to_confirm(results: Results) -> list[tuple[str, ...]]:
    """Of each model and target what `recommend` ships, with the float trials that it is quoted against.

    Places where nothing is shipped, or a float trial that is compared with no other, are left out.
    """
    found = []
    for choice in recommend(results):
        if choice.trial is None:
            continue
        floats = [gain.reference for gain in gains_of(results, choice.trial, choice.batch_size)]
        if floats:
            found.append((choice.trial, *floats))
    return found


def confirmed(results: Results, trial: str, metric: str) -> Measurement | None:
    """A measurement of ``trial`` after it was chosen: ``confirmed_ms``, ``_quality``, ``_drop``...

    None where it was not chosen or its task has no samples for it.
    """
    known = results.measurements
    known = known[(known["metric"] == metric) & (known["trial"] == trial)]
    return next((row for row in rows(Measurement, known) if row.known), None)
