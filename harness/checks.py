"""Checks: what the gates found between two runs, as a table, JUnit XML, Markdown and JSON."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET  # noqa: S405 - written, never parsed

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.gates import Finding, Gate, judge, shown
from harness.regression import (
    BETTER,
    MISSING,
    NEW,
    SAME_AS,
    STATUS,
    UNDECIDED,
    VERDICTS,
    WORSE,
    Change,
    changes,
)
from harness.report.quantities import one_line
from harness.results import Results

MOST = 30
"""Lines of changes that are shown without having failed anything."""
_COLOURS = {WORSE: "red", MISSING: "red", BETTER: "green", NEW: "green", UNDECIDED: "yellow"}
# what XML 1.0 has no way to write
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Checks:
    """Two runs, by name, every change between them, and what each gate says of it."""

    baseline: str
    candidate: str
    changes: tuple[Change, ...]
    gates: tuple[Gate, ...]
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, baseline: Results, candidate: Results, gates: Sequence[Gate]) -> Checks:
        """Compare and judge.

        Raises
        ------
        NotComparable
            If the runs have no trial in common.
        """
        found = changes(baseline, candidate)
        names = (f"{run.run['experiment']} {run.folder.name}" for run in (baseline, candidate))
        return cls(*names, found, tuple(gates), judge(found, gates))

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Findings that fail, by trial."""
        return tuple(f for f in self.findings if f.failed)

    @property
    def undecided(self) -> tuple[Finding, ...]:
        """Findings that the data do not decide."""
        return tuple(f for f in self.findings if f.undecided)

    @property
    def idle(self) -> tuple[Gate, ...]:
        """Gates that no trial has a value for: they judged nothing."""
        judged = {id(f.gate) for f in self.findings}
        return tuple(gate for gate in self.gates if id(gate) not in judged)

    @property
    def notable(self) -> tuple[Change, ...]:
        """Changes that are surely one, worse first, less those that failed a gate."""
        failed = {id(f.change) for f in self.failed}
        order = {name: i for i, name in enumerate(VERDICTS)}
        found = [
            change
            for change in self.changes
            if change.verdict not in (SAME_AS, UNDECIDED) and id(change) not in failed
        ]
        return tuple(sorted(found, key=lambda change: order[change.verdict]))

    @property
    def summary(self) -> str:
        """How it ended, in one line."""
        trials = len({change.trial for change in self.changes})
        said = f"{len(self.gates)} gate{'s' * (len(self.gates) != 1)} on {trials} trials"
        if not self.failed:
            return f"passed: {said}"
        bad = len({f.trial for f in self.failed})
        return f"failed: {said}, {bad} trial{'s' * (bad != 1)} got worse"

    @property
    def counts(self) -> str:
        """How many changes have each verdict, in words."""
        known = Counter(change.verdict for change in self.changes if change.metric != STATUS)
        told = [f"{known[name]} {name}" for name in VERDICTS if known[name]]
        return "metrics of all trials: " + (", ".join(told) or "none")


def show(checks: Checks, console: Console) -> None:
    """Print what failed, then what changed, then the rest as counts."""
    console.print(f"{checks.baseline} -> {checks.candidate}", markup=False)
    if checks.failed:
        console.print("\nFailed", style="bold red")
        console.print(_table(("trial", "gate", "found"), [
            (f.trial, f.gate.text, f.sentence) for f in checks.failed
        ], "red"))  # fmt: skip
    if checks.undecided:
        console.print("\nUndecided: beyond a limit, but not surely", style="bold yellow")
        console.print(_table(("trial", "gate", "found"), [
            (f.trial, f.gate.text, f.sentence) for f in checks.undecided
        ], "yellow"))  # fmt: skip
    if checks.notable:
        console.print("\nOther changes", style="bold")
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "", "metric", "change"):
            table.add_column(name, overflow="fold")
        for change in checks.notable[:MOST]:
            verdict = Text(change.verdict, style=_COLOURS[change.verdict])
            table.add_row(
                Text(one_line(change.trial)), verdict, Text(change.name), Text(_told(change))
            )
        console.print(table)
        if len(checks.notable) > MOST:
            console.print(f"... and {len(checks.notable) - MOST} more; --json has all")
    console.print(f"\n{checks.counts}")
    for gate in checks.idle:
        console.print(f"gate '{gate.text}' found nothing to judge", style="yellow", markup=False)
    console.print(checks.summary, style="bold red" if checks.failed else "bold green")


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], style: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, title in enumerate(titles):
        table.add_column(title, overflow="fold", style=style if i == 1 else "")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table


def _told(change: Change) -> str:
    return change.reason if change.change is None else shown(change)


def junit(checks: Checks) -> str:
    """JUnit XML: a test case per trial, in a class per model, with a failure for each failed gate.

    Undecided findings are in ``system-out``; a trial that the baseline did not run either is skipped.
    """
    trials: dict[str, list[Change]] = {}
    for change in checks.changes:
        trials.setdefault(change.trial, []).append(change)
    bad = Counter(f.trial for f in checks.failed)
    unjudged = {
        trial
        for trial, own in trials.items()
        if trial not in bad and len(own) == 1 and own[0].verdict == SAME_AS
    }
    counts = {"tests": len(trials), "failures": len(bad), "skipped": len(unjudged), "errors": 0}
    told = {name: str(count) for name, count in counts.items()}
    root = ET.Element("testsuites", {"name": "quantbench compare", **told})
    name = _xml(f"{checks.baseline} -> {checks.candidate}")
    suite = ET.SubElement(root, "testsuite", {"name": name, **told})
    for trial, own in trials.items():
        model = own[0].traits["model"]
        case = ET.SubElement(
            suite, "testcase", {"classname": _xml(f"quantbench.{model}"), "name": _xml(trial)}
        )
        if trial in unjudged:
            ET.SubElement(case, "skipped", {"message": _xml(own[0].reason)})
        failed = [f for f in checks.failed if f.trial == trial]
        if failed:  # readers expect one failure in a case
            message = "; ".join(f"{f.gate.text}: {f.sentence}" for f in failed)
            told = {"message": _xml(message), "type": "gate"}
            lines = (f"{f.gate.text}: {f.sentence} ({f.change.reason})" for f in failed)
            ET.SubElement(case, "failure", told).text = _xml("\n".join(lines))
        said = [
            f"undecided: {f.gate.text}: {f.sentence}" for f in checks.undecided if f.trial == trial
        ]
        if said:
            ET.SubElement(case, "system-out").text = _xml("\n".join(said))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def markdown(checks: Checks) -> str:
    """A short text for a pull request: what failed, what is undecided, what else changed."""
    mark = "❌" if checks.failed else "✅"
    lines = [f"### {mark} quantbench: {_cell(checks.summary)}", ""]
    lines += [f"{_cell(checks.baseline)} → {_cell(checks.candidate)}", ""]
    findings = [(f, "**failed**") for f in checks.failed]
    findings += [(f, "undecided") for f in checks.undecided]
    if findings:
        lines += ["| | trial | gate | found |", "|---|---|---|---|"]
        lines += [
            f"| {word} | {_code(f.trial)} | {_code(f.gate.text)} | {_cell(f.sentence)} |"
            for f, word in findings
        ]
        lines.append("")
    if checks.notable:
        lines += [f"<details><summary>{len(checks.notable)} other changes</summary>", ""]
        lines += ["| | trial | metric | change |", "|---|---|---|---|"]
        lines += [
            f"| {c.verdict} | {_code(c.trial)} | {_cell(c.name)} | {_cell(_told(c))} |"
            for c in checks.notable[:MOST]
        ]
        if len(checks.notable) > MOST:
            lines += ["", f"... and {len(checks.notable) - MOST} more."]
        lines += ["", "</details>", ""]
    lines += [f"Gate {_code(gate.text)} found nothing to judge.\n" for gate in checks.idle]
    return "\n".join([*lines, f"{checks.counts}.", ""])


def _cell(text: str) -> str:
    """Text that is nothing but text in a table of Markdown."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#@!])", r"\\\1", plain)


def _code(text: str) -> str:
    """A name in code style; backticks and bars would end it."""
    return f"`{one_line(text).replace('`', 'ˋ').replace('|', '¦')}`"


def to_json(checks: Checks) -> str:
    """Everything that was compared and judged; what is not a number is null."""
    found: dict[str, Any] = {
        "baseline": checks.baseline,
        "candidate": checks.candidate,
        "failed": bool(checks.failed),
        "findings": [
            {
                "trial": f.trial, "gate": f.gate.text, "failed": f.failed,
                "undecided": f.undecided, "sentence": f.sentence,
            }
            for f in checks.findings
        ],
        "changes": [_change_json(change) for change in checks.changes],
    }  # fmt: skip
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _change_json(change: Change) -> dict[str, Any]:
    ends = (
        {"change": None, "low": None, "high": None}
        if change.change is None
        else {"change": change.change.value, "low": change.change.low, "high": change.change.high}
    )
    row = {
        "trial": change.trial, "metric": change.metric, "scenario": change.scenario,
        "batch_size": change.batch_size, "baseline": change.baseline,
        "candidate": change.candidate, **ends, "unit": change.unit, "verdict": change.verdict,
        "reason": change.reason,
    }  # fmt: skip
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
