"""Calibration: the batches that ranges are found on, and the calibrators of `quantize_static`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod

from harness.method import Method
from harness.tensors import Array, Arrays

PERCENTILE = 99.999  # quantize_static's own


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Calibration samples (arrays [n, ...] by the file's input names), some at a time."""

    def __init__(self, samples: Arrays, size: int) -> None:
        self._samples = samples
        self._size = size
        self.set_range(0, len(self))

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(next(iter(self._samples.values()))) // self._size)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give the batches from ``start_index`` to ``end_index`` next."""
        self._left = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, or None after the last."""
        for index in self._left:
            start = index * self._size
            return {name: a[start : start + self._size] for name, a in self._samples.items()}
        return None


def options(method: Method) -> tuple[CalibrationMethod, Mapping[str, Any]]:
    """The calibrator as `quantize_static` names it, and its extra options.

    ``moving-average`` averages the extremes of the batches, whatever their order: the constant of
    an exponential average has no effect where all batches are collected at once.
    """
    if method.calibrator == "percentile":
        return CalibrationMethod.Percentile, {
            "CalibPercentile": method.percentile or PERCENTILE,
            # the default cuts both sides of a ReLU's range where its largest value is
            "CalibTensorRangeSymmetric": False,
            # one batch at a time: otherwise all activations of all samples are held at once
            "CalibStridedMinMax": 1,
        }
    average = {"CalibMovingAverage": True} if method.calibrator == "moving-average" else {}
    return CalibrationMethod.MinMax, average
