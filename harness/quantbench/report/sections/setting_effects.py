"""Changes: pairs of trials that differ in one setting, and what that setting did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from quantbench.backend_api import word
from quantbench.report.sections.section import Section
from quantbench.spec import AXES, LISTS, RAN
from quantbench.units import MISSING, one_line, points, ratio

Row = Mapping[str, Any]

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


def changes(frame: pd.DataFrame) -> tuple[Change, ...]:
    """Every pair of a preset as its backend builds it by default and with one axis changed.

    Parameters
    ----------
    frame : DataFrame
        Of `quantbench.analysis.trial_table.trial_frame`.
    """
    found = []
    keys = ["model", "target", "backend", "method", "seed"]
    for _, group in frame.groupby(keys, sort=False):
        rows = [{str(k): v for k, v in row.items()} for row in group.to_dict("records")]
        plain = next((row for row in rows if row["label"] == row["method"]), None)
        if plain is None or plain["status"] not in RAN or plain["training"] != "ptq":
            continue
        for row in rows:
            if row is plain or row["status"] not in RAN or row["training"] != "ptq":
                continue
            differing = list(_differing(plain, row))
            if "route" in differing:  # a route brings defaults of its own
                differing = ["route"]
            if len(differing) == 1:
                found.append(_change(plain, row, differing[0]))
    return tuple(sorted(found, key=lambda change: (change.setting, change.where)))


def _differing(one: Row, other: Row) -> Iterator[str]:
    for axis in AXES:
        if axis not in _IMPLIED and _value(one, axis) != _value(other, axis):
            yield axis


def _value(row: Row, axis: str) -> Any:
    value = row[axis]
    if axis in LISTS:
        return () if value is None or isinstance(value, float) else tuple(map(str, value))
    return None if isinstance(value, float) and math.isnan(value) else value


def _change(plain: Row, row: Row, axis: str) -> Change:
    speed = _quotient(plain["latency_ms"], row["latency_ms"])
    lost = row["quality"] - plain["quality"]
    gained = row["sqnr_db"] - plain["sqnr_db"]
    share = row["quality_unit"] in ("", "fraction")
    return Change(
        setting=axis,
        before=one_line(_shown(plain, axis)),
        after=one_line(_shown(row, axis)),
        where=one_line(f"{row['backend']} {row['method']}"),
        speed=MISSING if math.isnan(speed) else ratio(speed),
        quality=_signed(lost, points if share else str),
        sqnr=_signed(gained, "{:.1f} dB".format),
        size=MISSING if math.isnan(_sizes(plain, row)) else ratio(_sizes(plain, row)),
        tone=_tone(plain, row),
    )


def _tone(plain: Row, row: Row) -> str:
    """Whether it is faster or slower; neither where the intervals of the latencies overlap."""
    if row["latency_ms_high"] < plain["latency_ms_low"]:
        return "good"
    return "bad" if row["latency_ms_low"] > plain["latency_ms_high"] else ""


def _shown(row: Row, axis: str) -> str:
    value = _value(row, axis)
    if value == ():
        return "none"
    return word(value) if value not in ("", None) else "default"


def _sizes(plain: Row, row: Row) -> float:
    return _quotient(row["size_bytes"], plain["size_bytes"])


def _quotient(a: float, b: float) -> float:
    return a / b if b and not math.isnan(a) and not math.isnan(b) else math.nan


def _signed(x: float, write: Any) -> str:
    if math.isnan(x) or math.isinf(x):
        return MISSING
    text = str(write(abs(x)))
    return f"+{text}" if x > 0 else (f"−{text}" if x < 0 else text)


SECTION = Section(
    "changes", "What one setting changes", "One setting", 40,
    lambda seen: changes(seen.frame), "changes.html.j2",
)  # fmt: skip
