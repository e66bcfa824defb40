"""Guide: what a diagnosis means, in plain words, each with the number it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from quantbench.analysis import records as advice_records
from quantbench.spec import Status
from quantbench.studies.sensitivity import IDEAL, Diagnosis, Row

BETTER_DB = 1.0
"""A change that gains less is not worth its cost."""
CLIPPED, UNSEEN, OUTLIERS = 0.001, 0.001, 30.0
WIDER, WIDER_DB = "static-int16x8", 6.0


@dataclass(frozen=True, slots=True)
class Check:
    """One debugging step that people are taught, done: its question, the number, what follows.

    ``tone``: ``good``, ``bad`` or ``calm`` (nobody can say, or it does not matter).
    """

    question: str
    number: str
    answer: str
    tone: str


def checks(found: Diagnosis, backend: str) -> Iterator[Check]:
    """The debugging steps for a whole model, in the order in which they are taught."""
    layers = records(found.ranking(backend))
    yield _representative(layers)
    yield _clipped(layers)
    yield _wider(found, backend)
    yield _unsupported(layers)
    yield _unstable(layers)


def records(frame: pd.DataFrame) -> list[Row]:
    """Rows as mappings; a value that is missing is None."""
    rows = advice_records(frame)
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in rows
    ]


def _worst(layers: list[Row], column: str) -> Row | None:
    known = [row for row in layers if row[column] is not None]
    return max(known, key=lambda row: row[column], default=None)


def _representative(layers: list[Row]) -> Check:
    question = "Are the calibration samples representative?"
    worst = _worst(layers, "unseen")
    if worst is None:
        return Check(question, "not known", "no activation could be observed", "calm")
    number = (
        f"{worst['unseen']:.2%} of test values beyond all calibration values ({worst['layer']})"
    )
    if worst["unseen"] > UNSEEN:
        return Check(question, number, "no: give more samples, or samples like the test's", "bad")
    return Check(question, number, "yes: test values stay within what was seen", "good")


def _clipped(layers: list[Row]) -> Check:
    question = "Is a range clipped?"
    worst = _worst(layers, "saturation")
    if worst is None:
        return Check(question, "not known", "no range could be matched to its values", "calm")
    number = (
        f"{worst['saturation']:.2%} of values saturate in {worst['layer']}, "
        f"error {worst['error_over_scale']:.2f} steps (ideal {IDEAL:.3f})"
    )
    if worst["saturation"] > CLIPPED:
        return Check(question, number, "yes: take a wider range (minmax, or more samples)", "bad")
    return Check(question, number, "no", "good")


def _wider(found: Diagnosis, backend: str) -> Check:
    question = "Does a wider bit width help?"
    tried = records(found.remedies(backend, ""))
    wide = next((row for row in tried if row["change"] == WIDER), None)
    if wide is None or wide["status"] != Status.OK:
        why = wide["reason"] if wide else "the method has no activations to widen"
        return Check(question, "not known", why, "calm")
    gain = wide["sqnr_db"] - found.alone(backend, "")
    number = f"16-bit activations: {gain:+.1f} dB"
    if gain > WIDER_DB:
        return Check(question, number, "yes: the 8 bits of activations are what costs", "bad")
    return Check(question, number, "no: not the bits of activations are what costs", "good")


def _unsupported(layers: list[Row]) -> Check:
    question = "Is an operation unsupported?"
    failed = [row for row in layers if row["status"] != Status.OK]
    if failed:
        number = f"{len(failed)} of {len(layers)} layers cannot be quantized alone"
        return Check(question, number, f"{failed[0]['layer']}: {failed[0]['reason']}", "bad")
    return Check(question, f"all {len(layers)} layers can be quantized", "no", "good")


def _unstable(layers: list[Row]) -> Check:
    question = "Are values numerically unstable?"
    worst = _worst(layers, "outlier_ratio")
    if worst is None:
        return Check(question, "not known", "no activation could be observed", "calm")
    number = f"largest value of {worst['layer']}: {worst['outlier_ratio']:.0f} standard deviations"
    if worst["outlier_ratio"] > OUTLIERS:
        answer = "a few values set the scale of all others: percentile or mse, or 16 bits there"
        return Check(question, number, answer, "bad")
    return Check(question, number, "no outliers that would set the scale of the others", "good")


def advice(found: Diagnosis, backend: str, layer: str) -> Iterator[str]:
    """What to try next with a layer, or with the whole model (""), best first, with its gain."""
    base = found.alone(backend, layer)
    worked = [row for row in records(found.remedies(backend, layer)) if row["status"] == Status.OK]
    for row in sorted(worked, key=lambda row: row["sqnr_db"], reverse=True):
        gain = row["sqnr_db"] - base
        if gain > BETTER_DB:
            yield f"{row['change']}: {gain:+.1f} dB"
    if layer:
        yield f"keep_float: [{layer}]: {_kept(found, backend, layer)}"


def _kept(found: Diagnosis, backend: str, layer: str) -> str:
    for row in records(found.ranking(backend, "kept")):
        if row["layer"] == layer and row["status"] == Status.OK:
            gain = row["sqnr_db"] - found.alone(backend, "")
            return f"{gain:+.1f} dB for the whole model"
    shares = found.noise(backend)
    if layer not in shares:
        return "no rounding there at all"
    return f"{shares[layer]:.0%} of the noise of single layers"


def part(found: Diagnosis, backend: str, layer: str) -> str:
    """Whether a layer's weights or its activations cost more; empty where nobody can say."""
    noise = {row["change"]: row["sqnr_db"] for row in records(found.parts(backend, layer))}
    weights, activations = noise.get("weights"), noise.get("activations")
    if weights is None or activations is None:
        return ""
    if math.isclose(weights, activations, abs_tol=BETTER_DB):
        return f"weights and activations cost alike ({weights:.1f} and {activations:.1f} dB)"
    worse = "weights" if weights < activations else "activations"
    return f"its {worse} cost most (weights {weights:.1f} dB, activations {activations:.1f} dB)"
