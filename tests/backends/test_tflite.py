"""The TFLite backend passes the conformance suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness.registry import backend, locate
from harness.target import Target, presets
from tests.backends.conformance import (
    Cell,
    Conformance,
    NotBuilt,
    Refusal,
    grid,
    instruction_set_caps,
)
from tests.backends.samples import SAMPLES, state, weights

CONV = SAMPLES["conv"]


# --- attempts: TFLiteConverter and LiteRT without this project's code -----------------------------


def tensorflow() -> Any:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


def converter(*, quantize: bool = True) -> Any:
    """TFLiteConverter of the sample ``conv``."""
    tf = tensorflow()
    form = locate(CONV.model.forms["keras"])(state(weights("conv")))
    made = tf.lite.TFLiteConverter.from_keras_model(form)
    made.optimizations = [tf.lite.Optimize.DEFAULT] if quantize else []
    return made


def interpreter(file: bytes, **options: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_content=file, **options)
    made.allocate_tensors()
    return made


def multiplied(file: bytes) -> set[tuple[str, str]]:
    """Dtypes of input and weights of the convolutions in a file."""
    read = interpreter(file)
    dtypes = {t["index"]: np.dtype(t["dtype"]).name for t in read.get_tensor_details()}
    nodes = [node for node in read._get_ops_details() if node["op_name"] == "CONV_2D"]
    return {(dtypes[int(node["inputs"][0])], dtypes[int(node["inputs"][1])]) for node in nodes}


def weights_only(*types: str) -> set[tuple[str, str]]:
    """The convolutions of a file without calibration, for types of weights; int8 by default."""
    made, experimental = converter(), tensorflow().dtypes.experimental
    known = {"bfloat16": tensorflow().bfloat16, "int4": experimental.int4}
    made.target_spec.supported_types = [known[name] for name in types]
    return multiplied(made.convert())


def integer_inputs(dtype: str) -> None:
    """A file without calibration that takes integers."""
    made = converter()
    made.inference_input_type = tensorflow().as_dtype(dtype)
    made.convert()


def static(types: tuple[str, ...] = ()) -> bytes:
    """A calibrated file, with types of activations to support."""

    def samples() -> Iterator[dict[str, Any]]:
        yield {"image": CONV.inputs(1)["image"].transpose(0, 2, 3, 1)}

    made, tf = converter(), tensorflow()
    made.representative_dataset = samples
    made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    made.target_spec.supported_types = [tf.as_dtype(name) for name in types]
    return made.convert()


def zero_points(file: bytes, *, weights: bool) -> set[int]:
    """Zero points of weights, or of everything else that is int8."""
    from ai_edge_litert.interpreter import OpResolverType

    kind = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    found: set[int] = set()
    for tensor in interpreter(file, experimental_op_resolver_type=kind).get_tensor_details():
        is_weight = tensor["shape"].tolist() in ([48, 3, 3, 3], [10, 3, 3, 48])
        if tensor["dtype"] is np.int8 and is_weight == weights:
            found.update(tensor["quantization_parameters"]["zero_points"].tolist())
    return found


def settings(*words: str) -> list[str]:
    """The converter's settings with one of the words in their names."""
    made = converter()
    names = [*vars(made), *vars(made.target_spec)]
    return [name for name in names if any(word in name for word in words)]


def operators(*, quantize: bool) -> list[str]:
    """Operators of the sample's file; the sample has batch norm and ReLU."""
    nodes = interpreter(converter(quantize=quantize).convert())._get_ops_details()
    return [node["op_name"] for node in nodes if node["op_name"] != "DELEGATE"]


def call(made: Any, **inputs: Any) -> Any:
    """The output of a converter's file."""
    (array,) = interpreter(made.convert()).get_signature_runner()(**inputs).values()
    return array


def computes_float16_in_float32() -> bool:
    """Whether weights that float16 holds exactly give what they give in float32, bit by bit."""
    tf, sample = tensorflow(), SAMPLES["linear"]
    exact = {k: a.astype("float16").astype("float32") for k, a in state(weights("linear")).items()}
    form = locate(sample.model.forms["keras"])(exact)
    full = tf.lite.TFLiteConverter.from_keras_model(form)
    half = tf.lite.TFLiteConverter.from_keras_model(form)
    half.optimizations = [tf.lite.Optimize.DEFAULT]
    half.target_spec.supported_types = [tf.float16]
    inputs = sample.inputs(1)
    return np.array_equal(call(full, **inputs), call(half, **inputs))


def quantizes_its_input() -> bool:
    """Whether a linear layer with int8 weights alone is not linear: it rounds its float input."""
    from tf_keras import Input, Sequential, layers

    tf = tensorflow()
    model = Sequential([Input((64,), name="x"), layers.Dense(32)])
    made = tf.lite.TFLiteConverter.from_keras_model(model)
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    runner = interpreter(made.convert()).get_signature_runner()
    a, b = np.random.default_rng(0).standard_normal((2, 1, 64)).astype(np.float32)

    def f(x: Any) -> Any:
        (array,) = runner(x=x).values()
        return array

    return bool(np.abs(f(a) + f(b) - f(a + b)).max() > 1e-3 * np.abs(f(a)).max())


def threads_of_reference_kernels() -> int:
    """Threads that LiteRT starts for its reference kernels when told to use four."""
    from ai_edge_litert.interpreter import OpResolverType

    file = converter().convert()
    before = len(list(Path("/proc/self/task").iterdir()))
    kind = OpResolverType.BUILTIN_REF
    made = interpreter(file, num_threads=4, experimental_op_resolver_type=kind)
    made.invoke()
    return len(list(Path("/proc/self/task").iterdir())) - before


def resolvers(*words: str) -> list[str]:
    from ai_edge_litert.interpreter import OpResolverType

    return [name for name in OpResolverType.__members__ if any(word in name for word in words)]


def test_the_attempts_succeed_with_what_the_framework_has():
    assert weights_only() == {("float32", "int8")}
    assert multiplied(static()) == {("int8", "int8")}
    assert settings("calibrate") == ["_experimental_calibrate_only"]
    assert resolvers("REF") == ["BUILTIN_REF"]


class TestTflite(Conformance):
    backend = backend("tflite")
    cells = (
        *grid("fp32", 115, "float32", None),
        *grid("fp16", 64, "float16", None),
        # weights of fewer than 1024 elements stay in float
        *grid("dynamic-int8", 32, "int8", {"depthwise": ("depth",), "larger": ("conv1",)}),
        *grid("static-int8", 29, "int8"),
        Cell("conv", "dynamic-int8", 32, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "static-int8", 29, "int8", axes={"granularity": "per-tensor"}),
        Cell("pair", "static-int8", 29, "int8", axes={"io": "float32"}),
        Cell("pair", "static-int8", 29, "int8", axes={"io": "uint8"}),
    )
    refusals = (
        Refusal("no bfloat16", lambda _: weights_only("bfloat16"), gives={("float32", "float32")},
                method="bf16"),
        Refusal("no int4", lambda _: weights_only("int4"), gives={("float32", "float32")},
                method="dynamic-int4"),
        Refusal("no int4", lambda _: weights_only("int4"), gives={("float32", "float32")},
                method="weight-only-int4"),
        Refusal("weights alone only as dynamic range", lambda _: quantizes_its_input(), gives=True,
                method="weight-only-int8"),
        Refusal("integer inputs and outputs to static-int8 only", lambda _: integer_inputs("int8"),
                fails=ValueError, match=r"must be tf\.float32", axes={"io": "int8"}),
        Refusal("one scale per channel or per tensor", lambda _: settings("block", "group"),
                gives=[], method="static-int8", axes={"granularity": "group"}),
        Refusal("zero point of weights at 0", lambda _: zero_points(static(), weights=True),
                gives={0}, method="static-int8", axes={"symmetric_weights": False}),
        Refusal("always have a free zero point", gives=True, method="static-int8",
                attempt=lambda _: bool(zero_points(static(), weights=False) - {0}),
                axes={"symmetric_activations": True}),
        Refusal("signed 8-bit activations", lambda _: static(("uint8",)), fails=ValueError,
                match="set to .tf.int8", method="static-int8", axes={"activations": "uint8"}),
        Refusal("by minimum and maximum only", method="static-int8", axes={"calibrator": "entropy"},
                attempt=lambda _: settings("histogram", "percentile", "entropy", "calibration"),
                gives=[]),
        Refusal("always folds batch norm", lambda _: operators(quantize=False),
                gives=["CONV_2D", "PAD", "CONV_2D", "MEAN"], axes={"fusion": False}),
        Refusal("compute in float32", lambda _: computes_float16_in_float32(), gives=True,
                method="fp16", axes={"activations": "float16"}),
        Refusal("cannot be capped", lambda _: instruction_set_caps("ai_edge_litert"), gives=(),
                target=presets()["cpu-avx2"]),
        Refusal("no CUDA kernels", lambda _: resolvers("CUDA", "GPU"), gives=[],
                target=Target("cuda", device="cuda")),
        Refusal("use one thread", lambda _: threads_of_reference_kernels(), gives=0,
                target=Target("reference", kernels="reference", threads=4)),
    )  # fmt: skip
    not_built = (
        NotBuilt("static-int16x8"),
        NotBuilt("qat-int8"),
        NotBuilt("as-is"),
        # fake-quantization nodes in the Keras model would carry the ranges
        NotBuilt("static-int8", {"ranges": "injected"}),
        NotBuilt("static-int8", {"route": "eager"}),
        NotBuilt("static-int8", {"training": "qat"}),
        NotBuilt("static-int8", {"keep_float": ["first"]}),
    )
    by_definition = (
        "the preset fixes",
        "nothing is quantized",
        "this method calibrates nothing",
        "needs calibration samples",
    )
    applied: ClassVar = {
        "cpu-1": {"kernels": "xnnpack"},
        "cpu-all": {"kernels": "xnnpack"},
        "cpu-reference": {"kernels": "reference"},
    }
    unoptimized = 1.0, {"kernels": "builtin"}

    @staticmethod
    def plain_call(artifact, sample, inputs):
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(model_path=str(artifact.path), num_threads=1).get_signature_runner()
        arguments = {}
        for name, details in runner.get_input_details().items():
            array = inputs[name].transpose(0, 2, 3, 1) if inputs[name].ndim == 4 else inputs[name]
            scale, zero_point = details["quantization"]
            if scale:
                limits = np.iinfo(details["dtype"])
                array = np.clip(np.rint(array / scale) + zero_point, limits.min, limits.max)
            arguments[name] = array.astype(details["dtype"])
        found = {}
        for name, array in runner(**arguments).items():
            scale, zero_point = runner.get_output_details()[name]["quantization"]
            real = (array.astype(np.float32) - zero_point) * np.float32(scale) if scale else array
            # no two outputs of a sample have the same number of axes
            found[real.ndim] = real.transpose(0, 3, 1, 2) if real.ndim == 4 else real
        return {spec.name: found[len(spec.shape)] for spec in sample.model.outputs}
