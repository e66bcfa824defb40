"""Metrics: quality per sample, and fidelity of outputs to the float model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import BadInput
from quantbench.spec import Array
from quantbench.system import locate

FloatArray = NDArray[np.float64]
Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Per-sample results of a metric.

    Parameters
    ----------
    prediction, label : float64 [n]
        What the model answered (a class, a score, a similarity), and what is right.
    outcome : float64 [n]
        What the metric averages; NaN where it is no mean but a `statistic` of all samples.
    tied : bool [n] or None
        Samples whose answer depends on a tie rule; None where nothing can tie.
    worst, best : float64 [n] or None
        ``outcome`` by the tie rule that is worst for it, and by the best; None where the score is no
        mean.
    statistic : str
        Of a metric that is no mean: its name in `STATISTICS`.
    classes : bool
        Whether ``prediction`` is a class, so that two models can agree.
    confidence, brier : float32 [n] or None
        The probability that the model gave its answer, and the sample's term of the Brier score; NaN
        where its output was no distribution, None where outputs are none over classes.
    """

    prediction: FloatArray
    label: FloatArray
    outcome: FloatArray
    tied: NDArray[np.bool_] | None = None
    worst: FloatArray | None = None
    best: FloatArray | None = None
    statistic: str = ""
    classes: bool = True
    confidence: Float32Array | None = None
    brier: Float32Array | None = None

    @property
    def ties(self) -> int:
        """How many samples' answers depend on a tie rule."""
        return 0 if self.tied is None else int(self.tied.sum())

    @property
    def span(self) -> tuple[float, float] | None:
        """The score by the worst tie rule and by the best; None where nothing can tie."""
        if self.worst is None or self.best is None:
            return None
        return float(self.worst.mean()), float(self.best.mean())

    @property
    def score(self) -> float:
        """The metric."""
        if self.statistic:
            return float(STATISTICS[self.statistic](self.prediction, self.label))
        return float(self.outcome.mean())

    @property
    def binary(self) -> bool:
        """Whether each sample is right or wrong, so that the score is a share of them."""
        return not self.statistic and bool(np.isin(self.outcome, (0, 1)).all())


def top1(logits: Array, labels: Array) -> Outcome:
    """Top-1 accuracy; the first of equal logits counts in every backend.

    Parameters
    ----------
    logits : float [n, classes] or [1, n, classes]
        The latter of one graph with n nodes.
    labels : int [n] or [1, n]
        Below 0: not scored.
    """
    logits, labels = scored(logits, labels)
    predicted = logits.argmax(axis=1)
    largest = logits == logits.max(axis=1, keepdims=True)
    tied = largest.sum(axis=1) > 1
    among = np.take_along_axis(largest, labels[:, None], axis=1)[:, 0]
    return Outcome(
        predicted.astype(np.float64),
        labels.astype(np.float64),
        (predicted == labels).astype(np.float64),
        tied,
        (among & ~tied).astype(np.float64),
        among.astype(np.float64),
    )


def top5(logits: Array, labels: Array) -> Outcome:
    """Top-5 accuracy; of equal logits the first count. Shapes as in `top1`."""
    logits, labels = scored(logits, labels)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    right = (best == labels[:, None]).any(axis=1)
    first = logits.argmax(axis=1).astype(np.float64)
    return Outcome(first, labels.astype(np.float64), right.astype(np.float64))


def f1(logits: Array, labels: Array) -> Outcome:
    """Macro-averaged F1 of the answers of `top1`."""
    found = top1(logits, labels)
    return Outcome(
        found.prediction, found.label, np.full(len(found.label), np.nan), found.tied, statistic="f1"
    )


def auc(logits: Array, labels: Array) -> Outcome:
    """Area under the ROC curve of two classes; a tie counts half.

    Parameters
    ----------
    logits : float [n, 2], [n, 1] or [n]
        Of the classes 0 and 1, or of class 1 alone.
    """
    wide = logits.reshape(len(logits), -1).astype(np.float64)
    score = wide[:, -1] - (wide[:, 0] if wide.shape[1] == 2 else 0.0)
    return _graded(score, labels, "auc")


def spearman(outputs: Array, labels: Array) -> Outcome:
    """Rank correlation of a predicted number [n] or [n, 1] with the label."""
    return _graded(outputs.reshape(len(outputs), -1)[:, 0].astype(np.float64), labels, "spearman")


def pairs(outputs: Array, labels: Array) -> Outcome:
    """Rank correlation of labels with the cosine of pairs of embeddings.

    Parameters
    ----------
    outputs : float [2n, d]
        Samples 2i and 2i + 1 are a pair.
    labels : float [2n]
        Of a pair, twice.
    """
    wide = outputs.reshape(len(outputs), -1).astype(np.float64)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30)
    return _graded((wide[::2] * wide[1::2]).sum(axis=1), labels[::2], "spearman")


def mean_squared_error(outputs: Array, labels: Array) -> Outcome:
    """Negative squared error per sample, so that more is better; outputs and labels [n] or [n, 1]."""
    predicted = outputs.reshape(len(outputs), -1)[:, 0].astype(np.float64)
    wanted = labels.reshape(len(labels), -1)[:, 0].astype(np.float64)
    return Outcome(predicted, wanted, -((predicted - wanted) ** 2), classes=False)


def scored(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Logits [n, classes] and labels int64 [n] of the samples that have one, of shapes as in `top1`."""
    flat, known = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1).astype(np.int64)
    return flat[known >= 0], known[known >= 0]


def _graded(score: FloatArray, labels: Array, statistic: str) -> Outcome:
    nothing = np.full(len(score), np.nan)
    wanted = labels.astype(np.float64)
    return Outcome(score, wanted, nothing, statistic=statistic, classes=False)


# --- metrics that are no mean over samples -------------------------------------------------------


def macro_f1(prediction: FloatArray, label: FloatArray, axis: int = -1) -> FloatArray:
    """Mean over the classes of ``2 tp / (2 tp + fp + fn)``; classes that nobody has count not.

    Any leading axes; the samples' axis is ``axis``.
    """
    total, seen = np.zeros(()), np.zeros(())
    for k in np.unique(label):
        right = ((prediction == k) & (label == k)).sum(axis)
        either = (prediction == k).sum(axis) + (label == k).sum(axis)
        total = total + np.where(either > 0, 2 * right / np.maximum(either, 1), 0.0)
        seen = seen + (either > 0)
    return np.asarray(total / seen)


def area_under_roc(prediction: FloatArray, label: FloatArray, axis: int = -1) -> FloatArray:
    """By the ranks of the positives (Mann and Whitney); NaN where a class is missing."""
    from scipy import stats

    positive = label == 1
    ranks = np.where(positive, stats.rankdata(prediction, axis=axis), 0.0).sum(axis)
    ones = positive.sum(axis)
    others = positive.shape[axis] - ones
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((ranks - ones * (ones + 1) / 2) / (ones * others))


def rank_correlation(prediction: FloatArray, label: FloatArray, axis: int = -1) -> FloatArray:
    """Spearman's rank correlation; NaN where one of them is constant."""
    from scipy import stats

    ranks = [stats.rankdata(values, axis=axis) for values in (prediction, label)]
    x, y = (r - r.mean(axis, keepdims=True) for r in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((x * y).sum(axis) / np.sqrt((x * x).sum(axis) * (y * y).sum(axis)))


STATISTICS: Mapping[str, Callable[..., FloatArray]] = {
    "f1": macro_f1, "auc": area_under_roc, "spearman": rank_correlation,
}  # fmt: skip
"""``(prediction, label, axis) -> score``, by name."""

Metric = Callable[[Array, Array], Outcome]
METRICS: Mapping[str, Metric] = {
    "top1": top1, "top5": top5, "f1": f1, "auc": auc, "spearman": spearman,
    "pairs": pairs, "mse": mean_squared_error,
}  # fmt: skip
FIDELITY = "fidelity"
"""The metric of a task without labels: how often the float model's answer is given."""
UNITS: Mapping[str, str] = {
    **dict.fromkeys(("top1", "top5", "f1", "auc", FIDELITY), "fraction"),
    **dict.fromkeys(("spearman", "pairs"), "correlation"),
    "mse": "squared error",
}
"""Of a metric of ours; a metric of the user's has none."""


def metric_of(name: str) -> Metric:
    """A metric by name, or the user's own: ``module:function`` of ``(outputs, labels) -> [n]``.

    The user's gives a number per sample, more is better; the score is their mean.
    """
    if ":" not in name:
        return METRICS[name]
    function = locate(name)

    def own(outputs: Array, labels: Array) -> Outcome:
        each = np.asarray(function(outputs, labels), np.float64)
        if each.shape != (len(outputs),) or not np.isfinite(each).all():
            raise BadInput(
                f"metric {name} must return a finite number per sample, float [{len(outputs)}]; "
                f"it returned {each.dtype} {list(each.shape)}"
            )
        plain = np.asarray(labels, np.float64).reshape(len(labels), -1)[:, 0]
        return Outcome(np.full(len(each), np.nan), plain, each, classes=False)

    return own


def answers(outputs: Array) -> tuple[str, Array]:
    """What stands for labels where there are none: a metric, and the float model's own answers.

    The class of the largest output where there are several, else the output itself.
    """
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        return "top1", outputs.argmax(axis=1)
    return "mse", outputs.reshape(len(outputs), -1)[:, 0]


def kl_divergence(reference: Array, outputs: Array) -> float:
    """Mean of `kl_divergences`; NaN where one is not finite."""
    mean = float(kl_divergences(reference, outputs).mean())
    return mean if np.isfinite(mean) else float("nan")


def kl_divergences(reference: Array, outputs: Array) -> FloatArray:
    """Kullback-Leibler divergence of each predicted distribution, from the reference's, in nats.

    Parameters
    ----------
    reference, outputs : float [n, classes]
        Logits, of which the softmax is taken; where the reference's are probabilities, both as they are.

    Returns
    -------
    float64 [n]
        Infinite where an output gives no probability at all to what the reference thinks possible,
        as files do that store probabilities as integers.
    """
    given = are_probabilities(reference)
    p, q = (_log_probabilities(values, given=given) for values in (reference, outputs))
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
    each: FloatArray = terms.sum(axis=1)
    return each


def are_probabilities(outputs: Array) -> bool:
    """Whether no row of float [n, classes] is negative and each sums to 1, within 0.02 for short floats.

    Asked of the float model: a quantized one's probabilities sum to 1 only about.
    """
    return bool(
        (outputs >= 0).all() and (abs(outputs.sum(axis=1, dtype=np.float64) - 1) < 0.02).all()
    )


def _log_probabilities(values: Array, *, given: bool) -> FloatArray:
    wide = values.astype(np.float64)
    if given:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs: FloatArray = np.log(np.maximum(wide, 0) / wide.sum(axis=1, keepdims=True))
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
class Fidelity:
    """How near outputs are to the reference's, sample by sample; all float32 [n].

    Parameters
    ----------
    signal, noise
        Sums of squares of the reference's output, and of the difference to it: of the output whose
        SQNR is the smallest. ``noise`` is infinite where an output is not finite.
    product, reference_square, square
        Of the first output: the inner product with the reference's, and the squares of both.
    kl : float32 [n] or None
        Kullback-Leibler divergence of the first output, where it is a distribution over classes.
    """

    signal: Float32Array
    noise: Float32Array
    product: Float32Array
    reference_square: Float32Array
    square: Float32Array
    kl: Float32Array | None = None

    @classmethod
    def of(
        cls,
        reference: Mapping[str, Array],
        outputs: Mapping[str, Array],
        first: str,
        *,
        classes: bool,
    ) -> Fidelity:
        """Of all outputs by name; ``first``: the one that is scored, a class each if ``classes``."""
        worst = min(reference, key=lambda name: sqnr_db(reference[name], outputs[name]))
        r, o = _rows(reference[worst]), _rows(outputs[worst])
        with np.errstate(invalid="ignore", over="ignore"):
            noise = np.where(np.isfinite(o).all(axis=1), ((r - o) ** 2).sum(axis=1), np.inf)
            one, other = _rows(reference[first]), _rows(outputs[first])
            product, squares = (one * other).sum(axis=1), (one**2).sum(axis=1)
            square = (other**2).sum(axis=1)
        kl = kl_divergences(reference[first], outputs[first]) if classes else None
        return cls(
            signal=(r**2).sum(axis=1).astype(np.float32),
            noise=noise.astype(np.float32),
            product=product.astype(np.float32),
            reference_square=squares.astype(np.float32),
            square=square.astype(np.float32),
            kl=None if kl is None else kl.astype(np.float32),
        )

    @property
    def sqnr_db(self) -> float:
        """As `sqnr_db`, of the output for which it is the smallest."""
        signal, noise = (float(x.sum(dtype=np.float64)) for x in (self.signal, self.noise))
        if noise == 0:
            return float("inf")
        return float(10 * np.log10(signal / noise)) if signal > 0 and noise < np.inf else -np.inf

    @property
    def cosine(self) -> float:
        """As `cosine`, of the first output."""
        both = float(np.sqrt(self.reference_square.sum(dtype=np.float64) * self.square.sum(dtype=np.float64)))  # fmt: skip
        found = float(self.product.sum(dtype=np.float64))
        return found / both if both > 0 and np.isfinite(both) else float("nan")

    @property
    def kl_divergence(self) -> float:
        """Mean over the samples, nats; NaN where one is not finite."""
        if self.kl is None:
            return float("nan")
        mean = float(self.kl.mean(dtype=np.float64))
        return mean if np.isfinite(mean) else float("nan")


def _rows(array: Array) -> FloatArray:
    return array.astype(np.float64).reshape(len(array), -1)


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
