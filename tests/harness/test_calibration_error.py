"""Calibration error: counted by hand, decided from the outputs, and an interval that holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import special

from quantbench.stats import METRICS, Outcome, statistics
from quantbench.stats.calibration_error import (
    brier_rise,
    brier_score,
    error_by_chance,
    expected_calibration_error,
    with_confidence,
)


def judged(outputs: np.ndarray, labels: np.ndarray, reference: np.ndarray | None = None) -> Outcome:
    full = outputs if reference is None else reference
    return with_confidence(METRICS["top1"](outputs, labels), full, outputs, labels)


def sure_of(confidence: list[float], right: list[int]) -> Outcome:
    """Two classes; the answer is class 0, and the label too where it is right."""
    p = np.array(confidence)
    return judged(np.stack([p, 1 - p], axis=1), 1 - np.array(right))


def test_the_error_is_what_counting_by_hand_gives():
    # bins of a fifteenth: 0.61 and 0.65 in one, 0.79 and 0.85 in others
    own = sure_of([0.61, 0.65, 0.79, 0.85], [1, 0, 1, 0])

    # (|1 - 0.61 + 0 - 0.65| + |1 - 0.79| + |0 - 0.85|) / 4; 1e-6: confidences are stored in float32
    assert expected_calibration_error(own) == pytest.approx((0.26 + 0.21 + 0.85) / 4, abs=1e-6)


def test_within_a_bin_over_and_underconfidence_cancel():
    assert expected_calibration_error(sure_of([0.75] * 4, [1, 1, 1, 0])) == pytest.approx(
        0, abs=1e-9
    )


def test_a_bin_holds_its_upper_end():
    # 1 is in the last bin alone; 14/15 in the one before, so that they do not cancel
    own = sure_of([1.0, 14 / 15 - 1e-6], [0, 1])

    # 1e-5: the confidence is that much below 14/15
    assert expected_calibration_error(own) == pytest.approx((1 + 1 / 15) / 2, abs=1e-5)


def test_brier_is_the_squared_distance_to_the_label():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    own = judged(p, np.array([0, 2]))

    by_hand = [0.3**2 + 0.2**2 + 0.1**2, 0.1**2 + 0.6**2 + 0.7**2]
    # 1e-7: terms are stored in float32
    np.testing.assert_allclose(own.brier, by_hand, rtol=0, atol=1e-7)
    assert brier_score(own).value == pytest.approx(np.mean(by_hand), abs=1e-7)


def test_the_ends_of_brier_are_0_and_2():
    own = judged(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))

    assert list(own.brier) == [0, 2]


def test_logits_are_given_a_softmax_and_probabilities_are_taken_as_they_are():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 5)) * 3, rng.integers(0, 5, 50)
    p = special.softmax(logits, axis=1)

    of_logits, of_p = judged(logits, labels), judged(p, labels)

    # float32 of the same numbers, up to the last digit
    np.testing.assert_allclose(of_logits.confidence, p.max(axis=1), rtol=1e-6)
    # float32 of the same numbers by another sum
    np.testing.assert_allclose(of_p.confidence, of_logits.confidence, rtol=1e-6)
    # float32 of the same numbers by another sum
    np.testing.assert_allclose(of_p.brier, of_logits.brier, rtol=1e-5, atol=1e-6)


def test_logits_that_happen_to_be_positive_are_logits():
    own = judged(np.array([[3.0, 1.0], [0.5, 0.5]]), np.array([0, 0]))

    # softmax of a difference of 2, and of none
    np.testing.assert_allclose(own.confidence, [special.expit(2.0), 0.5], rtol=1e-6)


def test_the_float_model_says_what_the_outputs_are_and_quantized_probabilities_are_scaled_to_1():
    p, labels = np.array([[0.6, 0.3, 0.1]]), np.array([0])
    quantized = np.array([[0.6, 0.25, 0.05]])  # sums to 0.9

    # float32 of the same quotient
    np.testing.assert_allclose(judged(quantized, labels, p).confidence, [0.6 / 0.9], rtol=1e-6)


@pytest.mark.parametrize("row", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 0.0]])
def test_an_output_that_is_no_distribution_has_no_confidence(row):
    p = np.array([[0.9, 0.1], [0.8, 0.2]])
    own = judged(np.array([[0.9, 0.1], row]), np.array([0, 0]), p)

    assert list(np.isnan(own.confidence)) == list(np.isnan(own.brier)) == [False, True]


def test_samples_without_a_label_are_not_judged():
    logits = np.zeros((1, 3, 4))

    assert len(judged(logits, np.array([[0, -1, 2]])).confidence) == 2


def test_one_output_is_no_distribution_over_classes():
    assert judged(np.ones((3, 1)), np.zeros(3)).confidence is None


def test_a_score_rises_by_the_difference_and_not_against_itself():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(400, 5)), rng.integers(0, 5, 400)
    full, own = judged(logits, labels), judged(2 * logits, labels)

    score = brier_rise(own, full)

    assert score.value == pytest.approx(brier_score(own).value - brier_score(full).value)
    assert score.low < score.value < score.high
    assert brier_rise(own, own) == statistics.Interval(0.0, 0.0, 0.0)


def world(rng: np.random.Generator, n: int, sharper: float) -> tuple[Outcome, Outcome]:
    """A calibrated float model, whose probabilities the labels are drawn from; and a sharper one."""
    logits = 2.5 * rng.normal(size=(n, 10))
    p = special.softmax(logits, axis=1)
    labels = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    own = sharper * logits + 0.1 * rng.normal(size=p.shape)
    return judged(logits, labels), judged(own, labels)


def test_of_calibrated_models_about_95_in_100_are_below_what_chance_makes():
    rng = np.random.default_rng(4)
    models = [world(rng, 300, 1.0)[0] for _ in range(100)]

    below = sum(expected_calibration_error(full) <= error_by_chance(full) for full in models)

    # 3.5 standard deviations of a binomial around 95
    assert 87 <= below <= 100
    assert min(map(error_by_chance, models[:3])) > 0.03  # and chance is no small thing


@pytest.mark.long
def test_a_bootstrap_of_the_difference_misses_the_truth():
    """Why no interval of it is given: chance adds to a calibrated model's error alone."""
    rng = np.random.default_rng(5)
    full, own = world(rng, 400_000, 1.3)
    truth = expected_calibration_error(own) - expected_calibration_error(full)

    held, found = 0, []
    for _ in range(60):
        full, own = world(rng, 1000, 1.3)
        found.append(expected_calibration_error(own) - expected_calibration_error(full))
        drawn = []
        for _ in range(200):
            i = rng.integers(0, 1000, 1000)
            one, other = (taken(outcome, i) for outcome in (own, full))
            drawn.append(expected_calibration_error(one) - expected_calibration_error(other))
        low, high = np.quantile(drawn, [0.025, 0.975])
        held += low <= truth <= high

    assert held / 60 < 0.5
    assert np.mean(found) < 0.8 * truth


def taken(own: Outcome, index: np.ndarray) -> Outcome:
    columns = {name: getattr(own, name)[index] for name in ("prediction", "label", "confidence")}
    return dataclasses.replace(own, **columns)
