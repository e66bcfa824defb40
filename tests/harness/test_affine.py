"""The affine quantizer: its bounds as properties, a worked example, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.errors import BadInput
from quantbench.stats.affine import (
    Affine,
    Grid,
    dequantize,
    fake_quantize,
    from_range,
    from_scale,
    min_max,
    quantize,
)

grids = st.builds(Grid, st.integers(2, 16), signed=st.booleans(), narrow=st.booleans())
numbers = st.floats(-(2.0**99), 2.0**99, width=32)
ranges = st.tuples(numbers, numbers).map(lambda ends: sorted(end + 0.0 for end in ends))  # no -0.0
roundings = st.sampled_from(["half-even", "half-away"])
seeds = st.integers(0, 2**32 - 1)


@st.composite
def quantizers(draw) -> tuple[Affine, float, float]:
    """A quantizer, and the range it was made from."""
    low, high = draw(ranges)
    return from_range(low, high, draw(grids), symmetric=draw(st.booleans())), low, high


def between(low: float, high: float, seed: int) -> np.ndarray:
    """Float32 values of a range, its ends among them."""
    inside = np.random.default_rng(seed).uniform(low, high, 200)
    return np.clip(np.array([low, high, *inside], np.float32), low, high)


def mean_squared_error(x: np.ndarray, affine: Affine) -> float:
    return float(((fake_quantize(x, affine).astype(np.float64) - x) ** 2).mean())


# --- grids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (Grid(2), (-2, 1, "int8")),
        (Grid(2, signed=False), (0, 3, "uint8")),
        (Grid(4, narrow=True), (-7, 7, "int8")),
        (Grid(8), (-128, 127, "int8")),
        (Grid(8, narrow=True), (-127, 127, "int8")),
        (Grid(8, signed=False, narrow=True), (1, 255, "uint8")),
        (Grid(9), (-256, 255, "int16")),
        (Grid(16), (-32768, 32767, "int16")),
        (Grid(16, signed=False), (0, 65535, "uint16")),
    ],
    ids=str,
)
def test_the_integers_of_a_grid(grid, expected):
    assert (grid.qmin, grid.qmax, grid.dtype.name) == expected


@pytest.mark.parametrize("bits", [-8, 0, 1, 17, 32, 8.0, True, "8"])
def test_a_grid_has_2_to_16_bits(bits):
    with pytest.raises(BadInput, match="use an integer from 2 to 16"):
        Grid(bits)


# --- what holds for every range ------------------------------------------------------------------


@given(quantizers(), roundings, seeds)
def test_a_value_inside_the_range_keeps_within_half_a_step(made, rounding, seed):
    """Also at the ends, though a zero point moves the range by up to half a step.

    The slack is float32's: a scale, a quotient and a product are rounded once each, 2^-24 of at
    most the width of the range.
    """
    affine, low, high = made
    x = between(low, high, seed)

    error = np.abs(fake_quantize(x, affine, rounding=rounding).astype(np.float64) - x)

    width = max(high, 0.0) - min(low, 0.0)
    assert error.max() <= float(affine.scale) / 2 + 2.0**-22 * width + 2.0**-149


@given(quantizers(), st.floats(0, 2.0**100, width=32), roundings)
def test_a_value_outside_the_range_becomes_its_end(made, beyond, rounding):
    affine, _, _ = made
    x = np.array([affine.low - np.float32(beyond), affine.high + np.float32(beyond)])

    q = quantize(x, affine, rounding=rounding)

    assert q.tolist() == [affine.grid.qmin, affine.grid.qmax]
    assert fake_quantize(x, affine).tolist() == [affine.low, affine.high]


@given(quantizers(), roundings)
def test_zero_is_exact(made, rounding):
    affine, _, _ = made

    assert quantize(0.0, affine, rounding=rounding) == affine.zero_point
    assert dequantize(affine.zero_point, affine) == 0.0
    assert affine.low <= 0 <= affine.high


@given(quantizers(), roundings)
def test_values_on_the_grid_stay_what_they_are(made, rounding):
    affine, _, _ = made
    q = np.arange(affine.grid.qmin, affine.grid.qmax + 1, dtype=affine.grid.dtype)

    again = quantize(dequantize(q, affine), affine, rounding=rounding)

    assert again.dtype == affine.grid.dtype
    assert np.array_equal(again, q)


@given(quantizers(), seeds)
def test_quantization_keeps_order(made, seed):
    affine, low, high = made

    q = quantize(np.sort(between(low, high, seed)), affine)

    assert (np.diff(q.astype(np.int64)) >= 0).all()


@given(ranges, grids)
def test_symmetric_quantization_has_its_zero_in_the_middle_and_both_ends_on_the_grid(ends, grid):
    affine = from_range(*ends, grid, symmetric=True)

    a = max(abs(end) for end in ends)
    assert affine.zero_point == (0 if grid.signed else 2 ** (grid.bits - 1))
    assert fake_quantize([-a, a], affine) == pytest.approx([-a, a], rel=2e-7, abs=1e-30)


@given(seeds, grids, st.booleans(), st.integers(-3, 2))
def test_per_channel_is_per_tensor_on_each_channel(seed, grid, symmetric, axis):
    x = np.random.default_rng(seed).normal(0, 1, (3, 4, 5)).astype(np.float32)

    whole = from_range(*min_max(x, axis=axis), grid, symmetric=symmetric, axis=axis)
    found = np.moveaxis(fake_quantize(x, whole), axis, 0)

    for channel, values in zip(np.moveaxis(x, axis, 0), found, strict=True):
        alone = from_range(*min_max(channel), grid, symmetric=symmetric)
        assert np.array_equal(values, fake_quantize(channel, alone))


# --- ranges that hold little or nothing ----------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("c", [5.0, -5.0, 1e-30, -3e38])
def test_a_constant_is_kept(c, symmetric):
    affine = from_range(c, c, Grid(8), symmetric=symmetric)

    assert fake_quantize([c, 0.0], affine) == pytest.approx([c, 0.0], rel=2e-7)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_range_of_zero_alone_has_scale_one(symmetric):
    affine = from_range(0.0, 0.0, Grid(8), symmetric=symmetric)

    assert affine.scale == 1.0
    assert fake_quantize(0.0, affine) == 0.0


def test_a_range_below_float32_s_normal_numbers_has_a_normal_scale():
    affine = from_range(-1e-45, 1e-45, Grid(8))

    assert affine.scale == np.finfo(np.float32).tiny
    assert fake_quantize([1e-45, -1e-45], affine).tolist() == [0.0, 0.0]


def test_a_quotient_beyond_float32_saturates():
    affine = from_scale(1e-30, 3, Grid(8))

    assert quantize([3e38, -3e38], affine).tolist() == [127, -128]


# --- ties and the worked example -----------------------------------------------------------------


@pytest.mark.parametrize("zero_point", [0, 7])
def test_ties_are_rounded_as_said_whatever_the_zero_point(zero_point):
    affine = from_scale(1.0, zero_point, Grid(8))
    x = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997]

    even = quantize(x, affine) - zero_point
    away = quantize(x, affine, rounding="half-away") - zero_point

    assert even.tolist() == [-2, -2, 0, 0, 2, 2, 0]
    assert away.tolist() == [-3, -2, -1, 1, 2, 3, 0]


X, W, B = [1.5, -2.3], [[0.8, -0.5], [1.2, 0.3]], np.array([0.1, -0.2], np.float32)
STEP = from_scale(0.2, 0, Grid(8))


def test_the_worked_example_quantized():
    """Its three ties, 7.5, -11.5 and -2.5, go to the even integer, 1.5 too.

    They are ties in float32 only: in float64 -2.3 / 0.2 is -11.499999999999998, and 0.3 / 0.2 is
    1.4999999999999998, which give -11 and 1.
    """
    assert quantize(X, STEP).tolist() == [8, -12]
    assert quantize(W, STEP).tolist() == [[4, -2], [6, 2]]
    assert quantize(W, STEP, rounding="half-away").tolist() == [[4, -3], [6, 2]]
    assert np.rint(np.array([-2.3, 0.3]) / 0.2).tolist() == [-11, 1]


def test_the_worked_example_s_output_in_fake_quantization_and_in_integers():
    fake = fake_quantize(W, STEP) @ fake_quantize(X, STEP) + B
    accumulators = quantize(W, STEP).astype(np.int32) @ quantize(X, STEP).astype(np.int32)
    integer = accumulators * (STEP.scale * STEP.scale) + B

    assert accumulators.tolist() == [56, 24]
    assert fake == pytest.approx([2.34, 0.76], abs=1e-6)
    assert integer == pytest.approx([2.34, 0.76], abs=1e-6)


# --- per channel against per tensor --------------------------------------------------------------

layouts = st.tuples(st.integers(2, 8), st.integers(256, 1024))  # channels, values of each


def drawn(seed: int, layout: tuple[int, int], law: str, widest: float) -> np.ndarray:
    """Channels of spread at most ``widest``, except the first, whose spread is 1."""
    rng = np.random.default_rng(seed)
    spreads = np.array([1.0, *rng.uniform(0.01, widest, layout[0] - 1)])
    values = rng.normal(0, 1, layout) if law == "normal" else rng.uniform(-1, 1, layout)
    return (values * spreads[:, None]).astype(np.float32)


def both(x: np.ndarray, grid: Grid, *, symmetric: bool) -> tuple[Affine, Affine]:
    """The min-max quantizer of a tensor, and that of its channels."""
    return (
        from_range(*min_max(x), grid, symmetric=symmetric),
        from_range(*min_max(x, axis=0), grid, symmetric=symmetric, axis=0),
    )


@given(seeds, st.integers(1, 8), st.integers(1, 20), grids, st.booleans())
def test_no_channel_has_a_larger_step_than_the_tensor(seed, channels, n, grid, symmetric):
    """What is always true: a channel's range is part of the tensor's.

    So is its scale, and with it the bound of the mean squared error, scale^2 / 4, and its
    expectation where errors are uniform over a step, scale^2 / 12.
    """
    x = np.random.default_rng(seed).standard_cauchy((channels, n)).astype(np.float32)

    tensor, channel = both(x, grid, symmetric=symmetric)

    assert (channel.scale <= tensor.scale).all()
    bound = float((channel.scale.astype(np.float64) ** 2).mean()) / 4
    slack = 2.0**-20 * float(np.abs(x).max()) * float(tensor.scale)
    assert mean_squared_error(x, channel) <= bound + slack
    assert bound <= float(tensor.scale) ** 2 / 4


@given(seeds, st.sampled_from([6, 8, 12]), st.booleans())
def test_the_error_of_uniform_values_is_a_twelfth_of_the_squared_step(seed, bits, symmetric):
    x = np.random.default_rng(seed).uniform(-1, 1, (4, 4096)).astype(np.float32)

    for affine in both(x, Grid(bits), symmetric=symmetric):
        expected = float((affine.scale.astype(np.float64) ** 2).mean()) / 12
        assert mean_squared_error(x, affine) == pytest.approx(expected, rel=0.06)


@given(
    seeds, layouts, st.sampled_from(["normal", "uniform"]), st.integers(4, 16),
    st.booleans(), st.booleans(), st.floats(0.02, 0.5),
)  # fmt: skip
def test_per_channel_is_no_worse_than_per_tensor_where_channels_differ(
    seed, layout, law, bits, signed, symmetric, widest
):
    """Mean squared error at min-max, 256 or more values a channel, 4 bits or more.

    It is no theorem: the error of a value depends on where the grid falls. With one channel at
    least twice as wide as the others, those others' expected error falls to about a quarter,
    and chance, 6 % of it at 256 values, cannot make up for that. See the next test for what
    chance can do.
    """
    x = drawn(seed, layout, law, widest)

    tensor, channel = both(x, Grid(bits, signed=signed), symmetric=symmetric)

    assert mean_squared_error(x, channel) <= mean_squared_error(x, tensor)


@given(
    seeds, layouts, st.sampled_from(["normal", "uniform"]), st.integers(4, 16), st.booleans()
)  # fmt: skip
def test_per_channel_is_at_most_a_little_worse_where_channels_are_alike(
    seed, layout, law, bits, symmetric
):
    """Equal spreads: per channel lost 57 of 150 draws of uniform values at 8 bits, asymmetric.

    The largest loss was 9 % (12 bits). A mean over n errors, uniform over a step, deviates by
    0.9 / sqrt(n) of itself, and both means do: 6 standard deviations are allowed.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, layout) if law == "normal" else rng.uniform(-1, 1, layout)

    tensor, channel = both(x.astype(np.float32), Grid(bits), symmetric=symmetric)

    allowed = 1 + 6 * np.sqrt(2) * 0.9 / np.sqrt(x.size)
    assert mean_squared_error(x, channel) <= allowed * mean_squared_error(x, tensor)


def test_a_tensor_for_which_per_channel_is_worse():
    """Whole numbers up to 127 are exact in steps of 1, which the widest channel sets."""
    x = np.array([np.linspace(-127, 127, 3), [-100, 7, 100]], np.float32)

    tensor, channel = both(x, Grid(8, narrow=True), symmetric=True)

    assert tensor.scale == 1.0
    assert mean_squared_error(x, tensor) == 0.0
    assert mean_squared_error(x, channel) > 0.0
    assert (channel.scale <= tensor.scale).all()


# --- refusals ------------------------------------------------------------------------------------

PER_CHANNEL = from_scale([0.1, 0.2], [0, 1], Grid(8), axis=1)


@pytest.mark.parametrize(
    ("attempt", "says"),
    [
        (lambda: quantize([1.0, np.nan], STEP), r"the tensor holds NaN, an infinity .*1 of 2"),
        (lambda: quantize([np.inf, -np.inf], STEP), r"an infinity .*2 of 2"),
        (lambda: quantize(np.float64(1e39), STEP), r"beyond float32"),
        (lambda: quantize(["a"], STEP), r"dtype <U1; quantization takes real numbers"),
        (lambda: quantize(1.0, STEP, rounding="up"), r"unknown rounding 'up'; use 'half-even'"),
        (lambda: quantize(np.zeros((2, 3)), PER_CHANNEL), r"3 channels on axis 1, .* has 2"),
        (lambda: quantize(np.zeros(2), PER_CHANNEL), r"shape \(2,\) has no axis 1"),
        (lambda: dequantize([1.0], STEP), r"dtype float64; they are integers"),
        (lambda: dequantize([128], STEP), r"outside the grid, -128 to 127"),
        (lambda: min_max([]), r"shape \(0,\) has no values"),
        (lambda: min_max([1.0], axis=1), r"shape \(1,\) has no axis 1"),
        (lambda: min_max([np.nan]), r"holds NaN"),
        (lambda: from_range(np.nan, 1, Grid(8)), r"the range holds NaN"),
        (lambda: from_range(np.inf, -np.inf, Grid(8)), r"the range holds NaN, an infinity"),
        (lambda: from_range(1, -1, Grid(8)), r"give the lower end first"),
        (lambda: from_range([0, 0], [1, 1], Grid(8)), r"two numbers \(axis=None\) are needed"),
        (lambda: from_range(0, 1, Grid(8), axis=0), r"two vectors of one length"),
        (lambda: from_range([], [], Grid(8), axis=0), r"two vectors of one length"),
        (lambda: from_range([0], [1, 2], Grid(8), axis=0), r"shapes \(1,\) and \(2,\)"),
        (lambda: from_scale(0.0, 0, Grid(8)), r"scales are positive float32"),
        (lambda: from_scale(-0.1, 0, Grid(8)), r"scales are positive float32"),
        (lambda: from_scale(np.nan, 0, Grid(8)), r"the scale holds NaN"),
        (lambda: from_scale(3e38, 0, Grid(8)), r"an end of the grid is beyond float32"),
        (lambda: from_range(-3e38, 3e38, Grid(2)), r"an end of the grid is beyond float32"),
        (lambda: from_scale(1.0, 128, Grid(8)), r"zero point is outside the grid, -128 to 127"),
        (lambda: from_scale(1.0, 0.5, Grid(8)), r"zero points have dtype float64"),
    ],
)
def test_bad_input_is_refused_in_one_line(attempt, says):
    with pytest.raises(BadInput, match=says) as refused:
        attempt()

    assert "\n" not in str(refused.value)
