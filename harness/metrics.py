"""Metrics: quality per sample, and fidelity of outputs to the float model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.tensors import Array

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Per-sample results of a metric.

    ``prediction``: float64 [n], what the model answered; ``outcome``: float64 [n], what the
    metric averages; ``ties``: samples whose answer depends on a tie rule; ``span``: the score by
    the tie rule that is worst for it, and by the best (None where nothing can be tied).
    """

    prediction: FloatArray
    outcome: FloatArray
    ties: int = 0
    span: tuple[float, float] | None = None

    @property
    def score(self) -> float:
        """The metric: the mean outcome."""
        return float(self.outcome.mean())


def top1(logits: Array, labels: Array) -> Outcome:
    """Top-1 accuracy; the first of equal logits counts in every backend.

    Parameters
    ----------
    logits : float [n, classes]
    labels : int [n]
    """
    predicted = logits.argmax(axis=1)
    largest = logits == logits.max(axis=1, keepdims=True)
    tied = largest.sum(axis=1) > 1
    among = np.take_along_axis(largest, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    return Outcome(
        predicted.astype(np.float64),
        (predicted == labels).astype(np.float64),
        int(tied.sum()),
        (float((among & ~tied).mean()), float(among.mean())),
    )


def mean_squared_error(outputs: Array, labels: Array) -> Outcome:
    """Negative squared error per sample, so that more is better; outputs and labels [n] or [n, 1]."""
    predicted = outputs.reshape(len(outputs), -1)[:, 0].astype(np.float64)
    return Outcome(predicted, -((predicted - labels) ** 2))


Metric = Callable[[Array, Array], Outcome]
METRICS: Mapping[str, Metric] = {"top1": top1, "mse": mean_squared_error}
BINARY = frozenset({"top1"})
"""Metrics whose outcomes are 0 or 1, so that `statistics.wilson` bounds them."""


def kl_divergence(reference: Array, outputs: Array) -> float:
    """Mean Kullback-Leibler divergence of predicted distributions, from the reference's, in nats.

    Parameters
    ----------
    reference, outputs : float [n, classes]
        Logits, of which the softmax is taken; or probabilities, taken as they are.

    Returns
    -------
    float
        NaN where an output gives no probability at all to what the reference thinks possible, as
        files do that store probabilities as integers.
    """
    p, q = _log_probabilities(reference), _log_probabilities(outputs)
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
    mean = float(terms.sum(axis=1).mean())
    return mean if np.isfinite(mean) else float("nan")


def _log_probabilities(values: Array) -> FloatArray:
    wide = values.astype(np.float64)
    if (wide >= 0).all() and np.allclose(wide.sum(axis=1), 1, atol=0.02):
        with np.errstate(divide="ignore"):
            logs: FloatArray = np.log(wide / wide.sum(axis=1, keepdims=True))
        return logs
    shifted = wide - wide.max(axis=1, keepdims=True)
    softmax: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return softmax


def sqnr_db(reference: Array, outputs: Array) -> float:
    """Signal-to-quantization-noise ratio, ``10 log10(|r|^2 / |r - o|^2)``, dB.

    Infinite for identical outputs; minus infinity where the outputs are not finite.
    """
    r, o = reference.astype(np.float64), outputs.astype(np.float64)
    if not np.isfinite(o).all():
        return float("-inf")
    noise, signal = float(((r - o) ** 2).sum()), float((r**2).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal > 0 else float("-inf")


def cosine(reference: Array, outputs: Array) -> float:
    """Cosine of the angle between all outputs and the reference's, taken as one vector each.

    NaN where one of them is zero everywhere, or not finite.
    """
    r, o = reference.astype(np.float64).ravel(), outputs.astype(np.float64).ravel()
    norms = float(np.linalg.norm(r) * np.linalg.norm(o))
    return float(r @ o) / norms if norms > 0 and np.isfinite(norms) else float("nan")


@dataclass(frozen=True, slots=True)
class Parity:
    """How far one framework's float outputs are from the reference form's, on the same samples."""

    max_abs: float
    relative: float
    samples: int

    @property
    def holds(self) -> bool:
        """Whether the two are the same function: within 0.1 % of the largest output."""
        return bool(self.relative <= PARITY_LIMIT)


PARITY_LIMIT = 1e-3
PARITY_SAMPLES = 256


def parity(reference: Array, outputs: Array) -> Parity:
    """Compare float outputs ([n, ...]); not finite counts as infinitely far."""
    if not np.isfinite(outputs).all():
        return Parity(float("inf"), float("inf"), len(outputs))
    difference = float(np.abs(reference.astype(np.float64) - outputs).max())
    scale = float(np.abs(reference).max())
    relative = difference / scale if scale > 0 else (0.0 if difference == 0 else float("inf"))
    return Parity(difference, relative, len(outputs))
