"""Guide: what a diagnosis means, in plain words, each with the number it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantbench.results import SensitivityRow
from quantbench.spec import Status
from quantbench.studies.sensitivity import IDEAL, Diagnosis

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
    layers = found.ranking(backend)
    yield _representative(layers)
    yield _clipped(layers)
    yield _wider(found, backend)
    yield _unsupported(layers)
    yield _unstable(layers)


def _worst(layers: Sequence[SensitivityRow], column: str) -> SensitivityRow | None:
    """The layer with the largest value of a column; None where no layer has one."""
    known = [row for row in layers if not math.isnan(getattr(row, column))]
    return max(known, key=lambda row: float(getattr(row, column)), default=None)


def _representative(layers: Sequence[SensitivityRow]) -> Check:
    question = "Are the calibration samples representative?"
    worst = _worst(layers, "unseen")
    if worst is None:
        return Check(question, "not known", "no activation could be observed", "calm")
    number = f"{worst.unseen:.2%} of test values beyond all calibration values ({worst.layer})"
    if worst.unseen > UNSEEN:
        return Check(question, number, "no: give more samples, or samples like the test's", "bad")
    return Check(question, number, "yes: test values stay within what was seen", "good")


def _clipped(layers: Sequence[SensitivityRow]) -> Check:
    question = "Is a range clipped?"
    worst = _worst(layers, "saturation")
    if worst is None:
        return Check(question, "not known", "no range could be matched to its values", "calm")
    number = (
        f"{worst.saturation:.2%} of values saturate in {worst.layer}, "
        f"error {worst.error_over_scale:.2f} steps (ideal {IDEAL:.3f})"
    )
    if worst.saturation > CLIPPED:
        return Check(question, number, "yes: take a wider range (minmax, or more samples)", "bad")
    return Check(question, number, "no", "good")


def _wider(found: Diagnosis, backend: str) -> Check:
    question = "Does a wider bit width help?"
    tried = found.remedies(backend, "")
    wide = next((row for row in tried if row.change == WIDER), None)
    if wide is None or wide.status != Status.OK:
        why = wide.reason if wide else "the method has no activations to widen"
        return Check(question, "not known", why, "calm")
    gain = wide.sqnr_db - found.alone(backend, "")
    number = f"16-bit activations: {gain:+.1f} dB"
    if gain > WIDER_DB:
        return Check(question, number, "yes: the 8 bits of activations are what costs", "bad")
    return Check(question, number, "no: not the bits of activations are what costs", "good")


def _unsupported(layers: Sequence[SensitivityRow]) -> Check:
    question = "Is an operation unsupported?"
    failed = [row for row in layers if row.status != Status.OK]
    if failed:
        number = f"{len(failed)} of {len(layers)} layers cannot be quantized alone"
        return Check(question, number, f"{failed[0].layer}: {failed[0].reason}", "bad")
    return Check(question, f"all {len(layers)} layers can be quantized", "no", "good")


def _unstable(layers: Sequence[SensitivityRow]) -> Check:
    question = "Are values numerically unstable?"
    worst = _worst(layers, "outlier_ratio")
    if worst is None:
        return Check(question, "not known", "no activation could be observed", "calm")
    number = f"largest value of {worst.layer}: {worst.outlier_ratio:.0f} standard deviations"
    if worst.outlier_ratio > OUTLIERS:
        answer = "a few values set the scale of all others: percentile or mse, or 16 bits there"
        return Check(question, number, answer, "bad")
    return Check(question, number, "no outliers that would set the scale of the others", "good")


def advice(found: Diagnosis, backend: str, layer: str) -> Iterator[str]:
    """What to try next with a layer, or with the whole model (""), best first, with its gain."""
    base = found.alone(backend, layer)
    worked = [row for row in found.remedies(backend, layer) if row.status == Status.OK]
    for row in sorted(worked, key=lambda row: row.sqnr_db, reverse=True):
        gain = row.sqnr_db - base
        if gain > BETTER_DB:
            yield f"{row.change}: {gain:+.1f} dB"
    if layer:
        yield f"keep_float: [{layer}]: {_kept(found, backend, layer)}"


def _kept(found: Diagnosis, backend: str, layer: str) -> str:
    for row in found.ranking(backend, "kept"):
        if row.layer == layer and row.status == Status.OK:
            gain = row.sqnr_db - found.alone(backend, "")
            return f"{gain:+.1f} dB for the whole model"
    shares = found.noise(backend)
    if layer not in shares:
        return "no rounding there at all"
    return f"{shares[layer]:.0%} of the noise of single layers"


def part(found: Diagnosis, backend: str, layer: str) -> str:
    """Whether a layer's weights or its activations cost more; empty where nobody can say."""
    noise = {row.change: row.sqnr_db for row in found.parts(backend, layer)}
    weights, activations = (noise.get(name, math.nan) for name in ("weights", "activations"))
    if math.isnan(weights) or math.isnan(activations):
        return ""
    if math.isclose(weights, activations, abs_tol=BETTER_DB):
        return f"weights and activations cost alike ({weights:.1f} and {activations:.1f} dB)"
    worse = "weights" if weights < activations else "activations"
    return f"its {worse} cost most (weights {weights:.1f} dB, activations {activations:.1f} dB)"
