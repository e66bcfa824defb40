"""Losses of many candidates at once: what their bounds promise, and what samples can resolve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quantbench.stats import (
    Interval,
    Loss,
    critical,
    least_limit,
    over_losses,
    resolvable,
    samples_needed,
    shown_within,
)
from quantbench.stats.statistics import bonett_price, over_seeds

LIMIT = 0.01


def of_counts(lost: int, won: int, n: int) -> Loss:
    drop = bonett_price(lost, won, n)
    return Loss.of(drop.interval, drop.upper)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(200, 20_000))
def test_the_bound_of_one_loss_is_that_of_bonett_and_price(lost: int, won: int, n: int) -> None:
    # 1e-12: the error is the difference of two ends, a thousand roundings of 1e-16 at most
    assert of_counts(lost, won, n).bound() == pytest.approx(
        bonett_price(lost, won, n).upper, abs=1e-12
    )


def test_bounds_that_share_the_error_are_those_of_the_same_normal_error() -> None:
    lost, won, n = 30, 20, 5000
    p1, p2 = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    error = np.sqrt((p1 + p2 - (p1 - p2) ** 2) / (n + 2))

    wanted = p1 - p2 + stats.norm.isf(0.05 / 40) * error

    # 1e-12: as above
    assert of_counts(lost, won, n).bound(40) == pytest.approx(wanted, abs=1e-12)


def test_without_an_interval_the_bound_alone_is_kept() -> None:
    loss = Loss.of(Interval(0.002, np.nan, np.nan), 0.005)

    # 1e-12: rounding of one division and one product
    assert loss.bound() == pytest.approx(0.005, abs=1e-12)
    assert loss.bound(10) > 0.005


@given(
    st.lists(st.tuples(st.floats(0, 0.02), st.floats(1e-4, 0.01)), min_size=1, max_size=12),
    st.floats(0.001, 0.02),
)
def test_losses_are_judged_together_as_holm_does_with_p_values(
    points: list[tuple[float, float]], limit: float
) -> None:
    losses = [Loss(value, value, error) for value, error in points]
    # independent of the levels: p-values of "loses the limit or more", stepped down
    p = [float(stats.norm.sf((limit - value) / error)) for value, error in points]
    order, wanted = sorted(range(len(p)), key=lambda i: p[i]), [False] * len(p)
    for done, i in enumerate(order):
        if p[i] > 0.05 / (len(p) - done):
            break
        wanted[i] = True

    shown = shown_within(losses, limit)

    assert list(shown.within) == wanted
    for loss, within in zip(losses, shown.within, strict=True):
        assert within or loss.bound(shown.level) > limit


def outcomes(rng: np.random.Generator, drop: float, discordance: float, n: int) -> np.ndarray:
    """Differences of right answers of float and candidate: 1, 0 or -1, sample by sample."""
    lost, won = (discordance + drop) / 2, (discordance - drop) / 2
    return rng.choice([1.0, 0.0, -1.0], size=n, p=[lost, 1 - lost - won, won])


def loss_of(differences: np.ndarray) -> Loss:
    lost, won = int((differences == 1).sum()), int((differences == -1).sum())
    return of_counts(lost, won, len(differences))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_the_bound_over_seeds_is_no_tighter_than_the_one_of_all_answers(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    every = np.stack([outcomes(rng, 0.005, 0.03, 1000) for _ in range(k)])

    from_rows = over_losses([loss_of(own) for own in every])

    # the centre of Bonett and Price is up to 2 / (n + 2) of the estimate nearer to 0
    assert from_rows.bound() >= over_seeds(every).upper - 2 * 0.05 / 1002


def test_equal_seeds_are_as_sure_as_one_of_them() -> None:
    one = of_counts(4, 2, 897)

    # 1e-12: the mean of equal numbers is rounded
    assert over_losses([one] * 5).bound(7) == pytest.approx(one.bound(7), abs=1e-12)


def test_seeds_that_differ_widen_the_bound() -> None:
    steady = over_losses([of_counts(20, 10, 5000)] * 3)
    shaky = over_losses([of_counts(10 + d, 10, 5000) for d in (0, 10, 20)])

    assert shaky.value == steady.value
    assert shaky.bound() > steady.bound()


def test_200_samples_never_show_a_limit_of_one_point_and_it_is_said_how_many_do() -> None:
    # exact in the formula of Bonett and Price: no sample discordant
    assert bonett_price(0, 0, 200).upper > LIMIT
    # 1e-12: rounding
    assert least_limit(200) == pytest.approx(bonett_price(0, 0, 200).upper, abs=1e-12)
    assert (
        least_limit(samples_needed(LIMIT, 0.0))
        <= LIMIT
        < least_limit(samples_needed(LIMIT, 0.0) - 1)
    )


@given(st.integers(50, 20_000), st.floats(0.0, 0.2), st.integers(1, 40))
def test_what_can_be_shown_needs_no_more_samples_than_there_are(
    n: int, discordance: float, judged: int
) -> None:
    limit = resolvable(n, discordance, judged)

    assert samples_needed(limit, discordance, judged) <= n
    assert samples_needed(0.98 * limit, discordance, judged) > n


# --- simulations ----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("discordance", [0.02, 0.06])
def test_of_40_trials_just_above_the_limit_one_passes_in_5_percent_of_runs_not_in_most(
    discordance: float,
) -> None:
    """True loss 1.05 points, limit 1, 10,000 samples, 40 trials that err on samples of their own."""
    rng, runs = np.random.default_rng(0), 2000
    before = after = 0
    for _ in range(runs):
        lost_won = rng.multinomial(
            10_000, [(discordance + 0.0105) / 2, (discordance - 0.0105) / 2, 1 - discordance], 40
        )
        losses = [of_counts(int(lost), int(won), 10_000) for lost, won, _ in lost_won]
        before += any(loss.bound() <= LIMIT for loss in losses)
        after += any(shown_within(losses, LIMIT).within)

    print(f"discordance {discordance}: before {before / runs:.3f}, after {after / runs:.3f}")
    assert before / runs > 0.3
    # 0.05 by the correction; 0.01 is two standard errors of 2,000 runs
    assert after / runs <= 0.05 + 0.01


@pytest.mark.long
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("sd", [0.0, 0.002])
def test_the_bound_over_seeds_holds_in_95_percent_of_runs(seeds: int, sd: float) -> None:
    """Mean true loss 0.5 points, by seed with an SD of ``sd``; all see the same 2,000 samples, and err alike."""
    rng, runs, n = np.random.default_rng(seeds), 1500, 2000
    held = 0
    for _ in range(runs):
        lost, won, _ = rng.multinomial(n, [0.0175, 0.0125, 0.97])
        # what a seed loses or wins beside what all of them do
        own = [(rng.binomial(n, abs(e)), e > 0) for e in sd * rng.standard_normal(seeds)]
        losses = [of_counts(lost + k * more, won + k * (not more), n) for k, more in own]
        held += over_losses(losses).bound() >= 0.005

    print(f"{seeds} seeds, SD {sd}: held in {held / runs:.3f}")
    # two standard errors of 1,500 runs at 0.95
    assert held / runs >= 0.95 - 0.012


@pytest.mark.long
@pytest.mark.parametrize("judged", [1, 15])
def test_the_samples_said_to_be_needed_show_the_limit_in_4_runs_of_5(judged: int) -> None:
    rng, discordance, runs = np.random.default_rng(0), 0.02, 4000
    n = samples_needed(LIMIT, discordance, judged)
    counts = rng.multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], runs)

    shown = np.mean([of_counts(int(b), int(c), n).bound(judged) <= LIMIT for b, c, _ in counts])

    print(f"judged {judged}: {n} samples, shown in {shown:.3f}")
    # 0.8 by the normal approximation, which at some 25 discordant samples is 0.05 off
    assert 0.75 <= shown <= 0.88


def test_critical_values_are_those_of_the_tables() -> None:
    # 5e-4: tables have three decimals
    assert critical(1, 2) == pytest.approx(2.920, abs=5e-4)
    assert critical(5) == pytest.approx(2.326, abs=5e-4)
