"""Markdown: the short form of a report, for a comment in a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from quantbench.analysis import (
    Constraints,
    Gain,
    MeasuredTrial,
    choose,
    pooled,
    same_runtime,
    standings,
    trial_rows,
)
from quantbench.report import mlperf, verdict
from quantbench.report.glossary import STATUS_MEANING
from quantbench.report.provenance import listed
from quantbench.results import Results, parts
from quantbench.spec import FAILURES
from quantbench.units import MISSING, milliseconds, one_line, place_name, ratio, size

MOST = 8
"""Rows of the Pareto set, and trials that failed, of one model and target."""


def brief(results: Results, limits: Constraints | None = None, report: str = "") -> str:
    """The verdict of each model and target, its Pareto set, warnings, and where the report is.

    Parameters
    ----------
    report : str, optional
        Where the full report is.
    """
    limits = limits or Constraints()
    trials = trial_rows(results)
    experiments = [str(part.run.get("experiment") or "experiment") for part in parts(results)]
    lines = [f"## quantbench: {' + '.join(escaped(e) for e in dict.fromkeys(experiments))}", ""]
    if not trials:
        lines += ["No trial in this run.", ""]
    own = same_runtime(results, trials, trials[0].batch_size if trials else None)
    candidates = pooled(trial_rows(results, limits.batch_size))
    for place in standings(results, limits.objective, limits.batch_size):
        choice = choose(place, limits)
        here = [t for t in candidates if (t.model, t.target) == (place.model, place.target)]
        rows = {row.trial: row for row in here}
        row = rows[choice.trial] if choice.trial else None
        name = escaped(place_name(place.model, place.target))
        spoken = verdict.in_short(results, row, here, choice.batch_size) if row is not None else ""
        said = f"{escaped(verdict.headline(row))}{f': {spoken}' if spoken else ''}"
        lines += [
            f"**{name}.** {said}.",
            "",
            f"{choice.reason[:1].upper()}{choice.reason[1:]}.",
            "",
        ]
        if choice.front:
            lines += [*_table([rows[trial] for trial in choice.front], choice.trial, own), ""]
        if choice.ties:
            tied = ", ".join(escaped(verdict.with_size(rows[trial])) for trial in choice.ties)
            lines += [f"As good within noise: {tied}.", ""]
        if row is not None:
            command = verdict.export_command(results, str(choice.trial), row.backend)
            lines += [*_fenced(command), ""]
    lines += [*_warnings(results), *_failures(trials)]
    lines += [f"<sub>{verdict.rule(limits)} {verdict.CAVEAT}</sub>", ""]
    if told := mlperf.footnote(results):
        lines += [f"<sub>{escaped(told.statement)}</sub>", ""]
    if report:
        lines += [f"Full report: {escaped(report)}", ""]
    return "\n".join(lines)


def _table(
    front: Sequence[MeasuredTrial], chosen: str | None, own: Mapping[str, Gain]
) -> Iterator[str]:
    """``own``: the speed-up of trials in their own runtime."""
    yield "| Pareto set | latency | in its runtime | over the reference | quality | loss at most | size |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for row in front[:MOST]:
        name = escaped(verdict.name(row))
        cells = (
            f"**{name}**" if row.trial == chosen else name,
            verdict.shown(row, "latency_ms", milliseconds),
            ratio(own[row.trial].speedup.value) if row.trial in own else MISSING,
            "reference" if row.is_reference else verdict.shown(row, "speedup", ratio),
            verdict.shown(row, "quality", verdict.quality_writer(row)),
            verdict.shown(row, "quality_drop_bound", verdict.loss_writer(row)),
            verdict.shown(row, "size_bytes", size),
        )
        yield f"| {' | '.join(cells)} |"
    if len(front) > MOST:
        yield f"| and {len(front) - MOST} more | | | | | | |"


def _fenced(command: str) -> tuple[str, str, str]:
    """A command as a block of code that nothing in it can end."""
    longest = max((len(ticks) for ticks in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return (f"{fence}sh", " ".join(command.splitlines()), fence)


def _warnings(results: Results) -> Iterator[str]:
    warnings = [w for part in parts(results) for w in listed(part.machine.get("warnings"))]
    for warning in dict.fromkeys(warnings):
        yield f"> {escaped(warning)}"
    if warnings:
        yield ""


def _failures(rows: Sequence[MeasuredTrial]) -> Iterator[str]:
    failed = [row for row in rows if row.status in FAILURES]
    if not failed:
        return
    yield f"{len(failed)} of {len(rows)} trials did not come to a result:"
    yield ""
    for row in failed[:MOST]:
        reason = escaped(one_line(row.reason or STATUS_MEANING.get(row.status, ""), 160))
        yield f"- {escaped(row.trial)}: {row.status}: {reason}"
    if len(failed) > MOST:
        yield f"- and {len(failed) - MOST} more"
    yield ""


def escaped(text: str) -> str:
    r"""Any text as Markdown that shows it: no markup, no HTML, nobody mentioned, nothing linked.

    >>> escaped("a|b *c* <d> @e https://f")
    'a\\|b \\*c\\* &lt;d&gt; &#64;e https&#58;//f'
    """
    shown = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", shown)
    return shown.replace("@", "&#64;").replace("://", "&#58;//")
