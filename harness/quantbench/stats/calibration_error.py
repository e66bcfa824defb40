"""Calibration error: whether a classifier is as often right as it is sure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quantbench.spec import Array
from quantbench.stats.quality_metrics import (
    FloatArray,
    Outcome,
    are_probabilities,
    scored,
)
from quantbench.stats.statistics import Interval, mean_interval, paired_drop

BINS = 15
"""Of equal width, as in Guo et al. (2017)."""
RESAMPLES = 1000


def with_confidence(own: Outcome, reference: Array, outputs: Array, labels: Array) -> Outcome:
    """An outcome of `top1`, `top5` or `f1` with how sure each answer was, and its Brier term.

    Parameters
    ----------
    reference, outputs : float [n, classes] or [1, n, classes]
        Where the reference's are probabilities (`are_probabilities`), the outputs are too, divided by
        their sum, since quantized ones sum to 1 only about; else the softmax of both is taken.
    labels : int [n] or [1, n]
        Below 0: not scored.

    Returns
    -------
    Outcome
        With ``confidence`` and ``brier``; a sample whose output is no distribution (not finite, or 0
        for every class) has neither. As it was where there is one class alone.
    """
    values, right = scored(outputs, labels)
    if values.shape[1] < 2:
        return own
    p = _distributions(values, given=are_probabilities(scored(reference, labels)[0]))
    confidence = p.max(axis=1)
    # Brier (1950): the square of the distance to the distribution that is sure of the label
    brier = (p**2).sum(axis=1) - 2 * np.take_along_axis(p, right[:, None], axis=1)[:, 0] + 1
    return replace(own, confidence=confidence.astype(np.float32), brier=brier.astype(np.float32))


def _distributions(values: Array, *, given: bool) -> FloatArray:
    """Probabilities, float64 [n, classes]; rows of NaN where there are none."""
    wide = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        raw = np.maximum(wide, 0.0) if given else np.exp(wide - wide.max(axis=1, keepdims=True))
        found: FloatArray = raw / raw.sum(axis=1, keepdims=True)
    found[~np.isfinite(wide).all(axis=1)] = np.nan
    return found


def expected_calibration_error(own: Outcome) -> float:
    """Expected calibration error of the answers, 0 to 1.

    Samples are put into `BINS` bins of equal width by their confidence; the error is the mean over the
    samples of the distance between the accuracy of a sample's bin and its mean confidence. What is
    above and what is below within a bin cancels, so that fewer bins find less; and chance alone makes
    it larger than 0, the more the fewer samples a bin has (`error_by_chance`). So a calibrated model's is
    too large and a sure one's is not, and of their difference no interval is given: in a simulation a
    bootstrap over paired samples held the truth in 3 to 83 % (docs/measuring.md).

    Sources: Naeini et al., Obtaining well calibrated probabilities using Bayesian binning (2015);
    Guo et al., On calibration of modern neural networks (2017).
    """
    gaps = (own.prediction == own.label) - np.asarray(own.confidence, np.float64)
    return float(abs(np.bincount(_bins(own), gaps, minlength=BINS)).sum() / len(gaps))


def error_by_chance(own: Outcome) -> float:
    """What chance alone makes of the error: 95 % of calibrated models of these confidences have less.

    Answers are drawn, from a fixed seed, as if each were right with its confidence. Source: Bröcker and
    Smith, Increasing the reliability of reliability diagrams (2007).
    """
    confidence, bins = np.asarray(own.confidence, np.float64), _bins(own)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        gaps = (rng.random(len(bins)) < confidence) - confidence
        drawn.append(abs(np.bincount(bins, gaps, minlength=BINS)).sum() / len(bins))
    return float(np.quantile(drawn, 0.95))


def brier_score(own: Outcome) -> Interval:
    """Mean over the samples of the squared distance between prediction and label; 0 to 2.

    Source: Brier, Verification of forecasts expressed in terms of probability (1950).
    """
    return mean_interval(_terms(own))


def brier_rise(own: Outcome, full: Outcome) -> Interval:
    """What `brier_score` is above the reference's, on the same samples."""
    return paired_drop(_terms(own), _terms(full)).interval


def _terms(own: Outcome) -> FloatArray:
    return np.asarray(own.brier, np.float64)


def _bins(own: Outcome) -> NDArray[np.int64]:
    """The bin of each sample: ``i`` of ``m`` holds what is above ``i / m``, up to ``(i + 1) / m``."""
    confidence = np.asarray(own.confidence, np.float64)
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
