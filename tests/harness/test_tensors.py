"""Tensors: specs, layouts, and the affine coding between task and artifact."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.metrics import kl_divergence, mean_squared_error, parity, sqnr_db, top1
from harness.tensors import TensorSpec, check_inputs, decode, encode, relayout

TASK = TensorSpec("image", (None, 3, 4, 5), "float32", "NCHW")
STORED = TensorSpec("image", (None, 4, 5, 3), "int8", "NHWC", scale=0.1, zero_point=-3)


@given(st.integers(0, 2**32 - 1))
def test_coding_and_decoding_is_within_half_a_step_inside_the_range(seed):
    x = np.random.default_rng(seed).uniform(-12.4, 12.9, (2, 3, 4, 5)).astype(np.float32)

    back = decode(encode(x, TASK, STORED), TASK, STORED)

    assert back.shape == x.shape
    assert np.abs(back - x).max() <= 0.05 + 1e-5


def test_coding_saturates_and_rounds_half_to_even():
    spec = TensorSpec("x", (None,), "int8", scale=1.0, zero_point=0)
    task = TensorSpec("x", (None,), "float32")

    coded = encode(np.array([-500, -2.5, -1.5, 0.5, 1.5, 500], np.float32), task, spec)

    assert coded.tolist() == [-128, -2, -2, 0, 2, 127]


def test_layouts_are_moved_both_ways():
    x = np.arange(120).reshape(2, 3, 4, 5)

    moved = relayout(x, "NCHW", "NHWC")

    assert moved.shape == (2, 4, 5, 3)
    assert np.array_equal(relayout(moved, "NHWC", "NCHW"), x)
    assert relayout(x, "", "NHWC") is x


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, r"missing \['image'\]"),
        ({"picture": np.zeros((1, 3, 4, 5), np.float32)}, r"unknown \['picture'\]"),
        ({"image": np.zeros((1, 3, 4, 5))}, r"dtype float64, expected float32"),
        ({"image": np.zeros((1, 4, 5, 3), np.float32)}, r"expected \(any, 3, 4, 5\)"),
        ({"image": np.zeros((2, 3, 4, 5), np.float32)}, r"2 samples, .* batch_size=1"),
    ],
)
def test_bad_inputs_name_the_tensor_and_what_is_expected(inputs, says):
    with pytest.raises(BadInput, match=says):
        check_inputs((TASK,), inputs, 1)


def test_specs_survive_json():
    assert TensorSpec.from_json(STORED.to_json()) == STORED


def test_top1_counts_the_first_of_equal_logits_and_the_ties():
    logits = np.array([[1.0, 1.0], [0.0, 2.0], [3.0, 1.0]])

    found = top1(logits, np.array([0, 1, 1]))

    assert found.prediction.tolist() == [0, 1, 0]
    assert found.score == pytest.approx(2 / 3)
    assert found.ties == 1


def test_squared_error_is_negative_so_that_more_is_better():
    assert mean_squared_error(np.array([[1.0], [3.0]]), np.array([1.0, 1.0])).score == -2.0


def test_sqnr_is_the_power_ratio_in_decibels():
    reference = np.array([10.0, 0.0])

    assert sqnr_db(reference, np.array([9.0, 0.0])) == pytest.approx(20.0)
    assert sqnr_db(reference, reference) == float("inf")
    assert sqnr_db(reference, np.array([np.nan, 0.0])) == float("-inf")


def test_parity_is_relative_to_the_largest_output():
    reference = np.array([[100.0, -50.0]])

    assert parity(reference, reference + 0.05).holds
    assert not parity(reference, reference + 0.2).holds
    assert not parity(reference, reference * np.nan).holds


def test_the_score_over_tie_rules_by_hand():
    logits = np.array([[3, 3, 1], [2, 5, 5], [9, 0, 0], [4, 4, 4]])

    found = top1(logits, np.array([0, 2, 0, 2]))

    # right by the first index: samples 0 and 2; every tie holds its label
    assert found.score == 0.5
    assert found.ties == 3
    assert found.span == (0.25, 1.0)


def test_the_divergence_of_distributions_equals_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50, 7))
    p, q = scipy.special.softmax(a, axis=1), scipy.special.softmax(b, axis=1)
    expected = scipy.stats.entropy(p, q, axis=1).mean()

    assert kl_divergence(a, b) == pytest.approx(expected)
    assert kl_divergence(p, q) == pytest.approx(expected)  # probabilities are taken as they are
    assert kl_divergence(a, a + 3.0) == pytest.approx(0.0, abs=1e-12)  # softmax does not see it
    rounded = np.round(q * 256) / 256
    rounded[0, 0] = 0.0
    assert np.isnan(kl_divergence(p, rounded / rounded.sum(1, keepdims=True)))
    sure = np.array([[1.0, 0.0]])
    assert kl_divergence(sure, np.array([[0.5, 0.5]])) == pytest.approx(np.log(2))
