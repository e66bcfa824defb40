"""Ranges that are given to LiteRT Quantizer, and layers or weights quantized alone."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import pytest

from quantbench.backend_api import Artifact, Observation, Record
from quantbench.errors import BadInput
from quantbench.spec import Data, Samples
from quantbench.stats import affine, sqnr_db
from quantbench_backends.tflite.quantizer import TfliteQuantizer
from quantbench_backends.tflite.runtime import LiteRTRuntime
from tests.backends.test_tflite_small import (
    CPU,
    IMAGES,
    LAYERS,
    LITERT,
    SMALL,
    held,
    method,
    multiplying,
    record_of,
)

pytest.importorskip("tensorflow")

QUANTIZER = TfliteQuantizer()
CALIBRATORS = ("minmax", "moving-average", "percentile", "entropy", "mse", "mean-std")
DATA = Data(Samples({"image": IMAGES}, np.zeros(len(IMAGES))), None, 0)


def static(**axes: Any) -> Any:
    return method("static-int8", **{"samples": len(IMAGES), "io": "float32", **LITERT, **axes})


def observed(**axes: Any) -> Observation:
    seen = Observation()
    QUANTIZER.observe(SMALL, static(ranges="injected", **axes), DATA, seen.see)
    return seen


def made(folder: Any, given: Any = None, **axes: Any) -> Artifact:
    data = dataclasses.replace(DATA, ranges=given or {})
    return QUANTIZER.quantize(SMALL, static(**axes), data, folder)


@pytest.fixture(scope="module")
def seen() -> Observation:
    return observed()


# --- ranges --------------------------------------------------------------------------------------


def test_every_activation_is_observed_in_order_and_in_batches():
    batches: dict[str, list[Any]] = {}
    wanted = static(ranges="injected")

    QUANTIZER.observe(SMALL, wanted, DATA, lambda n, a: batches.setdefault(n, []).append(a.copy()))

    # the image, and what convolution, mean and two linear layers give
    assert len(batches) == 5
    (image, *_) = batches.values()
    assert [len(batch) for batch in image] == [32, 16]
    np.testing.assert_array_equal(
        np.concatenate(image).reshape(48, 6, 6, 3), IMAGES.transpose(0, 2, 3, 1)
    )


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize(
    ("axes", "grid", "symmetric"),
    [
        ({}, affine.Grid(8), False),
        ({"symmetric_activations": True}, affine.Grid(8), True),
    ],
)
def test_scales_are_those_of_the_ranges(seen, tmp_path, calibrator, axes, grid, symmetric):
    ranges = seen.ranges(static(calibrator=calibrator))

    record = record_of(made(tmp_path, ranges, ranges="injected", calibrator=calibrator, **axes))

    quantized = [t for t in record.tensors if t.levels and not t.bytes]
    for name, (low, high) in ranges.items():
        wanted = affine.from_range(low, high, grid, symmetric=symmetric)
        (found,) = (t for t in quantized if t.name in (name, f"{name}_quantized"))
        # the same scale computed in float32 here and there: 1.2e-7 and a little
        np.testing.assert_allclose(found.scale, wanted.scale, rtol=1e-6)
        assert found.zero_point == (int(wanted.zero_point),)
    assert len(quantized) == len(ranges)


def test_minimum_and_maximum_injected_are_the_tool_s_own(seen, tmp_path):
    ranges = seen.ranges(static(calibrator="minmax"))

    injected = made(tmp_path / "injected", ranges, ranges="injected")

    own = made(tmp_path / "own")
    for a, b in zip(record_of(injected).tensors, record_of(own).tensors, strict=True):
        # the same scale computed in float32 here and there: 1.2e-7 and a little
        np.testing.assert_allclose(a.scale, b.scale, rtol=1e-6)
        assert a.zero_point == b.zero_point


def test_a_range_that_is_missing_is_bad_input(seen, tmp_path):
    ranges = seen.ranges(static(calibrator="minmax"))
    (name, *_) = ranges

    with pytest.raises(BadInput) as raised:
        made(tmp_path, {n: r for n, r in ranges.items() if n != name}, ranges="injected")

    assert name in str(raised.value)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"route": "keras", "ranges": "injected"}, "use route: litert-keras"),
        ({"route": "keras", "calibrator": "entropy"}, "minimum and maximum only"),
        ({"calibrator": "entropy"}, "use ranges: injected"),
        ({"ranges": "injected", "percentile": 99.0}, "percentile"),
        ({"ranges": "injected", "sigmas": 3.0}, "mean-std"),
        ({"parts": "activations"}, "float weights"),
    ],
)
def test_what_cannot_be_injected_is_refused_with_a_way_out(axes, words):
    reason = QUANTIZER.refuse(SMALL, static(**axes))

    assert reason is not None
    assert words in reason
    assert reason.count("; use ") == 1


@pytest.mark.long
@pytest.mark.data
def test_calibrators_give_different_ranges_on_resnet_20(tmp_path):
    if not (os.environ.get("QUANTBENCH_DATA") or os.environ.get("CI")):
        pytest.skip("no CIFAR-10; see docs/data.md")
    from quantbench_experiments.models.resnet import RESNET20, preprocess
    from quantbench_experiments.tasks.cifar10 import load

    images = preprocess({n: a[:64] for n, a in load("calibration").inputs.items()})
    data = Data(Samples(images, np.zeros(64)), None, 0)
    seen = Observation()
    QUANTIZER.observe(RESNET20, static(samples=64, ranges="injected"), data, seen.see)

    scales = {}
    for calibrator in ("minmax", "percentile", "entropy", "mse", "mean-std"):
        wanted = static(samples=64, ranges="injected", calibrator=calibrator)
        given = dataclasses.replace(data, ranges=seen.ranges(wanted))
        record = QUANTIZER.inspect(
            QUANTIZER.quantize(RESNET20, wanted, given, tmp_path / calibrator)
        )
        scales[calibrator] = [t.scale for t in record.tensors if t.levels and not t.bytes]

    # the image, and the outputs of 21 convolutions, 9 sums, 2 paddings, the mean, the linear layer
    assert len(seen.histograms) == 1 + 21 + 9 + 2 + 1 + 1
    for calibrator, found in scales.items():
        if calibrator != "minmax":
            assert found != scales["minmax"], calibrator


# --- layers and parts alone ----------------------------------------------------------------------


def noise(artifact: Artifact) -> float:
    """Signal to noise against the float file, in dB."""
    outputs = []
    for each in (artifact, FLOAT):
        session = LiteRTRuntime().load(each, CPU, len(IMAGES))
        session.bind({"image": IMAGES})
        session.run()
        outputs.append(session.read()["logits"])
    return sqnr_db(outputs[1], outputs[0])


FLOAT: Artifact


@pytest.fixture(scope="module", autouse=True)
def _float(tmp_path_factory):
    global FLOAT
    folder = tmp_path_factory.mktemp("float")
    FLOAT = QUANTIZER.quantize(SMALL, method("fp32"), DATA, folder)


def weights_of(record: Record) -> dict[str, str]:
    return {layer: held(record, "weight", layer).dtype for layer in LAYERS}


@pytest.mark.parametrize("route", ["keras", "litert-keras"])
@pytest.mark.parametrize("layer", LAYERS)
def test_one_layer_alone_is_quantized(tmp_path, route, layer):
    artifact = made(tmp_path, route=route, only=[layer])

    record = record_of(artifact)
    assert weights_of(record) == {n: "int8" if n == layer else "float32" for n in LAYERS}
    computed = {n: node.dtype for n, node in multiplying(record).items()}
    assert computed == {n: "int8" if n == layer else "float32" for n in LAYERS}
    # its input and its output, and nothing else
    quantized = [t for t in record.tensors if t.levels and not t.bytes]
    assert len(quantized) == 2
    assert noise(artifact) > 25


@pytest.mark.parametrize("route", ["keras", "litert-keras"])
def test_a_layer_alone_has_the_scales_that_it_has_among_others(tmp_path, route):
    alone = record_of(made(tmp_path / "alone", route=route, only=["first"]))

    together = record_of(made(tmp_path / "all", route=route))
    for role in ("weight", "bias"):
        assert held(alone, role, "first").scale == held(together, role, "first").scale


def test_choices_of_layers_share_one_calibration(tmp_path, monkeypatch):
    from quantbench_backends.tflite import converted_model, methods

    calibrated = []
    ranged = methods.ranged
    monkeypatch.setattr(methods, "ranged", lambda *given: calibrated.append(1) or ranged(*given))
    converted_model._last.clear()

    whole = [made(tmp_path / f"{i}", route="keras", **axes).sha256 for i, axes in enumerate(
        ({"only": ["first"]}, {"keep_float": ["first"]}, {"only": ["first"]})
    )]  # fmt: skip
    assert len(calibrated) == 1
    fewer = made(tmp_path / "fewer", route="keras", only=["first"], samples=4).sha256
    assert len(calibrated) == 2
    again = made(tmp_path / "again", route="keras", only=["first"]).sha256
    assert len(calibrated) == 3  # only the last one is kept
    assert whole[0] == whole[2] == again
    assert whole[0] != whole[1]
    assert fewer != again


def test_four_bits_are_for_layers_that_are_quantized_only(tmp_path):
    record = record_of(made(tmp_path, only=["first"], int4_weights=["*"]))

    assert weights_of(record) == {"conv": "float32", "first": "int4", "second": "float32"}


@pytest.mark.parametrize("only", [(), ("first",)])
def test_weights_alone_are_the_integers_of_both_and_activations_stay_float(tmp_path, only):
    both = made(tmp_path / "both", only=only)
    alone = made(tmp_path / "alone", only=only, parts="weights")

    record = record_of(alone)
    assert alone.details["simulated"]
    assert weights_of(record) == weights_of(record_of(both))
    assert {n.dtype for n in multiplying(record).values()} == {"float32"}
    assert not [t for t in record.tensors if t.levels and not t.bytes]
    for layer in only or LAYERS:
        a, b = (held(r, "weight", layer) for r in (record, record_of(both)))
        assert (a.scale, a.zero_point, a.qmin, a.qmax) == (b.scale, b.zero_point, b.qmin, b.qmax)
    assert noise(alone) > noise(both) - 1


def test_weights_alone_need_no_ranges(tmp_path):
    artifact = made(tmp_path, ranges="injected", calibrator="mse", parts="weights")

    assert set(weights_of(record_of(artifact)).values()) == {"int8"}
    QUANTIZER.observe(SMALL, static(ranges="injected", parts="weights"), DATA, lambda n, a: None)


def test_a_layer_that_there_is_not_is_bad_input(tmp_path):
    for route in ("keras", "litert-keras"):
        with pytest.raises(BadInput, match="only: no layer 'firt'"):
            made(tmp_path, route=route, only=["firt"])
