"""Calibration: histograms of activations in one streaming pass, and ranges estimated from them.

The same estimators serve every framework, so that calibrators are compared without the backend as
confounder (``ranges: injected``). A range is (low, high) in the activation's own unit; whoever makes
a scale of it widens it to hold 0, as `quantbench.stats.affine.from_range` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantbench.errors import BadInput
from quantbench.spec import Array, Method

BINS = 16384
"""Most bins of a histogram; it has at least half as many once values differ."""
ENTROPY_BINS = 2048  # Migacz 2017, slide 38
COARSE_BINS = 2048  # of the first, wide search of mse
CONSTANT = 0.01
"""Share of each new sample in the moving average, as `MovingAverageMinMaxObserver` has it."""
PERCENTILE = 99.99
SIGMAS = 8.0

Range = tuple[float, float]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(slots=True)
class Histogram:
    """Counts of a stream of values in equal bins, whose range need not be known before.

    Bins are ``width`` wide, a power of two, and start at multiples of it: when a value does not fit,
    pairs of bins become one, and the counts are those that wider bins would have had from the start.
    Minimum, maximum, mean and standard deviation are exact. Memory: `BINS` counts.

    Parameters
    ----------
    width : float
        0 before the first value.
    first : int
        The first bin holds values from ``first * width``.
    counts : int64 [BINS]
        Values in each bin.
    """

    width: float = 0.0
    first: int = 0
    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    minimum: float = math.inf
    maximum: float = -math.inf
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    average: Range | None = None

    def update(self, batch: ArrayLike) -> None:
        """Add a batch of values, first axis the samples.

        Raises
        ------
        BadInput
            If a value is not finite.
        """
        array = np.asarray(batch, np.float32)
        if array.size == 0:
            return
        by_sample = array.reshape(len(array) if array.ndim else 1, -1)
        lows, highs = by_sample.min(1), by_sample.max(1)
        if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
            raise BadInput("values are not finite; check the model's weights and the samples")
        self._average(lows, highs)
        values = array.ravel()
        self._moments(values)
        self.minimum = min(self.minimum, float(lows.min()))
        self.maximum = max(self.maximum, float(highs.max()))
        self._fit()
        # exact: the width is a power of two
        index = np.floor(values * np.float32(1 / self.width)).astype(np.int64) - self.first
        self.counts += np.bincount(index, minlength=BINS)

    def _average(self, lows: Array, highs: Array) -> None:
        low, high = self.average or (float(lows[0]), float(highs[0]))
        for new_low, new_high in zip(lows.tolist(), highs.tolist(), strict=True):
            low += CONSTANT * (new_low - low)
            high += CONSTANT * (new_high - high)
        self.average = (low, high)

    def _moments(self, values: Array) -> None:
        """Mean and sum of squared deviations of both parts (Chan et al. 1979, eq. 2.1)."""
        mean = float(values.mean(dtype=np.float64))
        squares = float(values.var(dtype=np.float64)) * values.size
        total = self.count + values.size
        gap = mean - self.mean
        self.squares += squares + gap * gap * self.count * values.size / total
        self.mean += gap * values.size / total
        self.count = total

    def _fit(self) -> None:
        """Widen and shift the bins until every value has one."""
        if not self.width:
            span = max(self.maximum - self.minimum, abs(self.maximum) * 1e-6, 1e-30)
            self.width = 2.0 ** math.ceil(math.log2(span / (BINS - 1)))
            self.first = math.floor(self.minimum / self.width)
        while True:
            first = min(self.first, math.floor(self.minimum / self.width))
            last = max(self._last_used(), math.floor(self.maximum / self.width))
            if last - first < BINS:
                break
            self._halve()
        if first < self.first:
            shift = self.first - first
            self.counts = np.concatenate([np.zeros(shift, np.int64), self.counts[:-shift]])
            self.first = first

    def _last_used(self) -> int:
        used = np.flatnonzero(self.counts)
        return self.first + int(used[-1]) if used.size else self.first

    def _halve(self) -> None:
        start = self.first // 2
        pairs = np.arange(self.first, self.first + BINS) // 2 - start
        merged = np.bincount(pairs, weights=self.counts, minlength=BINS)
        self.counts = merged[:BINS].astype(np.int64)
        self.first, self.width = start, self.width * 2

    @property
    def std(self) -> float:
        """Standard deviation of the values, of the population."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    @property
    def centres(self) -> Floats:
        """Middle of each bin, float64 [BINS]."""
        return np.asarray((self.first + np.arange(BINS) + 0.5) * self.width, np.float64)

    @property
    def used(self) -> tuple[Floats, Floats]:
        """Middles and counts of the bins that hold something; within minimum and maximum."""
        held = np.flatnonzero(self.counts)
        middles = np.clip(self.centres[held], self.minimum, self.maximum)
        return middles, self.counts[held].astype(np.float64)

    def absolute(self) -> Histogram:
        """The histogram of the values without their signs."""
        if self.minimum >= 0:
            return self
        held = np.flatnonzero(self.counts)
        index = self.first + held
        index = np.where(index < 0, -index - 1, index)
        width = self.width
        while index.max() >= BINS:
            index, width = index // 2, width * 2
        counts = np.zeros(BINS, np.int64)
        np.add.at(counts, index, self.counts[held])
        top = max(-self.minimum, self.maximum)
        return Histogram(width, 0, counts, 0.0, top, self.count)

    def shown(self, bins: int) -> tuple[float, float, Counts]:
        """The same in at most ``bins`` bins: start of the first, width, and counts (int64)."""
        held = np.flatnonzero(self.counts)
        index, width = self.first + held, self.width
        while held.size and index[-1] - index[0] >= bins:
            index, width = index // 2, width * 2
        start = int(index[0]) if held.size else 0
        counts = np.bincount(index - start, weights=self.counts[held]).astype(np.int64)
        return start * width, width, counts

    def to_arrays(self) -> dict[str, Array]:
        """As arrays, for one file of many; `from_arrays` reads it back."""
        low, high = self.average or (0.0, 0.0)
        numbers = (self.width, self.minimum, self.maximum, self.mean, self.squares, low, high)
        return {
            "counts": self.counts,
            "whole": np.array([self.first, self.count], np.int64),
            "numbers": np.array(numbers, np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Histogram:
        """The inverse of `to_arrays`."""
        first, count = (int(n) for n in arrays["whole"])
        width, minimum, maximum, mean, squares, low, high = (float(n) for n in arrays["numbers"])
        return cls(
            width, first, arrays["counts"], minimum, maximum, count, mean, squares, (low, high)
        )


@dataclass(slots=True)
class Observation:
    """Histograms of a model's activations by the backend's name, from one pass over the samples."""

    histograms: dict[str, Histogram] = field(default_factory=dict)

    def see(self, name: str, batch: ArrayLike) -> None:
        """Add a batch of an activation's values, first axis the samples; raises `BadInput`."""
        try:
            self.histograms.setdefault(name, Histogram()).update(batch)
        except BadInput as error:
            raise BadInput(f"activation '{name}': {error}") from None

    def ranges(self, method: Method, levels: int = 256) -> dict[str, Range]:
        """The range of every activation by the method's calibrator."""
        return {name: estimate(h, method, levels=levels) for name, h in self.histograms.items()}

    def save(self, path: Path) -> None:
        """Write all histograms to one ``.npz`` file."""
        arrays: dict[str, Any] = {"names": np.array(list(self.histograms), np.str_)}
        for index, histogram in enumerate(self.histograms.values()):
            arrays |= {f"{index}.{key}": a for key, a in histogram.to_arrays().items()}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Observation:
        """Read what `save` has written."""
        keys = ("counts", "whole", "numbers")
        with np.load(path, allow_pickle=False) as file:
            return cls(
                {
                    str(name): Histogram.from_arrays({key: file[f"{i}.{key}"] for key in keys})
                    for i, name in enumerate(file["names"])
                }
            )


def observe(batches: Iterable[tuple[str, ArrayLike]]) -> Observation:
    """The histograms of named batches.

    >>> observe([("x", [[0.0, 1.0]]), ("x", [[4.0, 2.0]])]).histograms["x"].maximum
    4.0
    """
    observation = Observation()
    for name, batch in batches:
        observation.see(name, batch)
    return observation


# --- the estimators ------------------------------------------------------------------------------


def estimate(histogram: Histogram, method: Method, *, levels: int = 256) -> Range:
    """The range that the method's calibrator finds, symmetric about 0 where the method is.

    Parameters
    ----------
    levels : int
        How many values the quantized activation can take: what ``mse`` and ``entropy`` judge by.

    Raises
    ------
    BadInput
        For a calibrator that is not one of `CALIBRATORS`, or a histogram without values.
    """
    if not histogram.count:
        raise BadInput("no values were observed; give the method samples")
    try:
        calibrator = CALIBRATORS[method.calibrator]
    except KeyError:
        known = ", ".join(CALIBRATORS)
        raise BadInput(
            f"calibrator {method.calibrator} cannot be injected; use one of {known}"
        ) from None
    return calibrator(histogram, method, levels)


def minmax(histogram: Histogram, method: Method, levels: int = 256) -> Range:
    """The smallest and the largest value: nothing saturates.

    Source: Krishnamoorthi 2018, arXiv 1806.08342, section 3.2.
    """
    return _span(histogram, method)


def moving_average(histogram: Histogram, method: Method, levels: int = 256) -> Range:
    """The extremes of the samples, averaged: m <- m + c (x - m), c = `CONSTANT`, from the first on.

    It depends on the order of the samples. Source: Jacob et al. 2018, arXiv 1712.05877, section 3.1.
    """
    low, high = histogram.average or (histogram.minimum, histogram.maximum)
    return _mirrored(low, high, method)


def percentile(histogram: Histogram, method: Method, levels: int = 256) -> Range:
    """The range that leaves out (100 - p) / 2 percent of the values at each end.

    Symmetric: the t below which p percent of the absolute values are. Between the edges of a bin,
    values count as spread evenly. Source: Li et al. 2019, arXiv 1810.05723; McKinstry et al. 2019,
    arXiv 1809.04191, section 3.2.
    """
    inside = (method.percentile or PERCENTILE) / 100
    if method.symmetric_activations:
        folded = histogram.absolute()
        top = _quantile(folded, inside)
        return -top, top
    return _quantile(histogram, (1 - inside) / 2), _quantile(histogram, (1 + inside) / 2)


def mean_std(histogram: Histogram, method: Method, levels: int = 256) -> Range:
    """The mean minus and plus k standard deviations, never beyond the values there are.

    Source: Banner et al. 2019, arXiv 1810.05723, where k follows from the bits; here it is given.
    """
    reach = (method.sigmas or SIGMAS) * histogram.std
    low = max(histogram.mean - reach, histogram.minimum)
    high = min(histogram.mean + reach, histogram.maximum)
    return _mirrored(low, high, method)


def mse(histogram: Histogram, method: Method, levels: int = 256) -> Range:
    """The range of the least squared error, of rounding and of saturation together.

    Searched from wide to narrow on the histogram's bins; minimum and maximum are a candidate, so
    that the error is never larger than theirs. Source: Choukroun et al. 2019, arXiv 1902.06822.
    """
    low, high = _span(histogram, method)
    low, high = min(low, 0.0), max(high, 0.0)
    fine = histogram.used
    coarse = _merged(histogram, COARSE_BINS)
    best = (low, high)
    # first everywhere, on few bins; then near what was best, on all
    for middles, counts, steps in ((*coarse, _WIDE), (*fine, _NEAR), (*fine, _NEARER)):
        best = _best(middles, counts, best, steps, (low, high), method, levels)
    ends = (low, high)
    return min((ends, best), key=lambda r: squared_error(*fine, r, levels))


_WIDE = np.linspace(0.02, 1.0, 50)
_NEAR = np.linspace(0.9, 1.1, 21)
_NEARER = np.linspace(0.99, 1.01, 21)


def _best(
    middles: Floats, counts: Floats, start: Range, steps: Floats, ends: Range,
    method: Method, levels: int,
) -> Range:  # fmt: skip
    """The best of ranges whose ends are ``start`` times one of ``steps``, within ``ends``."""
    low, high = start
    lows = np.unique(np.clip(low * steps, ends[0], 0.0))
    highs = np.unique(np.clip(high * steps, 0.0, ends[1]))
    if method.symmetric_activations:
        pairs = [(-float(t), float(t)) for t in highs if t > 0] or [start]
        return min(pairs, key=lambda r: squared_error(middles, counts, r, levels))

    # one end after the other, until neither moves
    best = start
    for _ in range(4):
        before = best
        for candidates in (
            [(float(value), best[1]) for value in lows],
            [(best[0], float(value)) for value in highs],
        ):
            valid = [pair for pair in candidates if pair[0] < pair[1]]
            best = min([best, *valid], key=lambda r: squared_error(middles, counts, r, levels))
        if best == before:
            break
    return best


def squared_error(middles: Floats, counts: Floats, found: Range, levels: int) -> float:
    """Sum of squared errors of values at ``middles`` (float64 [n]) quantized within a range.

    The zero point is rounded to an integer, as quantizers do, so that 0 stays 0.
    """
    low, high = found
    if high <= low:
        return float(counts @ middles**2)
    scale = (high - low) / (levels - 1)
    zero = round(-low / scale)
    q = np.clip(np.rint(middles / scale) + zero, 0, levels - 1)
    error = (q - zero) * scale - middles
    return float(counts @ (error * error))


def entropy(histogram: Histogram, method: Method, levels: int = 256) -> Range:
    """The threshold whose quantized distribution loses the least information (KL divergence).

    Of absolute values in at most `ENTROPY_BINS` bins: those beyond the threshold count with the last bin,
    the rest is merged into the levels of one sign and spread over the bins that held something; the
    largest threshold of the least KL(P || Q) is taken. The first bin counts as the second: what a
    ReLU cuts off is exact in any range. Sources: Migacz 2017, 8-bit inference with TensorRT, slides
    29 to 40; Wu et al. 2020, arXiv 2004.09602, and NVIDIA's pytorch-quantization, for the first bin.
    """
    bins, step = _even(histogram.absolute(), ENTROPY_BINS)
    bins[0] = bins[min(1, len(bins) - 1)]
    signed = histogram.minimum < 0
    merged = levels // 2 if signed else levels
    best, threshold = math.inf, len(bins) * step
    for used in range(min(merged, len(bins)), len(bins) + 1):
        divergence = _divergence(bins, used, merged)
        if divergence <= best:
            best, threshold = divergence, used * step
    low, high = _span(histogram, method)
    return max(low, -threshold), min(high, threshold)


def _divergence(bins: Floats, used: int, levels: int) -> float:
    """KL(P || Q) of the first ``used`` bins merged into ``levels``."""
    kept = bins[:used]
    clipped = kept.copy()
    clipped[-1] += bins[used:].sum()
    part = np.minimum(np.arange(used) * levels // used, levels - 1)
    held = kept > 0
    totals = np.bincount(part, weights=kept, minlength=levels)
    holders = np.bincount(part, weights=held, minlength=levels)
    spread = np.divide(totals, holders, out=np.zeros_like(totals), where=holders > 0)
    approximated = np.where(held, spread[part], 0.0)
    if not approximated.sum():
        return math.inf
    from scipy.special import rel_entr  # a device gets ranges and estimates none

    return float(rel_entr(clipped / clipped.sum(), approximated / approximated.sum()).sum())


CALIBRATORS: Mapping[str, Callable[[Histogram, Method, int], Range]] = {
    "minmax": minmax,
    "moving-average": moving_average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
    "mean-std": mean_std,
}
"""What ``ranges: injected`` can be estimated by."""


def _span(histogram: Histogram, method: Method) -> Range:
    return _mirrored(histogram.minimum, histogram.maximum, method)


def _mirrored(low: float, high: float, method: Method) -> Range:
    if not method.symmetric_activations:
        return low, high
    top = max(-low, high)
    return -top, top


def _quantile(histogram: Histogram, share: float) -> float:
    """The value below which a share of the values is, within minimum and maximum."""
    reached = np.cumsum(histogram.counts)
    wanted = share * histogram.count
    index = min(int(np.searchsorted(reached, wanted)), BINS - 1)
    before = reached[index - 1] if index else 0
    inside = (wanted - before) / max(int(histogram.counts[index]), 1)
    value = (histogram.first + index + inside) * histogram.width
    return float(np.clip(value, histogram.minimum, histogram.maximum))


def _even(histogram: Histogram, bins: int) -> tuple[Floats, float]:
    """Counts in at most ``bins`` equal bins from 0 to the largest value, and how wide they are."""
    width = histogram.width
    index = histogram.first + np.flatnonzero(histogram.counts)
    counts = histogram.counts[histogram.counts > 0]
    while index.max() >= bins:  # pairs become one: no bin has more of the old ones than another
        index, width = index // 2, width * 2
    return np.bincount(index, weights=counts).astype(np.float64), width


def _merged(histogram: Histogram, bins: int) -> tuple[Floats, Floats]:
    """Middles and counts of at most about ``bins`` bins, each the mean of what it was made of."""
    middles, counts = histogram.used
    group = np.arange(len(middles)) * bins // len(middles) if len(middles) > bins else None
    if group is None:
        return middles, counts
    total = np.bincount(group, weights=counts)
    return np.bincount(group, weights=counts * middles) / total, total.astype(np.float64)
