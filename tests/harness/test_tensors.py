"""Tensors: specs, layouts, and the affine coding between task and artifact."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from quantbench.errors import BadInput
from quantbench.spec import TensorSpec, check_inputs, decode, encode, relayout
from quantbench.stats import METRICS, STATISTICS, kl_divergence, metric_of, parity, sqnr_db
from quantbench.stats.quality_metrics import mean_squared_error, top1

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


@pytest.mark.parametrize("name", ["f1", "auc", "spearman"])
@given(seed=st.integers(0, 50), n=st.integers(8, 60), coarse=st.booleans())
def test_metrics_equal_scikit_learns_and_scipys(name, seed, n, coarse):
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, n - 2)]
    outputs = rng.normal(size=(n, 2)) + labels[:, None] * [0.0, 0.8]
    if coarse:  # ties, as int8 outputs have them
        outputs = np.round(outputs)

    if name == "f1":
        predicted = outputs.argmax(1)
        expected = sklearn.metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    elif name == "auc":
        expected = sklearn.metrics.roc_auc_score(labels, outputs[:, 1] - outputs[:, 0])
    else:
        outputs, labels = outputs[:, :1], rng.normal(size=n)
        expected = scipy.stats.spearmanr(outputs[:, 0], labels).statistic

    found = METRICS[name](outputs, labels)

    assert found.score == pytest.approx(expected, nan_ok=True)
    # a whole stack at once, as the bootstrap asks
    stack = [np.stack([a, a[::-1]]) for a in (found.prediction, found.label)]
    assert STATISTICS[name](*stack) == pytest.approx([expected] * 2, nan_ok=True)


def test_the_best_five_of_equal_logits_are_the_first():
    logits = np.array([[1.0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 9]])

    found = METRICS["top5"](logits, np.array([5, 5]))

    assert list(found.outcome) == [0, 1]


def test_pairs_are_correlated_by_their_cosine():
    embeddings = np.array([[1.0, 0], [2, 0], [1, 0], [1, 1], [1, 0], [-1, 0.1]])

    found = METRICS["pairs"](embeddings, np.array([5.0, 5, 3, 3, 0, 0]))

    assert found.prediction == pytest.approx([1.0, np.sqrt(0.5), -1 / np.sqrt(1.01)])
    assert list(found.label) == [5, 3, 0]
    assert found.score == pytest.approx(1.0)


def test_nodes_without_a_label_are_not_scored():
    logits = np.array([[[1.0, 0], [0, 1], [0, 1]]])  # one graph of three nodes

    found = METRICS["top1"](logits, np.array([[0, -1, 0]]))

    assert list(found.outcome) == [1, 0]


def test_a_metric_of_the_users_own_is_a_number_per_sample():
    own = metric_of("tests.harness.test_tensors:nearness")

    found = own(np.array([[1.0], [3.0]]), np.array([1.0, 1.0]))

    assert found.score == pytest.approx(0.75)
    assert (found.classes, found.binary) == (False, False)
    with pytest.raises(BadInput, match=r"must return a finite number per sample, float \[2\]"):
        metric_of("tests.harness.test_tensors:scalar")(np.ones((2, 1)), np.ones(2))


def nearness(outputs, labels):
    return 1 / (1 + np.abs(outputs[:, 0] - labels) / 2)


def scalar(outputs, labels):
    return 1.0


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
