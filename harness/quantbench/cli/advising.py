"""Advising: choices with what they gain and cost, as a terminal shows them and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from quantbench.analysis import (
    Choice,
    Constraints,
    MeasuredTrial,
    Pool,
    Resolution,
    confirmed,
    gains_of,
    pooled,
    resolution,
    standings,
    trial_rows,
)
from quantbench.report import verdict
from quantbench.results import Results
from quantbench.units import joules, milliseconds, per_second, place_name, size

MOST = 6
"""Trials passed over that a terminal shows."""
MEASURED = (
    "latency_ms", "speedup", "throughput_per_s", "offline_throughput_per_s", "energy_net_j",
    "size_bytes", "quality", "quality_drop", "quality_drop_bound", "agreement",
)  # fmt: skip
"""The metrics of a trial in JSON, each with its interval."""
CONFIRMED = ("confirmed_ms", "confirmed_quality", "confirmed_drop", "confirmed_drop_bound")
"""Those of a choice that were measured again after it, null where they were not."""


def show(results: Results, limits: Constraints, choices: Sequence[Choice], out: Console) -> None:
    """Print each choice with its gains and costs, the Pareto set, ties, and what was passed over."""
    out.print(verdict.rule(limits), markup=False)
    trials = pooled(trial_rows(results, limits.batch_size))
    resolutions = _resolutions(results, limits)
    for choice in choices:
        here = [t for t in trials if (t.model, t.target) == (choice.model, choice.target)]
        rows = {row.trial: row for row in here}
        row = rows[choice.trial] if choice.trial else None
        out.print()
        place = place_name(choice.model, choice.target)
        out.print(Text(f"{place}: {verdict.headline(row)}", style="bold"))
        out.print(f"{choice.reason[:1].upper()}{choice.reason[1:]}.", markup=False)
        if row is not None:
            out.print()
            out.print(_facts(verdict.facts(results, row, here, limits, choice.batch_size)))
            out.print()
            out.print(_pareto(choice, rows, limits))
        if said := verdict.resolution_sentence(resolutions[choice.model, choice.target]):
            out.print(f"\n{said}", markup=False)
        if choice.ties:
            tied = ", ".join(
                f"{verdict.name(rows[t])} ({verdict.shown(rows[t], 'size_bytes', size)})"
                for t in choice.ties
            )
            out.print(f"\nAs good within noise: {tied}.", markup=False)
        if choice.passed_over:
            out.print()
            out.print(_passed_over(choice, rows, limits))
        if row is not None:
            command = verdict.export_command(results, str(choice.trial), row.backend)
            out.print(f"\nexport: {command}", markup=False, soft_wrap=True)
    out.print(f"\n{verdict.CAVEAT}", markup=False, style="dim")


def _resolutions(results: Results, limits: Constraints) -> dict[tuple[str, str], Resolution | None]:
    """What the test samples of each model and target can tell of losses."""
    return {
        (place.model, place.target): resolution(place, limits.max_drop)
        for place in standings(results, limits.objective, limits.batch_size)
    }


def _facts(facts: Sequence[verdict.Fact]) -> Table:
    """A line for each figure, and its sentences beside it."""
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for fact in facts:
        table.add_row(fact.name, Text(fact.value, style="bold"), Text("\n".join(fact.lines)))
    return table


def _pareto(choice: Choice, rows: Mapping[str, MeasuredTrial], limits: Constraints) -> Table:
    """The allowed trials that no other one beats, best by the objective first."""
    title = f"Pareto set of {limits.objective} and quality"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(title, overflow="fold")
    third = {"energy": "energy", "throughput": "throughput"}.get(limits.objective, "latency")
    for name in (third, "quality", "loss at most", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for trial in choice.front:
        row = rows[trial]
        table.add_row(
            Text(verdict.name(row), style="bold" if trial == choice.trial else ""),
            _third(row, third, choice.batch_size is None),
            verdict.shown(row, "quality", verdict.quality_writer(row)),
            verdict.shown(row, "quality_drop_bound", verdict.loss_writer(row)),
            verdict.shown(row, "size_bytes", size),
        )
    return table


def _third(row: MeasuredTrial, what: str, at_best: bool) -> str:
    if what == "latency":
        return verdict.shown(row, "latency_ms", milliseconds)
    if what == "energy":
        return verdict.shown(row, "energy_net_j", joules)
    offline = at_best and not math.isnan(row.value("offline_throughput_per_s"))
    metric = "offline_throughput_per_s" if offline else "throughput_per_s"
    return verdict.shown(row, metric, per_second)


def _passed_over(choice: Choice, rows: Mapping[str, MeasuredTrial], limits: Constraints) -> Table:
    """What is better by the objective but not allowed, and why; or why nothing is allowed."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    heading = f"{limits.wanted.ahead}, but not allowed:" if choice.trial else "Why not:"
    table.add_row(heading)
    for passed in choice.passed_over[:MOST]:
        text = f"{verdict.name(rows[passed.trial])}: {passed.reason}."
        table.add_row(Padding(Text(text), (0, 0, 0, 2)))
    if (more := len(choice.passed_over) - MOST) > 0:
        table.add_row(Padding(f"and {more} more", (0, 0, 0, 2)))
    return table


def to_json(results: Results, limits: Constraints, choices: Sequence[Choice]) -> dict[str, Any]:
    """The same as plain values; what was not measured is null."""
    rows = {row.trial: row for row in pooled(trial_rows(results, limits.batch_size))}
    resolutions = _resolutions(results, limits)
    return {
        "run": verdict.run_folder(results.folder),
        "constraints": {
            "max_drop": limits.max_drop,
            "max_size_bytes": limits.max_size_bytes,
            "objective": limits.objective,
            "batch_size": limits.batch_size,
            "target": limits.target,
            "model": limits.model,
        },
        "choices": [
            {
                **_choice(results, choice, rows),
                "resolution": _plain(resolutions[choice.model, choice.target]),
            }
            for choice in choices
        ],
        "caveat": verdict.CAVEAT,
    }


def _choice(results: Results, choice: Choice, rows: Mapping[str, MeasuredTrial]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": choice.model,
        "target": choice.target,
        "trial": choice.trial,
        "reason": choice.reason,
        "judged": choice.judged,
        "batch_size": choice.batch_size,
        "ties": list(choice.ties),
        "pareto": [{"trial": trial, **_measured(rows[trial])} for trial in choice.front],
        "allowed": list(choice.allowed),
        "passed_over": [{"trial": p.trial, "reason": p.reason} for p in choice.passed_over],
    }
    if choice.trial is None:
        return found
    row = rows[choice.trial]
    gains = gains_of(results, choice.trial, choice.batch_size, list(rows.values()))
    return {
        **found,
        **_measured(row),
        "seed": row.seed,
        "seeds": None if row.pool is None else _seeds(row.pool),
        "significance": next(iter(verdict.significance(row)), None),
        "gains": [
            {
                "reference": gain.reference,
                "versus": gain.versus,
                "speedup": _ends(gain.speedup.value, gain.speedup.low, gain.speedup.high),
                "verdict": gain.verdict,
                "confirmed": None
                if gain.confirmed is None
                else _ends(gain.confirmed.value, gain.confirmed.low, gain.confirmed.high),
            }
            for gain in gains
        ],
        "confirmed": {
            metric: None
            if (again := confirmed(results, choice.trial, metric)) is None
            else _ends(again.value, again.low, again.high)
            for metric in CONFIRMED
        },
        "export": verdict.export_command(results, choice.trial, row.backend),
    }


def _plain(found: Resolution | None) -> dict[str, Any] | None:
    return None if found is None else {**dataclasses.asdict(found), "possible": found.possible}


def _seeds(pool: Pool) -> dict[str, Any]:
    """The losses of the seeds that a choice stands for, and how many of them may not be shipped."""
    return {"losses": {str(s): x for s, x in pool.losses.items()}, "left_out": pool.left_out}


def _measured(row: MeasuredTrial) -> dict[str, Any]:
    known = {metric: row.interval(metric) for metric in MEASURED}
    return {
        metric: None if found is None else _ends(found.value, found.low, found.high)
        for metric, found in known.items()
    }


def _ends(value: float, low: float, high: float) -> dict[str, float | None]:
    named = {"value": value, "low": low, "high": high}
    return {key: float(x) if math.isfinite(x) else None for key, x in named.items()}
