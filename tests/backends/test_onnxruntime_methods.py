"""ONNX Runtime's methods on a model of a few weights: what each axis does to the file."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from quantbench.backend_api import Artifact, integer_macs_fraction
from quantbench.errors import BadInput
from quantbench.spec import Data, Method, Model, Samples, Target, TensorSpec, preset
from quantbench.stats import sqnr_db
from quantbench_backends.onnxruntime import BACKEND, calibration, from_torch
from quantbench_backends.onnxruntime.quantizer import OnnxQuantizer
from quantbench_backends.onnxruntime.runtime import OnnxRuntime

CPU = Target("cpu")


class Small(nn.Module):
    """A convolution with batch norm, and two linear layers of 40 and 32 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 40, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(40)
        self.first = nn.Linear(40, 32)
        self.second = nn.Linear(32, 6)

    def forward(self, image):
        x = torch.relu(self.norm(self.conv(image))).mean((2, 3))
        return self.second(torch.relu(self.first(x)))


def small():
    torch.manual_seed(0)
    return Small().eval()


def state(path):
    return {name: tensor.numpy() for name, tensor in small().state_dict().items()}


def no_path():
    return Path()


SMALL = Model(
    name="small",
    task="none",
    inputs=(TensorSpec("image", (None, 3, 6, 6), "float32", "NCHW"),),
    outputs=(TensorSpec("logits", (None, 6), "float32"),),
    weights=f"{__name__}:no_path",
    state=f"{__name__}:state",
    forms={"torch": f"{__name__}:small"},
)
IMAGES = np.random.default_rng(0).normal(size=(48, 3, 6, 6)).astype(np.float32)
SAMPLES = Data(Samples({"image": IMAGES}, np.zeros(48)), None, 0)


def method(name: str, **axes) -> Method:
    return preset(name, {**BACKEND.methods.get(name, {}), **axes})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    converters = {"onnx": from_torch.convert, "onnx-unfused": from_torch.convert_unfused}
    made = {
        name: str(convert(SMALL, tmp_path_factory.mktemp(name)))
        for name, convert in converters.items()
    }
    return dataclasses.replace(SMALL, forms={**SMALL.forms, **made})


@pytest.fixture
def build(model, tmp_path):
    def built(name: str, **axes) -> Artifact:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return OnnxQuantizer().quantize(model, method(name, **axes), SAMPLES, folder)

    return built


def outputs(artifact: Artifact) -> np.ndarray:
    session = OnnxRuntime().load(artifact, CPU, len(IMAGES))
    session.bind({"image": IMAGES})
    session.run()
    return session.read()["logits"]


def exact() -> np.ndarray:
    with torch.no_grad():
        return small()(torch.from_numpy(IMAGES)).numpy()


def constants(artifact: Artifact) -> dict:
    graph = onnx.load(artifact.path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def operators(artifact: Artifact):
    return OnnxQuantizer().inspect(artifact).operators


def weights(artifact: Artifact):
    return OnnxQuantizer().inspect(artifact).weight_bytes


# --- weights in groups ----------------------------------------------------------------------------


def test_groups_are_filled_up_where_their_size_does_not_divide_a_layer(build):
    found = weights(build("weight-only-int8", group_size=32))

    assert found["int8"] == 64 * 32 + 32 * 6  # 40 inputs become 64
    assert sqnr_db(exact(), outputs(build("weight-only-int8"))) > 40


def test_weights_of_4_bits_take_half_the_bytes_of_8(build):
    narrow, wide = build("weight-only-int4"), build("weight-only-int8")

    assert 2 * weights(narrow)["int4"] == weights(wide)["int8"]
    assert narrow.size_bytes < wide.size_bytes < build("fp32").size_bytes


@pytest.mark.parametrize("size", [16, 64])
def test_every_group_has_a_scale(build, size):
    found = constants(build("weight-only-int4", group_size=size))

    assert found["first.weight_scales"].shape == (32, -(-40 // size))
    assert found["second.weight_scales"].shape == (6, -(-32 // size))


def test_asymmetric_groups_have_zero_points(build):
    operator = "MatMulNBits"
    graph = onnx.load(build("weight-only-int4", symmetric_weights=False).path).graph

    assert {len(n.input) for n in graph.node if n.op_type == operator} == {4}
    graph = onnx.load(build("weight-only-int4").path).graph
    assert {len(n.input) for n in graph.node if n.op_type == operator} == {3}


def test_some_layers_get_4_bits_and_the_others_8(build):
    found = weights(build("weight-only-int8", int4_weights=["second"]))

    assert (found["int8"], found["int4"]) == (64 * 32, 32 * 6 // 2)


def test_a_layer_kept_in_float_is_no_group(build):
    artifact = build("weight-only-int4", keep_float=["first"])

    assert constants(artifact)["first.weight"].shape == (40, 32)
    assert operators(artifact)["MatMulNBits"] == 1


@pytest.mark.parametrize(
    ("patterns", "words"),
    [(["conv"], "name a linear layer"), (["secnd"], "no layer 'secnd'. Did you mean 'second'")],
)
def test_4_bits_for_what_has_none_say_so(build, patterns, words):
    with pytest.raises(BadInput, match="int4_weights") as caught:
        build("weight-only-int8", int4_weights=patterns)

    assert words in str(caught.value)


def test_only_dynamic_groups_quantize_activations(build):
    dynamic, weight_only = build("dynamic-int4"), build("weight-only-int4")
    inputs = {"image": IMAGES[:1]}

    fractions = [
        integer_macs_fraction(OnnxRuntime().operations(each, CPU, inputs))
        for each in (dynamic, weight_only)
    ]

    linear = 40 * 32 + 32 * 6
    assert fractions == [linear / (linear + 36 * 27 * 40), 0]
    assert all(
        np.array_equal(constants(dynamic)[name], array)
        for name, array in constants(weight_only).items()
    )
    assert not np.array_equal(outputs(dynamic), outputs(weight_only))


# --- calibration ----------------------------------------------------------------------------------


def test_batches_are_given_again_in_any_range():
    batches = calibration.Batches({"x": np.arange(7)}, 3)

    assert [batch["x"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    batches.set_range(1, 3)
    assert [batch["x"].tolist() for batch in batches] == [[3, 4, 5], [6]]
    assert len(batches) == 3


def input_range(artifact: Artifact) -> tuple[float, float]:
    """The range of the image's uint8 numbers."""
    found = constants(artifact)
    scale, zero = float(found["image_scale"]), int(found["image_zero_point"])
    return -zero * scale, (255 - zero) * scale


def test_a_range_is_that_of_all_samples_or_the_mean_of_the_batches(build):
    axes = {"activations": "uint8", "samples": 48}
    extremes = input_range(build("static-int8", **axes))
    average = input_range(build("static-int8", calibrator="moving-average", **axes))

    step = (extremes[1] - extremes[0]) / 255
    batches = IMAGES[:32], IMAGES[32:]
    assert extremes == pytest.approx((IMAGES.min(), IMAGES.max()), abs=step)
    assert average == pytest.approx(
        (np.mean([b.min() for b in batches]), np.mean([b.max() for b in batches])), abs=step
    )


def test_a_percentile_leaves_out_what_is_beyond_on_both_sides(build):
    low, high = input_range(
        build("static-int8", calibrator="percentile", percentile=90.0, activations="uint8")
    )

    step = (high - low) / 255
    bins = 2 * float(np.abs(IMAGES).max()) / 2048
    assert (low, high) == pytest.approx(np.percentile(IMAGES, [5, 95]), abs=step + 2 * bins)


def test_percentiles_are_found_without_holding_all_activations(monkeypatch, build):
    from onnxruntime.quantization.calibrate import HistogramCollector

    held = []
    collect = HistogramCollector.collect

    def noted(self, arrays):
        held.append({len(array) for array in arrays.values()})
        return collect(self, arrays)

    monkeypatch.setattr(HistogramCollector, "collect", noted)
    build("static-int8", calibrator="percentile")

    assert held == [{1}, {1}]  # batches at a time


# --- formats, 16 and 4 bits ----------------------------------------------------------------------


def test_the_two_formats_hold_the_same_weights(build):
    qdq, qoperator = build("static-int8"), build("static-int8", route="qoperator")

    assert operators(qoperator)["QLinearConv"] == 1
    assert operators(qdq)["Conv"] == 1
    for name in ("first.weight_quantized", "second.weight_quantized"):
        np.testing.assert_array_equal(constants(qdq)[name], constants(qoperator)[name])


@pytest.mark.parametrize("route", ["qdq", "qoperator"])
def test_asymmetric_weights_have_a_zero_point_for_each_channel(build, route):
    found = constants(build("static-int8", symmetric_weights=False, route=route))

    for name in ("first.weight_zero_point", "second.weight_zero_point"):
        assert np.any(found[name])
        assert found[name].size == found[name.replace("zero_point", "scale")].size > 1


def test_16_bit_activations_are_simulated_and_nearer_to_float(build):
    wide = build("static-int16x8")

    assert "no kernel for 16-bit activations" in wide.details["simulated"]
    assert weights(wide)["int8"] == weights(build("static-int8"))["int8"]
    assert integer_macs_fraction(OnnxRuntime().operations(wide, CPU, {"image": IMAGES[:1]})) == 0
    assert sqnr_db(exact(), outputs(wide)) > sqnr_db(exact(), outputs(build("static-int8")))


def test_4_bit_weights_of_a_static_file_are_simulated(build):
    artifact = build("static-int8", int4_weights=["second"])

    assert "4-bit" in artifact.details["simulated"]
    assert weights(artifact)["int4"] >= 32 * 6 / 2
    assert "simulated" not in build("static-int8").details


@pytest.mark.parametrize("route", ["", "qdq"])
def test_4_bit_activations_are_those_that_a_layer_gives(build, route):
    artifact = build(
        "static-int8", int4_activations=["first"], activations="uint8", route=route, fusion=False
    )

    graph = onnx.load(artifact.path).graph
    narrow = [t.name for t in graph.initializer if t.data_type == onnx.TensorProto.UINT4]
    (quantize,) = (n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[2] in narrow)
    source = next(n for n in graph.node if quantize.input[0] in n.output)
    assert (source.name, source.op_type) == ("/first/Gemm", "Gemm")
    assert sqnr_db(exact(), outputs(artifact)) > 10


# --- fusion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "axes"),
    [("dynamic-int8", {}), ("static-int8", {}), ("static-int8", {"route": "qoperator"})],
)
def test_batch_norm_stays_a_node_where_nothing_is_fused(build, name, axes):
    fused, unfused = build(name, **axes), build(name, fusion=False, **axes)

    assert "BatchNormalization" not in operators(fused)
    assert operators(unfused)["BatchNormalization"] == 1
    executed = Counter(
        op.kind for op in OnnxRuntime().operations(unfused, CPU, {"image": IMAGES[:1]})
    )
    assert executed["BatchNormalization"] == 1
    assert sqnr_db(exact(), outputs(unfused)) > 25
