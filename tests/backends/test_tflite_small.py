"""Records of a small TFLite model by every method, counted by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from quantbench.spec import Arrays, Data, Method, Model, Samples, Target, TensorSpec, preset
from quantbench_backends.tflite import BACKEND
from quantbench_backends.tflite.quantizer import TfliteQuantizer
from quantbench_backends.tflite.runtime import LiteRTRuntime

pytest.importorskip("ai_edge_litert")
pytest.importorskip("tensorflow")

CPU = Target("cpu-1")
LITERT = {"route": "litert-keras"}

# --- a model of a convolution with batch norm, a mean, and two linear layers ---------------------

LAYERS = ("conv", "first", "second")
MACS = {"conv": 6 * 6 * 64 * 3 * 3 * 3, "first": 64 * 32, "second": 32 * 6}
WEIGHTS = {"conv": 64 * 3 * 3 * 3, "first": 64 * 32, "second": 32 * 6}


def no_path() -> Path:
    return Path()


def state(path: Path) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = {
        "conv.weight": (64, 3, 3, 3), "norm.weight": (64,), "norm.bias": (64,),
        "norm.running_mean": (64,), "norm.running_var": (64,),
        "first.weight": (32, 64), "first.bias": (32,),
        "second.weight": (6, 32), "second.bias": (6,),
    }  # fmt: skip
    drawn = {name: rng.standard_normal(s).astype(np.float32) / 4 for name, s in shapes.items()}
    return {**drawn, "norm.running_var": np.ones(64, np.float32)}


def form(arrays: Arrays) -> Any:
    from tf_keras import Input, Model, layers

    image = Input((6, 6, 3), name="image")
    x = layers.Conv2D(64, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(32, activation="relu", name="first")(x)
    model = Model(image, layers.Dense(6, name="second")(x), name="small")
    model.get_layer("conv").set_weights([arrays["conv.weight"].transpose(2, 3, 1, 0)])
    norm = ("weight", "bias", "running_mean", "running_var")
    model.get_layer("norm").set_weights([arrays[f"norm.{name}"] for name in norm])
    for name in ("first", "second"):
        model.get_layer(name).set_weights([arrays[f"{name}.weight"].T, arrays[f"{name}.bias"]])
    return model


def flat(arrays: Arrays) -> Any:
    from tf_keras import Input, Model, layers

    image = Input((6, 6, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(8, 3, padding="same", name="conv")(image))
    return Model(image, layers.Dense(6, name="second")(x), name="flat")


def lengths(arrays: Arrays) -> Any:
    """A linear layer at each of any number of places."""
    from tf_keras import Input, Model, layers

    places = Input((None, 64), name="places")
    return Model(places, layers.Dense(32, name="first")(places), name="lengths")


def places(arrays: Arrays) -> Any:
    """Two linear layers at each of five places."""
    from tf_keras import Input, Model, activations, layers

    given = Input((5, 64), name="places")
    x = layers.Dense(32, name="first")(given)
    x = layers.Activation(activations.gelu)(x)
    return Model(given, layers.Dense(6, name="second")(x), name="places")


SMALL = Model(
    name="small",
    task="none",
    inputs=(TensorSpec("image", (None, 3, 6, 6), "float32", "NCHW"),),
    outputs=(TensorSpec("logits", (None, 6), "float32"),),
    weights=f"{__name__}:no_path",
    state=f"{__name__}:state",
    forms={"keras": f"{__name__}:form"},
)
IMAGES = np.random.default_rng(1).standard_normal((48, 3, 6, 6)).astype(np.float32)


def method(name: str, **axes: Any) -> Method:
    return preset(name, BACKEND.axes(name, axes))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Builds each method of the small model once."""
    known: dict[Method, Artifact] = {}

    def built(name: str, **axes: Any) -> Artifact:
        few = {"samples": len(IMAGES)} if name.startswith("static") else {}
        wanted = method(name, **few, **axes)
        if wanted not in known:
            data = Data(
                Samples({"image": IMAGES[: wanted.samples]}, np.zeros(wanted.samples)), None, 0
            )
            folder = tmp_path_factory.mktemp("made")
            known[wanted] = TfliteQuantizer().quantize(SMALL, wanted, data, folder)
        return known[wanted]

    return built


def record_of(artifact: Artifact) -> Record:
    return TfliteQuantizer().inspect(artifact, LAYERS)


def operations(artifact: Artifact, target: Target = CPU) -> tuple[Operation, ...]:
    return LiteRTRuntime().operations(artifact, target, {"image": IMAGES[:1]})


def held(record: Record, role: str, layer: str) -> TensorRecord:
    (found,) = (t for t in record.tensors if t.role == role and t.layer == layer)
    return found


def multiplying(record: Record) -> dict[str, NodeRecord]:
    return {node.layer: node for node in record.nodes if node.role == "multiply"}


def written(record: Record, layer: str) -> TensorRecord:
    """The layer's output."""
    found = [t for t in record.tensors if t.role in ("activation", "output") and t.layer == layer]
    return next(t for t in found if t.name == multiplying(record)[layer].name)


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "axes", "layer", "expected"),
    [
        # symmetric int8 without -128
        ("static-int8", {}, "conv", ("int8", 255, True, "per-channel", 8)),
        ("static-int8", {"granularity": "per-tensor"}, "conv", ("int8", 255, True, "per-tensor", 8)),
        ("static-int8", LITERT, "first", ("int8", 255, True, "per-channel", 8)),
        ("static-int8", {**LITERT, "weights": "int4"}, "first", ("int4", 15, True, "per-channel", 4)),
        ("static-int16x8", {}, "conv", ("int8", 255, True, "per-channel", 8)),
        ("dynamic-int8", {}, "conv", ("int8", 255, True, "per-channel", 8)),
        ("dynamic-int8", {}, "second", ("float32", 0, None, "none", 32)),
        ("dynamic-int4", {}, "first", ("int4", 15, True, "per-channel", 4)),
        ("weight-only-int8", {}, "first", ("int8", 255, True, "per-channel", 8)),
        ("weight-only-int8", {"symmetric_weights": False}, "first", ("int8", 256, False, "per-channel", 8)),
        ("fp16", {}, "conv", ("float16", 0, None, "none", 16)),
        ("fp32", {}, "conv", ("float32", 0, None, "none", 32)),
    ],
)  # fmt: skip
def test_weights_are_what_the_method_says(build, name, axes, layer, expected):
    found = held(record_of(build(name, **axes)), "weight", layer)

    assert (
        found.dtype, found.levels, found.symmetric, found.granularity, found.bits
    ) == expected  # fmt: skip
    assert found.elements == WEIGHTS[layer]


def test_a_scale_is_the_largest_weight_of_its_channel_over_127(build):
    found = held(record_of(build("static-int8")), "weight", "first")

    largest = np.abs(state(Path())["first.weight"]).max(1)
    assert (found.axis, found.shape, found.bytes) == (0, (32, 64), 32 * 64)
    assert set(found.zero_point) == {0}
    # the same scale computed in float32 here and there: 1.2e-7 and a little
    np.testing.assert_allclose(found.scale, largest / 127, rtol=1e-6)


@pytest.mark.parametrize("axes", [{}, LITERT])
@pytest.mark.parametrize(("name", "dtype"), [("static-int8", "int32"), ("static-int16x8", "int64")])
def test_a_bias_has_the_input_s_scale_times_the_weights(build, name, dtype, axes):
    record = record_of(build(name, io="float32", **axes))
    bias, kernel = (held(record, role, "second") for role in ("bias", "weight"))

    fed = written(record, "first").scale[0]
    assert (bias.dtype, bias.shape) == (dtype, (6,))
    assert bias.bytes == 6 * np.dtype(dtype).itemsize
    # the same scale computed in float32 here and there: 1.2e-7 and a little
    np.testing.assert_allclose(bias.scale, np.array(kernel.scale) * fed, rtol=1e-6)


def test_a_bias_beside_float_activations_is_float(build):
    for name in ("dynamic-int8", "weight-only-int8"):
        assert held(record_of(build(name)), "bias", "first").dtype == "float32"


def test_groups_have_the_scales_that_their_weights_need(build):
    record = record_of(build("dynamic-int4", granularity="group", group_size=32))

    found = held(record, "weight", "first")
    assert (found.dtype, found.granularity, found.group_size) == ("int4", "group", 32)
    assert found.bytes == 32 * 64 // 2
    assert len(found.scale) == 32 * 2  # 64 inputs are two groups
    # the scale is a float16; the largest weight is within half a step of an end of the grid
    largest = np.abs(state(Path())["first.weight"].reshape(-1, 32)).max(1)
    reach = largest / np.array(found.scale)
    assert ((reach > 6.4) & (reach < 8.1)).all()


def test_scales_of_many_groups_lie_behind_the_flatbuffer_and_are_found(tmp_path):
    from tests.backends.samples import SAMPLES

    sample, none = SAMPLES["larger"], Data(Samples({}, np.zeros(0)), None, 0)
    wanted = method("dynamic-int4", granularity="group", group_size=32)
    artifact = TfliteQuantizer().quantize(sample.model, wanted, none, tmp_path)

    found = held(TfliteQuantizer().inspect(artifact, sample.layers), "weight", "hidden")

    assert len(found.scale) == 512 * 256 // 32
    assert min(found.scale) > 0


# --- activations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "axes", "expected"),
    [
        ("static-int8", {}, ("int8", 256, False)),
        ("static-int8", LITERT, ("int8", 256, False)),
        ("static-int8", {**LITERT, "symmetric_activations": True}, ("int8", 256, True)),
        ("static-int16x8", {}, ("int16", 65536, True)),
        ("dynamic-int8", {}, ("float32", 0, None)),
    ],
)
def test_activations_have_all_integers_of_their_dtype(build, name, axes, expected):
    found = written(record_of(build(name, **axes)), "first")

    assert (found.dtype, found.levels, found.symmetric) == expected
    assert found.granularity == ("per-tensor" if found.levels else "none")


def test_inputs_and_outputs_have_their_role(build):
    for name, io in (("static-int8", "int8"), ("static-int8", "uint8"), ("fp32", "float32")):
        record = record_of(build(name, io=io))

        ends = [(t.role, t.dtype) for t in record.tensors if t.role in ("input", "output")]
        assert sorted(ends) == [("input", io), ("output", io)]


# --- nodes ---------------------------------------------------------------------------------------


def test_nodes_say_what_they_multiply_and_how(build):
    found = multiplying(record_of(build("static-int8")))

    assert {layer: node.macs for layer, node in found.items()} == MACS
    assert {layer: node.weights for layer, node in found.items()} == WEIGHTS
    assert {(node.dtype, node.scales, node.weight_dtype) for node in found.values()} == {
        ("int8", "static", "int8")
    }
    assert found["conv"].fused == ("BatchNormalization", "RELU")
    assert found["first"].fused == ("RELU",)
    assert found["second"].fused == ()


@pytest.mark.parametrize(
    ("name", "axes", "expected"),
    [
        ("fp16", {}, dict.fromkeys(LAYERS, ("float32", "none", "float16"))),
        ("weight-only-int8", {}, dict.fromkeys(LAYERS, ("float32", "none", "int8"))),
        ("dynamic-int4", {}, dict.fromkeys(LAYERS, ("int8", "dynamic", "int4"))),
        ("static-int16x8", {}, dict.fromkeys(LAYERS, ("int16", "static", "int8"))),
        ("dynamic-int8", LITERT, dict.fromkeys(LAYERS, ("int8", "dynamic", "int8"))),
    ],
)
def test_every_format_has_the_same_multiplications(build, name, axes, expected):
    found = multiplying(record_of(build(name, **axes)))

    assert {layer: node.macs for layer, node in found.items()} == MACS
    computed = {layer: (n.dtype, n.scales, n.weight_dtype) for layer, n in found.items()}
    assert computed == expected


def test_weights_that_the_converter_thinks_too_small_are_said_to_be(build):
    record = record_of(build("dynamic-int8"))

    found = multiplying(record)

    assert {layer: node.dtype for layer, node in found.items()} == {
        "conv": "int8", "first": "int8", "second": "float32",
    }  # fmt: skip
    assert "fewer than 1,024" in found["second"].reason
    assert not found["first"].reason
    integers = MACS["conv"] + MACS["first"]
    assert serialized(record).macs == pytest.approx(integers / sum(MACS.values()))


@pytest.mark.parametrize("axes", [{}, LITERT])
def test_a_layer_kept_in_float_is_float_in_the_file_and_when_executed(build, axes):
    artifact = build("static-int8", io="float32", keep_float=["first"], **axes)

    record, ran = record_of(artifact), operations(artifact)

    assert {layer: node.dtype for layer, node in multiplying(record).items()} == {
        "conv": "int8", "first": "float32", "second": "int8",
    }  # fmt: skip
    assert held(record, "weight", "first").dtype == "float32"
    share = 1 - MACS["first"] / sum(MACS.values())
    assert serialized(record).macs == executed(ran).macs == pytest.approx(share)
    assert serialized(record).nodes == executed(ran).nodes == 2 / 3
    conversions = Counter(op.role for op in ran if op.role in ("quantize", "dequantize"))
    # of the image and before `second`; before `first` and of the logits
    assert conversions == {"quantize": 2, "dequantize": 2}


def test_multiplications_of_a_free_length_are_not_known(tmp_path):
    model = replace(
        SMALL,
        name="lengths",
        inputs=(TensorSpec("places", (None, None, 64), "float32"),),
        outputs=(TensorSpec("out", (None, None, 32), "float32"),),
        forms={"keras": f"{__name__}:lengths"},
    )
    data = Data(Samples({}, np.zeros(0)), None, 0)

    artifact = TfliteQuantizer().quantize(model, method("fp32"), data, tmp_path)

    (node,) = (n for n in record_of(artifact).nodes if n.role == "multiply")
    assert (node.layer, node.macs) == ("first", None)


# --- what is executed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "axes", "expected"),
    [
        ("fp32", {}, {}),
        ("static-int8", {"io": "int8"}, {}),
        ("static-int8", {"io": "float32"}, {"quantize": 1, "dequantize": 1}),
        ("static-int8", {"io": "uint8"}, {"requantize": 2}),
        # float16 and int8 weights become float32 once, when the file is loaded
        ("fp16", {}, {}),
        ("weight-only-int8", {}, {}),
        # hybrid kernels quantize inside
        ("dynamic-int8", {}, {}),
    ],
)
def test_conversions_are_those_that_are_executed(build, name, axes, expected):
    ran = operations(build(name, **axes))

    known = ("quantize", "dequantize", "requantize", "cast")
    assert Counter(op.role for op in ran if op.role in known) == expected
    assert sum(op.macs for op in ran) == sum(MACS.values())


def test_activation_memory_is_counted_from_the_tensors_that_live_together(build):
    # the most lives while the convolution runs: 3*6*6 numbers in, 64*6*6 out
    most = 3 * 36 + 64 * 36

    assert activation_bytes(operations(build("fp32"))) == 4 * most
    assert activation_bytes(operations(build("fp16"))) == 4 * most
    assert activation_bytes(operations(build("static-int8", io="int8"))) == most
    # float image in: 4 * 108 beside its integers is less than what the convolution needs
    assert activation_bytes(operations(build("static-int8", io="float32"))) == most


def test_a_flattened_tensor_is_its_own_memory_no_more(tmp_path):
    model = replace(SMALL, name="flat", forms={"keras": f"{__name__}:flat"})
    data = Data(Samples({}, np.zeros(0)), None, 0)
    artifact = TfliteQuantizer().quantize(model, method("fp32"), data, tmp_path)

    ran = operations(artifact)

    (reshape,) = (op for op in ran if op.kind == "RESHAPE")
    assert not reshape.writes
    # the image and the convolution's 8 maps; then these, flattened in place, and 6 logits
    assert activation_bytes(ran) == 4 * max(3 * 36 + 8 * 36, 8 * 36 + 6)


def test_multiplications_inside_a_delegate_are_those_of_the_input_s_shape(tmp_path):
    # XNNPACK takes the linear layers, and LiteRT goes on showing them one row instead of five
    model = replace(
        SMALL,
        name="places",
        inputs=(TensorSpec("places", (None, 5, 64), "float32"),),
        outputs=(TensorSpec("out", (None, 5, 6), "float32"),),
        forms={"keras": f"{__name__}:places"},
    )
    rows = np.random.default_rng(2).standard_normal((8, 5, 64)).astype(np.float32)
    data = Data(Samples({"places": rows}, np.zeros(8)), None, 0)
    axes = {"samples": 8, "io": "float32", "only": ["first", "second"]}
    artifact = TfliteQuantizer().quantize(model, method("static-int8", **axes), data, tmp_path)

    ran = LiteRTRuntime().operations(artifact, CPU, {"places": rows[:1]})

    multiplied = [(op.dtype, op.macs, op.engine) for op in ran if op.role == "multiply"]
    assert multiplied == [("int8", 5 * 64 * 32, "xnnpack"), ("int8", 5 * 32 * 6, "xnnpack")]


def test_every_tensor_that_is_read_was_written(build):
    for name in ("fp32", "fp16", "static-int8", "dynamic-int8", "weight-only-int8"):
        known: set[str] = set()
        ran = operations(build(name))
        assert ran[0].role == ran[0].kind == "input"
        for op in ran:
            assert known.issuperset(op.reads), (name, op)
            known.update(op.writes)
