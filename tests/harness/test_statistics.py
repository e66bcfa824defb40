"""Statistics against SciPy, published examples and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness import statistics as s

finite = st.floats(-1, 1, allow_nan=False)


@given(st.integers(1, 5000), st.data())
def test_wilson_equals_scipy_and_holds_the_share(n, data):
    k = data.draw(st.integers(0, n))

    found = s.wilson(k, n)

    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert not found.excludes(k / n)


def test_the_worked_example_of_a_paired_drop():
    drop = s.bonett_price(109, 87, 10_000)

    assert drop.interval.value == pytest.approx(0.0022)
    assert drop.p == pytest.approx(0.117, abs=5e-4)
    assert drop.upper == pytest.approx(0.0045, abs=5e-5)
    assert s.quality_verdict(drop, 0.01 * 0.8719) == "keeps"


@pytest.mark.parametrize(("lost", "won"), [(9, 1), (15, 5), (32, 18), (60, 40), (114, 86)])
def test_the_smallest_imbalances_that_are_significant(lost, won):
    assert s.mcnemar_mid_p(lost, won) < 0.05
    assert s.mcnemar_mid_p(lost - 1, won + 1) > 0.05


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 1000))
def test_a_paired_drop_is_antisymmetric(lost, won, rest):
    n = max(lost + won + rest, 1)

    one, other = s.bonett_price(lost, won, n), s.bonett_price(won, lost, n)

    assert one.interval.value == pytest.approx(-other.interval.value)
    assert one.interval.low == pytest.approx(-other.interval.high)
    assert one.p == pytest.approx(other.p)


def test_a_drop_of_graded_outcomes_is_the_normal_interval_of_the_mean_difference():
    rng = np.random.default_rng(0)
    reference, candidate = rng.random(500), rng.random(500)

    found = s.paired_drop(reference, candidate)

    low, high = stats.norm.interval(
        0.95, (reference - candidate).mean(), stats.sem(reference - candidate)
    )
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))


def test_verdicts_on_quality():
    assert s.quality_verdict(s.bonett_price(0, 0, 10_000), 0.01) == "keeps"
    assert s.quality_verdict(s.bonett_price(300, 0, 10_000), 0.01) == "loses"
    assert s.quality_verdict(s.bonett_price(3, 1, 200), 0.01) == "undecided"


@given(st.lists(st.lists(finite, min_size=2, max_size=9), min_size=1, max_size=6))
def test_the_interval_of_rounds_always_holds_its_estimate(generations):
    found = s.rounds_interval([np.array(g) for g in generations])

    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(float(np.median(np.concatenate(generations))))


def test_the_interval_holds_the_spread_between_generations():
    rng = np.random.default_rng(1)
    offsets = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])
    generations = [o + rng.normal(0, 1e-4, 7) for o in offsets]

    found = s.rounds_interval(generations)

    medians = np.array([np.median(g) for g in generations])
    half = stats.t.ppf(0.975, 4) * stats.sem(medians)
    assert found.half_width >= half * 0.99


def test_one_generation_of_few_rounds_bounds_nothing():
    found = s.rounds_interval([np.array([0.1, 0.2, 0.3])])

    assert found.value == pytest.approx(0.2)
    assert math.isinf(found.low)
    assert s.exp_interval(found).high == math.inf


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_scipys_step_down_rule(p):
    found = s.holm(p)

    order = np.argsort(p, kind="stable")
    scaled = np.minimum(1, np.array(p)[order] * np.arange(len(p), 0, -1))
    expected = np.empty(len(p))
    expected[order] = np.maximum.accumulate(scaled)
    assert found == pytest.approx(list(expected))


def test_autocorrelation_is_found_and_absent_where_there_is_none():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=4000)
    walk = np.zeros(4000)
    for i in range(1, 4000):
        walk[i] = 0.6 * walk[i - 1] + noise[i]

    assert s.lag1(noise) == pytest.approx(0.0, abs=0.05)
    assert s.lag1(walk) == pytest.approx(0.6, abs=0.05)


def test_no_claim_below_the_noise_of_the_control():
    clear = s.Interval(1.5, 1.49, 1.51)

    assert s.latency_verdict(clear, 0.001, noise=0.002) == "faster"
    assert s.latency_verdict(clear, 0.2, noise=0.002) == "undecided"
    assert s.latency_verdict(clear, 0.001, noise=math.inf) == "undecided"
    assert s.latency_verdict(s.Interval(1.03, 1.02, 1.04), 0.001, noise=0.02) == "undecided"
    assert s.latency_verdict(s.Interval(0.5, 0.49, 0.51), 0.001, noise=0.002) == "slower"
    assert s.latency_verdict(s.Interval(1.0, 0.99, 1.01), 0.9, noise=0.002) == "equal within 2 %"


def coverage(*, between: float, within: float, rho: float, runs: int = 1000) -> float:
    """Share of simulated five-generation comparisons of equal artifacts whose interval holds 0."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(runs):
        generations = []
        for _ in range(5):
            noise = rng.normal(0, within, 7)
            for i in range(1, 7):
                noise[i] = rho * noise[i - 1] + math.sqrt(1 - rho**2) * noise[i]
            generations.append(rng.normal(0, between) + noise)
        held += not s.rounds_interval(generations).excludes(0.0)
    return held / runs


@pytest.mark.parametrize(
    ("between", "within", "rho"), [(0.005, 0.007, 0.0), (0.005, 0.007, 0.3), (0.01, 0.01, 0.0)]
)
def test_simulated_coverage_of_the_generation_scheme(between, within, rho):
    assert coverage(between=between, within=within, rho=rho) >= 0.92


@given(st.integers(1, 1500), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_percentile_is_bounded_by_loadgens_rule(n, percentile):
    t = s.early_stopping_rank(n, percentile)

    def risk(rank):
        """That the rank-th slowest of n is still below the percentile: fewer than rank are beyond."""
        return stats.binom.cdf(rank, n, 1 - percentile)

    assert t == 0 or risk(t) <= 0.01
    assert risk(t + 1) > 0.01
    assert (t > 0) == (n >= s.early_stopping_samples(percentile))


def test_the_class_that_loses_most_is_found_and_its_p_corrected():
    labels = np.repeat(np.arange(4), 100)
    full = np.ones(400)
    own = np.ones(400)
    own[labels == 2] = np.repeat([0.0, 1.0], [12, 88])  # 12 of 100 lost
    own[:3] = 0.0

    worst = s.worst_class(full, own, labels)

    assert worst is not None
    assert (worst.label, worst.classes) == (2, 4)
    assert worst.drop.interval.value == pytest.approx(0.12)
    assert worst.p == pytest.approx(4 * s.mcnemar_mid_p(12, 0))
    # a class of few samples is not judged, however much it loses
    few = np.r_[labels, np.full(49, 9)]
    again = s.worst_class(np.ones(449), np.r_[own, np.zeros(49)], few)
    assert again is not None
    assert (again.label, again.classes) == (2, 4)
    assert s.worst_class(np.ones(49), np.zeros(49), np.zeros(49)) is None
