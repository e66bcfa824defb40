"""What is specific to ONNX Runtime, counted by hand on models of a few weights."""

import dataclasses
import functools
import json
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from quantbench.backend_api import Artifact, integer_macs_fraction
from quantbench.errors import BadArtifact, BadInput, TargetNotApplied
from quantbench.spec import Data, Method, Model, Samples, Target, TensorSpec, preset
from quantbench.system import locate, no_gpu
from quantbench_backends import onnx_files
from quantbench_backends.onnx_files import layers
from quantbench_backends.onnxruntime import (
    BACKEND,
    FROM_TORCH,
    executed_operations,
    from_torch,
    session,
)
from quantbench_backends.onnxruntime.methods import METHODS
from quantbench_backends.onnxruntime.quantizer import OnnxQuantizer
from quantbench_backends.onnxruntime.runtime import OnnxRuntime

CPU = Target("cpu")
PLAIN = Target("plain", optimize=False)

# --- a convolution of 3 to 5 channels, one of 5 to 20, a linear layer: no channel fills a block ---

CONV1 = 5 * 3 * 3 * 3
CONV2 = 20 * 5 * 3 * 3
LINEAR = 20 * 4
MACS = 6 * 6 * CONV1 + 3 * 3 * CONV2 + LINEAR


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Sequential(nn.Conv2d(5, 20, 3, padding=1, stride=2), nn.ReLU()),
        )
        self.linear = nn.Linear(20, 4)

    def forward(self, image):
        return self.linear(self.body(image).mean((2, 3)))


def small():
    torch.manual_seed(0)
    return Small().eval()


def small_state(path):
    return {name: tensor.numpy() for name, tensor in small().state_dict().items()}


def spoiled_state(path):
    return {**small_state(path), "linear.weight": np.full((4, 20), np.nan, np.float32)}


def missing_state(path):
    return {name: a for name, a in small_state(path).items() if name != "linear.bias"}


def no_path():
    return Path()


SMALL = Model(
    name="small",
    task="none",
    inputs=(TensorSpec("image", (None, 3, 6, 6), "float32", "NCHW"),),
    outputs=(TensorSpec("logits", (None, 4), "float32"),),
    weights=f"{__name__}:no_path",
    state=f"{__name__}:small_state",
    forms={"torch": f"{__name__}:small"},
)
IMAGES = np.random.default_rng(0).normal(size=(40, 3, 6, 6)).astype(np.float32)
SAMPLES = Data(Samples({"image": IMAGES}, np.zeros(40)), None, 0)


# --- three convolutions of one size; what is between the first two is also added to the second ----


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.third = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image):
        x = torch.relu(self.first(image))
        return self.third(torch.relu(self.second(x) + x))


def residual():
    torch.manual_seed(0)
    return Residual().eval()


def residual_state(path):
    return {name: tensor.numpy() for name, tensor in residual().state_dict().items()}


RESIDUAL = dataclasses.replace(
    SMALL,
    name="residual",
    outputs=(TensorSpec("map", (None, 3, 6, 6), "float32", "NCHW"),),
    state=f"{__name__}:residual_state",
    forms={"torch": f"{__name__}:residual"},
)


# --- an image and tokens in, two outputs, recurrent layers, a free length -------------------------


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 12)
        self.lstm = nn.LSTM(12, 7, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(14, 6, batch_first=True)
        self.tags = nn.Linear(6, 9)
        self.up = nn.ConvTranspose2d(3, 5, 2, stride=2)

    def forward(self, tokens, image):
        hidden = self.gru(self.lstm(self.embedding(tokens))[0])[0]
        return self.up(image), self.tags(hidden)


def mixed():
    torch.manual_seed(0)
    return Mixed().eval()


def mixed_state(path):
    return {name: tensor.numpy() for name, tensor in mixed().state_dict().items()}


MIXED = Model(
    name="mixed",
    task="none",
    inputs=(
        TensorSpec("tokens", (None, None), "int64"),
        TensorSpec("image", (None, 3, 6, 6), "float32", "NCHW"),
    ),
    outputs=(
        TensorSpec("larger", (None, 5, 12, 12), "float32", "NCHW"),
        TensorSpec("tags", (None, None, 9), "float32"),
    ),
    weights=f"{__name__}:no_path",
    state=f"{__name__}:mixed_state",
    forms={"torch": f"{__name__}:mixed"},
)


def mixed_inputs(batch, length):
    tokens = np.random.default_rng(1).integers(0, 11, (batch, length))
    return {"tokens": tokens, "image": IMAGES[:batch]}


def method(name: str, **axes) -> Method:
    return preset(name, {**BACKEND.methods.get(name, {}), **axes})


@pytest.fixture(scope="module")
def with_onnx(tmp_path_factory):
    @functools.cache
    def exported(which: str) -> Model:
        model = {"small": SMALL, "mixed": MIXED}[which]
        path = from_torch.convert(model, tmp_path_factory.mktemp(which))
        return dataclasses.replace(model, forms={**model.forms, "onnx": str(path)})

    return exported


@pytest.fixture
def build(with_onnx, tmp_path):
    def built(name: str, which: str = "small", data: Data = SAMPLES, **axes) -> Artifact:
        folder = tmp_path / f"{which}-{len(list(tmp_path.iterdir()))}"
        return OnnxQuantizer().quantize(with_onnx(which), method(name, **axes), data, folder)

    return built


def run(artifact: Artifact, inputs, target: Target = CPU):
    loaded = OnnxRuntime().load(artifact, target, len(next(iter(inputs.values()))))
    loaded.bind(inputs)
    loaded.run()
    return loaded.read()


def one() -> dict:
    return {"image": IMAGES[:1]}


def constants(artifact: Artifact) -> dict:
    graph = onnx.load(artifact.path).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


# --- what the files hold --------------------------------------------------------------------------


def test_weight_bytes_of_fp32_and_fp16_are_those_of_the_folded_model(build):
    values = CONV1 + 5 + CONV2 + 20 + LINEAR + 4

    fp32 = OnnxQuantizer().inspect(build("fp32"))
    fp16 = OnnxQuantizer().inspect(build("fp16"))

    assert fp32.weight_bytes["float32"] == 4 * values
    assert fp16.weight_bytes["float16"] == 2 * values
    assert "float32" not in fp16.weight_bytes
    assert fp32.operators["Conv"] == 2


def test_weight_bytes_of_static_int8_are_weights_zero_points_and_biases(build):
    record = OnnxQuantizer().inspect(build("static-int8", activations="uint8"))

    channels = 5 + 20 + 4
    assert record.weight_bytes["int8"] == CONV1 + CONV2 + LINEAR + channels
    assert record.weight_bytes["int32"] == 4 * 2 * channels
    assert record.operators["Conv"] == 2


@pytest.mark.parametrize(
    ("name", "granularity", "shapes"),
    [
        ("static-int8", "per-channel", [(5,), (20,), (4,)]),
        ("static-int8", "per-tensor", [(), (), ()]),
        ("dynamic-int8", "per-tensor", [(), (), ()]),
        # ConvInteger has no scale per channel, and the quantizer does not say so
        ("dynamic-int8", "per-channel", [(), (), (4,)]),
    ],
)
def test_weights_have_the_scales_that_their_operator_can_take(build, name, granularity, shapes):
    found = constants(build(name, granularity=granularity))

    weights = [n for n, a in found.items() if n.endswith("_quantized") and a.ndim > 1]
    scales = [found[n.removesuffix("_quantized") + "_scale"].shape for n in weights]

    assert sorted(scales) == sorted(shapes)


def test_scales_per_channel_that_no_operator_can_take_are_bad_input(tmp_path):
    path = from_torch.convert(RESIDUAL, tmp_path)
    model = dataclasses.replace(RESIDUAL, forms={**RESIDUAL.forms, "onnx": str(path)})

    with pytest.raises(BadInput, match="no linear or LSTM layer; use granularity: per-tensor"):
        OnnxQuantizer().quantize(
            model, method("dynamic-int8", granularity="per-channel"), SAMPLES, tmp_path / "built"
        )


def test_symmetric_uint8_activations_have_their_zero_point_in_the_middle(build):
    found = constants(build("static-int8", activations="uint8", symmetric_activations=True))

    points = {int(a) for n, a in found.items() if n.endswith("_zero_point") and a.dtype == "uint8"}

    assert points == {128}


@pytest.mark.parametrize("name", ["fp32", "fp16", "dynamic-int8", "static-int8"])
def test_the_same_build_twice_gives_the_same_bytes(build, name):
    assert build(name).digest == build(name).digest


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, tokens):
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


def test_torch_s_own_attention_is_converted_for_every_batch_size(tmp_path):
    torch.manual_seed(0)
    module = Attention().eval()
    spec = TensorSpec("tokens", (None, 5, 12), "float32")
    model = dataclasses.replace(
        SMALL, inputs=(spec,), outputs=(dataclasses.replace(spec, name="out"),)
    )
    x = torch.randn(3, 5, 12)

    path = from_torch.export(module, model, tmp_path / "model.onnx")

    session = onnxruntime.InferenceSession(path)
    for size in (1, 2, 3):
        (out,) = session.run(None, {"tokens": x[:size].numpy()})
        # two frameworks add float32 in another order; a wrong layer is off by its whole output
        np.testing.assert_allclose(out, module(x[:size]).detach(), atol=1e-5)


def test_the_converter_gives_the_same_bytes_and_the_task_s_names(tmp_path):
    (tmp_path / "again").mkdir()

    first = from_torch.convert(MIXED, tmp_path)
    second = locate(FROM_TORCH.convert)(MIXED, tmp_path / "again")

    graph = onnx.load(first).graph
    assert first.read_bytes() == second.read_bytes()
    assert [value.name for value in graph.input] == ["tokens", "image"]
    assert [value.name for value in graph.output] == ["larger", "tags"]


# --- what is executed -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", [CPU, PLAIN], ids=["optimized", "plain"])
@pytest.mark.parametrize(
    ("name", "fraction"),
    [("fp32", (0, 0)), ("fp16", (0, 0)), ("dynamic-int8", (1, 1)), ("static-int8", (1, 0))],
)
def test_multiplications_equal_the_hand_count_whatever_the_layout(build, name, fraction, target):
    axes = {"activations": "uint8"} if name == "static-int8" else {}
    operations = OnnxRuntime().operations(build(name, **axes), target, one())

    assert sum(operation.macs for operation in operations) == MACS
    assert integer_macs_fraction(operations) == fraction[target is PLAIN]


def test_filled_up_channels_are_not_counted(build):
    artifact = build("fp32")

    found = executed_operations.profiled(artifact, CPU, one()).nodes

    if not any(map(executed_operations.is_blocked, found)):
        pytest.skip("ONNX Runtime uses no blocked layout on this CPU")
    assert sum(map(onnx_files.macs, found)) > MACS
    assert sum(op.macs for op in OnnxRuntime().operations(artifact, CPU, one())) == MACS


@pytest.mark.parametrize("name", ["fp32", "dynamic-int8", "static-int8"])
def test_the_profile_without_packing_shows_the_nodes_that_a_session_executes(
    build, name, tmp_path_factory
):
    artifact = build(name)
    options = session.options(CPU)
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path_factory.mktemp("profile") / "p")
    packed = session.open_file(artifact, CPU, options)
    packed.run(None, one())
    events = json.loads(Path(packed.end_profiling()).read_text(encoding="utf-8"))
    really = Counter(
        (event["name"].removesuffix("_kernel_time"), event["args"]["op_name"])
        for event in events
        if event["cat"] == "Node"
    )

    operations = OnnxRuntime().operations(artifact, CPU, one())

    assert Counter((op.name, op.kind) for op in operations if op.role != "input") == really


@pytest.mark.skipif(platform.machine() != "x86_64", reason="ARM has float16 kernels")
def test_float16_is_executed_in_float32_on_x86(build):
    operations = OnnxRuntime().operations(build("fp16"), CPU, one())

    assert {op.engine for op in operations if op.macs} == {"CPUExecutionProvider"}
    assert {op.dtype for op in operations if op.macs} == {"float32"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="ARM multiplies int8 by int8")
def test_int8_activations_on_x86_leave_convolutions_beside_a_tensor_used_twice_in_float(tmp_path):
    path = from_torch.convert(RESIDUAL, tmp_path)
    model = dataclasses.replace(RESIDUAL, forms={"onnx": str(path)})
    fractions = {}
    for activations in ("uint8", "int8"):
        chosen = method("static-int8", activations=activations)
        artifact = OnnxQuantizer().quantize(model, chosen, SAMPLES, tmp_path / activations)
        fractions[activations] = integer_macs_fraction(
            OnnxRuntime().operations(artifact, CPU, one())
        )

    assert fractions == {"uint8": 1, "int8": pytest.approx(1 / 3)}


def test_recurrent_and_transposed_multiplications_equal_the_hand_count(build):
    length = 10
    lstm = length * 2 * 4 * 7 * (12 + 7)
    gru = length * 3 * 6 * (14 + 6)
    tags = length * 6 * 9
    up = 6 * 6 * 3 * 5 * 2 * 2

    operations = OnnxRuntime().operations(build("fp32", "mixed"), CPU, mixed_inputs(1, length))

    macs = Counter()
    for operation in operations:
        macs[operation.kind] += operation.macs
    assert {kind: count for kind, count in macs.items() if count} == {
        "LSTM": lstm,
        "GRU": gru,
        "MatMul": tags,
        "ConvTranspose": up,
    }


def test_dynamic_lstm_multiplies_integers_and_gru_stays_float(build):
    artifact = build("dynamic-int8", "mixed")
    operations = OnnxRuntime().operations(artifact, CPU, mixed_inputs(1, 10))

    by_kind = {op.kind: op for op in operations if op.macs}

    assert by_kind["DynamicQuantizeLSTM"].integer
    assert by_kind["DynamicQuantizeLSTM"].macs == 10 * 2 * 4 * 7 * (12 + 7)
    assert not by_kind["GRU"].integer


@pytest.mark.parametrize(
    ("name", "floats"),
    [
        ("static-int8", {"lstm": "at run time only", "gru": "of GRU", "up": "no integer Conv"}),
        ("dynamic-int8", {"gru": "of GRU", "up": "at run time"}),
    ],
)
def test_the_record_says_which_layers_no_integers_are_multiplied_in_and_why(build, name, floats):
    artifact = build(name, "mixed", Data(Samples(mixed_inputs(32, 10), np.zeros(32)), None, 0))

    record = OnnxQuantizer().inspect(artifact, OnnxQuantizer().layers(MIXED))

    found = {node.layer: node.reason for node in record.nodes if node.reason}
    assert found.keys() == floats.keys()
    assert all(words in found[layer] for layer, words in floats.items())
    ran = OnnxRuntime().operations(artifact, CPU, mixed_inputs(1, 10))
    integer = [op.kind for op in ran if op.macs and op.integer]
    assert len(integer) == 4 - len(floats)
    (table,) = (t for t in record.tensors if t.layer == "embedding" and t.role == "weight")
    assert (table.dtype, table.levels, table.granularity) == ("uint8", 256, "per-tensor")
    # lengths are free, so that the file alone does not tell how often a recurrent layer multiplies
    macs = {node.layer: node.macs for node in record.nodes if node.role == "multiply"}
    assert macs == {"lstm": None, "gru": None, "tags": None, "up": 6 * 6 * 3 * 5 * 2 * 2}


def attention(kind: str, *inputs: tuple[str, tuple[int, ...]]) -> onnx_files.Node:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    names = [name for name, _ in inputs]
    node = helper.make_node(kind, names, ["out"], kind, domain="com.microsoft", num_heads=2)
    graph = helper.make_graph([node], "attention", values, [out])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    loaded = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    arrays = {name: np.ones(shape, np.float32) for name, shape in inputs}
    (result,) = loaded.run(None, arrays)
    tensors = tuple(onnx_files.Tensor("float32", shape) for _, shape in inputs)
    return onnx_files.Node(kind, kind, "", tensors, (onnx_files.Tensor("float32", result.shape),))


def test_attention_multiplications_are_projections_and_both_products():
    node = attention("Attention", ("x", (1, 5, 8)), ("w", (8, 24)), ("b", (24,)))

    assert onnx_files.macs(node) == 5 * 8 * 24 + 2 * 5 * 5 * 8


def test_multi_head_attention_multiplications_are_both_products():
    node = attention("MultiHeadAttention", ("q", (1, 5, 8)), ("k", (1, 3, 8)), ("v", (1, 3, 6)))

    assert onnx_files.macs(node) == 5 * 3 * 8 + 5 * 3 * 6


# --- layers ---------------------------------------------------------------------------------------


def test_layers_have_torch_s_names():
    assert OnnxQuantizer().layers(SMALL) == ("body.0", "body.3.0", "linear")
    assert OnnxQuantizer().layers(MIXED) == ("embedding", "lstm", "gru", "tags", "up")


def test_layers_of_a_model_that_is_only_a_file_are_its_nodes(with_onnx):
    model = dataclasses.replace(SMALL, forms={"onnx": with_onnx("small").forms["onnx"]})

    assert OnnxQuantizer().layers(model) == (
        "/body/body.0/Conv",
        "/body/body.3/body.3.0/Conv",
        "/linear/Gemm",
    )


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/body/body.3/body.3.0/Conv", "body.3.0"),
        ("/linear/Gemm", "linear"),
        ("/linear/MatMul/MatMulAddFusion", "linear"),
        ("/body/body.2/Relu", None),
        ("/Add", None),
    ],
)
def test_a_node_belongs_to_the_innermost_layer_of_its_path(node, layer):
    assert layers.owner(node, ("body.0", "body.3.0", "linear")) == layer


@pytest.mark.parametrize("name", ["fp16", "dynamic-int8", "static-int8"])
def test_keep_float_leaves_that_layer_and_no_other_in_float(build, name):
    artifact = build(name, keep_float=["body.3*"])

    kept = [a for a in constants(artifact).values() if a.dtype == np.float32 and a.ndim > 1]
    operations = OnnxRuntime().operations(artifact, CPU, one())

    assert [a.shape for a in kept] == [(20, 5, 3, 3)]
    if name != "fp16":
        floats = sum(op.macs for op in operations if not op.integer)
        assert floats == 3 * 3 * CONV2


def test_keep_float_of_a_linear_layer_reaches_the_matmul_that_dynamic_quantization_makes(build):
    found = constants(build("dynamic-int8", keep_float=["linear"]))

    assert found["linear.weight"].dtype == np.float32


def test_keep_float_of_an_unknown_layer_says_which_is_nearest(build):
    with pytest.raises(BadInput, match=r"no layer 'linaer'\. Did you mean 'linear'"):
        build("static-int8", keep_float=["linaer"])


def test_keep_float_of_a_layer_without_a_node_of_its_own_says_so(with_onnx):
    graph = onnx.load(with_onnx("small").forms["onnx"])

    choice = layers.Choice(method("static-int8", keep_float=["linear.inner"]),
                           ("linear", "linear.inner"))  # fmt: skip

    with pytest.raises(BadInput, match=r"no operator of its own for layer 'linear\.inner'"):
        choice.nodes(graph, "keep_float")


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "axes", "words"),
    [
        ("bf16", {}, "use fp16"),
        ("as-is", {}, "use fp32"),
        ("fp32", {"keep_float": ["linear"]}, "use keep_float: []"),
        ("fp32", {"weights": "int8"}, "use weights: float32"),
        ("static-int8", {"calibrator": "mse"}, "use ranges: injected"),
        ("static-int8", {"sigmas": 3.0}, "use calibrator: mean-std"),
        ("static-int8", {"only": ["linear"], "route": "qoperator"}, "use route: qdq"),
        ("static-int8", {"parts": "weights", "route": "qoperator"}, "use route: qdq"),
        ("dynamic-int8", {"ranges": "injected"}, "use ranges: native"),
        ("dynamic-int8", {"only": ["linear"]}, "use only: []"),
        ("weight-only-int4", {"parts": "weights"}, "use parts: both"),
        ("static-int8", {"percentile": 99.9}, "use calibrator: percentile"),
        ("static-int8", {"calibrator": "percentile", "percentile": 5.0}, "use percentile: 99.9"),
        ("static-int8", {"activations": "int16"}, "static-int16x8"),
        ("static-int8", {"training": "qat"}, "qat-int8 is trained"),
        ("static-int8", {"epochs": 3}, "nothing is trained"),
        ("static-int16x8", {"route": "qoperator"}, "use route: qdq"),
        ("weight-only-int4", {"group_size": 24}, "use group_size: 16 or 32 or 64 or 128 or 256"),
        ("weight-only-int4", {"int4_weights": ["linear"]}, "use int4_weights: []"),
        ("weight-only-int8", {"granularity": "per-channel"}, "use granularity: group"),
        ("qat-int8", {"training": "ptq"}, "use training: qat"),
        ("qat-int8", {"route": "pt2e"}, "use route: fx"),
        (
            "qat-int8",
            {"learned_scales": True, "symmetric_activations": True},
            "use symmetric_activations: false",
        ),
        ("fp32", {"fusion": False}, "use fusion: true"),
        ("static-int8", {"io": "int8"}, "use io: float32"),
        ("static-int8", {"route": "eager"}, "use route: qdq or qoperator"),
        ("static-int8", {"samples": 0}, "use samples: 256"),
        ("static-int8", {"granularity": "group", "group_size": 32}, "per-tensor"),
        ("dynamic-int8", {"activations": "int8"}, "use activations: uint8"),
        ("dynamic-int8", {"symmetric_activations": True}, "use symmetric_activations: false"),
        ("dynamic-int8", {"samples": 10}, "use samples: 0"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_a_way_out(name, axes, words, tmp_path):
    refused = method(name, **axes)

    reason = OnnxQuantizer().refuse(SMALL, refused)

    assert words in reason
    with pytest.raises(BadInput):
        OnnxQuantizer().quantize(SMALL, refused, SAMPLES, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", METHODS)
def test_every_default_is_built(name):
    assert OnnxQuantizer().refuse(SMALL, method(name)) is None


def test_the_cpu_provider_itself_has_no_bfloat16_convolution():
    kind = TensorProto.BFLOAT16
    values = [
        helper.make_tensor_value_info("x", kind, (1, 3, 6, 6)),
        helper.make_tensor_value_info("w", kind, (4, 3, 3, 3)),
    ]
    out = helper.make_tensor_value_info("y", kind, (1, 4, 4, 4))
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", values, [out])
    opsets = [helper.make_opsetid("", 22)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)

    with pytest.raises(Exception, match=r"NOT_IMPLEMENTED.*Conv"):
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_targets_that_cannot_be_applied_are_refused():
    refuse = OnnxRuntime().refuse

    assert refuse(CPU, method("fp32")) is None
    assert "cannot be capped to avx2" in refuse(Target("old", isa="avx2"), method("fp32"))
    assert "no reference kernels" in refuse(Target("mcu", kernels="reference"), method("fp32"))
    assert refuse(Target("gpu", device="cuda"), method("fp32")) == (
        no_gpu() or "the installed onnxruntime is the CPU-only wheel; pip install onnxruntime-gpu"
    )


# --- sessions -------------------------------------------------------------------------------------


def test_several_inputs_and_outputs_of_free_length_equal_torch(build):
    artifact = build("fp32", "mixed")
    loaded = OnnxRuntime().load(artifact, CPU, 3)

    for length in (10, 4):
        inputs = mixed_inputs(3, length)
        loaded.bind(inputs)
        loaded.run()
        outputs = loaded.read()
        with torch.no_grad():
            larger, tags = mixed()(*(torch.from_numpy(inputs[n]) for n in ("tokens", "image")))

        assert outputs["tags"].shape == (3, length, 9)
        # two frameworks add float32 in another order; a wrong layer is off by its whole output
        np.testing.assert_allclose(outputs["larger"], larger.numpy(), atol=1e-5)
        # as above
        np.testing.assert_allclose(outputs["tags"], tags.numpy(), atol=1e-5)


def test_inputs_with_other_names_in_the_file_are_matched_by_position(with_onnx, tmp_path):
    graph = onnx.load(with_onnx("small").forms["onnx"])
    graph.graph.input[0].name = "x"
    for node in graph.graph.node:
        node.input[:] = ["x" if name == "image" else name for name in node.input]
    onnx.save(graph, tmp_path / "renamed.onnx")
    model = dataclasses.replace(SMALL, forms={"onnx": str(tmp_path / "renamed.onnx")})

    artifact = OnnxQuantizer().quantize(model, method("static-int8"), SAMPLES, tmp_path / "built")

    assert run(artifact, {"image": IMAGES[:2]})["logits"].shape == (2, 4)


def test_bind_copies_and_a_second_run_gives_the_same_outputs(build):
    loaded = OnnxRuntime().load(build("fp32"), CPU, 2)
    images = IMAGES[:2].copy()
    loaded.bind({"image": images})
    loaded.run()
    first = loaded.read()["logits"]

    images[:] = 0
    loaded.run()

    np.testing.assert_array_equal(loaded.read()["logits"], first)


def test_threads_are_those_of_the_target(build):
    artifact = build("fp32")

    effective = OnnxRuntime().load(artifact, Target("three", threads=3), 1).effective

    assert effective["threads"] == "3"
    assert effective["graph_optimization"] == "ORT_ENABLE_ALL"
    assert OnnxRuntime().load(artifact, PLAIN, 1).effective["graph_optimization"] == (
        "ORT_DISABLE_ALL"
    )


def test_threads_that_the_session_did_not_start_are_noticed(build, monkeypatch):
    original = session.options

    def one_thread(target: Target):
        return original(dataclasses.replace(target, threads=1))

    monkeypatch.setattr(session, "options", one_thread)

    with pytest.raises(TargetNotApplied, match="runs on 1 threads, but two asks for 2"):
        OnnxRuntime().load(build("fp32"), Target("two", threads=2), 1)


def test_a_session_imports_neither_torch_nor_onnx(build):
    artifact = build("static-int8")
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from quantbench_backends.onnxruntime.runtime import OnnxRuntime\n"
        "from quantbench.backend_api.protocol import Artifact\n"
        "from quantbench.spec.target import Target\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "artifact = Artifact.open(Path(sys.argv[1]))\n"
        "inputs = {'image': np.zeros((1, 3, 6, 6), np.float32)}\n"
        "loaded = OnnxRuntime().load(artifact, Target('cpu'), 1)\n"
        "loaded.bind(inputs)\n"
        "loaded.run()\n"
        "assert loaded.read()['logits'].shape == (1, 4)\n"
        "assert OnnxRuntime().operations(artifact, Target('cpu'), inputs)\n"
        "print([m for m in ('torch', 'onnx', 'tensorflow', 'pandas') if m in sys.modules])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(artifact.folder)], capture_output=True, text=True
    )

    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_importing_the_backend_imports_no_framework():
    code = (
        "import sys\n"
        "import quantbench_backends.onnxruntime, quantbench_backends.onnxruntime.quantizer, quantbench_backends.onnxruntime.runtime\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "[]"


# --- bad input ------------------------------------------------------------------------------------


def test_a_truncated_file_is_a_bad_artifact_in_one_line(build):
    artifact = build("fp32")
    artifact.path.write_bytes(artifact.path.read_bytes()[:1000])

    with pytest.raises(BadArtifact) as caught:
        OnnxRuntime().load(artifact, CPU, 1)

    assert "cannot load" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_form_says_what_to_do(tmp_path):
    (tmp_path / "form.onnx").write_bytes(b"no model")
    model = dataclasses.replace(SMALL, forms={"onnx": str(tmp_path / "form.onnx")})

    with pytest.raises(BadInput, match="export the model again"):
        OnnxQuantizer().quantize(model, method("fp32"), SAMPLES, tmp_path / "built")


def test_calibration_samples_must_be_finite(build):
    images = IMAGES.copy()
    images[3, 0, 0, 0] = np.inf

    with pytest.raises(BadInput, match="'image' holds NaN or infinity"):
        build("static-int8", data=Data(Samples({"image": images}, np.zeros(40)), None, 0))


@pytest.mark.parametrize("convert", [from_torch.convert, from_torch.convert_unfused])
def test_weights_must_be_finite(tmp_path, convert):
    model = dataclasses.replace(SMALL, state=f"{__name__}:spoiled_state")

    with pytest.raises(BadInput, match=r"'linear\.weight' holds NaN"):
        convert(model, tmp_path)


def test_weights_of_a_file_must_not_be_nan(with_onnx, tmp_path):
    graph = onnx.load(with_onnx("small").forms["onnx"])
    graph.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((4, 20), np.nan, np.float32), "linear.weight")
    )
    onnx.save(graph, tmp_path / "spoiled.onnx")
    model = dataclasses.replace(SMALL, forms={"onnx": str(tmp_path / "spoiled.onnx")})

    with pytest.raises(BadInput, match="holds NaN"):
        OnnxQuantizer().quantize(model, method("fp32"), SAMPLES, tmp_path / "built")


def test_weights_that_do_not_fit_the_torch_form_are_bad_input(tmp_path):
    model = dataclasses.replace(SMALL, state=f"{__name__}:missing_state")

    with pytest.raises(BadInput, match=r"do not fit its torch form.*linear\.bias"):
        from_torch.convert(model, tmp_path)


def test_a_file_with_a_fixed_batch_takes_only_that(with_onnx, tmp_path):
    graph = onnx.load(with_onnx("small").forms["onnx"])
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(graph, tmp_path / "two.onnx")
    model = dataclasses.replace(SMALL, forms={"onnx": str(tmp_path / "two.onnx")})
    artifact = OnnxQuantizer().quantize(model, method("static-int8"), SAMPLES, tmp_path / "built")

    with pytest.raises(BadInput, match="takes 2 samples a call, not 1"):
        OnnxRuntime().load(artifact, CPU, 1)
    assert run(artifact, {"image": IMAGES[:2]})["logits"].shape == (2, 4)
