"""Diagnosis page: which layers hurt, in every backend, with the checks and what to try next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from quantbench.report.drawing.marks import palette
from quantbench.report.drawing.sensitivity import depth, sensitivity
from quantbench.report.drawing.svg import Picture
from quantbench.results import SensitivityRow
from quantbench.spec import Status
from quantbench.studies import DEPTH, MODES, Check, Diagnosis, guide
from quantbench.units import decibels, number, one_line, percent, points

MODE_TITLE = {"quantized": "Quantized alone", "kept": "Kept in float alone"}
COLUMNS = ("SQNR", "Loss", "Agreement", "Error, steps", "Saturated")
DEPTH_COLUMNS = ("Layer", "SQNR", "Root mean square error", "Cosine")
_SHOWN_REMEDIES = 5


@dataclass(frozen=True, slots=True)
class Ranking:
    """The layers of one mode, most sensitive first: name, then a text for each of `COLUMNS`."""

    title: str
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Patient:
    """What was found in one backend."""

    backend: str
    whole: tuple[tuple[str, str], ...]
    checks: tuple[Check, ...]
    keep_float: str
    advice: tuple[tuple[str, str, tuple[str, ...]], ...]
    rankings: tuple[Ranking, ...]
    depth: tuple[tuple[str, tuple[str, ...]], ...]
    unread: str


@dataclass(frozen=True, slots=True)
class DiagnosisPage:
    """The values of the page, formatted; ``pictures``: one for each mode that was asked for.

    ``along``: the errors of the whole model's layers; None where no backend shows them.
    """

    title: str
    model: str
    method: str
    parts: str
    samples: str
    machine: str
    pictures: tuple[tuple[str, Picture], ...]
    along: Picture | None
    patients: tuple[Patient, ...]
    agreement: tuple[tuple[str, str, str], ...]
    refused: tuple[tuple[str, str], ...]


def summarise(found: Diagnosis, machine: str) -> DiagnosisPage:
    """Everything the page says; ``machine`` is the processor's name."""
    request = found.request
    backends = [str(name) for name in found.sensitivity["backend"].unique()]
    samples = int(found.sensitivity["samples"].max())
    return DiagnosisPage(
        title=one_line(f"{request.model}: where {request.preset} hurts"),
        model=one_line(request.model),
        method=one_line(request.preset),
        parts={"both": "weights and activations"}.get(request.parts, f"{request.parts} alone"),
        samples=f"{samples:,}",
        machine=one_line(machine),
        pictures=tuple(_pictures(found, backends)),
        along=_along(found, backends),
        patients=tuple(_patient(found, name) for name in backends),
        agreement=tuple((a, b, f"{value:.2f}") for a, b, value in found.agreement()),
        refused=tuple((name, one_line(why, 300)) for name, why in found.refused.items()),
    )


def _pictures(found: Diagnosis, backends: list[str]) -> Iterator[tuple[str, Picture]]:
    colors = palette(backends)
    for mode in MODES:
        rows = found.sensitivity[found.sensitivity["mode"] == mode].dropna(subset=["sqnr_db"])
        if len(rows):
            yield MODE_TITLE[mode], sensitivity(rows, colors, name=f"sensitivity-{mode}")


def _along(found: Diagnosis, backends: list[str]) -> Picture | None:
    known = found.sensitivity[found.sensitivity["mode"] == DEPTH]
    known = known[(known["layer"] != "") & np.isfinite(known["sqnr_db"])]
    rows = known.drop_duplicates(["backend", "layer"])
    return depth(rows, palette(backends), name="depth") if len(rows) else None


def _patient(found: Diagnosis, backend: str) -> Patient:
    whole = found.whole(backend)
    worst = [row.layer for row in found.ranking(backend)][: found.request.worst]
    return Patient(
        backend=one_line(backend),
        whole=(
            ("SQNR", _known(whole.sqnr_db, decibels)),
            ("Quality", _known(whole.quality, percent)),
            ("Loss", _known(whole.quality_drop, points)),
            ("Agreement", _known(whole.agreement, percent)),
        ),
        checks=tuple(guide.checks(found, backend)),
        keep_float=f"keep_float: [{', '.join(found.keep_float(backend))}]",
        advice=tuple(_advice(found, backend, ["", *worst])),
        rankings=tuple(
            Ranking(MODE_TITLE[mode], tuple(map(_layer, ranked)))
            for mode in MODES
            if (ranked := found.ranking(backend, mode))
        ),
        depth=tuple(_activation(row) for row in found.depth(backend) if row.status == Status.OK),
        unread=next((row.reason for row in found.depth(backend) if row.reason), ""),
    )


def _advice(
    found: Diagnosis, backend: str, layers: list[str]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for layer in layers:
        told = tuple(guide.advice(found, backend, layer))[:_SHOWN_REMEDIES]
        if told:
            yield one_line(layer) or "Whole model", guide.part(found, backend, layer), told


def _layer(row: SensitivityRow) -> tuple[str, tuple[str, ...]]:
    name = one_line(row.layer)
    if row.status != Status.OK:
        return name, (one_line(f"{row.status}: {row.reason}", 200),)
    return name, (
        _known(row.sqnr_db, decibels),
        _known(row.quality_drop, points),
        _known(row.agreement, percent),
        _known(row.error_over_scale, lambda x: f"{x:.2f}"),
        _known(row.saturation, percent),
    )


def _activation(row: SensitivityRow) -> tuple[str, tuple[str, ...]]:
    return one_line(row.change), (
        one_line(row.layer),
        decibels(row.sqnr_db),
        number(math.sqrt(row.mse)),
        _known(row.cosine, lambda x: f"{x:.4f}"),
    )


def _known(value: float, write: Callable[[float], str]) -> str:
    return "" if math.isnan(value) else write(value)
