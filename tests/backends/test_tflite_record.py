"""What TFLite files hold and execute, against counts made by hand; injected ranges; one layer."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantbench.backend_api import (
    MULTIPLY,
    WEIGHT,
    Observation,
    Record,
    activation_bytes,
    executed,
    is_narrow,
    registry,
    requested,
    serialized,
)
from quantbench.backend_api.artifact_record import Coverage
from quantbench.backend_api.calibration import CALIBRATORS
from quantbench.errors import DataMissing
from quantbench.spec import Data, Method, Samples, Target, preset
from quantbench.stats import affine
from quantbench.system import locate

pytest.importorskip("tensorflow")

BACKEND = registry.backend("tflite")
QUANTIZER, RUNTIME = locate(BACKEND.quantizer)(), locate(BACKEND.runtime)()
# ResNet-20 for 32x32 images: a convolution of 3x3 from 3 to 16 channels at 32x32; three stages of
# three blocks of two 3x3 convolutions, with 16, 32, 64 channels at 32x32, 16x16, 8x8, the first of
# stages 2 and 3 from half the channels; a linear layer from 64 to 10.
FIRST = 16 * 27 * 32 * 32  # 442,368
STAGE_1 = 6 * 16 * 16 * 9 * 32 * 32  # 14,155,776
STAGE_2 = (32 * 16 + 5 * 32 * 32) * 9 * 16 * 16  # 12,976,128
STAGE_3 = (64 * 32 + 5 * 64 * 64) * 9 * 8 * 8  # 12,976,128
LINEAR = 64 * 10
# The Keras form selects channels for its two shortcuts by 1x1 convolutions.
SHORTCUTS = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8  # 262,144
MACS = FIRST + STAGE_1 + STAGE_2 + STAGE_3 + LINEAR + SHORTCUTS
WEIGHTS = (
    16 * 27 + 6 * 16 * 16 * 9 + (32 * 16 + 5 * 32 * 32) * 9 + (64 * 32 + 5 * 64 * 64) * 9
    + 64 * 10 + 16 * 32 + 32 * 64
)  # fmt: skip


@pytest.fixture(scope="module")
def resnet():
    """The registered model; skips only where its weights are absent and nobody asked for them."""
    model = registry.model("resnet20")
    try:
        locate(model.weights)()
    except DataMissing as missing:
        if os.environ.get("QUANTBENCH_DATA") or os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    return model


@pytest.fixture(scope="module")
def data(resnet) -> Data:
    """Sixteen calibration samples from a seed: coverage does not depend on them."""
    x = np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32)
    return Data(Samples({resnet.inputs[0].name: x}, np.zeros(16, np.int64)), None, 0)


def method(name: str, **axes) -> Method:
    usual = {"samples": 16} if name.startswith("static") else {}
    return preset(name, BACKEND.axes(name, {**usual, **axes}))


@pytest.fixture(scope="module")
def made(resnet, data, tmp_path_factory):
    """A function from a method to its artifact and record, each built once."""
    known = {}

    def get(chosen: Method, given: Data = data):
        key = (chosen, tuple(sorted(given.ranges.items())))
        if key not in known:
            folder = tmp_path_factory.mktemp("made")
            artifact = QUANTIZER.quantize(resnet, chosen, given, folder)
            known[key] = artifact, QUANTIZER.inspect(artifact, QUANTIZER.layers(resnet))
        return known[key]

    return get


def ran(artifact, resnet, data: Data):
    name = resnet.inputs[0].name
    return RUNTIME.operations(artifact, Target("cpu-1"), {name: data.calibration.inputs[name][:1]})


# --- ResNet-20, counted by hand ------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.long
def test_full_int8_resnet20_is_what_was_counted_by_hand(made, resnet, data):
    artifact, record = made(method("static-int8"))

    multiplying = [node for node in record.nodes if node.role == MULTIPLY]
    # 1 + 18 convolutions, 2 shortcuts, 1 linear layer
    assert len(multiplying) == 22
    assert sum(node.macs for node in multiplying) == MACS == 40_813_184
    assert sum(node.weights for node in multiplying) == WEIGHTS == 270_896
    # and 9 additions, 2 paddings before convolutions of stride 2, 1 mean
    assert len(record.nodes) == 22 + 9 + 2 + 1
    assert serialized(record) == Coverage(1.0, 1.0, 1.0)
    assert executed(ran(artifact, resnet, data)) == Coverage(1.0, 1.0, 1.0)
    assert {node.scales for node in multiplying} == {"static"}


@pytest.mark.data
@pytest.mark.long
def test_dynamic_range_leaves_two_small_layers_and_a_shortcut_in_float(made, resnet, data):
    artifact, record = made(method("dynamic-int8"))

    # fewer than 1,024 elements: the first convolution (432), the linear layer (640), and the
    # shortcut of stage 2 (512)
    floats = [n for n in record.nodes if n.role == MULTIPLY and not n.integer]
    assert sorted(n.weights for n in floats) == [432, 512, 640]
    assert all("fewer than 1,024 elements" in node.reason for node in floats)
    left = FIRST + LINEAR + 16 * 32 * 16 * 16
    coverage = Coverage(19 / 22, 1 - (432 + 512 + 640) / WEIGHTS, 1 - left / MACS)
    found = serialized(record)
    assert (found.nodes, found.weights, found.macs) == pytest.approx(
        (coverage.nodes, coverage.weights, coverage.macs)
    )
    ops = ran(artifact, resnet, data)
    assert executed(ops).macs == pytest.approx(coverage.macs)
    assert {op.scales for op in ops if op.macs and op.integer} == {"dynamic"}


@pytest.mark.data
@pytest.mark.long
def test_activation_memory_is_three_maps_of_the_first_stage(made, resnet, data):
    maps = 3 * 16 * 32 * 32  # a shortcut, the input of a convolution, and its output

    for name, size in (("static-int8", 1), ("fp32", 4)):
        artifact, _ = made(method(name))
        assert activation_bytes(ran(artifact, resnet, data)) == maps * size


# --- tensors -------------------------------------------------------------------------------------


def weights(record: Record):
    return [t for t in record.tensors if t.role == WEIGHT]


@pytest.mark.data
@pytest.mark.long
def test_int8_files_have_255_levels_of_weights_and_256_of_activations(made):
    _, record = made(method("static-int8"))

    assert {(t.levels, t.symmetric, t.granularity) for t in weights(record)} == {
        (255, True, "per-channel")
    }
    moving = [t for t in record.tensors if t.role in ("activation", "input", "output")]
    assert {(t.levels, t.signed, t.granularity) for t in moving} == {(256, True, "per-tensor")}
    assert not all(t.symmetric for t in moving)
    assert {t.dtype for t in record.tensors if t.role == "bias"} == {"int32"}


@pytest.mark.data
@pytest.mark.long
def test_a_fused_relu_is_shown_and_a_layer_kept_in_float_has_its_name(made):
    _, record = made(method("static-int8", keep_float=["conv1"]))

    first = next(node for node in record.nodes if node.layer == "conv1")
    assert first.fused == ("BatchNormalization", "RELU")
    assert not first.integer
    assert [t.dtype for t in weights(record) if t.layer == "conv1"] == ["float32"]
    assert requested(record, method("static-int8", keep_float=["conv1"])).weights == pytest.approx(
        1 - 432 / WEIGHTS
    )


@pytest.mark.data
@pytest.mark.long
def test_4_bit_weights_have_15_levels_and_are_multiplied_in_float(made):
    _, record = made(method("weight-only-int4"))

    assert {(t.dtype, t.levels) for t in weights(record)} == {("int4", 15)}
    assert serialized(record) == Coverage(0.0, 1.0, 0.0)
    assert {n.weight_dtype for n in record.nodes if n.role == MULTIPLY} == {"int4"}


@pytest.mark.data
@pytest.mark.long
def test_float16_weights_are_found_behind_their_dequantization(made, resnet, data):
    artifact, record = made(method("fp16"))

    assert {t.dtype for t in weights(record)} == {"float16"}
    assert {n.role for n in record.nodes if n.kind == "DEQUANTIZE"} == {"cast"}
    # once, when the file is loaded: no conversion of an inference
    assert {op.role for op in ran(artifact, resnet, data) if op.kind == "DEQUANTIZE"} == {"other"}


# --- injected ranges -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def observation(resnet, data) -> Observation:
    found = Observation()
    QUANTIZER.observe(resnet, method("static-int8", route="litert-keras"), data, found.see)
    return found


@pytest.mark.data
@pytest.mark.long
def test_injected_minmax_is_the_file_that_the_tool_calibrates_itself(made, data, observation):
    own = method("static-int8", route="litert-keras")
    injected = replace(own, ranges="injected")

    native, _ = made(own)
    given, _ = made(injected, replace(data, ranges=observation.ranges(injected)))

    assert given.path.read_bytes() == native.path.read_bytes()


@pytest.mark.data
@pytest.mark.long
def test_every_scale_follows_from_the_range_that_was_injected(made, data, observation):
    injected = method("static-int8", route="litert-keras", ranges="injected", calibrator="mse")
    ranges = observation.ranges(injected)

    _, record = made(injected, replace(data, ranges=ranges))

    checked = 0
    for tensor in record.tensors:
        if tensor.name in ranges and tensor.levels:
            low, high = ranges[tensor.name]
            wanted = affine.from_range(low, high, affine.Grid(8))
            assert tensor.scale[0] == pytest.approx(float(wanted.scale), rel=1e-5)
            assert abs(tensor.zero_point[0] - int(wanted.zero_point)) <= 1
            checked += 1
    assert checked >= 30


@pytest.mark.data
@pytest.mark.long
def test_calibrators_give_different_ranges(observation):
    found = {
        name: observation.ranges(method("static-int8", route="litert-keras", calibrator=name,
                                        ranges="injected"))
        for name in CALIBRATORS
    }  # fmt: skip
    names = list(found)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert any(found[one][t] != found[other][t] for t in found[one]), (one, other)


# --- one layer at a time -------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.long
@pytest.mark.parametrize("route", ["keras", "litert-keras"])
def test_only_the_named_layer_is_quantized(made, route):
    chosen = method("static-int8", route=route, only=["layer1.0.conv1"])

    _, record = made(chosen)

    assert [t.layer for t in weights(record) if is_narrow(t.dtype)] == ["layer1.0.conv1"]
    found = serialized(record)
    assert found.macs == pytest.approx(16 * 16 * 9 * 32 * 32 / MACS)
    assert requested(record, chosen) == found


@pytest.mark.data
@pytest.mark.long
def test_weights_alone_leave_every_activation_in_float(made):
    artifact, record = made(method("static-int8", route="litert-keras", parts="weights"))

    assert serialized(record) == Coverage(0.0, 1.0, 0.0)
    assert "weights alone" in artifact.details["simulated"]
    _, both = made(method("static-int8", route="litert-keras"))
    scales = {t.name: t.scale for t in weights(both)}
    assert {t.name: t.scale for t in weights(record)} == scales


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"ranges": "injected"}, "use route: litert-keras"),
        ({"route": "litert-keras", "parts": "activations"}, "no kernels for integer activations"),
        ({"route": "litert-keras", "calibrator": "entropy"}, "use ranges: injected"),
    ],
)
def test_what_tflite_cannot_do_is_refused_with_a_way_out(axes, says):
    model = registry.model("resnet20")

    assert says in (QUANTIZER.refuse(model, method("static-int8", **axes)) or "")


def test_a_second_reading_of_the_file_is_the_same(tmp_path: Path):
    from tests.backends.samples import SAMPLES

    sample = SAMPLES["conv"]
    chosen = method("dynamic-int8")
    none = Data(Samples({}, np.zeros(0)), None, 0)
    artifact = QUANTIZER.quantize(sample.model, chosen, none, tmp_path)

    first, second = (QUANTIZER.inspect(artifact) for _ in range(2))

    assert first == second
    assert Record.from_json(first.to_json()) == first
