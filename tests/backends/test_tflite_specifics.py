"""What is specific to TFLite: what the files hold, what LiteRT really executes, and refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.backend_api import Artifact, integer_macs_fraction
from quantbench.errors import BadArtifact, BadInput, TargetNotApplied
from quantbench.spec import (
    PRESETS,
    Arrays,
    Data,
    Method,
    Model,
    Samples,
    Target,
    TensorSpec,
    preset,
)
from quantbench_backends.tflite import BACKEND, runtime
from quantbench_backends.tflite.quantizer import TfliteQuantizer
from quantbench_backends.tflite.refusals import BUILT, DEFAULT_ROUTES
from quantbench_backends.tflite.runtime import LiteRTRuntime

pytest.importorskip("ai_edge_litert")

CPU = Target("cpu-1")
PLAIN = Target("no-delegate", optimize=False)
REFERENCE = Target("cpu-reference", kernels="reference")
QUANTIZER = TfliteQuantizer()
RUNTIME = LiteRTRuntime()

# --- models of this file: weights are drawn from a fixed seed ------------------------------------


def weights() -> Path:
    return Path(__file__)


def random_state(path: Path) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = {
        "conv.weight": (64, 2, 3, 3), "conv.bias": (64,),
        "depthwise.weight": (64, 1, 3, 3), "depthwise.bias": (64,),
        "linear.weight": (10, 64), "linear.bias": (10,),
    }  # fmt: skip
    return {name: rng.standard_normal(s).astype(np.float32) / 4 for name, s in shapes.items()}


def nan_state(path: Path) -> Arrays:
    state = dict(random_state(path))
    state["conv.weight"] = np.full_like(state["conv.weight"], np.nan)
    return state


def small_form(state: Arrays) -> Any:
    from tf_keras import Input, Model, layers

    image = Input((8, 8, 2), name="image")
    x = layers.Conv2D(64, 3, padding="same", name="conv")(image)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = Model(image, layers.Dense(10, name="linear")(x))
    conv, depthwise, linear = (model.get_layer(n) for n in ("conv", "depthwise", "linear"))
    conv.set_weights([state["conv.weight"].transpose(2, 3, 1, 0), state["conv.bias"]])
    kernel = state["depthwise.weight"].transpose(2, 3, 0, 1)
    depthwise.set_weights([kernel, state["depthwise.bias"]])
    linear.set_weights([state["linear.weight"].T, state["linear.bias"]])
    return model


def wide_depthwise_form(state: Arrays) -> Any:
    from tf_keras import Input, Sequential, layers

    return Sequential(
        [
            Input((8, 8, 32), name="image"),
            layers.Conv2D(32, 3, padding="same", name="conv"),
            layers.DepthwiseConv2D(7, padding="same", name="depthwise"),
        ]
    )


def one_layer_form(layer: Callable[[], Any]) -> Callable[[Arrays], Any]:
    def build(state: Arrays) -> Any:
        from tf_keras import Input, Sequential

        return Sequential([Input((8, 8, 32), name="image"), layer()])

    return build


def _layers() -> Any:
    from tf_keras import layers

    return layers


conv_form = one_layer_form(lambda: _layers().Conv2D(40, 3, padding="same"))
grouped_form = one_layer_form(lambda: _layers().Conv2D(32, 3, groups=4))
depthwise_form = one_layer_form(lambda: _layers().DepthwiseConv2D(7))
transposed_form = one_layer_form(lambda: _layers().Conv2DTranspose(16, 3, strides=2))


def dense_form(state: Arrays) -> Any:
    from tf_keras import Input, Sequential, layers

    return Sequential([Input((8, 8, 32), name="image"), layers.Flatten(), layers.Dense(10)])


def two_form(state: Arrays) -> Any:
    from tf_keras import Input, Model, layers

    right, left = Input((3,), name="right"), Input((3,), name="left")
    tripled = layers.Lambda(lambda x: 3 * x, name="zebra")(right)
    difference = layers.Subtract(name="apple")([left, right])
    return Model([right, left], [tripled, difference])


def lstm_form(state: Arrays) -> Any:
    from tf_keras import Input, Sequential, layers

    return Sequential([Input((5, 8), batch_size=1, name="image"), layers.LSTM(16)])


def gru_form(state: Arrays) -> Any:
    from tf_keras import Input, Sequential, layers

    return Sequential([Input((5, 8), batch_size=1, name="image"), layers.GRU(16)])


def model_of(
    form: str, shape: tuple[int | None, ...] = (None, 32, 8, 8), *, state: str = "random_state"
) -> Model:
    layout = "NCHW" if len(shape) == 4 else ""
    return Model(
        name=form,
        task="none",
        inputs=(TensorSpec("image", shape, "float32", layout),),
        outputs=(TensorSpec("out", OUTPUT_SHAPES[form], "float32", LAYOUTS.get(form, "")),),
        weights=f"{__name__}:weights",
        state=f"{__name__}:{state}",
        forms={"keras": f"{__name__}:{form}"},
    )


OUTPUT_SHAPES: Mapping[str, tuple[int | None, ...]] = {
    "small_form": (None, 10),
    "wide_depthwise_form": (None, 32, 8, 8),
    "conv_form": (None, 40, 8, 8),
    "grouped_form": (None, 32, 6, 6),
    "depthwise_form": (None, 32, 2, 2),
    "transposed_form": (None, 16, 17, 17),
    "dense_form": (None, 10),
    "lstm_form": (None, 16),
    "gru_form": (None, 16),
}
LAYOUTS = dict.fromkeys(("wide_depthwise_form", "conv_form", "grouped_form", "depthwise_form", "transposed_form"), "NCHW")  # fmt: skip
SMALL = (None, 2, 8, 8)
TWO = Model(
    name="two",
    task="none",
    inputs=(TensorSpec("right", (None, 3), "float32"), TensorSpec("left", (None, 3), "float32")),
    outputs=(TensorSpec("x3", (None, 3), "float32"), TensorSpec("minus", (None, 3), "float32")),
    weights=f"{__name__}:weights",
    state=f"{__name__}:random_state",
    forms={"keras": f"{__name__}:two_form"},
)


def method_of(name: str, **axes: Any) -> Method:
    return preset(name, {**BACKEND.methods.get(name, {}), **axes})


def drawn(model: Model, n: int, seed: int = 1) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.standard_normal((n, *spec.shape[1:])).astype(np.float32)
        for spec in model.inputs
    }


def build(model: Model, folder: Path, name: str, **axes: Any) -> Artifact:
    samples = {"samples": 8} if name.startswith("static") else {}
    method = method_of(name, **samples, **axes)
    data = Data(Samples(drawn(model, method.samples), np.zeros(method.samples)), None, 0)
    return QUANTIZER.quantize(model, method, data, folder)


def outputs(artifact: Artifact, inputs: Arrays, target: Target = CPU) -> dict[str, Any]:
    session = RUNTIME.load(artifact, target, len(next(iter(inputs.values()))))
    session.bind(inputs)
    session.run()
    return dict(session.read())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """Builds each (model, method, axes) once."""
    pytest.importorskip("tensorflow")
    known: dict[str, Artifact] = {}

    def get(model: Model, name: str, **axes: Any) -> Artifact:
        key = f"{model.name}-{name}-{axes}"
        if key not in known:
            known[key] = build(model, tmp_path_factory.mktemp("artifact"), name, **axes)
        return known[key]

    return get


# --- what the file holds, counted by hand --------------------------------------------------------

# conv: 64 filters of 3x3 on 2 channels; depthwise: 64 of 3x3; linear: 10 x 64. One bias each.
CONV, DEPTHWISE, LINEAR, BIASES = 64 * 9 * 2, 64 * 9, 10 * 64, 64 + 64 + 10
POOL_AXES = 2 * 4  # MEAN's axes 1 and 2, int32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fp32", {"float32": 4 * (CONV + DEPTHWISE + LINEAR + BIASES), "int32": POOL_AXES}),
        ("fp16", {"float16": 2 * (CONV + DEPTHWISE + LINEAR + BIASES), "int32": POOL_AXES}),
        # dynamic range leaves tensors of fewer than 1024 elements in float
        (
            "dynamic-int8",
            {"int8": CONV, "float32": 4 * (DEPTHWISE + LINEAR + BIASES), "int32": POOL_AXES},
        ),
        ("static-int8", {"int8": CONV + DEPTHWISE + LINEAR, "int32": 4 * BIASES + POOL_AXES}),
    ],
)
def test_weight_bytes_are_those_counted_by_hand(built, name, expected):
    record = QUANTIZER.inspect(built(model_of("small_form", SMALL), name))

    assert record.weight_bytes == expected
    dequantize = {"DEQUANTIZE": 6} if name == "fp16" else {}
    assert record.operators == {
        "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "MEAN": 1, **dequantize,
    }  # fmt: skip


@pytest.mark.parametrize(("granularity", "scales"), [("per-channel", 64), ("per-tensor", 1)])
@pytest.mark.parametrize("name", ["dynamic-int8", "static-int8"])
def test_granularity_decides_how_many_scales_the_weights_have(built, name, granularity, scales):
    from quantbench_backends.tflite.flatbuffer import read_file

    artifact = built(model_of("small_form", SMALL), name, granularity=granularity)

    tensors = read_file(artifact.path).subgraphs[0].tensors
    (conv,) = [t for t in tensors if t.shape is not None and list(t.shape) == [64, 3, 3, 2]]
    assert len(conv.quantization.scale) == scales


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_inputs_and_outputs_are_stored_as_the_method_says(built, io):
    model = model_of("small_form", SMALL)
    artifact = built(model, "static-int8", io=io)
    inputs = drawn(model, 4)

    (stored,), (out,) = artifact.inputs, artifact.outputs
    assert (stored.dtype, out.dtype) == (io, io)
    assert stored.shape == (None, 8, 8, 2)
    assert stored.layout == "NHWC"
    assert (stored.scale is None) == (io == "float32")
    int8 = outputs(built(model, "static-int8", io="int8"), inputs)["out"]
    step = built(model, "static-int8", io="int8").outputs[0].scale
    # the same integers, read back through another dtype: a step at most, and float32 of the step
    np.testing.assert_allclose(outputs(artifact, inputs)["out"], int8, atol=1.01 * step)


def test_the_same_build_twice_gives_the_same_bytes(built, tmp_path):
    model = model_of("small_form", SMALL)

    again = build(model, tmp_path, "static-int8")

    assert again.sha256 == built(model, "static-int8").sha256


def test_layers_are_named_as_in_the_torch_form():
    assert QUANTIZER.layers(model_of("small_form", SMALL)) == ("conv", "depthwise", "linear")


def test_several_inputs_and_outputs_keep_the_models_order_and_names(built):
    # the file's signature sorts names: left, right and apple, zebra
    inputs = {"right": np.full((2, 3), 2, np.float32), "left": np.full((2, 3), 7, np.float32)}

    artifact = built(TWO, "fp32")
    found = outputs(artifact, inputs)

    assert [spec.name for spec in artifact.inputs] == ["right", "left"]
    assert list(found) == ["x3", "minus"]
    np.testing.assert_array_equal(found["x3"], np.full((2, 3), 6))
    np.testing.assert_array_equal(found["minus"], np.full((2, 3), 5))


# --- what LiteRT executes ------------------------------------------------------------------------

# multiply-accumulates per image of 8 x 8
CONV_MACS, DEPTHWISE_MACS, LINEAR_MACS = 64 * 64 * 18, 64 * 64 * 9, 10 * 64


@pytest.mark.parametrize(
    ("target", "engine"), [(CPU, "xnnpack"), (PLAIN, "builtin"), (REFERENCE, "reference")]
)
@pytest.mark.parametrize(
    ("name", "integer_macs"),
    [
        ("fp32", 0),
        ("fp16", 0),
        ("dynamic-int8", CONV_MACS),
        ("static-int8", CONV_MACS + DEPTHWISE_MACS + LINEAR_MACS),
    ],
)
def test_integer_macs_are_those_counted_by_hand(built, name, integer_macs, target, engine):
    model = model_of("small_form", SMALL)

    operations = RUNTIME.operations(built(model, name), target, drawn(model, 1))

    macs = {op.kind: op.macs for op in operations if op.macs}
    assert macs == {
        "CONV_2D": CONV_MACS, "DEPTHWISE_CONV_2D": DEPTHWISE_MACS, "FULLY_CONNECTED": LINEAR_MACS,
    }  # fmt: skip
    total = CONV_MACS + DEPTHWISE_MACS + LINEAR_MACS
    assert integer_macs_fraction(operations) == pytest.approx(integer_macs / total)
    assert {op.engine for op in operations if op.role != "input"} == {engine}


@pytest.mark.parametrize("target", [CPU, PLAIN, REFERENCE], ids=lambda target: target.name)
@pytest.mark.parametrize("name", ["fp32", "fp16", "dynamic-int8"])
@pytest.mark.parametrize(
    "form", ["conv_form", "grouped_form", "depthwise_form", "transposed_form", "dense_form"]
)
def test_integer_means_that_the_kernel_rounds_its_float_input(built, form, name, target):
    # A layer computed in float is linear up to float rounding. One that quantizes its input first
    # is not: each of the three results below carries its own rounding error.
    model = model_of(form)
    artifact = built(model, name)
    a, b = drawn(model, 1, seed=2)["image"], drawn(model, 1, seed=3)["image"]

    def f(x: Any) -> Any:
        return outputs(artifact, {"image": x}, target)["out"].astype(np.float64)

    error = np.abs(f(a) + f(b) - f(0 * a) - f(a + b)).max() / np.abs(f(a)).max()

    operations = RUNTIME.operations(artifact, target, {"image": a})
    (integer,) = [op.integer for op in operations if op.macs]
    assert integer == (name == "dynamic-int8")
    assert (error > 1e-3) if integer else (error < 1e-4)


def test_a_node_that_xnnpack_leaves_is_shown_with_its_own_engine(built):
    # XNNPACK has no depthwise convolution of float inputs with int8 weights
    model = model_of("wide_depthwise_form")

    operations = RUNTIME.operations(built(model, "dynamic-int8"), CPU, drawn(model, 1))

    engines = {op.kind: op.engine for op in operations if op.role != "input"}
    assert engines == {"CONV_2D": "xnnpack", "DEPTHWISE_CONV_2D": "builtin"}
    assert integer_macs_fraction(operations) == 1.0


def test_a_lstm_shows_its_macs_and_forgets_its_state_when_bound(built):
    model = model_of("lstm_form", (None, 5, 8))
    artifact, inputs = built(model, "fp32"), drawn(model, 1)
    session = RUNTIME.load(artifact, CPU, 1)

    results = []
    for _ in range(2):
        session.bind(inputs)
        session.run()
        results.append(session.read()["out"])

    np.testing.assert_array_equal(*results)
    # 5 steps, 4 gates of 16 units, each from 8 inputs and 16 recurrent units
    assert sum(op.macs for op in RUNTIME.operations(artifact, CPU, inputs)) == 5 * 4 * 16 * (8 + 16)


def test_a_graph_with_a_loop_has_no_count(built):
    model = model_of("gru_form", (None, 5, 8))

    assert RUNTIME.operations(built(model, "fp32"), CPU, drawn(model, 1)) == ()


# --- targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_verified(built, monkeypatch, threads):
    artifact = built(model_of("small_form", SMALL), "fp32")
    target = Target("some", threads=threads)

    assert RUNTIME.load(artifact, target, 1).effective["threads"] == str(threads)

    others = iter([frozenset(), frozenset("123")])  # three threads appear while loading
    monkeypatch.setattr(runtime, "_threads", lambda: next(others))
    with pytest.raises(TargetNotApplied, match="runs on 4 threads"):
        _ = RUNTIME.load(artifact, target, 1).effective


def test_loading_reads_no_graph(built, monkeypatch):
    """What a deployed application would not do is no part of ``load_ms``."""
    artifact = built(model_of("small_form", SMALL), "static-int8")
    asked = []
    original = runtime._verify
    monkeypatch.setattr(runtime, "_verify", lambda *a: asked.append(a) or original(*a))

    session = RUNTIME.load(artifact, CPU, 1)

    assert asked == []
    assert session.effective["threads"] == "1"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("target", "kernels"), [(CPU, "xnnpack"), (PLAIN, "builtin"), (REFERENCE, "reference")]
)
def test_kernels_are_reported(built, target, kernels):
    session = RUNTIME.load(built(model_of("small_form", SMALL), "static-int8"), target, 1)

    assert session.effective["kernels"] == kernels


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (Target("cuda", device="cuda"), "no CUDA kernels"),
        (Target("old", isa="avx2"), "XNNPACK takes the best kernels"),
        (Target("slow", kernels="reference", threads=2), "one thread"),
    ],
)
def test_targets_that_litert_cannot_honour_are_refused(target, reason):
    assert reason in RUNTIME.refuse(target, method_of("fp32"))


@pytest.mark.parametrize("target", [CPU, PLAIN, REFERENCE, Target("all", threads=2)])
def test_other_targets_are_taken(target):
    assert RUNTIME.refuse(target, method_of("fp32")) is None


def test_a_session_imports_neither_tensorflow_nor_a_model(built):
    artifact = built(model_of("small_form", SMALL), "static-int8")
    script = """
import sys
from pathlib import Path
import numpy as np
from quantbench.spec.method import Method
from quantbench.backend_api.protocol import Artifact
from quantbench.backend_api.registry import backend, locate
from quantbench.spec.target import Target

runtime = locate(backend("tflite").runtime)()
assert runtime.refuse(Target("cpu-1"), Method("fp32")) is None
assert not {name for name in sys.modules if "litert" in name}, "refusing imported LiteRT"
artifact = Artifact.open(Path(sys.argv[1]))
inputs = {"image": np.zeros((1, 2, 8, 8), np.float32)}
session = runtime.load(artifact, Target("cpu-1"), 1)
session.bind(inputs)
session.run()
assert np.isfinite(session.read()["out"]).all()
assert runtime.operations(artifact, Target("cpu-1"), inputs)
heavy = {"tensorflow", "tf_keras", "keras", "torch", "onnx", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(artifact.folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# --- bad input and refusals ----------------------------------------------------------------------


def test_a_truncated_file_is_a_bad_artifact(built, tmp_path):
    artifact = built(model_of("small_form", SMALL), "fp32")
    (tmp_path / "model.tflite").write_bytes(artifact.path.read_bytes()[:3000])
    (tmp_path / "manifest.json").write_bytes((artifact.folder / "manifest.json").read_bytes())
    broken = Artifact.open(tmp_path, verify=False)

    with pytest.raises(BadArtifact, match="not a valid Flatbuffer") as caught:
        RUNTIME.load(broken, CPU, 1)
    assert "\n" not in str(caught.value)


def test_a_fixed_batch_size_is_a_bad_artifact_for_another(built):
    model = model_of("lstm_form", (None, 5, 8))

    with pytest.raises(BadArtifact, match="2 samples a call"):
        outputs(built(model, "fp32"), drawn(model, 2))


def test_weights_that_are_nan_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match=r"'conv\.weight' holds NaN"):
        build(model_of("small_form", SMALL, state="nan_state"), tmp_path, "fp32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_calibration_samples_that_are_not_finite_are_bad_input(tmp_path, value):
    model = model_of("small_form", SMALL)
    images = drawn(model, 8)["image"].copy()
    images[3, 0, 0, 0] = value
    data = Data(Samples({"image": images}, np.zeros(8)), None, 0)

    with pytest.raises(BadInput, match="calibration samples: 'image' holds NaN or infinity"):
        QUANTIZER.quantize(model, method_of("static-int8", samples=8), data, tmp_path)


def test_a_model_without_a_keras_form_is_refused():
    model = model_of("small_form", SMALL)
    torch_only = Model.from_json({**model.to_json(), "forms": {"torch": "x:y"}})

    assert "no Keras form" in QUANTIZER.refuse(torch_only, method_of("fp32"))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_built_or_refused_with_something_to_use(name):
    reason = QUANTIZER.refuse(model_of("small_form", SMALL), method_of(name))

    assert (reason is None) == (name in BACKEND.methods) == (name in DEFAULT_ROUTES)
    assert reason is not None or name in BUILT[BACKEND.methods[name]["route"]]
    assert reason is None or "; use " in reason


@pytest.mark.parametrize(
    ("name", "axes", "reason"),
    [
        ("fp32", {"weights": "int8"}, "use weights: float32"),
        ("fp16", {"activations": "float16"}, "compute in float32; use activations: float32"),
        ("fp32", {"io": "int8"}, "need static int8 scales; use io: float32"),
        ("dynamic-int8", {"samples": 10}, "calibrates nothing; use samples: 0"),
        ("dynamic-int8", {"granularity": "group", "group_size": 32}, "per-channel or per-tensor"),
        ("dynamic-int4", {"granularity": "group"}, "use granularity: group with group_size: 32"),
        ("dynamic-int4", {"group_size": 64}, "granularity is per-channel, but group_size is 64"),
        ("fp32", {"route": "litert-keras"}, "use route: keras"),
        ("dynamic-int4", {"route": "keras"}, "use route: litert-keras"),
        ("qat-int8", {"route": "litert-torch"}, "use route: keras"),
        ("static-int8", {"keep_float": ["conv"], "io": "uint8"}, "use io: int8"),
        ("qat-int8", {"keep_float": ["conv"]}, "use keep_float: []"),
        ("qat-int8", {"training": "ptq"}, "static-int8 is the same without training"),
        ("static-int8", {"samples": 0}, "use samples: 256"),
        ("static-int8", {"activations": "uint8"}, "signed 8-bit activations"),
        ("static-int8", {"calibrator": "entropy"}, "use calibrator: minmax"),
        ("static-int8", {"ranges": "injected"}, "use route: litert-keras"),
        ("static-int8", {"symmetric_weights": False}, "use symmetric_weights: true"),
        ("static-int8", {"symmetric_activations": True}, "use symmetric_activations: false"),
        ("static-int8", {"fusion": False}, "use fusion: true"),
        ("static-int8", {"route": "eager"}, "use route: keras or litert-keras or litert-torch"),
        ("static-int8", {"training": "qat"}, "use training: ptq"),
        ("dynamic-int8", {"keep_float": ["conv"]}, "use keep_float: []"),
    ],
)
def test_axes_that_cannot_be_honoured_are_refused(name, axes, reason):
    refused = QUANTIZER.refuse(model_of("small_form", SMALL), method_of(name, **axes))

    assert reason in refused


def test_bfloat16_is_refused_because_the_converter_leaves_everything_in_float32(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from quantbench_backends.tflite.artifact_record import record

    converter = tf.lite.TFLiteConverter.from_keras_model(small_form(random_state(tmp_path)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.bfloat16]
    path = tmp_path / "bf16.tflite"
    path.write_bytes(converter.convert())

    expected = {"float32": 4 * (CONV + DEPTHWISE + LINEAR + BIASES), "int32": POOL_AXES}
    assert record(path).weight_bytes == expected
