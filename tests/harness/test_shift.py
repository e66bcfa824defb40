"""Shifts: each on numbers by hand, and what names they have."""

from __future__ import annotations

import numpy as np
import pytest

from quantbench.errors import BadInput
from quantbench.spec import Shift

IMAGES = np.linspace(0, 255, 2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)


def test_brightness_adds_a_share_of_the_range_and_clips():
    shifted = Shift("brightness", 0.2).apply(IMAGES, "NCHW")

    # float32 sums of another NumPy may differ in the last digits
    np.testing.assert_allclose(shifted, np.minimum(IMAGES + 51, 255), rtol=1e-6)  # float32


def test_contrast_moves_each_sample_towards_its_mean():
    shifted = Shift("contrast", 0.5).apply(IMAGES, "NCHW")

    means = IMAGES.reshape(2, -1).mean(1)[:, None, None, None]
    # float32 sums of another NumPy may differ in the last digits
    np.testing.assert_allclose(shifted, (IMAGES + means) / 2, rtol=1e-5)


def test_noise_is_the_same_each_time_and_as_large_as_asked():
    grey = np.full((50, 3, 8, 8), 127.5, np.float32)
    grey[0, 0, 0, :2] = 0, 255

    first, second = (Shift("noise", 0.05).apply(grey, "NCHW") for _ in range(2))

    np.testing.assert_array_equal(first, second)
    assert (first - grey)[1:].std() == pytest.approx(0.05 * 255, rel=0.03)


def test_blur_spreads_a_point_over_height_and_width_only():
    point = np.zeros((1, 3, 9, 9), np.float32)
    point[0, 1, 4, 4] = 1

    shifted = Shift("blur", 1.0).apply(point, "NCHW")

    assert shifted[0, 1].sum() == pytest.approx(1, abs=0.01)
    assert shifted[0, [0, 2]].sum() == 0
    assert shifted[0, 1, 4, 5] == pytest.approx(shifted[0, 1, 5, 4])
    assert 0 < shifted[0, 1, 4, 5] < shifted[0, 1, 4, 4] < 0.2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nois=0.1", r"unknown shift 'nois'\. Did you mean 'noise'"),
        ("noise", "KIND=NUMBER"),
        ("noise=much", "such as noise=0.1, not 'noise=much'"),
        ("noise=nan", "KIND=NUMBER"),
        ("noise=0.1:again", "KIND=NUMBER:recalibrated"),
    ],
)
def test_a_shift_that_is_none_is_refused_with_an_example(text, says):
    with pytest.raises(BadInput, match=says):
        Shift.read(text)


def test_what_cannot_be_shifted_is_refused():
    with pytest.raises(BadInput, match="needs float inputs, not int64"):
        Shift("noise", 0.1).apply(np.zeros((2, 3), np.int64), "")
    with pytest.raises(BadInput, match="needs images"):
        Shift("blur", 1.0).apply(np.zeros((2, 3), np.float32), "")
