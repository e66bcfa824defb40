"""Regression report: changes and findings as a table, Markdown, JUnit XML and JSON."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.gates import Finding, told
from harness.regression import BETTER, MISSING, NEW, SAME, WORSE, Change
from harness.report.quantities import one_line

NOT_XML = re.compile(r"[^\t\n\r -\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")
MOST = 40
"""Rows of the table of changes; the rest is counted."""
SHOWN = (MISSING, WORSE, BETTER)


def show(changes: Sequence[Change], findings: Sequence[Finding], out: Console) -> None:
    """What failed, then what is better or worse, then how much stayed the same."""
    failed = _failed(findings)
    if failed:
        table = Table(title="Failed", box=None, pad_edge=False, title_justify="left")
        table.add_column("trial", overflow="fold")
        table.add_column("what", overflow="fold")
        for finding in failed:
            table.add_row(one_line(finding.trial), one_line(finding.sentence))
        out.print(table)
        out.print()
    moved = _moved(changes)
    if moved:
        table = Table(title="Changed", box=None, pad_edge=False, title_justify="left")
        for column in ("trial", "metric", "change", "verdict"):
            table.add_column(column, overflow="fold")
        for change in moved[:MOST]:
            table.add_row(
                one_line(change.trial), metric(change), one_line(told(change)), change.verdict
            )
        out.print(table)
        if len(moved) > MOST:
            out.print(f"and {len(moved) - MOST} more; --json has all of them")
        out.print()
    out.print(_counted(changes), markup=False, soft_wrap=True)
    for reason in dict.fromkeys(c.reason for c in changes if c.change is None and c.reason):
        out.print(f"not compared: {reason}", markup=False, soft_wrap=True)
    out.print(_verdict(findings), style="bold red" if failed else "bold green")


def markdown(changes: Sequence[Change], findings: Sequence[Finding]) -> str:
    """The short form for the comment of a pull request."""
    failed = _failed(findings)
    lines = [f"### quantbench: {_verdict(findings)}", ""]
    if failed:
        lines += ["| trial | failed |", "|---|---|"]
        lines += [f"| {_cell(f.trial)} | {_cell(f.sentence)} |" for f in failed]
        lines.append("")
    moved = _moved(changes)
    if moved:
        lines += ["| trial | metric | change | verdict |", "|---|---|---|---|"]
        lines += [
            f"| {_cell(c.trial)} | {_cell(metric(c))} | {_cell(told(c))} | {c.verdict} |"
            for c in moved[:MOST]
        ]
        if len(moved) > MOST:
            lines.append(f"\n{len(moved) - MOST} more changes are not shown.")
        lines.append("")
    lines.append(_counted(changes))
    return "\n".join(lines) + "\n"


def junit(findings: Sequence[Finding]) -> str:
    """JUnit XML: a test case per trial, failed with each of its gates that did."""
    by_trial: dict[str, list[Finding]] = {}
    for finding in findings:
        by_trial.setdefault(finding.trial, []).append(finding)
    broken = {trial for trial, own in by_trial.items() if _failed(own)}
    suite = ET.Element(
        "testsuite",
        name="quantbench",
        tests=str(len(by_trial)),
        failures=str(len(broken)),
        errors="0",
    )
    for trial, own in by_trial.items():
        case = ET.SubElement(suite, "testcase", classname="quantbench", name=_xml(trial))
        if failed := _failed(own):
            text = "\n".join(f.sentence for f in failed)
            ET.SubElement(case, "failure", message=_xml(failed[0].sentence)).text = _xml(text)
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def to_json(changes: Sequence[Change], findings: Sequence[Finding]) -> str:
    """Every change and every gate, as JSON; what is not known is null."""
    return json.dumps(
        {
            "failed": len(_failed(findings)),
            "changes": [_change(c) for c in changes],
            "gates": [
                {"trial": f.trial, "gate": f.gate.text, "failed": f.failed, "sentence": f.sentence}
                for f in findings
            ],
        },
        indent=1,
        allow_nan=False,
    )


def metric(change: Change) -> str:
    """The metric, with the batch size where it is a time."""
    return change.metric + (f", batch {change.batch_size}" if change.batch_size else "")


def _change(change: Change) -> dict[str, Any]:
    moved = change.change
    return {
        "trial": change.trial,
        "metric": change.metric,
        "batch_size": change.batch_size,
        "baseline": _known(change.baseline),
        "candidate": _known(change.candidate),
        "change": None if moved is None else _known(moved.value),
        "low": None if moved is None else _known(moved.low),
        "high": None if moved is None else _known(moved.high),
        "unit": change.unit,
        "verdict": change.verdict,
        "reason": change.reason,
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _failed(findings: Iterable[Finding]) -> list[Finding]:
    return [f for f in findings if f.failed]


def _moved(changes: Sequence[Change]) -> list[Change]:
    """What is missing, worse and better, in that order."""
    return [c for verdict in SHOWN for c in changes if c.verdict == verdict]


def _counted(changes: Sequence[Change]) -> str:
    counts = Counter(c.verdict for c in changes)
    known = [*(v for v in (*SHOWN, SAME, NEW) if v in counts)]
    order = [*known, *(v for v in counts if v not in known)]
    trials = len({c.trial for c in changes})
    told_ = ", ".join(f"{counts[verdict]} {verdict}" for verdict in order)
    return f"{len(changes)} metrics of {trials} trials: {told_}"


def _verdict(findings: Sequence[Finding]) -> str:
    failed = _failed(findings)
    if not failed:
        return f"no regression: {len(findings)} checks passed"
    trials = len({f.trial for f in failed})
    return f"{len(failed)} of {len(findings)} checks failed, in {trials} trial{'s' * (trials > 1)}"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table: no markup, no line break, no end of the cell."""
    return re.sub(r"([\\`*_{}\[\]<>|#~@&!])", r"\\\1", one_line(text))


def _xml(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)
