"""Checks: what the gates found between two runs, as a table, JUnit XML, Markdown and JSON."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantbench.analysis import (
    BETTER,
    MISSING,
    NEW,
    NOT_COMPARABLE,
    SAME_AS,
    STATUS,
    UNDECIDED,
    VERDICTS,
    WORSE,
    Change,
    Finding,
    Gate,
    LeftOut,
    changes,
    judge,
    left_out,
    shown,
    with_retimed,
)
from quantbench.cli.terminal import without
from quantbench.results import Results
from quantbench.runs import Retimed
from quantbench.units import METRICS, one_line

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
    retimed: bool = False

    @classmethod
    def of(
        cls,
        baseline: Results,
        candidate: Results,
        gates: Sequence[Gate],
        *,
        across_machines: bool = False,
        retimed: Sequence[Retimed] = (),
    ) -> Checks:
        """Compare and judge.

        Parameters
        ----------
        across_machines : bool
            Compare times of different machines too; so does a gate whose file asks for it.
        retimed : sequence of Retimed
            What was timed again takes the place of the times that the runs have.

        Raises
        ------
        NotComparable
            If the runs have no trial in common.
        """
        across = across_machines or any(gate.across_machines for gate in gates)
        found = with_retimed(changes(baseline, candidate, across_machines=across), retimed)
        before, after = (
            f"{run.run['experiment']} {run.run['run']}" for run in (baseline, candidate)
        )
        return cls(before, after, found, tuple(gates), judge(found, gates), bool(retimed))

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
        known = {id(f.gate) for f in self.findings}
        known |= {id(gate) for left in self.left_out for gate in left.gates}
        return tuple(gate for gate in self.gates if id(gate) not in known)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What gates are about and do not judge, because it is not comparable."""
        return left_out(self.changes, self.gates)

    @property
    def incomparable(self) -> dict[str, list[Change]]:
        """Changes that are not comparable, by reason."""
        found: dict[str, list[Change]] = {}
        for change in self.changes:
            if change.verdict == NOT_COMPARABLE:
                found.setdefault(change.reason, []).append(change)
        return found

    @property
    def exit_code(self) -> int:
        """1 where a gate failed, 3 where none could judge for nothing it asks for is comparable, else 0."""
        if self.failed:
            return 1
        return 3 if self.left_out and not self.findings else 0

    @property
    def notable(self) -> tuple[Change, ...]:
        """Changes of what both runs have that are surely one, worse first, less what failed a gate."""
        failed = {id(f.change) for f in self.failed}
        order = {name: i for i, name in enumerate(VERDICTS)}
        found = [
            change
            for change in self.changes
            if change.verdict not in (SAME_AS, UNDECIDED, NOT_COMPARABLE, NEW)
            and id(change) not in failed
        ]
        return tuple(sorted(found, key=lambda change: order[change.verdict]))

    @property
    def new(self) -> tuple[str, ...]:
        """Trials that only the candidate has measured."""
        return tuple(c.trial for c in self.changes if c.metric == STATUS and c.verdict == NEW)

    @property
    def place(self) -> tuple[str, str] | None:
        """Model and target where all trials have the same, to be said once."""
        places = {(one_line(c.traits["model"]), one_line(c.traits["target"])) for c in self.changes}
        return places.pop() if len(places) == 1 else None

    @property
    def summary(self) -> str:
        """How it ended, in one line."""
        trials = len({change.trial for change in self.changes})
        bad = len({f.trial for f in self.failed})
        gates = f"{len(self.gates)} gate{'s' * (len(self.gates) != 1)}"
        told = f"{trials} trial{'s' * (trials != 1)}, {gates}"
        how = {0: "passed", 1: f"failed: {bad} of", 3: "nothing could be judged:"}[self.exit_code]
        return f"{how}: {told}" if how == "passed" else f"{how} {told}"

    @property
    def counts(self) -> str:
        """How many changes have each verdict, in words."""
        known = Counter(change.verdict for change in self.changes if change.metric != STATUS)
        told = [f"{known[name]} {name}" for name in VERDICTS if known[name]]
        return "metrics of all trials: " + (", ".join(told) or "none")


def show(checks: Checks, console: Console) -> None:
    """Print what failed, then what changed, then the rest as counts."""
    console.print(one_line(f"{checks.baseline} -> {checks.candidate}"), markup=False)
    if checks.place:
        console.print(" on ".join(checks.place), markup=False)
    for title, colour, findings in (
        ("Failed", "red", checks.failed),
        ("Undecided: perhaps beyond the limit, not surely", "yellow", checks.undecided),
    ):
        if findings:
            console.print(f"\n{title}", style=f"bold {colour}")
            console.print(_findings(findings, checks.place, colour))
    if checks.notable:
        console.print("\nOther changes", style="bold")
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "", "metric", "change"):
            table.add_column(name, overflow="fold")
        for change in checks.notable[:MOST]:
            verdict = Text(change.verdict, style=_COLOURS[change.verdict])
            table.add_row(
                Text(without(one_line(change.trial), checks.place)),
                verdict,
                Text(change.name),
                Text(_told(change)),
            )
        console.print(table)
        if len(checks.notable) > MOST:
            console.print(f"... and {len(checks.notable) - MOST} more; --json has all")
    _show_incomparable(checks, console)
    if checks.new:
        first = ", ".join(without(one_line(name), checks.place) for name in checks.new[:3])
        more = f" and {len(checks.new) - 3} more" if len(checks.new) > 3 else ""
        console.print(f"\nnew: {first}{more}", markup=False)
    console.print(f"\n{checks.counts}")
    for gate in checks.idle:
        console.print(f"gate '{gate.text}' found nothing to judge", style="yellow", markup=False)
    for left in checks.left_out:
        console.print(one_line(left.sentence), style="yellow", markup=False)
    if checks.left_out and not checks.retimed:
        console.print("--retime times both runs' artifacts on this machine and judges that")
    console.print(checks.summary, style="bold red" if checks.exit_code else "bold green")


def _show_incomparable(checks: Checks, console: Console) -> None:
    """Both values of what is not comparable, under the reason."""
    left = MOST
    for reason, found in checks.incomparable.items():
        console.print(f"\nNot comparable: {one_line(reason)}", style="bold yellow", markup=False)
        table = Table(box=None, pad_edge=False)
        table.add_column("trial", overflow="fold")
        table.add_column("metric", overflow="fold")
        for side in ("baseline", "candidate"):
            table.add_column(side, justify="right", no_wrap=True)
        for change in found[:left]:
            name = without(one_line(change.trial), checks.place)
            table.add_row(Text(name), Text(change.name), *_values(change))
        if found[:left]:
            console.print(table)
        if len(found) > left:
            console.print(f"... and {len(found) - left} more; --json has all")
        left = max(left - len(found), 0)


def _values(change: Change) -> tuple[str, str]:
    """Both values as people read them."""
    write = METRICS[change.metric].write
    one, other = ("-" if x is None else write(x) for x in (change.baseline, change.candidate))
    return one, other


def _findings(findings: Sequence[Finding], place: tuple[str, str] | None, colour: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title, style in (("trial", ""), ("gate", colour), ("found", "")):
        table.add_column(title, overflow="fold", style=style)
    for f in findings:
        name = without(one_line(f.trial), place)
        table.add_row(Text(name), Text(f.gate.text), Text(one_line(f.sentence)))
    return table


def _told(change: Change) -> str:
    return change.reason if change.change is None else shown(change)


def junit(checks: Checks) -> str:
    """JUnit XML: a test case per trial, in a class per model, with a failure for each failed gate.

    Undecided findings and what is not comparable are in ``system-out``; a trial that the baseline did not run either is skipped.
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
        said += [
            f"not comparable: {c.name}: {' and '.join(_values(c))}, {c.reason}"
            for c in own
            if c.verdict == NOT_COMPARABLE
        ]
        if said:
            ET.SubElement(case, "system-out").text = _xml("\n".join(said))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def markdown(checks: Checks) -> str:
    """A short text for a pull request: what failed, what is undecided, what else changed."""
    mark = "❌" if checks.exit_code else "✅"
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
    lines += _incomparable_lines(checks)
    if checks.new:
        lines += [f"{len(checks.new)} new trials.", ""]
    lines += [f"Gate {_code(gate.text)} found nothing to judge.\n" for gate in checks.idle]
    lines += [f"Gates: {_cell(left.sentence)}.\n" for left in checks.left_out]
    return "\n".join([*lines, f"{checks.counts}.", ""])


def _incomparable_lines(checks: Checks) -> list[str]:
    """Both values of what is not comparable, folded away under each reason."""
    lines: list[str] = []
    for reason, found in checks.incomparable.items():
        summary = f"{len(found)} not comparable: {_cell(reason)}"
        lines += [f"<details><summary>{summary}</summary>", ""]
        lines += ["| trial | metric | baseline | candidate |", "|---|---|---|---|"]
        lines += [
            f"| {_code(c.trial)} | {_cell(c.name)} | {' | '.join(map(_cell, _values(c)))} |"
            for c in found[:MOST]
        ]
        if len(found) > MOST:
            lines += ["", f"... and {len(found) - MOST} more."]
        lines += ["", "</details>", ""]
    return lines


def _cell(text: str) -> str:
    """Text that is nothing but text in a table of Markdown."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#@!])", r"\\\1", plain)


def _code(text: str) -> str:
    """A name in code style; backticks and bars would end it."""
    plain = one_line(text).replace("`", "'").replace("|", "¦")
    return f"`{plain}`"


def to_json(checks: Checks) -> str:
    """Everything that was compared and judged; what is not a number is null."""
    found: dict[str, Any] = {
        "baseline": checks.baseline,
        "candidate": checks.candidate,
        "failed": bool(checks.failed),
        "exit_code": checks.exit_code,
        "not_judged": [
            {"count": left.count, "reason": left.reason, "gates": [g.text for g in left.gates]}
            for left in checks.left_out
        ],
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
