"""Statistics against SciPy, published examples and properties."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from scipy.spatial import distance
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW
from statsmodels.tsa.stattools import acf

from quantbench.runs.interleaved_timing import precise
from quantbench.spec import PRECISIONS
from quantbench.stats import STATISTICS, cosine, kl_divergence
from quantbench.stats import statistics as s
from tools.validation import sessions

STANDARD = PRECISIONS["standard"]

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
def test_holm_equals_statsmodels(p):
    # it collects garbage each time, which takes a second where the frameworks are loaded
    with mock.patch("gc.collect"):
        expected = multipletests(p, method="holm")[1]

    assert s.holm(p) == pytest.approx(list(expected))


@given(st.integers(0, 200), st.integers(0, 200))
def test_mid_p_is_statsmodels_exact_p_less_half_the_weight_of_the_tie(lost, won):
    exact = mcnemar([[0, lost], [won, 0]], exact=True).pvalue

    found = s.mcnemar_mid_p(lost, won)

    if lost == won:
        assert found == 1.0
    else:
        tie = stats.binom.pmf(min(lost, won), lost + won, 0.5)
        assert found == pytest.approx(exact - tie, abs=1e-12)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 1000))
def test_bonett_price_is_the_normal_interval_with_one_more_of_each_discordant_pair(lost, won, rest):
    n = max(lost + won + rest, 1)
    differences = np.repeat([1.0, -1.0, 0.0], [lost + 1, won + 1, n - lost - won])

    found = s.bonett_price(lost, won, n)

    error = stats.sem(differences, ddof=0)
    low, high = stats.norm.interval(0.95, differences.mean(), error)
    assert found.interval.low == pytest.approx(min(low, (lost - won) / n))
    assert found.interval.high == pytest.approx(max(high, (lost - won) / n))
    assert found.upper == pytest.approx(stats.norm.ppf(0.95, differences.mean(), error))


def test_a_graded_drop_has_statsmodels_p_and_bounds():
    rng = np.random.default_rng(4)
    reference, candidate = rng.random(80), rng.random(80) - 0.05
    difference = DescrStatsW(reference - candidate)

    found = s.paired_drop(reference, candidate)

    assert found.p == pytest.approx(difference.ztest_mean(0)[1])
    low, high = difference.zconfint_mean(alpha=0.05)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert found.upper == pytest.approx(difference.zconfint_mean(0.05, "smaller")[1])


@given(st.integers(6, 300), st.integers(0, 10))
def test_the_interval_of_a_median_equals_scipys_quantile_test(n, seed):
    x = np.random.default_rng(seed).normal(size=n)
    low, high = s.order_statistic_ranks(n)

    expected = stats.quantile_test(x, p=0.5).confidence_interval(confidence_level=0.95)

    ordered = np.sort(x)
    assert (ordered[low - 1], ordered[high - 1]) == (expected.low, expected.high)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20).filter(lambda x: np.std(x) > 1e-6))
def test_the_interval_between_generations_equals_scipys_t_interval(medians):
    found = s.between_interval(np.array(medians))

    expected = stats.ttest_1samp(medians, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@given(st.integers(3, 200), st.integers(0, 10))
def test_autocorrelation_equals_statsmodels_on_the_same_winsorised_values(n, seed):
    x = np.random.default_rng(seed).standard_t(3, size=n)
    middle, deviation = np.median(x), stats.median_abs_deviation(x, scale=1 / 1.4826)
    clipped = np.clip(x, middle - 3 * deviation, middle + 3 * deviation)

    assert s.lag1(x) == pytest.approx(acf(clipped, nlags=1)[1] + 1 / n)


@given(st.integers(2, 6), st.integers(2, 30), st.integers(0, 10))
def test_the_p_value_of_rounds_is_the_larger_of_scipys_two(generations, rounds, seed):
    rng = np.random.default_rng(seed)
    found = [rng.normal(rng.normal(0, 0.5), 1, rounds) for _ in range(generations)]

    flat = np.concatenate(found)
    sign = stats.binomtest(int((flat > 0).sum()), len(flat)).pvalue
    between = stats.ttest_1samp([np.median(g) for g in found], 0.0).pvalue
    assert s.rounds_p_value(found) == pytest.approx(max(sign, between))


def test_the_bootstrap_of_a_rank_correlation_covers_like_scipys():
    rng = np.random.default_rng(6)
    x = rng.normal(size=120)
    y = x + rng.normal(size=120)

    found = s.bootstrap(STATISTICS["spearman"], x, y)

    fisher = math.atanh(found.value)
    low, high = (
        math.tanh(fisher - 1.06 / math.sqrt(117) * 1.96),
        math.tanh(fisher + 1.06 / math.sqrt(117) * 1.96),
    )
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04)
    assert found == s.bootstrap(STATISTICS["spearman"], x, y)  # its seed is fixed


def test_the_paired_bootstrap_sees_what_two_separate_intervals_do_not():
    rng = np.random.default_rng(7)
    label = rng.normal(size=300)
    full = label + rng.normal(size=300)
    worse = full + rng.normal(0, 0.25, 300)

    drop = s.bootstrap_drop(STATISTICS["spearman"], full, worse, label)
    none = s.bootstrap_drop(STATISTICS["spearman"], full, full, label)

    alone = s.bootstrap(STATISTICS["spearman"], full, label)
    assert drop.interval.half_width < 0.5 * alone.half_width
    assert drop.interval.low < drop.interval.value < drop.upper < drop.interval.high
    assert drop.p < 0.1
    assert (none.interval, none.p) == (s.Interval(0.0, 0.0, 0.0), 1.0)


def test_the_mean_of_scores_over_seeds_is_scipys():
    scores = np.array([0.81, 0.83, 0.82])

    found = s.over_scores(scores)

    low, high = stats.t.interval(0.95, 2, scores.mean(), stats.sem(scores))
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert found.upper == pytest.approx(stats.t.ppf(0.95, 2, scores.mean(), stats.sem(scores)))
    assert found.p == pytest.approx(stats.ttest_1samp(scores, 0).pvalue)


def test_the_mean_over_seeds_has_the_error_of_samples_or_of_seeds_where_only_one_varies():
    rng = np.random.default_rng(5)
    samples, seeds = rng.random(200), rng.random(4)

    same_seeds = s.over_seeds(np.tile(samples, (4, 1))).interval
    same_samples = s.over_seeds(np.tile(seeds[:, None], (1, 200))).interval

    low, high = stats.norm.interval(0.95, samples.mean(), stats.sem(samples))
    assert (same_seeds.low, same_seeds.high) == pytest.approx((low, high))
    low, high = stats.t.interval(0.95, 3, seeds.mean(), stats.sem(seeds))
    assert (same_samples.low, same_samples.high) == pytest.approx((low, high))


@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 20))
def test_divergence_and_cosine_equal_scipys(n, classes, seed):
    rng = np.random.default_rng(seed)
    reference, outputs = rng.normal(0, 3, (2, n, classes))

    p, q = special.softmax(reference, axis=1), special.softmax(outputs, axis=1)
    assert kl_divergence(reference, outputs) == pytest.approx(stats.entropy(p, q, axis=1).mean())
    expected = 1 - distance.cosine(reference.ravel(), outputs.ravel())
    assert cosine(reference, outputs) == pytest.approx(expected)
    assert math.isnan(cosine(reference, np.zeros_like(outputs)))


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


def timed(rng, *, between: float, within: float, rho: float) -> np.ndarray:
    """A generation of equal artifacts: log ratios of seven rounds, correlated by ``rho``."""
    noise = rng.normal(0, within, 7)
    for i in range(1, 7):
        noise[i] = rho * noise[i - 1] + math.sqrt(1 - rho**2) * noise[i]
    return rng.normal(0, between) + noise


def coverage(runs: int, **noise: float) -> float:
    """Share of simulated runs whose interval holds the truth: looks, stopping rule and all.

    Five generations at least; after each another look; the width of 2 % or 20 generations ends it.
    """
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(runs):
        generations = [timed(rng, **noise) for _ in range(STANDARD.generations - 1)]
        found = s.Interval(0.0, -math.inf, math.inf)
        while len(generations) < STANDARD.max_generations and not precise(found, STANDARD.width):
            generations.append(timed(rng, **noise))
            found = s.rounds_interval(generations)
        held += not found.excludes(0.0)
    return held / runs


@pytest.mark.long
@pytest.mark.parametrize(
    ("between", "within"), [(0.005, 0.007), (0.01, 0.01), (0.01, 0.03), (0.002, 0.03)]
)
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_simulated_coverage_of_the_whole_scheme(between, within, rho):
    assert coverage(3000, between=between, within=within, rho=rho) >= 0.92


@pytest.mark.long
@pytest.mark.parametrize("sd", [0.0, 0.01, sessions.UP_TO])
def test_three_sessions_cover_what_sessions_differ_by(sd):
    assert sessions.coverage(sessions.normal(sd), sessions.AT, runs=2000) >= sessions.FLOOR


def test_one_session_does_not_cover_what_sessions_differ_by():
    assert sessions.coverage(sessions.normal(0.027), 1, runs=100) < 0.6


def test_one_process_per_artifact_would_not_cover():
    """What the generations are for: with rounds alone the interval misses the truth half the time."""
    rng = np.random.default_rng(3)
    found = [
        s.within_interval(rng.normal(0, 0.005) + rng.normal(0, 0.007, 35)) for _ in range(1000)
    ]

    assert np.mean([not interval.excludes(0.0) for interval in found]) < 0.6


@given(st.integers(2, 12), st.floats(0.001, 0.05), st.floats(-0.03, 0.03), st.integers(0, 20))
def test_so_many_more_generations_narrow_the_interval_to_what_decides(count, sd, middle, seed):
    rng = np.random.default_rng(seed)
    generations = [middle + rng.normal(0, sd) + rng.normal(0, 1e-4, 7) for _ in range(count)]
    found = s.rounds_interval(generations)

    more = s.generations_to_decide(generations, noise=0.001)

    distance_to_one = abs(found.value)
    room = min(math.log(1.02) - found.value, found.value - math.log(0.98))
    target = distance_to_one if abs(math.exp(found.value) - 1) > 0.01 else room
    if more is None:
        assert found.half_width * math.sqrt(count / s.MOST_GENERATIONS) > 0.9 * target
    else:
        narrowed = found.half_width * math.sqrt(count / (count + more))
        assert narrowed <= 1.02 * target
        fewer = found.half_width * math.sqrt(count / (count + more - 1))
        assert more == 1 or fewer > 0.98 * target


@given(st.integers(1, 60))
def test_a_median_is_bounded_by_the_smallest_value_that_is_sure(n):
    rank = s.bounding_rank(n)

    def risk(rank):
        """That the rank-th largest of n is still below the median: fewer than rank are above it."""
        return stats.binom.cdf(rank - 1, n, 0.5)

    assert rank == 0 or risk(rank) <= 0.05
    assert risk(rank + 1) > 0.05
    assert (rank > 0) == (n >= 5)


def test_a_percentile_is_that_of_half_of_all_processes_and_bounded_by_the_slowest():
    fast, slow = np.arange(1.0, 101.0), np.arange(1.0, 101.0) + 50

    found = s.percentile_of_processes([fast, fast, fast, slow, fast], 0.9)

    assert (found.value, found.high, found.rank) == (90.0, 140.0, 1)
    # 1e-12: one power of two
    assert found.confidence == pytest.approx(1 - 2**-5, abs=1e-12)
    # of one process alone nothing is said of others
    alone = s.percentile_of_processes([fast], 0.99)
    assert (alone.value, alone.high, alone.rank) == (99.0, math.inf, 0)


def with_states(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Calls of 7 bursts of 50 in each of ``count`` processes, with slow states of all three.

    Processes differ by 1 %, one in ten is 15 % slower for life; of bursts one in seven is 20 %
    slower; of calls one in a thousand twice as slow.
    """
    process = rng.normal(0, 0.01, (count, 1, 1)) + 0.15 * (rng.random((count, 1, 1)) < 0.1)
    burst = rng.normal(0, 0.01, (count, 7, 1)) + 0.2 * (rng.random((count, 7, 1)) < 1 / 7)
    call = rng.normal(0, 0.01, (count, 7, 50)) + 0.7 * (rng.random((count, 7, 50)) < 0.001)
    return list(np.exp(process + burst + call).reshape(count, -1))


@pytest.mark.long
@pytest.mark.parametrize("generations", [5, 8, 20])
@pytest.mark.parametrize("percentile", [0.9, 0.99])
def test_the_bound_of_a_percentile_holds_with_states_of_bursts_and_processes(
    generations, percentile
):
    rng = np.random.default_rng(0)
    truth = s.percentile_of_processes(with_states(rng, 20_000), percentile).value
    times = 2000

    found = [
        s.percentile_of_processes(with_states(rng, generations), percentile) for _ in range(times)
    ]

    # four standard errors of a share of 2000, where the stated confidence is exact
    sure = found[0].confidence
    held = np.mean([one.high >= truth for one in found])
    assert sure >= 0.95
    assert held >= sure - 4 * math.sqrt(sure * (1 - sure) / times)


@pytest.mark.long
@pytest.mark.parametrize("percentile", [0.9, 0.99])
def test_a_rule_for_independent_calls_does_not_hold_with_such_states(percentile):
    """Why LoadGen's early stopping is not used: its 99 % are far fewer here."""
    rng = np.random.default_rng(0)
    truth = np.quantile(np.concatenate(with_states(rng, 20_000)), percentile)
    count, times = 5 * 350, 500
    rank = int(stats.binom.ppf(0.01, count, 1 - percentile))

    held = np.mean(
        [np.sort(np.concatenate(with_states(rng, 5)))[-rank] >= truth for _ in range(times)]
    )

    assert held < 0.9


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
    # wider than that of a class which was chosen before
    alone = s.bonett_price(12, 0, 100).interval
    assert worst.drop.interval.low < alone.low < alone.high < worst.drop.interval.high
    # a class of few samples is not judged, however much it loses
    few = np.r_[labels, np.full(49, 9)]
    again = s.worst_class(np.ones(449), np.r_[own, np.zeros(49)], few)
    assert again is not None
    assert (again.label, again.classes) == (2, 4)
    assert s.worst_class(np.ones(49), np.zeros(49), np.zeros(49)) is None


@given(st.integers(1, 3000), st.data(), st.floats(0.5, 0.9999))
def test_an_exact_interval_of_a_share_equals_scipys(n, data, level):
    k = data.draw(st.integers(0, n))

    found = s.clopper_pearson(k, n, level)

    expected = stats.binomtest(k, n).proportion_ci(level, method="exact")
    # SciPy searches for the ends; here they are quantiles of a beta distribution
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 1000), st.integers(1, 200))
def test_a_simultaneous_drop_is_antisymmetric_and_holds_the_drop(lost, won, rest, family):
    n = max(lost + won + rest, 1)

    one, other = (s.simultaneous_drop(a, b, n, family) for a, b in ((lost, won), (won, lost)))

    # 1e-12: sums of a few doubles
    assert one.low == pytest.approx(-other.high, abs=1e-12)
    assert one.low <= one.value <= one.high


@pytest.mark.long
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("n", [50, 100, 200, 1000])
@pytest.mark.parametrize(
    ("lost", "won"), [(0.02, 0.02), (0.05, 0.01), (0.1, 0.0), (0.0, 0.1), (0.0, 0.02), (0.3, 0.3)]
)
def test_the_interval_of_the_worst_class_holds_its_drop(classes, n, lost, won):
    """All classes lose and win the same, so that the worst is worst by chance."""
    rng, times, held = np.random.default_rng(0), 1000, 0
    for _ in range(times):
        counts = rng.multinomial(n, [lost, won, 1 - lost - won], size=classes)
        a, b, _ = counts[np.argmax(counts[:, 0] - counts[:, 1])]
        held += not s.simultaneous_drop(int(a), int(b), n, classes).excludes(lost - won)

    # 97 to 100 % were found; three standard errors of a share of 1000 at 95 % are 2 points
    assert held / times >= 0.95
