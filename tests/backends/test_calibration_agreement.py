"""The harness' calibrators against the frameworks' own, on the same data."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import pytest

from quantbench.backend_api import Histogram, squared_error
from quantbench.backend_api.calibration import estimate
from quantbench.spec import preset

RNG = np.random.default_rng(0)
SIGNED = RNG.laplace(size=(64, 4000)).astype(np.float32)
POSITIVE = np.maximum(RNG.normal(size=(64, 4000)), 0).astype(np.float32)
DATA = {"signed": SIGNED, "positive": POSITIVE}


def found(data: np.ndarray, calibrator: str, **axes) -> tuple[float, float]:
    histogram = Histogram()
    for batch in np.split(data, 4):
        histogram.update(batch)
    return estimate(histogram, preset("static-int8", {"calibrator": calibrator, **axes}))


def onnxruntime_s(data: np.ndarray, method: str, **options) -> tuple[float, float]:
    """The range that ONNX Runtime's own collector finds."""
    pytest.importorskip("onnxruntime")
    from onnxruntime.quantization.calibrate import HistogramCollector

    known = {"num_bins": 8192, "num_quantized_bins": 256, "percentile": 99.9, "symmetric": False,
             "scenario": "same", **options}  # fmt: skip
    collector = HistogramCollector(method=method, **known)
    with contextlib.redirect_stdout(io.StringIO()):
        for batch in np.split(data, 4):
            collector.collect({"x": [batch]})
        low, high, *_ = collector.compute_collection_result()["x"]
    return float(low), float(high)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("symmetric", [False, True])
def test_percentiles_are_onnx_runtime_s(name, symmetric):
    own = found(DATA[name], "percentile", percentile=99.9, symmetric_activations=symmetric)

    theirs = onnxruntime_s(DATA[name], "percentile", symmetric=symmetric)

    width = theirs[1] - theirs[0]
    assert own[1] == pytest.approx(theirs[1], abs=0.02 * width)
    if not symmetric:
        assert own[0] == pytest.approx(theirs[0], abs=0.02 * width)


def test_entropy_finds_a_threshold_like_onnx_runtime_s():
    own = found(SIGNED, "entropy")

    theirs = onnxruntime_s(SIGNED, "entropy", num_bins=2047)

    # not the same search: theirs cuts a signed histogram at both ends, and its threshold moves with
    # the bins (9.0 with 4,095 of them, 10.7 with 2,047)
    assert own[1] == pytest.approx(theirs[1], rel=0.15)
    assert max(map(abs, own)) < np.abs(SIGNED).max()


def test_entropy_is_not_led_astray_by_what_a_relu_cuts_off():
    own = found(POSITIVE, "entropy")

    theirs = onnxruntime_s(POSITIVE, "entropy", num_bins=2047)

    # half of the values are 0: ONNX Runtime then cuts off more of the others
    assert np.quantile(POSITIVE, 0.998) > theirs[1]
    assert np.quantile(POSITIVE, 0.999) < own[1]


@pytest.mark.parametrize("name", DATA)
def test_minmax_and_the_moving_average_are_pytorch_s(name):
    torch = pytest.importorskip("torch")
    from torch.ao.quantization import MinMaxObserver, MovingAverageMinMaxObserver

    extremes, average = MinMaxObserver(), MovingAverageMinMaxObserver(averaging_constant=0.01)
    for sample in DATA[name]:
        extremes(torch.from_numpy(sample))
        average(torch.from_numpy(sample))

    assert found(DATA[name], "minmax") == (float(extremes.min_val), float(extremes.max_val))
    assert found(DATA[name], "moving-average") == pytest.approx(
        (float(average.min_val), float(average.max_val)), rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize("name", DATA)
def test_mse_is_at_least_as_good_as_pytorch_s_search(name):
    torch = pytest.importorskip("torch")
    from torch.ao.quantization import HistogramObserver

    observer = HistogramObserver(bins=2048)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for batch in np.split(DATA[name], 4):
            observer(torch.from_numpy(batch))
        theirs = tuple(float(end) for end in observer._non_linear_param_search())

    values = np.sort(DATA[name].ravel()).astype(np.float64)
    errors = [
        squared_error(values, np.ones_like(values), (min(low, 0.0), max(high, 0.0)), 256)
        for low, high in (found(DATA[name], "mse"), theirs)
    ]
    assert errors[0] <= 1.01 * errors[1]


def test_the_moving_average_of_litert_is_ours_with_another_constant():
    qsv = pytest.importorskip("litert_quantizer.utils.qsv_utils")

    value = {"min": np.float32(SIGNED[0].min()), "max": np.float32(SIGNED[0].max())}
    for sample in SIGNED[1:]:
        new = {"min": np.float32(sample.min()), "max": np.float32(sample.max())}
        value = qsv.moving_average_update(value, new)

    low, high = float(SIGNED[0].min()), float(SIGNED[0].max())
    for sample in SIGNED[1:]:
        low += 0.05 * (float(sample.min()) - low)
        high += 0.05 * (float(sample.max()) - high)
    assert (float(value["min"]), float(value["max"])) == pytest.approx((low, high), rel=1e-4)
