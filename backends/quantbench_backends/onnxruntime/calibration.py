"""Calibration: the batches that ranges are found on, the calibrators of `quantize_static`, caches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, ValueInfoProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import EntropyCalibrater, TensorsData, save_tensors_data

from quantbench.errors import BadInput
from quantbench.spec import Array, Arrays, Method

PERCENTILE = 99.999  # quantize_static's own
# With its default of 128 each there is one candidate, the range of minmax. 2048 is what the article
# that it implements has (Migacz 2017, slide 38), 256 are the levels of 8 bits.
BINS, QUANTIZED_BINS = 2048, 256

Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Given:
    """What a method calibrates on: samples by the file's input names, or ranges by tensor."""

    samples: Arrays
    ranges: Ranges = field(default_factory=dict)


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


def save(path: Path, needed: Mapping[str, str], found: Ranges) -> None:
    """Write a cache that `quantize_static` reads instead of calibrating.

    ``needed``: a tensor that is quantized -> the one whose range it takes.

    Raises
    ------
    BadInput
        If a range is missing.
    """
    missing = sorted(set(needed.values()) - set(found))
    if missing:
        raise BadInput(
            f"ranges: none for {', '.join(missing)}; observe the model's activations again"
        )
    pairs = {
        name: (np.array(found[source][0], np.float32), np.array(found[source][1], np.float32))
        for name, source in needed.items()
    }
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, pairs), path)


def entropy(prepared: Path, names: Iterable[str], batches: Batches) -> Ranges:
    """Ranges of least divergence, by ONNX Runtime's calibrator, held in memory a batch at a time.

    `quantize_static` has no option for the number of bins.
    """
    calibrator = _Entropy(
        str(prepared),
        augmented_model_path=str(prepared.with_name("augmented.onnx")),
        num_bins=BINS,
        num_quantized_bins=QUANTIZED_BINS,
    )
    calibrator.names = frozenset(names)
    calibrator.augment_graph()
    calibrator.create_inference_session()
    for index in range(len(batches)):
        batches.set_range(index, index + 1)
        calibrator.collect_data(batches)
    ranges = calibrator.compute_data().items()
    return {name: (float(tensor.lowest), float(tensor.highest)) for name, tensor in ranges}


class _Entropy(EntropyCalibrater):  # type: ignore[misc]
    """The calibrator for some tensors only: it takes a third of a second for each."""

    names: frozenset[str] = frozenset()

    def select_tensors_to_calibrate(
        self, model: ModelProto
    ) -> tuple[set[str], dict[str, ValueInfoProto]]:
        """Names to calibrate, and what is known of all tensors."""
        found, known = super().select_tensors_to_calibrate(model)
        return found & self.names, known
