"""Shift: test inputs as a changed world gives them, to see what static ranges lose under drift.

A model under a shift is named ``MODEL@KIND=AMOUNT`` wherever a model is: its test split is shifted,
its calibration split is not. ``MODEL@KIND=AMOUNT:recalibrated`` calibrates on shifted samples too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from quantbench.errors import BadInput, did_you_mean
from quantbench.spec.tensor import Array

RECALIBRATED = "recalibrated"
SEED = 20_000
"""Of the noise, so that every backend and run sees the same."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A change of float inputs, within the range of their values.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    amount : float
        ``noise``: standard deviation of normal noise, as a share of the range of all values;
        ``brightness``: what is added, as a share of the range; ``contrast``: the factor on the
        distance from the mean; ``blur``: standard deviation of a Gaussian, in pixels.
    recalibrated : bool
        Whether calibration samples are shifted too.
    """

    kind: str
    amount: float
    recalibrated: bool = False

    @classmethod
    def read(cls, text: str) -> Shift:
        """From ``kind=amount`` or ``kind=amount:recalibrated``; raises `BadInput`.

        >>> Shift.read("noise=0.1:recalibrated")
        Shift(kind='noise', amount=0.1, recalibrated=True)
        """
        plain, colon, again = text.partition(":")
        kind, _, amount = plain.partition("=")
        if kind not in KINDS:
            raise BadInput(f"unknown shift '{kind}'.{did_you_mean(kind, KINDS)}")
        try:
            number = float(amount)
        except ValueError:
            number = np.nan
        if not np.isfinite(number) or (colon and again != RECALIBRATED):
            raise BadInput(
                f"a shift is KIND=NUMBER or KIND=NUMBER:{RECALIBRATED}, "
                f"such as noise=0.1, not '{text}'"
            )
        return cls(kind, number, bool(again))

    def apply(self, array: Array, layout: str) -> Array:
        """The shifted inputs: same shape and dtype, clipped to the values that there were.

        Raises
        ------
        BadInput
            For inputs that are not floats, or a blur of something without height and width.
        """
        if array.dtype.kind != "f":
            raise BadInput(f"shift {self.kind} needs float inputs, not {array.dtype}")
        low, high = float(array.min()), float(array.max())
        changed = KINDS[self.kind](np.asarray(array, np.float32), self.amount, high - low, layout)
        clipped: Array = np.clip(changed, low, high).astype(array.dtype)
        return clipped


def _noise(array: Array, amount: float, span: float, layout: str) -> Array:
    noise = np.random.default_rng(SEED).standard_normal(array.shape, np.float32)
    changed: Array = array + np.float32(amount * span) * noise
    return changed


def _brightness(array: Array, amount: float, span: float, layout: str) -> Array:
    return array + np.float32(amount * span)


def _contrast(array: Array, amount: float, span: float, layout: str) -> Array:
    mean = array.reshape(len(array), -1).mean(1).reshape(-1, *[1] * (array.ndim - 1))
    changed: Array = mean + np.float32(amount) * (array - mean)
    return changed


def _blur(array: Array, amount: float, span: float, layout: str) -> Array:
    if not {"H", "W"} <= set(layout):
        raise BadInput("shift blur needs images; give the task's input a layout such as NCHW")
    from scipy.ndimage import gaussian_filter1d  # here: names are read in light processes too

    for axis in ("H", "W"):
        array = gaussian_filter1d(array, amount, axis=layout.index(axis), mode="nearest")
    return array


KINDS: Mapping[str, Callable[[Array, float, float, str], Array]] = {
    "noise": _noise,
    "brightness": _brightness,
    "contrast": _contrast,
    "blur": _blur,
}
