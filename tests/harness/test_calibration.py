"""Histograms and calibrators: worked examples, the outlier table, and what always holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import rel_entr
from scipy.stats import norm

from quantbench.backend_api import Histogram, Observation, calibration, squared_error
from quantbench.backend_api.calibration import CALIBRATORS, estimate
from quantbench.errors import BadInput
from quantbench.spec import Method, preset

OUTLIER, SHARE = 60.0, 1e-4
values = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.floats(-1000, 1000, width=32),
)
calibrators = st.sampled_from(sorted(CALIBRATORS))


def method(calibrator: str, **axes) -> Method:
    return preset("static-int8", {"calibrator": calibrator, "ranges": "injected", **axes})


def histogram(*batches) -> Histogram:
    found = Histogram()
    for batch in batches:
        found.update(np.asarray(batch, np.float32))
    return found


@pytest.fixture(scope="module")
def outliers() -> np.ndarray:
    """One million values of N(0, 1), one in ten thousand of them replaced by 60."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(1_000_000).astype(np.float32)
    x[rng.permutation(x.size)[: int(SHARE * x.size)]] = OUTLIER
    return x


# --- the histogram -------------------------------------------------------------------------------


def test_a_histogram_counts_in_bins_whose_width_is_a_power_of_two():
    found = histogram([[0.0, 1.0, 1.0, 3.0]])

    assert math.log2(found.width) % 1 == 0
    assert 3.0 / calibration.BINS <= found.width < 6.0 / (calibration.BINS - 1)
    index = (np.array([0.0, 1.0, 3.0]) / found.width).astype(int) - found.first
    assert found.counts[index].tolist() == [1, 2, 1]


@given(st.lists(values, min_size=1, max_size=5))
def test_no_value_is_lost_and_the_moments_are_exact(batches):
    found = histogram(*batches)
    whole = np.concatenate([b.ravel() for b in batches]).astype(np.float64)

    assert found.counts.sum() == found.count == whole.size
    assert (found.minimum, found.maximum) == (whole.min(), whole.max())
    assert found.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-9)
    assert found.std == pytest.approx(whole.std(), rel=1e-6, abs=1e-6)


@given(st.lists(values, min_size=1, max_size=5))
def test_the_order_of_batches_changes_no_count(batches):
    forward, backward = histogram(*batches), histogram(*reversed(batches))

    # the bins need not start at the same value; at the wider of both widths the counts are the same
    width = max(forward.width, backward.width)
    assert binned(forward, width) == binned(backward, width)


def binned(found: Histogram, width: float) -> dict[int, int]:
    held = np.flatnonzero(found.counts)
    index = np.floor((found.first + held) * (found.width / width)).astype(int)
    total: dict[int, int] = {}
    for i, count in zip(index.tolist(), found.counts[held].tolist(), strict=True):
        total[i] = total.get(i, 0) + count
    return total


@given(st.lists(values, min_size=1, max_size=4))
def test_absolute_values_are_counted_as_if_they_had_no_sign(batches):
    found = histogram(*batches).absolute()
    direct = histogram(*[np.abs(b) for b in batches])

    assert found.maximum == direct.maximum
    assert found.counts.sum() == direct.count
    # a value on the edge of a bin may be counted on its other side
    width = max(found.width, direct.width)
    share = np.abs(np.cumsum(found.counts)[-1] - np.cumsum(direct.counts)[-1])
    assert share == 0
    assert abs(quantile(found, 0.5) - quantile(direct, 0.5)) <= 2 * width + 1e-6 * found.maximum


def quantile(found: Histogram, share: float) -> float:
    return calibration._quantile(found, share)


def test_memory_is_the_same_whatever_the_number_of_samples():
    few, many = histogram(*[[[1.0]]] * 2), histogram(*[[[float(i)]] for i in range(500)])

    assert few.counts.nbytes == many.counts.nbytes == 8 * calibration.BINS


def test_values_that_are_not_finite_are_refused_with_the_tensor():
    observation = Observation()

    with pytest.raises(BadInput, match="activation 'conv1': values are not finite"):
        observation.see("conv1", [[1.0, np.nan]])


def test_a_saved_observation_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    observation = calibration.observe((name, rng.standard_normal((4, 9))) for name in "aba/b")

    observation.save(tmp_path / "seen.npz")
    read = Observation.load(tmp_path / "seen.npz")

    assert list(read.histograms) == list(observation.histograms)
    for calibrator in CALIBRATORS:
        assert read.ranges(method(calibrator)) == observation.ranges(method(calibrator))


# --- each calibrator on numbers that can be checked by hand ---------------------------------------


def test_minmax_is_the_smallest_and_the_largest():
    assert estimate(histogram([[-1.0, 4.0], [2.0, 0.5]]), method("minmax")) == (-1.0, 4.0)


def test_symmetric_minmax_reaches_as_far_to_both_sides():
    chosen = method("minmax", symmetric_activations=True)

    assert estimate(histogram([[-1.0, 4.0]]), chosen) == (-4.0, 4.0)


def test_the_moving_average_follows_each_sample_by_a_hundredth():
    found = histogram([[0.0, 1.0]], [[-1.0, 3.0], [0.0, 0.0]])

    low, high = estimate(found, method("moving-average"))

    # 0 -> 0 + 0.01 (-1 - 0) = -0.01 -> -0.01 + 0.01 (0 + 0.01); 1 -> 1.02 -> 1.0098
    assert low == pytest.approx(-0.0099)
    assert high == pytest.approx(1.0098)


def test_the_percentile_leaves_out_half_of_the_rest_at_each_end():
    found = histogram(np.arange(1000, dtype=np.float32).reshape(10, 100))

    low, high = estimate(found, method("percentile", percentile=98.9))

    # 5.5 of the thousand values at each end: the sixth is 5, the sixth from above 994
    assert low == pytest.approx(5.0, abs=0.1)
    assert high == pytest.approx(994.0, abs=0.1)


def test_mean_std_reaches_k_deviations_but_not_beyond_the_values():
    found = histogram([[-2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]])  # mean 0, deviation 1

    assert estimate(found, method("mean-std", sigmas=1.5)) == pytest.approx((-1.5, 1.5))
    assert estimate(found, method("mean-std", sigmas=3.0)) == (-2.0, 2.0)


def test_mse_gives_up_a_rare_outlier_for_finer_steps():
    # with 2 bits: 0..3 exactly for the many, or steps of 10/3 for all
    many = np.tile(np.arange(4, dtype=np.float32), 1000)
    found = histogram(np.append(many, np.float32(3.4))[None])

    low, high = calibration.mse(found, method("mse"), 4)

    assert low == 0.0
    assert high == pytest.approx(3.0, abs=0.05)


def test_entropy_keeps_a_range_that_holds_nearly_everything():
    rng = np.random.default_rng(0)
    found = histogram(rng.laplace(size=(100, 1000)))

    low, high = estimate(found, method("entropy"))

    assert found.minimum < low
    assert high < found.maximum
    inside = found.counts[(found.centres > low) & (found.centres < high)].sum()
    assert inside / found.count > 0.98


def test_a_calibrator_of_one_framework_cannot_be_injected():
    with pytest.raises(
        BadInput, match="calibrator histogram cannot be injected; use one of minmax"
    ):
        estimate(histogram([[1.0]]), method("histogram"))


def test_nothing_observed_is_an_error_that_says_so():
    with pytest.raises(BadInput, match="give the method samples"):
        estimate(Histogram(), method("minmax"))


# --- N(0, 1) with one value in ten thousand at 60 --------------------------------------------------


def test_every_range_of_the_outlier_table_is_its_analytic_value(outliers):
    found = histogram(*outliers.reshape(100, 100, 100))
    smallest = float(outliers.min())
    mean = SHARE * OUTLIER
    deviation = math.sqrt((1 - SHARE) + SHARE * (OUTLIER - mean) ** 2)
    inside = norm.ppf(0.5 + 0.999 / 2 / (1 - SHARE))

    assert estimate(found, method("minmax")) == (smallest, OUTLIER)
    assert estimate(found, method("percentile", percentile=99.9)) == pytest.approx(
        (-norm.ppf(0.9995 / (1 - SHARE)), norm.ppf(0.9995 / (1 - SHARE))), rel=0.02
    )
    assert estimate(
        found, method("percentile", percentile=99.9, symmetric_activations=True)
    ) == pytest.approx((-inside, inside), rel=0.02)
    assert estimate(found, method("mean-std", sigmas=3.0)) == pytest.approx(
        (mean - 3 * deviation, mean + 3 * deviation), rel=0.02
    )


def test_the_moving_average_of_the_outlier_table_is_that_of_a_plain_loop(outliers):
    samples = outliers.reshape(10_000, 100)
    found = histogram(*np.split(samples, 100))

    low, high = float(samples[0].min()), float(samples[0].max())
    for sample in samples:
        low += 0.01 * (float(sample.min()) - low)
        high += 0.01 * (float(sample.max()) - high)

    assert estimate(found, method("moving-average")) == pytest.approx((low, high))


@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_of_the_outlier_table_is_that_of_a_search_over_all_ranges(outliers, symmetric):
    found = histogram(*outliers.reshape(100, 100, 100))
    low, high = estimate(found, method("mse", symmetric_activations=symmetric))

    middles, counts = found.used
    tops = np.linspace(50, 60, 101)
    lows = [None] if symmetric else np.linspace(-4.7, -2.5, 23)
    tried = [(-t if b is None else b, t) for t in tops for b in lows]
    best = min(tried, key=lambda r: squared_error(middles, counts, r, 256))

    assert high - low == pytest.approx(best[1] - best[0], rel=0.02)
    error = squared_error(middles, counts, (low, high), 256)
    assert error <= 1.02 * squared_error(middles, counts, best, 256)


def test_entropy_of_the_outlier_table_is_that_of_a_plain_search(outliers):
    found = histogram(*outliers.reshape(100, 100, 100))

    low, high = estimate(found, method("entropy"))

    # the bins are part of the method: the widest power of two that makes at most 2,048 of them
    bins, edges = np.histogram(np.abs(outliers), 1921, (0.0, 1921 / 32))
    bins[0] = bins[1]
    best = min(range(128, len(bins) + 1), key=lambda used: plain_divergence(bins, used, 128))
    assert high == pytest.approx(edges[best], rel=0.02)
    assert low == pytest.approx(-edges[best], rel=0.02)


def plain_divergence(bins: np.ndarray, used: int, levels: int) -> float:
    """KL of a threshold, bin by bin as the slides have it."""
    p = bins[:used].astype(float)
    q = np.zeros(used)
    for level in range(levels):
        start, stop = -(-level * used // levels), -(-(level + 1) * used // levels)
        held = [i for i in range(start, stop) if p[i] > 0]
        for i in held:
            q[i] = p[start:stop].sum() / len(held)
    p[-1] += bins[used:].sum()
    return float(rel_entr(p / p.sum(), q / q.sum()).sum()) if q.sum() else math.inf


# --- what always holds ---------------------------------------------------------------------------


@given(values, calibrators, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_range_never_goes_beyond_the_values_but_for_symmetry(batch, calibrator, symmetric):
    found = histogram(batch)

    low, high = estimate(found, method(calibrator, symmetric_activations=symmetric))

    reach = max(abs(found.minimum), abs(found.maximum), 1e-30) * (1 + 1e-6)
    assert low <= high
    assert -reach <= low
    assert high <= reach
    if symmetric:
        assert low == -high
    else:
        assert min(found.minimum, 0.0) - 1e-6 * reach <= low
        assert high <= max(found.maximum, 0.0) + 1e-6 * reach


@given(values, st.booleans(), st.sampled_from([16, 128, 256]))
@settings(max_examples=60, deadline=None)
def test_mse_never_has_a_larger_error_than_minmax(batch, symmetric, levels):
    found = histogram(batch)
    middles, counts = found.used

    def error(calibrator: str) -> float:
        chosen = method(calibrator, symmetric_activations=symmetric)
        low, high = estimate(found, chosen, levels=levels)
        return squared_error(middles, counts, (min(low, 0.0), max(high, 0.0)), levels)

    assert error("mse") <= error("minmax")


@given(values, calibrators, st.floats(1.0, 3.0))
@settings(max_examples=60, deadline=None)
def test_a_wider_range_never_saturates_more(batch, calibrator, factor):
    found = histogram(batch)
    low, high = estimate(found, method(calibrator))

    def saturated(a: float, b: float) -> int:
        return int(((batch < a) | (batch > b)).sum())

    wider = (low - (factor - 1) * abs(low), high + (factor - 1) * abs(high))
    assert saturated(*wider) <= saturated(low, high)


@given(values)
def test_more_deviations_and_a_higher_percentile_never_narrow_the_range(batch):
    found = histogram(batch)
    for calibrator, axis, small, large in (
        ("mean-std", "sigmas", 1.0, 2.0),
        ("percentile", "percentile", 90.0, 99.0),
    ):
        narrow = estimate(found, method(calibrator, **{axis: small}))
        wide = estimate(found, method(calibrator, **{axis: large}))
        assert wide[0] <= narrow[0]
        assert narrow[1] <= wide[1]
