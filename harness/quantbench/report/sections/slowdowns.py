"""Slowdowns: what an artifact really is, and why it is not faster than its float model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from quantbench.analysis import baseline, causes, facts
from quantbench.backend_api import ACTIVATION, INPUT, OUTPUT, WEIGHT
from quantbench.report.sections.section import Section, Seen
from quantbench.results import ArtifactRow, Results, TrialRow, rows
from quantbench.spec import RAN
from quantbench.units import one_line, ratio


@dataclass(frozen=True, slots=True)
class Why:
    """One trial that did not gain what was hoped for: how it compares, and what could explain it."""

    backend: str
    label: str
    against: str
    causes: tuple[str, ...]


MOST = 200
"""Trials that are explained on one page."""


def explanations(results: Results) -> tuple[Why, ...]:
    """Trials that were run and have what could explain their speed, the slowest against their float model first.

    Of more than `MOST` trials, only the slowest against their float model are looked at.
    """
    found = []
    # a trial's own rows, so that a run of many trials is not searched for each of them
    artifacts = dict(tuple(results.artifacts.groupby("trial")))
    measurements = dict(tuple(results.measurements.groupby("trial")))
    for row, reference in _slowest(results)[:MOST]:
        own = artifacts.get(row.trial)
        if own is None or not (own["kind"] == "executed").any():
            continue
        both = (row.trial, reference)
        alone = replace(
            results,
            artifacts=pd.concat([artifacts[name] for name in both if name in artifacts]),
            measurements=pd.concat([measurements[name] for name in both if name in measurements]),
        )
        known = facts(alone, row, reference)
        why = causes(known)
        if why:
            timed = known.speedup == known.speedup
            found.append(
                (
                    known.speedup if timed else float("inf"),
                    Why(
                        one_line(row.backend),
                        one_line(row.label),
                        f"{ratio(known.speedup)} its float model's speed" if timed else "not timed",
                        tuple(cause.sentence for cause in why),
                    ),
                )
            )
    return tuple(why for _, why in sorted(found, key=lambda pair: pair[0]))


def _slowest(results: Results) -> list[tuple[TrialRow, str]]:
    """Trials that were run, each with its float model, the slowest against it first."""
    timed = results.measurements[results.measurements["metric"] == "latency_ms"]
    latency = dict(zip(timed["trial"], timed["value"].fillna(0.0), strict=True))
    trials = rows(TrialRow, results.trials)
    floats: dict[tuple[str, str], list[TrialRow]] = {}
    for row in trials:
        if row.method == "fp32":
            floats.setdefault((row.model, row.target), []).append(row)
    found = []
    for row in trials:
        reference = baseline(floats.get((row.model, row.target), ()), row)
        if row.status in RAN and reference != row.trial:
            own, plain = latency.get(row.trial, 0.0), latency.get(reference, 0.0)
            found.append((own / plain if plain else 0.0, row, reference))
    found.sort(key=lambda entry: -entry[0])
    return [(row, reference) for _, row, reference in found]


def specifications(results: Results) -> dict[str, tuple[str, ...]]:
    """By trial: what its file holds, as lines of small print; nothing for a float file.

    A line more says where trials of one method and model differ in it: they are not the same method,
    whatever their name says.
    """
    tensors = results.artifacts[results.artifacts["kind"] == "tensor"]
    told = {
        str(trial): tuple(_lines(rows(ArtifactRow, group)))
        for trial, group in tensors.groupby("trial", sort=False)
    }
    known = [row for row in rows(TrialRow, results.trials) if told.get(row.trial)]
    by_method: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for row in known:
        if row.label == row.method:
            by_method.setdefault(_method(row), set()).add(told[row.trial])
    return {
        row.trial: told[row.trial]
        + (
            ("≠ other backends",)
            if row.label == row.method and len(by_method[_method(row)]) > 1
            else ()
        )
        for row in known
    }


def _method(row: TrialRow) -> tuple[str, ...]:
    return (row.model, row.target, row.method)


def _lines(tensors: Sequence[ArtifactRow]) -> Iterator[str]:
    """What the weights are, and what the activations are."""
    for title, roles in (("weights", (WEIGHT,)), ("activations", (ACTIVATION, INPUT, OUTPUT))):
        integer = [t for t in tensors if t.role in roles and t.levels]
        if integer:
            # what most of them are: a few differ, such as the output of a softmax
            kinds = Counter(
                (t.bits, t.levels, t.signed, t.symmetric, t.granularity) for t in integer
            )
            bits, levels, signed, symmetric, granularity = kinds.most_common(1)[0][0]
            yield f"{title} {'int' if signed else 'uint'}{bits}, {levels} levels"
            words = "symmetric" if symmetric else "asymmetric"
            yield f"{granularity}, {words}" if title == "weights" else words


def _intro(seen: Seen) -> str:
    most = (
        f"; of more than {MOST} trials, the slowest against their float model"
        if len(seen.trials) > MOST
        else ""
    )
    return (
        "What could explain why trials gain less than their method promises: the record of the file, the "
        f"executed operations and the machine say what there is{most}. Where the time really goes was not "
        "profiled here: quantbench explain RUN TRIAL --profile measures it, and names a cause only where "
        "its operators hold the time."
    )


SECTION = Section(
    "why", "Why it is not faster", "Why", 90,
    lambda seen: explanations(seen.results), "why.html.j2", _intro,
)  # fmt: skip
