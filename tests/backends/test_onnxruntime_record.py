"""What ONNX files hold and what is executed of them, counted by hand."""

import dataclasses
import os
import platform
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from quantbench.backend_api import (
    Artifact,
    NodeRecord,
    Operation,
    Record,
    TensorRecord,
    activation_bytes,
    executed,
    serialized,
)
from quantbench.backend_api.artifact_record import Coverage
from quantbench.spec import Data, Method, Model, Samples, Target, TensorSpec, preset
from quantbench_backends.onnx_files import protobuf_reader
from quantbench_backends.onnx_files.artifact_record import weight_ends
from quantbench_backends.onnxruntime import BACKEND, from_torch
from quantbench_backends.onnxruntime.quantizer import OnnxQuantizer
from quantbench_backends.onnxruntime.runtime import OnnxRuntime

CPU = Target("cpu")
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="ARM multiplies int8 by int8")


class Small(nn.Module):
    """A convolution with batch norm, a mean, and two linear layers of 48 and 32 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.first = nn.Linear(48, 32)
        self.second = nn.Linear(32, 6)

    def forward(self, image):
        x = torch.relu(self.norm(self.conv(image)))
        x = nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)
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
LAYERS = ("conv", "first", "second")
IMAGES = np.random.default_rng(0).normal(size=(48, 3, 6, 6)).astype(np.float32)
SAMPLES = Data(Samples({"image": IMAGES}, np.zeros(48)), None, 0)
MACS = {"conv": 6 * 6 * 48 * 3 * 3 * 3, "first": 48 * 32, "second": 32 * 6}


def method(name: str, **axes) -> Method:
    # uint8 whatever the machine
    own = {"activations": "uint8"} if name == "static-int8" else {}
    return preset(name, BACKEND.axes(name, {**own, **axes}))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    path = from_torch.convert(SMALL, tmp_path_factory.mktemp("form"))
    return dataclasses.replace(SMALL, forms={**SMALL.forms, "onnx": str(path)})


@pytest.fixture
def build(model, tmp_path):
    def built(name: str, **axes) -> Artifact:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return OnnxQuantizer().quantize(model, method(name, **axes), SAMPLES, folder)

    return built


def record_of(artifact: Artifact) -> Record:
    return OnnxQuantizer().inspect(artifact, LAYERS)


def operations(artifact: Artifact) -> tuple[Operation, ...]:
    return OnnxRuntime().operations(artifact, CPU, {"image": IMAGES[:1]})


def weight(record: Record, layer: str) -> TensorRecord:
    (found,) = (t for t in record.tensors if t.role == "weight" and t.layer == layer)
    return found


def bias(record: Record, layer: str) -> TensorRecord:
    (found,) = (t for t in record.tensors if t.role == "bias" and t.layer == layer)
    return found


def multiplying(record: Record) -> dict[str, NodeRecord]:
    return {node.layer: node for node in record.nodes if node.role == "multiply"}


def constants(artifact: Artifact) -> dict:
    graph = onnx.load(artifact.path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "axes", "layer", "expected"),
    [
        # symmetric int8 without -128
        ("static-int8", {}, "conv", ("int8", 255, True, "per-channel", 8)),
        ("static-int8", {"route": "qoperator"}, "first", ("int8", 255, True, "per-channel", 8)),
        ("static-int8", {"granularity": "per-tensor"}, "conv", ("int8", 255, True, "per-tensor", 8)),
        ("static-int8", {"symmetric_weights": False}, "first", ("int8", 256, False, "per-channel", 8)),
        ("static-int8", {"weights": "int4"}, "conv", ("int4", 16, True, "per-channel", 4)),
        ("dynamic-int8", {}, "conv", ("int8", 255, True, "per-tensor", 8)),
        ("dynamic-int8", {"granularity": "per-channel"}, "first", ("int8", 255, True, "per-channel", 8)),
        ("weight-only-int8", {}, "first", ("int8", 256, True, "group", 8)),
        ("weight-only-int4", {}, "first", ("int4", 16, True, "group", 4)),
        ("weight-only-int4", {"symmetric_weights": False}, "first", ("int4", 16, False, "group", 4)),
        ("weight-only-int4", {}, "conv", ("float32", 0, None, "none", 32)),
        ("fp16", {}, "conv", ("float16", 0, None, "none", 16)),
    ],
)  # fmt: skip
def test_weights_are_what_the_method_says(build, name, axes, layer, expected):
    found = weight(record_of(build(name, **axes)), layer)

    assert (
        found.dtype, found.levels, found.symmetric, found.granularity, found.bits
    ) == expected  # fmt: skip


def test_scales_are_those_of_the_file(build):
    artifact = build("static-int8")

    found = weight(record_of(artifact), "first")

    stored = constants(artifact)
    assert found.name == "first.weight_quantized"
    assert found.shape == (32, 48)
    assert found.axis == 0  # Gemm with a transposed weight
    assert found.scale == tuple(stored["first.weight_scale"].tolist())
    assert found.zero_point == (0,) * 32
    assert found.high == pytest.approx(127 * max(found.scale))
    assert -found.low == found.high


def test_a_bias_is_int32_with_the_input_s_scale_times_the_weights(build):
    for route in ("qdq", "qoperator"):
        record = record_of(build("static-int8", route=route))

        found, kernel = bias(record, "conv"), weight(record, "conv")
        image = next(t for t in record.tensors if t.name.startswith("image_q") or t.name == "image_QuantizeLinear_Output")  # fmt: skip

        assert (found.dtype, found.shape, found.bytes, found.bits) == ("int32", (48,), 192, 32)
        # the same scale computed in float32 here and there: 1.2e-7 and a little
        np.testing.assert_allclose(found.scale, np.array(kernel.scale) * image.scale[0], rtol=1e-6)
    assert bias(record_of(build("dynamic-int8")), "conv").dtype == "float32"


def test_groups_are_the_integers_that_multiply(build):
    artifact = build("weight-only-int4", symmetric_weights=False)

    found = weight(record_of(artifact), "first")

    assert (found.shape, found.group_size) == ((32, 48), 32)
    assert len(found.scale) == len(found.zero_point) == 32 * 2  # 48 inputs are two groups
    assert found.bytes == 32 * 64 // 2  # the second is filled up
    # 4 bits: the lowest and the highest weight of a group are at the ends of the grid, within half
    # a step, and 0 is among them
    exact = np.pad(state(None)["first.weight"], ((0, 0), (0, 16))).reshape(-1, 32)
    low = (found.qmin - np.array(found.zero_point)) * np.array(found.scale)
    high = (found.qmax - np.array(found.zero_point)) * np.array(found.scale)
    step = np.array(found.scale)
    assert (low <= np.minimum(exact.min(1), 0) + step).all()
    assert (high >= np.maximum(exact.max(1), 0) - step).all()


def test_a_grid_is_read_from_the_integers_on_it():
    symmetric = np.array([-127, 3, 127], np.int8)

    assert weight_ends(symmetric, "int8", (0,)) == (-127, 127)
    assert weight_ends(np.array([-128, 127], np.int8), "int8", (0,)) == (-128, 127)
    assert weight_ends(symmetric, "int8", (5,)) == (-128, 127)
    assert weight_ends(np.array([-8, 7], np.int8), "int8", (0,)) == (-8, 7)  # 4 bits in a byte
    assert weight_ends(np.zeros(4, np.int8), "int8", (0,)) == (-127, 127)
    assert weight_ends(np.array([1, 255], np.uint8), "uint8", (128,)) == (1, 255)


# --- activations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({}, ("uint8", 256, False)),
        ({"symmetric_activations": True}, ("uint8", 256, True)),
        ({"activations": "int8"}, ("int8", 256, False)),
        ({"activations": "int8", "symmetric_activations": True}, ("int8", 256, True)),
        ({"route": "qoperator"}, ("uint8", 256, False)),
    ],
)
def test_activations_have_all_integers_of_their_dtype(build, axes, expected):
    record = record_of(build("static-int8", **axes))

    # the image is never below its least value: that the zero point is in the middle is the method
    found = next(
        t for t in record.tensors if t.name.startswith("image_") and t.role == "activation"
    )

    assert (found.dtype, found.levels, found.symmetric) == expected
    assert found.granularity == "per-tensor"


def test_an_output_of_a_layer_is_named_after_it_as_floats_and_as_integers(build):
    record = record_of(build("static-int8"))

    found = [(t.dtype, t.role) for t in record.tensors if t.layer == "second" and not t.bytes]

    # Gemm, QuantizeLinear, DequantizeLinear
    assert found == [("float32", "activation"), ("uint8", "activation"), ("float32", "output")]


def test_scales_found_at_run_time_are_not_in_the_file(build):
    record = record_of(build("dynamic-int8"))

    found = [t for t in record.tensors if t.dtype == "uint8" and t.levels]

    assert len(found) == 3  # DynamicQuantizeLinear before each layer
    assert {(t.scale, t.zero_point, t.levels) for t in found} == {((), (), 256)}
    assert {node.scales for node in multiplying(record).values()} == {"dynamic"}


# --- nodes ----------------------------------------------------------------------------------------


def test_nodes_say_what_they_multiply_and_how(build):
    found = multiplying(record_of(build("static-int8")))

    assert {layer: node.macs for layer, node in found.items()} == MACS
    assert {node.dtype for node in found.values()} == {"uint8"}
    assert {node.scales for node in found.values()} == {"static"}
    assert {node.weight_dtype for node in found.values()} == {"int8"}
    assert [found[layer].weights for layer in LAYERS] == [48 * 27, 32 * 48, 6 * 32]
    assert found["conv"].fused == ("BatchNormalization", "Relu")
    assert found["second"].fused == ()


def test_every_format_has_the_same_multiplications(build):
    for name in (
        "fp32",
        "fp16",
        "dynamic-int8",
        "weight-only-int4",
        "dynamic-int4",
        "static-int16x8",
    ):
        found = multiplying(record_of(build(name)))

        assert {layer: node.macs for layer, node in found.items()} == MACS, name


def test_a_file_of_weights_in_groups_tells_which_layers_it_leaves(build):
    record = record_of(build("weight-only-int4"))

    found = multiplying(record)

    assert {node.dtype for node in found.values()} == {"float32"}
    assert "matrix products only" in found["conv"].reason
    assert found["first"].reason == ""
    weights = 48 * 27 + 32 * 48 + 6 * 32
    assert serialized(record) == Coverage(nodes=0, weights=(32 * 48 + 6 * 32) / weights, macs=0)
    dynamic = multiplying(record_of(build("dynamic-int4")))
    assert (dynamic["first"].dtype, dynamic["first"].scales) == ("int8", "dynamic")


def test_a_layer_kept_in_float_is_float_in_the_file_and_when_executed(build):
    artifact = build("static-int8", keep_float=["first"])

    record, ran = record_of(artifact), operations(artifact)

    assert {layer: node.dtype for layer, node in multiplying(record).items()} == {
        "conv": "uint8", "first": "float32", "second": "uint8",
    }  # fmt: skip
    assert weight(record, "first").dtype == "float32"
    share = 1 - MACS["first"] / sum(MACS.values())
    assert serialized(record).macs == pytest.approx(share)
    assert executed(ran).macs == pytest.approx(share)
    assert serialized(record).nodes == executed(ran).nodes == 2 / 3


def test_what_the_cpu_provider_has_no_kernels_for_says_so(build):
    for axes, words in (
        ({"activations": "int16"}, "16-bit activations"),
        ({"weights": "int4"}, "4-bit integers"),
    ):
        name = "static-int16x8" if "activations" in axes else "static-int8"
        artifact = build(name, **axes)

        found = multiplying(record_of(artifact))

        assert serialized(record_of(artifact)).macs == 1
        assert executed(operations(artifact)).macs == 0
        assert all(words in node.reason for node in found.values())


# --- what is executed -----------------------------------------------------------------------------


def roles(artifact: Artifact) -> Counter:
    return Counter(
        (op.role, op.dtype, op.scales) for op in operations(artifact) if op.role != "other"
    )


def test_quantized_operators_are_executed_as_one(build):
    assert roles(build("static-int8")) == {
        ("input", "float32", "none"): 1,
        ("quantize", "float32", "static"): 1,
        ("multiply", "uint8", "static"): 3,
        ("dequantize", "uint8", "static"): 1,
    }


def test_scales_found_at_run_time_are_executed_so(build):
    assert roles(build("dynamic-int8")) == {
        ("input", "float32", "none"): 1,
        ("quantize", "float32", "dynamic"): 1,
        # ConvInteger, whose sums are cast; DynamicQuantizeMatMul does all three inside
        ("multiply", "uint8", "dynamic"): 3,
        ("dequantize", "int32", "dynamic"): 1,
    }


@X86
def test_float16_is_cast_to_float32(build):
    found = roles(build("fp16"))

    assert found["multiply", "float32", "none"] == 3
    assert found["cast", "float32", "none"] + found["cast", "float16", "none"] > 0


def test_activation_memory_is_counted_from_the_tensors_that_live_together(build):
    floats = {op.name: op for op in operations(build("fp32"))}
    integers = operations(build("static-int8"))

    # the most lives while the convolution runs: 3*6*6 numbers in, 48*6*6 out (48 channels fill blocks)
    assert activation_bytes(tuple(floats.values())) == 4 * (3 * 36 + 48 * 36)
    assert activation_bytes(integers) == 3 * 36 + 48 * 36
    assert floats["image"].writes == {"image": 4 * 3 * 36}
    (convolution,) = (op for op in integers if op.kind == "QLinearConv")
    assert list(convolution.writes.values()) == [48 * 36]


def test_every_tensor_that_is_read_was_written(build):
    for name in ("fp32", "fp16", "static-int8", "dynamic-int8", "weight-only-int4"):
        written = set()
        for op in operations(build(name)):
            assert written.issuperset(op.reads), (name, op)
            assert not (op.kind in ("Flatten", "Reshape") and op.writes)
            written.update(op.writes)


def test_edges_read_without_onnx_are_those_that_onnx_reads(build):
    path = build("weight-only-int4").path
    graph = onnx.load(path).graph

    found = protobuf_reader.read(path)

    assert found.inputs == ("image",)
    assert found.outputs == ("logits",)
    assert [(e.name, e.kind, list(e.reads), list(e.writes)) for e in found.nodes] == [
        (n.name, n.op_type, list(n.input), list(n.output)) for n in graph.node
    ]
    assert [dict(e.integers) for e in found.nodes if e.kind == "MatMulNBits"] == [
        {a.name: a.i for a in n.attribute} for n in graph.node if n.op_type == "MatMulNBits"
    ]


# --- ResNet-20 ------------------------------------------------------------------------------------

# Multiply-accumulates: output channels * input channels * kernel * output pixels.
RESNET_MACS = (
    16 * 3 * 9 * 32 * 32  # conv1
    + 6 * 16 * 16 * 9 * 32 * 32  # layer1: three blocks of two convolutions
    + 32 * 16 * 9 * 16 * 16 + 5 * 32 * 32 * 9 * 16 * 16  # layer2, of half the width and height
    + 64 * 32 * 9 * 8 * 8 + 5 * 64 * 64 * 9 * 8 * 8  # layer3
    + 64 * 10  # linear
)  # fmt: skip
RESNET_WEIGHTS = (
    16 * 3 * 9 + 6 * 16 * 16 * 9 + 32 * 16 * 9 + 5 * 32 * 32 * 9 + 64 * 32 * 9 + 5 * 64 * 64 * 9
    + 64 * 10
)  # fmt: skip
RESNET_CHANNELS = 16 + 6 * 16 + 6 * 32 + 6 * 64 + 10


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    if not (os.environ.get("QUANTBENCH_DATA") or os.environ.get("CI")):
        pytest.skip("no CIFAR-10; see docs/data.md")
    from quantbench_experiments.models.resnet import RESNET20, preprocess
    from quantbench_experiments.tasks.cifar10 import load

    folder = tmp_path_factory.mktemp("resnet")
    path = from_torch.convert(RESNET20, folder)
    model = dataclasses.replace(RESNET20, forms={**RESNET20.forms, "onnx": str(path)})
    images = {n: a[:64] for n, a in load("calibration").inputs.items()}
    data = Data(Samples(preprocess(images), np.zeros(64)), None, 0)

    def built(**axes) -> tuple[Record, tuple[Operation, ...]]:
        made = folder / "-".join(["built", *map(str, axes.values())])
        artifact = OnnxQuantizer().quantize(model, method("static-int8", **axes), data, made)
        layers = OnnxQuantizer().layers(model)
        inputs = {"image": data.calibration.inputs["image"][:1]}
        return OnnxQuantizer().inspect(artifact, layers), OnnxRuntime().operations(
            artifact, CPU, inputs
        )

    return built


@pytest.mark.data
def test_resnet_20_equals_the_count_made_by_hand(resnet):
    assert (RESNET_MACS, RESNET_WEIGHTS, RESNET_CHANNELS) == (40_551_040, 268_336, 698)

    record, ran = resnet()

    # 19 convolutions and a linear layer, their weights and biases
    kinds = Counter(t.role for t in record.tensors if t.role in ("weight", "bias"))
    assert kinds == {"weight": 1 + 18 + 1, "bias": 20}
    assert len({t.layer for t in record.tensors if t.role == "weight"}) == 20
    assert sum(t.elements for t in record.tensors if t.role == "weight") == RESNET_WEIGHTS
    assert sum(t.elements for t in record.tensors if t.role == "bias") == RESNET_CHANNELS
    # int8: weights, and a zero point per channel; int32: biases, and a zero point for each number
    assert record.weight_bytes["int8"] == RESNET_WEIGHTS + RESNET_CHANNELS
    assert record.weight_bytes["int32"] == 4 * 2 * RESNET_CHANNELS
    # Quantized: the image, 19 convolutions, 9 sums, the mean, its flattened view, the logits; in each
    # of 2 shortcuts two slices and a padded tensor. ReLUs are removed, for uint8 cannot be negative.
    pairs = 1 + 19 + 9 + 1 + 1 + 1 + 2 * 3
    assert record.operators == {
        "Conv": 19, "Gemm": 1, "Add": 9, "GlobalAveragePool": 1, "Flatten": 1, "Slice": 4, "Pad": 2,
        "QuantizeLinear": pairs, "DequantizeLinear": pairs + 2 * 20,
    }  # fmt: skip
    assert sum(n.macs for n in record.nodes) == RESNET_MACS
    assert serialized(record) == Coverage(nodes=1, weights=1, macs=1)
    # executed: a node for each of the above, but QuantizeLinear and DequantizeLinear at both ends
    # and around the padding of each shortcut only, and two Transposes to and from NHWC
    kinds = Counter(op.kind for op in ran)
    assert kinds == {
        "input": 1, "QLinearConv": 19, "QGemm": 1, "QLinearAdd": 9, "QLinearGlobalAveragePool": 1,
        "Flatten": 1, "Slice": 4, "Pad": 2, "QuantizeLinear": 1 + 2, "DequantizeLinear": 1 + 2,
        "Transpose": 2,
    }  # fmt: skip
    assert sum(op.macs for op in ran) == RESNET_MACS
    assert executed(ran) == Coverage(nodes=1, weights=None, macs=1)


@X86
@pytest.mark.data
def test_resnet_20_with_int8_activations_tells_which_convolutions_stay_float(resnet):
    record, ran = resnet(activations="int8")

    # What ten convolutions read or write is also read by the addition of a block: conv1's output by
    # the first block, and in every block the input of its first convolution.
    shared = ["conv1", *(f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in (0, 1, 2))]
    said = [n.layer for n in record.nodes if "read more than once" in n.reason]
    floats = {op.name for op in ran if op.role == "multiply" and op.dtype == "float32"}
    did = [n.layer for n in record.nodes if n.role == "multiply" and n.name in floats]
    assert said == did == shared
    # layer1's other three, layer2's and layer3's, and the linear layer are left
    integers = 3 * 16 * 16 * 9 * 1024 + 3 * 32 * 32 * 9 * 256 + 3 * 64 * 64 * 9 * 64 + 640
    assert executed(ran) == Coverage(0.5, None, pytest.approx(integers / RESNET_MACS))
    assert executed(ran).macs == pytest.approx(0.5236, abs=1e-4)
    assert serialized(record).macs == 1

    record, ran = resnet(activations="int8", route="qoperator")
    assert executed(ran).macs == serialized(record).macs == 1
    assert not any(node.reason for node in record.nodes)


@pytest.mark.long
@pytest.mark.data
@pytest.mark.parametrize("calibrator", ["moving-average", "percentile", "entropy"])
def test_native_calibrators_differ_on_resnet_20(resnet, calibrator):
    usual, found = (
        {t.name: t.scale for t in resnet(calibrator=name)[0].tensors if t.levels and not t.bytes}
        for name in ("minmax", calibrator)
    )

    assert len(usual) == len(found) == 38
    assert sum(found[name] != scale for name, scale in usual.items()) > 19
