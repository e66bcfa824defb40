"""What the record says of PyTorch's files, and what is executed of them, against counts made by hand."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from quantbench.backend_api import (
    Artifact,
    Record,
    TensorRecord,
    activation_bytes,
    executed,
    serialized,
)
from quantbench.backend_api.registry import model, task
from quantbench.spec import (
    Data,
    Model,
    Samples,
    TensorSpec,
    preset,
)
from quantbench.system import locate
from tests.backends.samples import SAMPLES
from tests.backends.test_pytorch_specifics import (
    BACKEND,
    CONVOLUTIONAL,
    CPU,
    FIRST,
    HEAD,
    LINEAR,
    QUANTIZER,
    RECURRENT_MODEL,
    RUNTIME,
    SECOND,
    a_method,
    build,
    inputs_of,
    seeded,
)


def record_of(model: Model, folder: Path, name: str, **axes: Any) -> Record:
    """The record of an artifact, with the model's own layers."""
    artifact = build(model, a_method(name, **axes), folder)
    return QUANTIZER.inspect(artifact, QUANTIZER.layers(model))


def weights_of(record: Record) -> dict[str, TensorRecord]:
    """The weights by layer."""
    return {t.layer: t for t in record.tensors if t.role == "weight"}


def operations_of(model: Model, folder: Path, name: str, **axes: Any):
    artifact = build(model, a_method(name, **axes), folder)
    return RUNTIME.operations(artifact, CPU, inputs_of(model, 1))


# --- a file of static int8 -----------------------------------------------------------------------


def test_a_static_file_says_the_role_and_layer_of_every_node(tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path, "static-int8")

    assert [(n.kind, n.role, n.dtype, n.scales, n.layer) for n in record.nodes] == [
        ("aten::quantize_per_tensor", "quantize", "uint8", "static", ""),
        ("quantized::conv2d_relu", "multiply", "uint8", "static", "first"),
        ("quantized::conv2d_relu", "multiply", "uint8", "static", "second"),
        ("aten::mean", "other", "uint8", "static", ""),
        ("quantized::linear", "multiply", "uint8", "static", "head"),
        ("aten::dequantize", "dequantize", "float32", "static", ""),
    ]
    multiplying = [n for n in record.nodes if n.role == "multiply"]
    assert [n.fused for n in multiplying] == [("Relu",), ("Relu",), ()]
    assert [n.weights for n in multiplying] == [4 * 27, 6 * 18, 5 * 6]
    assert {n.weight_dtype for n in multiplying} == {"int8"}
    assert {n.macs for n in multiplying} == {None}  # TorchScript says no shapes


def test_weights_have_256_levels_and_activations_128(tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path, "static-int8")

    for weight in weights_of(record).values():
        assert (weight.dtype, weight.levels, weight.signed) == ("int8", 256, True)
        assert (weight.symmetric, weight.granularity, weight.axis) == (True, "per-channel", 0)
        assert len(weight.scale) == weight.shape[0]
    activations = [t for t in record.tensors if t.role == "activation"]
    assert [(t.dtype, t.levels, t.bits, t.signed) for t in activations] == [
        ("uint8", 128, 7, False)
    ] * 5
    assert activations[0].symmetric is False
    assert {t.dtype for t in record.tensors if t.role == "bias"} == {"float32"}


def test_the_largest_weight_of_a_channel_is_within_half_a_step_of_the_record_s_range(tmp_path):
    weight = weights_of(record_of(CONVOLUTIONAL, tmp_path, "static-int8"))["head"]
    trained = locate(CONVOLUTIONAL.state)(Path())["head.weight"]

    # absmax / 127.5 a step
    # the same division in float32 and float64: 1.2e-7 and a little
    np.testing.assert_allclose(weight.scale, np.abs(trained).max(1) / 127.5, rtol=1e-6)
    assert weight.high == pytest.approx(np.abs(trained).max(), abs=max(weight.scale))


def test_bytes_of_a_static_file_are_those_of_its_tensors(tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path, "static-int8")

    assert record.weight_bytes == {
        "int8": 4 * 27 + 6 * 18 + 5 * 6,
        "float64": 8 * (4 + 6 + 5),  # scales of channels
        "int64": 8 * (4 + 6 + 5) + 8,  # their zero points, and the input's
        "float32": 4 * (4 + 6 + 5) + 4,  # biases, and the input's scale
    }


@pytest.mark.parametrize(
    ("axes", "levels", "granularity", "symmetric"),
    [
        ({"granularity": "per-tensor"}, 256, "per-tensor", True),
        ({"weights": "int4"}, 15, "per-channel", True),
        ({"granularity": "per-tensor", "symmetric_weights": False}, 256, "per-tensor", False),
    ],
)
def test_weights_are_recorded_as_the_method_asks(axes, levels, granularity, symmetric, tmp_path):
    head = weights_of(record_of(CONVOLUTIONAL, tmp_path, "static-int8", **axes))["head"]

    assert (head.levels, head.granularity, head.symmetric) == (levels, granularity, symmetric)


def test_a_layer_kept_in_float_is_float_in_the_record(tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path, "static-int8", keep_float=["first"])

    kept = next(n for n in record.nodes if n.layer == "first")
    assert (kept.kind, kept.dtype, kept.weight_dtype) == (
        "aten::_convolution",
        "float32",
        "float32",
    )
    assert weights_of(record)["first"].dtype == "float32"
    coverage = serialized(record)
    assert coverage.nodes == 2 / 3
    assert coverage.weights == (6 * 18 + 30) / (4 * 27 + 6 * 18 + 30)


def test_the_record_survives_json(tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path, "static-int8")

    assert Record.from_json(record.to_json()) == record


# --- other files ---------------------------------------------------------------------------------


def test_dynamic_convolutions_are_float_and_the_record_says_why(tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path, "dynamic-int8")

    found = {n.layer: n for n in record.nodes if n.role == "multiply"}
    assert found["first"].dtype == "float32"
    assert found["first"].reason == "PyTorch has no dynamic int8 convolution"
    assert (found["head"].dtype, found["head"].scales) == ("uint8", "dynamic")
    assert not [t for t in record.tensors if t.role == "activation" and t.levels]


def test_recurrent_layers_are_one_node_each_with_all_their_weights(tmp_path):
    record = record_of(RECURRENT_MODEL, tmp_path, "dynamic-int8")

    found = {n.layer: (n.weights, n.weight_dtype) for n in record.nodes if n.role == "multiply"}
    # gates x (inputs + hidden), two directions
    lstm, gru = 2 * 28 * (5 + 7), 9 * (14 + 3)
    assert found == {"lstm": (lstm, "int8"), "gru": (gru, "int8"), "head": (6, "int8")}
    biases = [t for t in record.tensors if t.role == "bias"]
    assert sum(t.elements for t in biases) == 2 * 2 * 28 + 2 * 9 + 2


def test_an_exported_program_says_shapes_and_multiplies_integers(tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path, "static-int8", route="pt2e")

    found = {n.layer: n for n in record.nodes if n.role == "multiply"}
    assert {layer: n.macs for layer, n in found.items()} == {
        "first": FIRST, "second": SECOND, "head": HEAD,
    }  # fmt: skip
    assert {n.dtype for n in found.values()} == {"uint8"}
    assert serialized(record).macs == 1.0
    grids = {(t.qmin, t.qmax) for t in record.tensors if t.role == "activation" and t.levels}
    assert grids == {(0, 255)}  # VNNI's sums do not saturate: all 8 bits
    assert {t.levels for t in weights_of(record).values()} == {256}
    assert record.tensors[-1].shape == (-1, 5)


def test_groups_of_four_bits_have_a_scale_each(tmp_path):
    record = record_of(LINEAR, tmp_path, "weight-only-int4")

    weight = weights_of(record)["head"]
    assert (weight.dtype, weight.shape, weight.bytes) == ("int4", (320, 64), 320 * 64 // 2)
    assert (weight.levels, weight.granularity, weight.group_size) == (16, "group", 32)
    assert len(weight.scale) == len(weight.zero_point) == 320 * 64 // 32
    assert weight.symmetric is False
    trained = locate(LINEAR.state)(Path())["head.weight"].reshape(-1, 32)
    # the scale is stored as bfloat16: 8 bits, 0.4 %
    np.testing.assert_allclose(weight.scale, np.ptp(trained, 1) / 15, rtol=0.01)
    (node,) = (n for n in record.nodes if n.role == "multiply")
    assert (node.dtype, node.macs, node.scales) == ("float32", 320 * 64, "none")


@pytest.mark.parametrize(
    ("name", "axes", "dtype", "levels", "group"),
    [
        ("weight-only-int8", {}, "int8", 256, 0),
        ("weight-only-int8", {"granularity": "group", "group_size": 32}, "int8", 256, 32),
        ("weight-only-int8", {"route": "bitsandbytes"}, "int8", 255, 0),
        ("weight-only-int4", {"route": "bitsandbytes"}, "nf4", 16, 64),
    ],
)
def test_weight_only_files_say_their_levels_and_groups(name, axes, dtype, levels, group, tmp_path):
    if axes.get("route") == "bitsandbytes":
        pytest.importorskip("bitsandbytes")
    weight = weights_of(record_of(LINEAR, tmp_path, name, **axes))["head"]

    assert (weight.dtype, weight.levels, weight.group_size) == (dtype, levels, group)
    assert (weight.shape, weight.symmetric) == ((320, 64), True)
    if levels != 16:
        trained = locate(LINEAR.state)(Path())["head.weight"].reshape(-1, group or 64)
        half = {256: 127.5, 255: 127}[levels]
        # bitsandbytes finds magnitudes in half precision
        # torchao takes the range in another float type before it divides
        np.testing.assert_allclose(weight.scale, np.abs(trained).max(1) / half, rtol=1e-3)


def test_dynamic_torchao_quantizes_rows_when_it_runs(tmp_path):
    record = record_of(LINEAR, tmp_path, "dynamic-int8", route="torchao")

    (node,) = (n for n in record.nodes if n.role == "multiply")
    assert (node.dtype, node.scales, node.macs) == ("uint8", "dynamic", 320 * 64)
    assert "quantize" in {n.role for n in record.nodes}
    assert weights_of(record)["head"].granularity == "per-channel"


@pytest.mark.parametrize(("name", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_half_precision_is_in_the_file_and_in_the_multiplications(name, dtype, tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path / "traced", name, route="traced")
    operations = operations_of(CONVOLUTIONAL, tmp_path / "eager", name)

    assert {n.dtype for n in record.nodes if n.role == "multiply"} == {dtype}
    assert {t.dtype for t in weights_of(record).values()} == {dtype}
    assert {op.dtype for op in operations if op.macs} == {dtype}


def test_a_file_of_weights_has_no_nodes(tmp_path):
    record = record_of(CONVOLUTIONAL, tmp_path, "fp32")

    assert record.nodes == ()
    assert sorted(weights_of(record)) == ["first", "head", "second"]
    # a batch norm's vectors are no biases
    assert {t.layer for t in record.tensors if t.role == "bias"} == {"second", "head"}


class Transposed(torch.nn.Module):
    """4x6x6 -> transposed convolution 2x2 with stride 2 to 6 channels -> sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.ConvTranspose2d(4, 6, 2, stride=2)

    def forward(self, image):
        return torch.sigmoid(self.up(image))


def transposed() -> torch.nn.Module:
    return Transposed()


def transposed_state(path: Path) -> dict[str, np.ndarray]:
    return seeded(f"{__name__}:transposed")


TRANSPOSED = dataclasses.replace(
    CONVOLUTIONAL,
    inputs=(TensorSpec("image", (None, 4, 6, 6), "float32", "NCHW"),),
    outputs=(TensorSpec("map", (None, 6, 12, 12), "float32", "NCHW"),),
    state=f"{__name__}:transposed_state",
    forms={"torch": f"{__name__}:transposed"},
)


@pytest.mark.parametrize("only", [[], ["up"]])
def test_transposed_convolutions_have_one_scale_and_a_sigmoid_its_own_grid(only, tmp_path):
    record = record_of(TRANSPOSED, tmp_path, "static-int8", only=only)

    weight = weights_of(record)["up"]
    assert (weight.dtype, weight.granularity) == ("int8", "per-tensor")
    levels = [t.levels for t in record.tensors if t.role == "activation" and t.levels]
    # all of a byte for the sigmoid, whose scale torch.ao fixes at 1 / 256
    assert levels == ([128, 128] if only else [128, 128, 256])


def test_a_transposed_convolution_multiplies_each_pixel_of_its_input(tmp_path):
    record = record_of(TRANSPOSED, tmp_path, "static-int8", route="pt2e")

    (node,) = (n for n in record.nodes if n.role == "multiply")
    assert node.macs == (4 * 6 * 6) * (6 * 2 * 2)
    assert node.dtype == "float32"  # X86InductorQuantizer takes none


# --- what is executed ----------------------------------------------------------------------------


def test_executed_operations_say_role_dtype_and_scales(tmp_path):
    operations = operations_of(CONVOLUTIONAL, tmp_path, "static-int8")

    assert [(op.kind, op.role, op.dtype, op.scales) for op in operations] == [
        ("input", "input", "float32", "none"),
        ("aten::quantize_per_tensor", "quantize", "uint8", "static"),
        ("quantized::conv2d_relu", "multiply", "uint8", "static"),
        ("quantized::conv2d_relu", "multiply", "uint8", "static"),
        ("aten::mean", "other", "uint8", "static"),
        ("quantized::linear", "multiply", "uint8", "static"),
        ("aten::dequantize", "dequantize", "float32", "static"),
    ]
    assert executed(operations).macs == 1.0


def test_activation_memory_of_int8_is_a_quarter_of_float_s(tmp_path):
    residual = SAMPLES["residual"].model

    whole = {
        name: activation_bytes(operations_of(residual, tmp_path / name, name))
        for name in ("fp32", "static-int8")
    }

    tensor = 48 * 12 * 10
    # what the body starts from is alive to the end; each step has what it reads and what it writes
    assert whole["fp32"] == 3 * 4 * tensor
    # integers are added with ReLU at once; then the output is dequantized: 1 byte read, 4 written
    assert whole["static-int8"] == (1 + 4) * tensor


def test_views_share_the_memory_of_their_tensor(tmp_path):
    operations = operations_of(RECURRENT_MODEL, tmp_path, "dynamic-int8")

    written = {name for op in operations for name in op.writes}
    assert {name for op in operations for name in op.reads} <= written
    by_kind = {op.kind: op for op in operations}
    # the last step of the GRU's outputs is a view of them
    assert by_kind["aten::select"].writes == {}
    gru = next(iter(by_kind["aten::quantized_gru"].writes))
    assert by_kind["quantized::linear_dynamic"].reads == (gru,)


def test_dequantized_weights_are_memory_that_a_run_needs(tmp_path):
    operations = operations_of(LINEAR, tmp_path, "weight-only-int8")

    # inputs, weights as float32, outputs
    assert activation_bytes(operations) == 4 * (64 + 320 * 64 + 320)
    assert [op.dtype for op in operations if op.macs] == ["float32"]
    assert "dequantize" in {op.role for op in operations}


# --- ResNet-20 -----------------------------------------------------------------------------------

# 3x3 convolutions of 16, 32 and 64 channels over images of 32, 16 and 8 pixels a side
CONV1 = 16 * 3 * 9 * 32 * 32
STAGE1 = 6 * (16 * 16 * 9 * 32 * 32)
STAGE2 = 32 * 16 * 9 * 16 * 16 + 5 * (32 * 32 * 9 * 16 * 16)
STAGE3 = 64 * 32 * 9 * 8 * 8 + 5 * (64 * 64 * 9 * 8 * 8)
MACS = CONV1 + STAGE1 + STAGE2 + STAGE3 + 64 * 10
WEIGHTS = (
    16 * 3 * 9 + 6 * 16 * 16 * 9 + 32 * 16 * 9 + 5 * 32 * 32 * 9 + 64 * 32 * 9 + 5 * 64 * 64 * 9
    + 640
)  # fmt: skip
CHANNELS = 16 + 6 * 16 + 6 * 32 + 6 * 64 + 10


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Samples:
    """The first 64 calibration images as ResNet-20 takes them."""
    from quantbench_experiments.data import data_folder

    folder = data_folder()
    if not any((folder / "cifar10").glob("*.parquet")):
        pytest.skip(f"no CIFAR-10 in {folder}; see docs/data.md")
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    resnet = model("resnet20")
    loaded = locate(task(resnet.task).load)("calibration").take(np.arange(64))
    return Samples(locate(resnet.preprocess)(loaded.inputs), loaded.labels)


def resnet20(images: Samples, folder: Path, **axes: Any) -> Artifact:
    folder.mkdir(parents=True)
    method = preset("static-int8", BACKEND.axes("static-int8", {"samples": 64, **axes}))
    return QUANTIZER.quantize(model("resnet20"), method, Data(images, None, 0), folder)


@pytest.mark.data
def test_resnet20_s_record_agrees_with_a_count_by_hand(images, tmp_path):
    artifact = resnet20(images, tmp_path / "built")

    record = QUANTIZER.inspect(artifact, QUANTIZER.layers(model("resnet20")))

    assert record.operators == {
        # conv1 and the first convolution of 9 blocks end in ReLU, the second is added first
        "quantized::conv2d_relu": 1 + 9,
        "quantized::conv2d": 9,
        "quantized::add_relu": 9,
        # the two shortcuts that change the shape are float: every second row and column of two
        # axes out of four (4 slices each), zero channels, quantized again
        "aten::slice": 2 * 4,
        "aten::pad": 2,
        "aten::dequantize": 2 + 1,  # and the output
        "aten::quantize_per_tensor": 2 + 1,  # and the input
        "aten::adaptive_avg_pool2d": 1,
        "aten::flatten": 1,
        "quantized::linear": 1,
    }
    roles = Counter(t.role for t in record.tensors)
    nodes = 10 + 9 + 9 + 8 + 2 + 3 + 3 + 1 + 1 + 1
    assert roles == {
        "weight": 1 + 18 + 1,
        "bias": 1 + 18 + 1,  # of batch norm, folded
        # a vector of scales and one of zero points per layer; the same of 3 quantizations, 9 sums
        "constant": 2 * 20 + 2 * (3 + 9),
        "activation": nodes - 1,
        "input": 1,
        "output": 1,
    }
    assert record.weight_bytes == {
        "int8": WEIGHTS, "float64": 8 * CHANNELS, "int64": 8 * (CHANNELS + 3 + 9),
        "float32": 4 * (CHANNELS + 3 + 9),
    }  # fmt: skip
    assert {n.layer for n in record.nodes if n.role == "multiply"} == set(
        QUANTIZER.layers(model("resnet20"))
    )
    coverage = serialized(record)
    assert (coverage.nodes, coverage.weights) == (1.0, 1.0)


@pytest.mark.data
def test_resnet20_s_executed_operations_agree_with_a_count_by_hand(images, tmp_path):
    artifact = resnet20(images, tmp_path / "built")
    one = {name: array[:1] for name, array in images.inputs.items()}

    operations = RUNTIME.operations(artifact, CPU, one)

    assert sum(op.macs for op in operations) == MACS == 40_551_040
    assert len([op for op in operations if op.macs]) == 20
    assert executed(operations).macs == executed(operations).nodes == 1.0
    assert Counter(op.role for op in operations)["dequantize"] == 3
    # the first shortcut: its input in float (16 x 32 x 32), half as wide with twice the channels,
    # and the integers that wait to be added to it
    assert activation_bytes(operations) == 4 * 16 * 32 * 32 + 4 * 32 * 16 * 16 + 32 * 16 * 16


@pytest.mark.data
def test_resnet20_as_an_exported_program_says_its_multiply_accumulates(images, tmp_path):
    artifact = resnet20(images, tmp_path / "built", route="pt2e")

    record = QUANTIZER.inspect(artifact, QUANTIZER.layers(model("resnet20")))

    assert sum(n.macs or 0 for n in record.nodes) == MACS
    coverage = serialized(record)
    assert (coverage.nodes, coverage.weights, coverage.macs) == (1.0, 1.0, 1.0)
    assert {n.layer for n in record.nodes if n.role == "multiply"} == set(
        QUANTIZER.layers(model("resnet20"))
    )


def test_an_lstm_in_an_exported_program_is_counted_though_it_has_three_outputs(tmp_path):
    from quantbench_experiments.models.probe import MODELS

    (lstm,) = (m for m in MODELS if m.name == "LSTM")
    none = Data(Samples({}, np.zeros(0)), None, 0)
    method = preset("dynamic-int8", BACKEND.axes("dynamic-int8", {"route": "torchao"}))

    artifact = QUANTIZER.quantize(lstm, method, none, tmp_path)
    record = QUANTIZER.inspect(artifact, QUANTIZER.layers(lstm))

    node = next(n for n in record.nodes if n.layer == "lstm")
    # four gates of 64 from 64 inputs and 64 states, at each of eight steps
    assert node.weights == 4 * 64 * (64 + 64)
    assert node.macs == 8 * node.weights
    assert not node.integer


def halved() -> torch.nn.Module:
    class Halved(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.linear(x) * -0.5)

    return Halved()


def halved_state(path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "linear.weight": rng.normal(size=(64, 64)).astype(np.float32),
        "linear.bias": np.zeros(64, np.float32),
    }


def test_a_quantized_tensor_times_a_number_has_its_scales_times_that_number(tmp_path):
    scaled = dataclasses.replace(
        LINEAR, forms={"torch": f"{__name__}:halved"}, state=f"{__name__}:halved_state"
    )

    record = record_of(scaled, tmp_path, "static-int8")

    assert "quantized::mul" in [n.kind for n in record.nodes]
    _, linear, times, _ = [t for t in record.tensors if t.role == "activation" and t.scale]
    assert times.scale == pytest.approx([0.5 * linear.scale[0]])
    assert times.zero_point == (linear.qmin + linear.qmax - linear.zero_point[0],)


# --- a sparse adjacency --------------------------------------------------------------------------

NODES, EDGES, HIDDEN = 40, 160, 64


class Graph(torch.nn.Module):
    """A linear layer, and a product with a sparse matrix of edges."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(32, HIDDEN)
        self.register_buffer("edges", torch.randint(0, NODES, (2, EDGES)))
        self.register_buffer("strength", torch.rand(EDGES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        graph = torch.sparse_coo_tensor(self.edges, self.strength, (NODES, NODES))
        return torch.sparse.mm(graph, self.linear(features[0])).unsqueeze(0)


def graph() -> torch.nn.Module:
    return Graph()


def graph_state(path: Path) -> dict[str, np.ndarray]:
    return seeded(f"{__name__}:graph")


GRAPH = dataclasses.replace(
    LINEAR,
    inputs=(TensorSpec("features", (1, NODES, 32), "float32"),),
    outputs=(TensorSpec("out", (1, NODES, HIDDEN), "float32"),),
    state=f"{__name__}:graph_state",
    forms={"torch": f"{__name__}:graph"},
)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("name", ["fp32", "dynamic-int8"])
def test_a_sparse_matrix_multiplies_where_it_has_values_and_in_float(name, tmp_path):
    operations = operations_of(GRAPH, tmp_path, name)

    linear, sparse = (op for op in operations if op.role == "multiply")
    assert (linear.macs, sparse.macs) == (NODES * 32 * HIDDEN, EDGES * HIDDEN)
    assert linear.dtype == ("float32" if name == "fp32" else "uint8")
    assert sparse.dtype == "float32"
    assert sum(sparse.writes.values()) == 4 * NODES * HIDDEN


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_a_file_with_a_sparse_product_is_read_and_does_not_guess_its_multiplications(tmp_path):
    record = record_of(GRAPH, tmp_path, "weight-only-int8")

    unknown = [node.kind for node in record.nodes if node.role == "multiply" and node.macs is None]
    assert unknown == ["torch.ops.aten._sparse_mm.default"]
