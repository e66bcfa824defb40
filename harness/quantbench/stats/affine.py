"""Affine quantizer: real numbers as integers of a grid, by a scale and a zero point.

    q = clip(round(x / scale) + zero_point, qmin, qmax)
    x' = scale * (q - zero_point)

It is the reference that tests compare frameworks with; nothing measured runs through it.
Arithmetic is in float32, as in the runtimes: the quotient of two float32 numbers, rounded once.
The dtype matters where a quotient is a tie: -2.3 / 0.2 is -11.5 in float32, and -11.499999999999998
in float64. Ties go to the even integer (IEEE 754, `numpy.rint`) unless ``rounding`` says otherwise.

Source: Jacob et al. (2018), arXiv 1712.05877, equation 1 and section 3.1; Krishnamoorthi (2018),
arXiv 1806.08342, sections 2.1 (asymmetric), 2.2 (symmetric) and 2.4 (fake quantization).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantbench.errors import BadInput

Reals = NDArray[np.float32]
Integers = NDArray[np.integer[Any]]
Rounding = Literal["half-even", "half-away"]

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers a value may become.

    Parameters
    ----------
    bits : int
        2 to 16.
    signed : bool
        Two's complement, else from 0.
    narrow : bool
        Without the lowest integer, so that a signed grid is symmetric around 0.

    Raises
    ------
    BadInput
        If ``bits`` is no integer from 2 to 16.

    >>> Grid(8).qmin, Grid(8).qmax, Grid(4, narrow=True).qmin, Grid(16, signed=False).qmax
    (-128, 127, -7, 65535)
    """

    bits: int
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.bits, int) and not isinstance(self.bits, bool)
        if not whole or not 2 <= self.bits <= 16:
            raise BadInput(f"a grid of {self.bits!r} bits; use an integer from 2 to 16")

    @property
    def qmin(self) -> int:
        """The lowest integer."""
        return (-(1 << (self.bits - 1)) if self.signed else 0) + self.narrow

    @property
    def qmax(self) -> int:
        """The highest integer."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def middle(self) -> int:
        """The zero point of symmetric quantization: 0 if signed, else ``2 ** (bits - 1)``."""
        return 0 if self.signed else 1 << (self.bits - 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's narrowest dtype that holds the grid: (u)int8 up to 8 bits, else (u)int16."""
        return np.dtype(f"{'int' if self.signed else 'uint'}{8 if self.bits <= 8 else 16}")


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A grid placed on the real line; build it with `from_range` or `from_scale`.

    Parameters
    ----------
    scale : float32 [] or [channels]
        Distance of neighbouring values; positive and finite.
    zero_point : int64, shaped like ``scale``
        The integer of the grid that stands for 0.
    grid : Grid
    axis : int or None
        The axis of a tensor whose index chooses the scale; ``None`` for one scale per tensor.

    Raises
    ------
    BadInput
        If a scale, a zero point or the shapes are none of these, or the grid's ends are beyond
        float32.
    """

    scale: Reals
    zero_point: NDArray[np.int64]
    grid: Grid
    axis: int | None = None

    def __post_init__(self) -> None:
        _check_shapes("scale and zero point", self.scale.shape, self.zero_point.shape, self.axis)
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise BadInput(
                "a scale is zero, negative, NaN or infinite; scales are positive float32"
            )
        qmin, qmax = self.grid.qmin, self.grid.qmax
        if not ((self.zero_point >= qmin) & (self.zero_point <= qmax)).all():
            raise BadInput(
                f"a zero point is outside the grid, {qmin} to {qmax}; zero would not be exact"
            )
        reach = np.maximum(self.zero_point - qmin, qmax - self.zero_point)
        if (reach * self.scale.astype(np.float64) > LARGEST).any():
            raise BadInput("an end of the grid is beyond float32; take a smaller scale or range")

    @property
    def low(self) -> Reals:
        """The lowest real value that the grid holds, per channel; below it values saturate."""
        return np.asarray((self.grid.qmin - self.zero_point) * self.scale, np.float32)

    @property
    def high(self) -> Reals:
        """The highest real value that the grid holds, per channel; above it values saturate."""
        return np.asarray((self.grid.qmax - self.zero_point) * self.scale, np.float32)


def from_scale(
    scale: ArrayLike, zero_point: ArrayLike, grid: Grid, *, axis: int | None = None
) -> Affine:
    """The quantizer of a given scale and zero point, one number each or one per channel.

    Raises
    ------
    BadInput
        As `Affine` does, and if a zero point is no integer.

    >>> quantize([1.5, -2.3, 30.0], from_scale(0.2, 0, Grid(8))).tolist()
    [8, -12, 127]
    """
    points = np.asarray(zero_point)
    if points.dtype.kind not in "iu":
        raise BadInput(f"zero points have dtype {points.dtype}; they are integers")
    return Affine(_float32(scale, "the scale"), points.astype(np.int64), grid, axis)


def from_range(
    low: ArrayLike,
    high: ArrayLike,
    grid: Grid,
    *,
    symmetric: bool = False,
    axis: int | None = None,
) -> Affine:
    """The quantizer of a range of real values, one range or one per channel.

    Parameters
    ----------
    low, high : float [] or [channels]
        Ends of the range. It is widened to hold 0, which becomes exact (Jacob et al., 3.1).
    symmetric : bool
        Of ``[-a, a]``, ``a`` the larger magnitude: the zero point is `Grid.middle` and the scale
        ``a / (qmax - middle)``, so that both ends are on the grid. (PyTorch's observers divide
        by half the number of steps instead, 127.5 for int8. Krishnamoorthi's unsigned symmetric
        quantizer, whose zero point is 0, is the asymmetric one of a range that starts at 0.)
        Else the scale is ``(high - low) / (qmax - qmin)`` and the zero point
        ``qmin - round(low / scale)``: the range moves by at most half a step.
    axis : int or None
        As in `Affine`; ranges of channels need one.

    Returns
    -------
    Affine
        A value of the range keeps within half a step. The range of 0 alone has scale 1, and no
        scale is below the smallest normal float32.

    Raises
    ------
    BadInput
        If an end is NaN, infinite or beyond float32, ``low > high``, or the shapes do not fit;
        also as `Affine` does.

    >>> a = from_range(-1.0, 3.0, Grid(8, signed=False))
    >>> float(a.scale), int(a.zero_point)
    (0.01568627543747425, 64)
    """
    ends = [_float32(end, "the range").astype(np.float64) for end in (low, high)]
    _check_shapes("ends of the range", ends[0].shape, ends[1].shape, axis)
    if (ends[0] > ends[1]).any():
        raise BadInput("a range ends below its start; give the lower end first")
    down, up = np.minimum(ends[0], 0.0), np.maximum(ends[1], 0.0)
    if symmetric:
        width, steps = np.maximum(-down, up), grid.qmax - grid.middle
    else:
        width, steps = up - down, grid.qmax - grid.qmin
    exact = np.where(width == 0, 1.0, np.maximum(width / steps, SMALLEST))
    scale = exact.astype(np.float32)
    point = np.full(scale.shape, grid.middle) if symmetric else grid.qmin - np.rint(down / scale)
    points = np.asarray(np.clip(point, grid.qmin, grid.qmax), np.int64)
    return Affine(scale, points, grid, axis)


def min_max(x: ArrayLike, *, axis: int | None = None) -> tuple[Reals, Reals]:
    """Lowest and highest value of a tensor, or of each index of ``axis``: the simplest calibrator.

    Raises
    ------
    BadInput
        If ``x`` is empty, holds NaN or an infinity, or has no such axis.

    >>> [ends.tolist() for ends in min_max([[1.0, 2.0], [-3.0, 4.0]], axis=0)]
    [[1.0, -3.0], [2.0, 4.0]]
    """
    values = _float32(x, "the tensor")
    if values.size == 0:
        raise BadInput(f"a tensor of shape {values.shape} has no values, hence no range")
    if axis is None:
        return np.asarray(values.min()), np.asarray(values.max())
    rows = np.moveaxis(values, _axis(values, axis), 0).reshape(values.shape[axis], -1)
    return rows.min(1), rows.max(1)


def quantize(x: ArrayLike, affine: Affine, *, rounding: Rounding = "half-even") -> Integers:
    """Integers of real values.

    Parameters
    ----------
    x : real numbers, any shape
        Taken as float32.
    rounding : str
        Where ``x / scale`` lies midway between two integers: ``half-even`` (NumPy, ONNX,
        PyTorch, XNNPACK) or ``half-away`` from zero (TFLite's reference kernels). The zero point
        is added after rounding, so that it decides no tie. What each framework does, measured:
        tests/backends/test_affine_agreement.py.

    Returns
    -------
    integers of `Grid.dtype`, shaped like ``x``

    Raises
    ------
    BadInput
        If ``x`` holds NaN or an infinity, is not numeric, or its channels are not the scales'.
    """
    values = _float32(x, "the tensor")
    scale, point = _spread(affine, values)
    with np.errstate(over="ignore", under="ignore"):  # saturates, or is 0
        steps = values / scale
    # the ends are integers: rounding before or after clipping gives the same
    inside = np.clip(steps, affine.grid.qmin - point, affine.grid.qmax - point)
    return np.asarray(_round(inside, rounding) + point).astype(affine.grid.dtype)


def dequantize(q: ArrayLike, affine: Affine) -> Reals:
    """Real values, float32, of integers of the grid.

    Raises
    ------
    BadInput
        If ``q`` has no integer dtype, leaves the grid, or its channels are not the scales'.
    """
    integers = np.asarray(q)
    if integers.dtype.kind not in "iu":
        raise BadInput(f"values to dequantize have dtype {integers.dtype}; they are integers")
    qmin, qmax = affine.grid.qmin, affine.grid.qmax
    if not ((integers >= qmin) & (integers <= qmax)).all():
        raise BadInput(f"an integer is outside the grid, {qmin} to {qmax}")
    scale, point = _spread(affine, integers)
    # a difference of at most 17 bits is exact in float32, so the product is rounded once
    return np.asarray((integers.astype(np.int64) - point).astype(np.float32) * scale)


def fake_quantize(x: ArrayLike, affine: Affine, *, rounding: Rounding = "half-even") -> Reals:
    """Real values as quantization leaves them: `quantize`, then `dequantize`; float32."""
    return dequantize(quantize(x, affine, rounding=rounding), affine)


def _round(steps: Reals, rounding: Rounding) -> Reals:
    """Whole float32 numbers; finite ``steps``."""
    if rounding == "half-even":
        return np.rint(steps)
    if rounding == "half-away":
        whole = np.trunc(steps)
        # not trunc(steps + 0.5): 0.49999997 + 0.5 is 1 in float32
        up = np.abs(steps - whole) >= np.float32(0.5)
        return whole + np.where(up, np.sign(steps), np.float32(0))
    raise BadInput(f"unknown rounding {rounding!r}; use 'half-even' or 'half-away'")


def _float32(x: ArrayLike, what: str) -> Reals:
    """``x`` as float32, every number finite."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise BadInput(f"{what} has dtype {array.dtype}; quantization takes real numbers")
    finite = np.isfinite(array) & (np.abs(array.astype(np.float64)) <= LARGEST)
    if not finite.all():
        raise BadInput(
            f"{what} holds NaN, an infinity or a number beyond float32 "
            f"({int((~finite).sum())} of {array.size}); quantization needs finite numbers"
        )
    return array.astype(np.float32)


def _check_shapes(what: str, a: tuple[int, ...], b: tuple[int, ...], axis: int | None) -> None:
    """Raise `BadInput` unless both are scalars without ``axis``, or vectors of one length with it."""
    if a == b and len(a) == (axis is not None) and 0 not in a:
        return
    wanted = "two numbers" if axis is None else "two vectors of one length, for the axis"
    raise BadInput(f"{what} have shapes {a} and {b}; {wanted} (axis={axis}) are needed")


def _axis(x: NDArray[Any], axis: int) -> int:
    """``axis`` counted from the first of ``x``."""
    if not -x.ndim <= axis < x.ndim:
        raise BadInput(f"a tensor of shape {x.shape} has no axis {axis}")
    return axis % x.ndim


def _spread(affine: Affine, x: NDArray[Any]) -> tuple[Reals, NDArray[np.int64]]:
    """Scale and zero point shaped to broadcast against ``x``."""
    if affine.axis is None:
        return affine.scale, affine.zero_point
    axis, channels = _axis(x, affine.axis), len(affine.scale)
    if x.shape[axis] != channels:
        raise BadInput(
            f"a tensor of shape {x.shape} has {x.shape[axis]} channels on axis {affine.axis}, "
            f"the quantizer has {channels}"
        )
    shape = [1] * x.ndim
    shape[axis] = channels
    return affine.scale.reshape(shape), affine.zero_point.reshape(shape)
