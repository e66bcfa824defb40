"""MLPerf: what stands beside words of its benchmarks: how ours differ, and that nobody verified them.

Sources: mlcommons/inference_policies 848b9ab (inference_rules.adoc: Scenarios, LoadGen Operation,
Divisions), mlcommons/inference 001712e (loadgen/mlperf.conf), mlcommons/policies c0d89de
(MLPerf_Results_Messaging_Guidelines.adoc, which asks for `NOT_VERIFIED`, version, division and
`TRADEMARK`, and forbids comparisons with results that were not made by the rules).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from quantbench.results import Results
from quantbench.spec import TIMED, Division, Scenario

NOT_VERIFIED = "Result not verified by MLCommons Association."
VERSION = "rules at commit 848b9ab of mlcommons/inference_policies"
TRADEMARK = (
    "The MLPerf name and logo are registered and unregistered trademarks of MLCommons Association in "
    "the United States and other countries. All rights reserved. Unauthorized use strictly "
    "prohibited. See www.mlcommons.org for more information."
)
NOT_COMPARABLE = (
    "No number here is a result of an MLPerf® benchmark, and none may be compared with one: LoadGen "
    "did not run, and the rules were not followed."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A scenario as the rules of MLPerf Inference have it, and what bears its name here."""

    theirs: str
    ours: str


DIFFERENCES: Mapping[str, Difference] = {
    Scenario.SINGLE_STREAM: Difference(
        "queries of one sample, each sent when the last was answered, for at least 600 s; the result "
        "is the 90th percentile of latency (early-stopping estimate), from the query to its answer",
        "the runtime's call alone for one sample, in bursts of about 50 ms between those of the other "
        "artifacts, until the ratio is as narrow as asked; the result is the median and its ratio to "
        "the reference",
    ),
    Scenario.MULTI_STREAM: Difference(
        "queries of 8 samples, for at least 600 s and 662 queries; the result is the 99th percentile",
        "a batch of whatever size the experiment lists; all else as in single-stream here",
    ),
    Scenario.OFFLINE: Difference(
        "one query of at least 24,576 samples (or of the whole data set, where a benchmark has "
        "fewer), for at least 600 s; the result is samples a second",
        "batch after batch at the size of the artifact's highest throughput, in bursts as in "
        "single-stream here; the result is time per sample and its ratio to the reference",
    ),
}
"""By scenario; docs/measuring.md has it as a table."""


@dataclass(frozen=True, slots=True)
class Footnote:
    """What a report says of words of MLPerf Inference that it uses.

    ``statement``: sentences; ``differences``: of each scenario that was timed.
    """

    statement: str
    differences: tuple[tuple[str, Difference], ...]


def footnote(results: Results) -> Footnote | None:
    """The footnote of a run; None where nothing was timed, and no such word is used."""
    timed = set(results.measurements["scenario"])
    here = tuple((str(s), DIFFERENCES[s]) for s in TIMED if s in timed)
    if not here:
        return None
    names = ", ".join(name for name, _ in here)
    verb = "is a word" if len(here) == 1 else "are words"
    statement = (
        f"{names[:1].upper()}{names[1:]} {verb} of the MLPerf® Inference benchmarks ({VERSION}), for "
        f"what is measured here in another way. {NOT_VERIFIED} {NOT_COMPARABLE} {_divisions(results)} "
        f"{TRADEMARK}"
    )
    return Footnote(statement, here)


def _divisions(results: Results) -> str:
    """How many trials are of which division, in words."""
    counts = Counter(results.trials["division"].fillna("").astype(str))
    told = [f"{counts[division]} {division}" for division in Division if counts[division]]
    if counts[""]:
        told.append(f"{counts['']} of neither, as the file was ready-made")
    return (
        f"Division, by whether a trial was retrained and by no other rule: {', '.join(told)} "
        "(closed: quantized from the trained weights and calibration samples alone; open: retrained)."
    )


def as_table() -> str:
    """The differences as Markdown."""
    lines = ["| word | MLPerf® Inference | here |", "|---|---|---|"]
    lines += [f"| `{name}` | {one.theirs} | {one.ours} |" for name, one in DIFFERENCES.items()]
    return "\n".join(lines) + "\n"
