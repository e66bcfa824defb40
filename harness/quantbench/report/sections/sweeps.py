"""Sweeps: what a numeric axis does over many values, and what shifted inputs do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from quantbench.report.drawing.dots import drift
from quantbench.report.drawing.lines import sweep
from quantbench.report.drawing.marks import palette
from quantbench.report.drawing.svg import Picture
from quantbench.report.sections.section import Section
from quantbench.spec import RECALIBRATED

SWEPT: Mapping[str, str] = {
    "samples": "calibration samples",
    "percentile": "percentile",
    "sigmas": "standard deviations",
}
"""Axes whose effect is drawn, in words; from three values on."""
_FEWEST = 3
_LOSSLESS_DB = 100
"""A float model's rounding; there is nothing to see in it."""


def sweeps(frame: pd.DataFrame, colors: Mapping[str, str]) -> tuple[Picture, ...]:
    """A picture for each swept axis, and one for shifted inputs.

    Parameters
    ----------
    frame : DataFrame
        Of `quantbench.analysis.trial_table.trial_frame`.
    """
    if frame.empty:
        return ()
    return (*_axes(frame, colors), *_drifts(frame))


def _axes(frame: pd.DataFrame, colors: Mapping[str, str]) -> Iterator[Picture]:
    plain = frame[(frame["training"] == "ptq") & ~frame["model"].str.contains("@")]
    for axis, words in SWEPT.items():
        known = plain[plain[axis] > 0].dropna(subset=["sqnr_db"])
        for (model, method), group in known.groupby(["model", "method"], sort=False):
            # nothing else may differ: only trials whose label names this axis, or none
            same = group[[_only(label, axis) for label in group["label"]]]
            if same[axis].nunique() < _FEWEST:
                continue
            drawn = same.rename(columns={axis: words, "sqnr_db": "SQNR"})
            name = f"sweep-{axis}-{len(str(model))}-{method}"
            yield sweep(drawn, colors, x=words, y="SQNR", unit="dB", name=name)


def _only(label: str, axis: str) -> bool:
    """Whether a label names no axis but this."""
    return all(part.startswith(f"{axis}=") for part in label.split("+")[1:])


def _drifts(frame: pd.DataFrame) -> Iterator[Picture]:
    rows = pd.DataFrame(list(_shifted(frame)))
    if rows.empty or rows["shift"].nunique() < _FEWEST - 1:
        return
    lines = list(dict.fromkeys(rows["line"]))
    yield drift(rows, lines, y="quality", name="drift-quality")
    lossy = rows[rows["sqnr_db"] < _LOSSLESS_DB].rename(columns={"sqnr_db": "SQNR"})
    if len(lossy):
        yield drift(lossy, lines, y="SQNR", name="drift-sqnr")


def _shifted(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Trials under shifts, and the same trials without one, where there are any."""
    bases = {str(model).partition("@")[0] for model in frame["model"] if "@" in str(model)}
    columns = ["model", "backend", "label", "samples", "quality", "sqnr_db"]
    known = frame.dropna(subset=["quality"])[columns]
    for model, backend, label, samples, quality, sqnr_db in known.itertuples(
        index=False, name=None
    ):
        base, _, shift = str(model).partition("@")
        if base not in bases:
            continue
        plain, _, again = shift.partition(":")
        line = str(label)
        if again == RECALIBRATED:
            if not samples:
                continue  # nothing of it is calibrated
            line = f"{line}, {RECALIBRATED}"
        yield {
            "backend": backend, "line": line, "shift": plain or "none",
            "quality": quality, "sqnr_db": sqnr_db,
        }  # fmt: skip


SECTION = Section(
    "sweeps", "Sweeps", "Sweeps", 60,
    lambda seen: sweeps(seen.frame, palette(list(seen.frame["backend"])) if len(seen.frame) else {}),
)  # fmt: skip
