"""Interactive choice: what the form of the page needs to choose as `quantbench.analysis.recommendation.recommend` does.

Everything that needs the measurements is worked out here: the order of the trials by each objective
and batch size, which of them tie within noise, and the texts of those that a choice may fall on. The
page's script is left with comparing numbers with limits.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quantbench.analysis import (
    OBJECTIVES,
    Constraints,
    MeasuredTrial,
    Standing,
    Standings,
    batch_sizes,
    pooled,
    recommendation,
    refusal,
    standings,
    trial_rows,
)
from quantbench.report import verdict
from quantbench.report.sections.cards import MOST_PASSED, STATES
from quantbench.results import Results, parts
from quantbench.stats import critical
from quantbench.units import size

ALLOWED = ", allowed "
"""Ends the line of a loss that the script completes with the limit of the form."""


def choosing(
    results: Results, trials: Sequence[MeasuredTrial], limits: Constraints
) -> dict[str, Any]:
    """The numbers and texts of the form, as plain values; trials are named by their place in ``trials``.

    Parameters
    ----------
    trials : sequence of MeasuredTrial
        All of the run, at the smallest batch size, seeds pooled.
    limits : Constraints
        What the page shows without the form.
    """
    numbers = {row.trial: i for i, row in enumerate(trials)}
    sizes = batch_sizes(results)
    wanted = [(name, batch) for name in ("latency", "size", "energy") for batch in sizes]
    views: dict[str, list[dict[str, Any]]] = {}
    cards: dict[int, dict[str, Any]] = {}
    for objective, batch in [*wanted, ("throughput", None)] if sizes else [("size", None)]:
        asked = dataclasses.replace(limits, objective=objective, batch_size=batch)
        at = trials if batch in (None, *sizes[:1]) else pooled(trial_rows(results, batch))
        found = list(standings(results, objective, batch))
        if any(place.places for place in found):
            views[f"{objective}/{batch or ''}"] = [
                _view(results, place, at, asked, numbers, cards) for place in found
            ]
    places: dict[tuple[str, str], list[int]] = {}
    for row in trials:
        places.setdefault((row.model, row.target), []).append(numbers[row.trial])
    return {
        "runs": [verdict.run_folder(part.folder) for part in parts(results)],
        "limits": {"drop": limits.max_drop, "objective": limits.objective},
        "allowed": ALLOWED,
        "batches": sizes,
        "most": MOST_PASSED,
        "states": list(STATES),
        "objectives": {
            name: {"best": o.best, "tie": o.tie, "ahead": o.ahead, "rule": _rule(name)}
            for name, o in OBJECTIVES.items()
        },
        "places": [
            {"model": model, "target": target, "trials": own}
            for (model, target), own in places.items()
        ],
        "trials": [_trial(row) for row in trials],
        "critical": _critical(
            trials,
            max((len(view["order"]) for found in views.values() for view in found), default=0),
        ),
        "holm": recommendation.HOLM,
        "sameSize": 1 + recommendation.SAME_SIZE,
        "views": views,
        "cards": cards,
    }


def _rule(objective: str) -> str:
    """How the rule of an objective begins, before its limits."""
    text = verdict.rule(Constraints(objective=objective))
    return text[: text.index(" loses no more")]


def _critical(trials: Sequence[MeasuredTrial], most: int) -> dict[int, list[float]]:
    """By degrees of freedom of the seeds (0: a normal error), what bounds of 5 % / 1, / 2... need."""
    losses = [loss for row in trials if row.is_candidate and (loss := row.loss) is not None]
    freedoms = dict.fromkeys((0, *(loss.seeds - 1 for loss in losses if loss.between)))
    return {
        freedom: [critical(level, freedom) for level in range(1, most + 1)] for freedom in freedoms
    }


def _trial(row: MeasuredTrial) -> dict[str, Any]:
    bound, loss = row.value("quality_drop_bound"), row.loss
    return {
        "trial": row.trial,
        "name": verdict.name(row),
        # what bounds at any confidence are made of; null where the loss is not known
        "loss": None
        if loss is None
        else [loss.value, loss.centre, loss.error, loss.between, loss.seeds - 1],
        "over": "" if loss is None else recommendation.mean_of(loss),
        "other": not row.is_candidate,
        "bound": _known(bound),
        "size": _known(row.value("size_bytes")),
        "quality": _known(row.value("quality")),
        "dropText": "" if loss is None else f"{100 * loss.value:.2f}",
        "boundText": f"{100 * bound:.2f}",
        "sizeText": verdict.shown(row, "size_bytes", size),
    }


def _view(
    results: Results,
    place: Standings,
    trials: Sequence[MeasuredTrial],
    asked: Constraints,
    numbers: Mapping[str, int],
    cards: dict[int, dict[str, Any]],
) -> dict[str, Any]:
    """One model and target by one objective; adds the texts of what may be chosen to ``cards``."""
    ties = place.contenders()
    known = {one.row.trial: one for one in place.places}
    here = [t for t in trials if (t.model, t.target) == (place.model, place.target)]
    wanted = set(_chosen(ties, known))
    texts: dict[int, dict[str, Any]] = {}
    for row in (row for row in here if row.trial in wanted):
        trial, reference = row.trial, verdict.reference_row(row, here)
        # what depends on the objective and batch size comes first
        *first, own, quality, loss = verdict.facts(results, row, here, asked, place.batch_size)
        rate = verdict.fact_of_objective(row, reference, "throughput", place.batch_size)
        texts[numbers[trial]] = {
            "facts": [_fact(fact) for fact in first],
            "rate": [_fact(fact) for fact in rate] if asked.objective == "latency" else [],
            "spoken": verdict.in_short(results, row, here, place.batch_size),
        }
        cards.setdefault(
            numbers[trial],
            {
                "headline": verdict.headline(row),
                "facts": [_fact(own), _fact(quality), _fact(loss)],
                "command": verdict.export_command(results, trial, row.backend),
            },
        )
    refused = {
        trial: refusal(one.row, recommendation.WITHOUT_LIMITS) for trial, one in known.items()
    }
    return {
        "order": [numbers[trial] for trial in known],
        "costs": [_known(one.cost) for one in known.values()],
        "refused": {numbers[trial]: why for trial, why in refused.items() if why},
        "ties": {
            numbers[t]: [numbers[other] for other in same] for t, same in ties.items() if same
        },
        "texts": texts,
    }


def _chosen(ties: Mapping[str, tuple[str, ...]], known: Mapping[str, Standing]) -> Iterator[str]:
    """Every trial that a choice may fall on: a best one, or one that ties with it and is not larger."""
    for best, same in ties.items():
        yield best
        for other in same:
            own, least = known[other].size, known[best].size
            if own < least or recommendation.same_size(own, least):
                yield other


def _fact(fact: verdict.Fact) -> dict[str, Any]:
    lines = [
        line[: line.index(ALLOWED) + len(ALLOWED)]
        if fact.name == "Loss" and ALLOWED in line
        else line
        for line in fact.lines
    ]
    return {"name": fact.name, "value": fact.value, "tone": fact.tone, "lines": lines}


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def as_script(data: Any) -> str:
    """JSON that is safe inside a script element: no text in it can end the element or begin another."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
