"""Why: what an artifact really is, and why it is not faster than its float model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.explain import baseline, causes, facts
from harness.frame import records
from harness.record import ACTIVATION, INPUT, OUTPUT, WEIGHT
from harness.report.quantities import one_line, ratio
from harness.results import Results

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Why:
    """One trial that did not gain what was hoped for: how it compares, and the causes."""

    backend: str
    label: str
    against: str
    causes: tuple[tuple[str, str], ...]


def explanations(results: Results) -> tuple[Why, ...]:
    """Every trial that was run and has a cause, the slowest against its float model first."""
    found = []
    run = results.trials[results.trials["status"].isin(["ok", "no-op", "simulated"])]
    for row in records(run):
        reference = baseline(results, row)
        if reference == row["trial"] or not _executed(results, str(row["trial"])):
            continue
        known = facts(results, row, reference)
        why = causes(known)
        if why:
            timed = known.speedup == known.speedup
            found.append(
                (
                    known.speedup if timed else float("inf"),
                    Why(
                        one_line(row["backend"]),
                        one_line(row["label"]),
                        f"{ratio(known.speedup)} its float model's speed" if timed else "not timed",
                        tuple((cause.sentence, cause.remedy) for cause in why),
                    ),
                )
            )
    return tuple(why for _, why in sorted(found, key=lambda pair: pair[0]))


def _executed(results: Results, trial: str) -> bool:
    own = results.artifacts
    return bool(((own["trial"] == trial) & (own["kind"] == "executed")).any())


def specifications(results: Results) -> dict[str, tuple[str, ...]]:
    """By trial: what its file holds, as lines of small print; nothing for a float file.

    A line more says where trials of one method and model differ in it: they are not the same method,
    whatever their name says.
    """
    tensors = results.artifacts[results.artifacts["kind"] == "tensor"]
    told = {
        str(trial): tuple(_lines(list(records(group))))
        for trial, group in tensors.groupby("trial", sort=False)
    }
    by_method: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for row in records(results.trials):
        if told.get(row["trial"]) and row["label"] == row["method"]:
            key = (row["model"], row["target"], row["method"])
            by_method.setdefault(key, set()).add(told[row["trial"]])
    return {
        str(row["trial"]): told[row["trial"]]
        + (
            ("≠ other backends",)
            if len(by_method.get((row["model"], row["target"], row["method"]), ())) > 1
            and row["label"] == row["method"]
            else ()
        )
        for row in records(results.trials)
        if told.get(row["trial"])
    }


_SPECIFIED = ("bits", "levels", "signed", "symmetric", "granularity")


def _lines(tensors: list[dict[str, Any]]) -> Iterator[str]:
    """What the weights are, and what the activations are."""
    for title, roles in (("weights", (WEIGHT,)), ("activations", (ACTIVATION, INPUT, OUTPUT))):
        integer = [t for t in tensors if t["role"] in roles and t["levels"] > 0]
        if integer:
            # what most of them are: a few differ, such as the output of a softmax
            kinds = Counter(tuple(t[key] for key in _SPECIFIED) for t in integer)
            bits, levels, signed, symmetric, granularity = kinds.most_common(1)[0][0]
            yield f"{title} {'int' if signed else 'uint'}{int(bits)}, {int(levels)} levels"
            words = "symmetric" if symmetric else "asymmetric"
            yield f"{granularity}, {words}" if title == "weights" else words
