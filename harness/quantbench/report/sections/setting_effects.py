"""Setting effects: pairs of trials that differ in one setting, and what that setting did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from quantbench.analysis import MeasuredTrial
from quantbench.backend_api import word
from quantbench.report.sections.section import Section
from quantbench.spec import AXES, RAN
from quantbench.units import MISSING, one_line, points, ratio

# what follows from another axis, or says nothing of the artifact
_IMPLIED = ("samples", "percentile", "group_size")


@dataclass(frozen=True, slots=True)
class Change:
    """One setting, from what to what, and its effects; texts ready to be shown."""

    setting: str
    before: str
    after: str
    where: str
    speed: str
    quality: str
    sqnr: str
    size: str
    tone: str


def changes(trials: Sequence[MeasuredTrial]) -> tuple[Change, ...]:
    """Every pair of a preset as its backend builds it by default and with one axis changed."""
    found = []
    groups: dict[tuple[Any, ...], list[MeasuredTrial]] = {}
    for row in trials:
        key = (row.model, row.target, row.backend, row.method, row.seed)
        groups.setdefault(key, []).append(row)
    for rows in groups.values():
        plain = next((row for row in rows if row.label == row.method), None)
        if plain is None or plain.status not in RAN or plain.training != "ptq":
            continue
        for row in rows:
            if row is plain or row.status not in RAN or row.training != "ptq":
                continue
            differing = list(_differing(plain, row))
            if "route" in differing:  # a route brings defaults of its own
                differing = ["route"]
            if len(differing) == 1:
                found.append(_change(plain, row, differing[0]))
    return tuple(sorted(found, key=lambda change: (change.setting, change.where)))


def _differing(one: MeasuredTrial, other: MeasuredTrial) -> Iterator[str]:
    for axis in AXES:
        if axis not in _IMPLIED and one.axes[axis] != other.axes[axis]:
            yield axis


def _change(plain: MeasuredTrial, row: MeasuredTrial, axis: str) -> Change:
    speed = _quotient(plain.value("latency_ms"), row.value("latency_ms"))
    lost = row.value("quality") - plain.value("quality")
    gained = row.value("sqnr_db") - plain.value("sqnr_db")
    share = row.of("quality").unit in ("", "fraction")
    return Change(
        setting=axis,
        before=one_line(_shown(plain, axis)),
        after=one_line(_shown(row, axis)),
        where=one_line(f"{row.backend} {row.method}"),
        speed=MISSING if math.isnan(speed) else ratio(speed),
        quality=_signed(lost, points if share else str),
        sqnr=_signed(gained, "{:.1f} dB".format),
        size=MISSING if math.isnan(_sizes(plain, row)) else ratio(_sizes(plain, row)),
        tone=_tone(plain, row),
    )


def _tone(plain: MeasuredTrial, row: MeasuredTrial) -> str:
    """Whether it is faster or slower; neither where the intervals of the latencies overlap."""
    before, after = plain.of("latency_ms"), row.of("latency_ms")
    if after.high < before.low:
        return "good"
    return "bad" if after.low > before.high else ""


def _shown(row: MeasuredTrial, axis: str) -> str:
    value = row.axes[axis]
    if value == ():
        return "none"
    return word(value) if value not in ("", None) else "default"


def _sizes(plain: MeasuredTrial, row: MeasuredTrial) -> float:
    return _quotient(row.value("size_bytes"), plain.value("size_bytes"))


def _quotient(a: float, b: float) -> float:
    return a / b if b and not math.isnan(a) and not math.isnan(b) else math.nan


def _signed(x: float, write: Any) -> str:
    if math.isnan(x) or math.isinf(x):
        return MISSING
    text = str(write(abs(x)))
    return f"+{text}" if x > 0 else (f"−{text}" if x < 0 else text)


SECTION = Section(
    "changes", "What one setting changes", "One setting", 40,
    lambda seen: changes(seen.trials), "changes.html.j2",
)  # fmt: skip
