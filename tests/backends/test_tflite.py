"""The TFLite backend passes the conformance suite."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from quantbench.backend_api import backend
from quantbench.spec import Target, presets
from quantbench.stats import sqnr_db
from quantbench.system import locate
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


# --- attempts: LiteRT Quantizer and the Model Optimization Toolkit --------------------------------


def by_litert(recipe: str, bits: int, granularity: str) -> set[str]:
    """Dtypes of the weights of linear layers that LiteRT Quantizer leaves in a file."""
    from litert_quantizer import qtyping, quantizer

    tf = tensorflow()
    form = locate(SAMPLES["linear"].model.forms["keras"])(state(weights("linear")))
    tool = quantizer.Quantizer(tf.lite.TFLiteConverter.from_keras_model(form).convert())
    block = qtyping.QuantGranularity[granularity]
    getattr(tool, recipe)(".*", qtyping.TFLOperationName.ALL_SUPPORTED, bits, block)
    file = bytes(tool.quantize(enable_progress_report=False).quantized_model)
    read = interpreter(file)
    dtypes = {t["index"]: np.dtype(t["dtype"]).name for t in read.get_tensor_details()}
    nodes = [node for node in read._get_ops_details() if node["op_name"] == "FULLY_CONNECTED"]
    return {dtypes[int(node["inputs"][1])] for node in nodes}


def blocks() -> list[int]:
    """Sizes of groups that LiteRT Quantizer knows."""
    from litert_quantizer import qtyping

    names = [name for name in qtyping.QuantGranularity.__members__ if "BLOCKWISE" in name]
    return [int(name.removeprefix("BLOCKWISE_")) for name in names]


def policy_takes(bits: int, *, symmetric: bool) -> bool:
    """Whether a linear layer may have static activations like these."""
    from litert_quantizer import algorithm_manager, qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    manager.add_static_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, bits, 8)
    (recipe,) = manager.get_quantization_recipe()
    config = qtyping.OpQuantizationConfig.from_dict(recipe["op_config"])
    config = dataclasses.replace(
        config,
        activation_tensor_config=dataclasses.replace(
            config.activation_tensor_config, symmetric=symmetric
        ),
    )
    try:
        algorithm_manager.check_op_quantization_config(
            recipe["algorithm_key"], qtyping.TFLOperationName.FULLY_CONNECTED, config
        )
    except ValueError:
        return False
    return True


def float_weights() -> None:
    """A recipe of integer activations beside float weights."""
    from litert_quantizer import qtyping

    qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False),
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=16, dtype=qtyping.TensorDataType.FLOAT
        ),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )


def litert_names(*words: str) -> list[str]:
    """Names in LiteRT Quantizer's interface, and of its algorithms, with one of the words."""
    from litert_quantizer import algorithm_manager, qtyping, quantizer
    from litert_quantizer.utils import qsv_utils

    parts = (*map(dir, (quantizer.Quantizer, qtyping, qsv_utils)), algorithm_manager.AlgorithmName)
    return [name for part in parts for name in part if any(w in name.lower() for w in words)]


def debugger(*, calibrated: bool) -> bytes:
    """What QuantizationDebugger makes of a converter of 16x8, or of one that is not calibrated."""
    made, tf = converter(), tensorflow()
    if calibrated:
        made.representative_dataset = lambda: [
            {"image": CONV.inputs(1)["image"].transpose(0, 2, 3, 1)}
        ]
        ops = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        made.target_spec.supported_ops = [ops]
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=["none"])
    return tf.lite.experimental.QuantizationDebugger(
        converter=made, debug_dataset=made.representative_dataset, debug_options=options
    ).get_nondebug_quantized_model()


def partly_trained() -> set[tuple[str, str]]:
    """Convolutions of a file whose first one was left out of fake quantization."""
    import tensorflow_model_optimization as toolkit
    from tf_keras.models import clone_model

    tf, qat = tensorflow(), toolkit.quantization.keras
    form = locate(CONV.model.forms["keras"])(state(weights("conv")))
    kept = ("first", "norm")
    annotated = clone_model(
        form, clone_function=lambda x: x if x.name in kept else qat.quantize_annotate_layer(x)
    )
    made = tf.lite.TFLiteConverter.from_keras_model(qat.quantize_apply(annotated))
    made.optimizations = [tf.lite.Optimize.DEFAULT]
    return multiplied(made.convert())


def trained_ranges() -> list[str]:
    """Ranges of a fake-quantized model among its trainable variables."""
    import tensorflow_model_optimization as toolkit

    tensorflow()
    form = locate(CONV.model.forms["keras"])(state(weights("conv")))
    model = toolkit.quantization.keras.quantize_model(form)
    return [v.name for v in model.trainable_variables if "min" in v.name or "max" in v.name]


def noise_of_groups() -> bool:
    """Whether 4-bit groups are right with XNNPACK and off by the signal itself without it."""
    from ai_edge_litert.interpreter import OpResolverType
    from litert_quantizer import quantizer, recipe

    tf = tensorflow()
    form = locate(SAMPLES["linear"].model.forms["keras"])(state(weights("linear")))
    plain = tf.lite.TFLiteConverter.from_keras_model(form).convert()
    tool = quantizer.Quantizer(plain, recipe.dynamic_wi4b32_afp32())
    file = bytes(tool.quantize(enable_progress_report=False).quantized_model)
    inputs = SAMPLES["linear"].inputs(8)

    def run(content: bytes, **options: Any) -> Any:
        (array,) = interpreter(content, **options).get_signature_runner()(**inputs).values()
        return array

    own = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    expected = run(plain)
    return bool(sqnr_db(expected, run(file)) > 15 > 3 > sqnr_db(expected, run(file, **own)))


def test_the_attempts_succeed_with_what_the_framework_has():
    assert weights_only() == {("float32", "int8")}
    assert multiplied(static()) == {("int8", "int8")}
    assert settings("calibrate") == ["_experimental_calibrate_only"]
    assert resolvers("REF") == ["BUILTIN_REF"]
    assert by_litert("add_dynamic_config", 4, "BLOCKWISE_32") == {"int8"}  # as it shows int4
    assert policy_takes(16, symmetric=True)
    assert "min_max_update" in litert_names("update")


DEPTHWISE = {"depthwise": ("depth",)}


def litert(route: str, method: str, floor_db: float, weights: str, **axes: Any) -> Iterator[Cell]:
    """A method's cells on another route, of one model of linear and one of other layers."""
    left = () if method.startswith("weight-only") else None
    floats = None if left is not None else ()
    for sample in ("linear", "depthwise"):
        yield Cell(sample, method, floor_db, weights, floats, {"route": route, **axes}, left)


class TestTflite(Conformance):
    backend = backend("tflite")
    cells = (
        *grid("fp32", 115, "float32", None),
        *grid("fp16", 64, "float16", None),
        # weights of fewer than 1024 elements stay in float
        *grid("dynamic-int8", 32, "int8", {"depthwise": ("depth",), "larger": ("conv1",)}),
        *grid("static-int8", 28, "int8"),
        # TFLiteConverter's 16x8 group norm is the odd one, LiteRT Quantizer's has 41 dB
        *(c for c in grid("static-int16x8", 35, "int8") if c.sample != "groupnorm"),
        Cell("groupnorm", "static-int16x8", 15, "int8"),
        *grid("weight-only-int8", 35, "int8", None, left={}),
        # there is no depthwise kernel of 4-bit weights
        *grid("weight-only-int4", 10, "int4", None, left=DEPTHWISE),
        *grid("dynamic-int4", 10, "int4", DEPTHWISE),
        *grid("qat-int8", 27, "int8"),
        Cell("conv", "fp32", 115, "float32", None, axes={"training": "finetune"}),
        Cell("conv", "dynamic-int8", 32, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "static-int8", 29, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "static-int8", 29, "int8", ("first",), axes={"keep_float": ["fir*"]}),
        Cell("pair", "static-int8", 28, "int8", axes={"io": "float32"}),
        Cell("pair", "static-int8", 28, "int8", axes={"io": "uint8"}),
        Cell("pair", "qat-int8", 27, "int8", axes={"io": "float32", "granularity": "per-tensor"}),
        *litert("litert-keras", "static-int8", 33, "int8"),
        *litert("litert-keras", "dynamic-int8", 36, "int8"),
        *litert("litert-keras", "static-int8", 15, "int8", calibrator="moving-average"),
        *litert("litert-keras", "static-int8", 30, "int8", symmetric_activations=True),
        *litert("litert-keras", "static-int8", 30, "int8", granularity="per-tensor"),
        *litert("litert-keras", "weight-only-int8", 35, "int8", symmetric_weights=False),
        Cell("groupnorm", "static-int16x8", 40, "int8", axes={"route": "litert-keras"}),
        Cell("linear", "static-int8", 30, "int8", axes={"route": "litert-keras", "io": "uint8"}),
        Cell("linear", "static-int8", 15, "int4", axes={"route": "litert-keras", "weights": "int4"}),
        Cell("linear", "dynamic-int4", 16, "int4", axes={"granularity": "group", "group_size": 32}),
        Cell("conv", "static-int8", 33, "int8", ("first",),
             axes={"route": "litert-keras", "keep_float": ["first"], "io": "float32"}),
        Cell("conv", "fp16", 74, "float16", None, left=("second",),
             axes={"route": "litert-keras", "keep_float": ["second"]}),
    )  # fmt: skip
    refusals = (
        Refusal("no bfloat16", lambda _: weights_only("bfloat16"), gives={("float32", "float32")},
                method="bf16"),
        Refusal("no int4", lambda _: weights_only("int4"), gives={("float32", "float32")},
                method="dynamic-int4", axes={"route": "keras"}),
        Refusal("no int4", lambda _: weights_only("int4"), gives={("float32", "float32")},
                method="static-int8", axes={"int4_weights": ["first"]}),
        Refusal("weights alone only as dynamic range", lambda _: quantizes_its_input(), gives=True,
                method="weight-only-int8", axes={"route": "keras"}),
        Refusal("need static int8 scales", lambda _: integer_inputs("int8"),
                fails=ValueError, match=r"must be tf\.float32", axes={"io": "int8"}),
        Refusal("scales per group for dynamic-int4 only", lambda _: settings("block", "group"),
                gives=[], method="static-int8", axes={"granularity": "group"}),
        Refusal("scales per group for dynamic-int4 only", method="weight-only-int4",
                attempt=lambda _: by_litert("add_weight_only_config", 4, "BLOCKWISE_32"),
                gives={"float32"}, axes={"granularity": "group", "group_size": 32}),
        Refusal("scales per group for dynamic-int4 only", method="dynamic-int8",
                attempt=lambda _: by_litert("add_dynamic_config", 8, "BLOCKWISE_32"),
                gives={"float32"}, axes={"route": "litert-keras", "granularity": "group"}),
        Refusal("of 32, 64, 128 or 256", lambda _: blocks(), gives=[32, 64, 128, 256],
                method="dynamic-int4", axes={"granularity": "group", "group_size": 16}),
        Refusal("fix the zero point of weights at 0", lambda _: zero_points(static(), weights=True),
                gives={0}, method="static-int8", axes={"symmetric_weights": False}),
        Refusal("always have a free zero point", gives=True, method="static-int8",
                attempt=lambda _: bool(zero_points(static(), weights=False) - {0}),
                axes={"symmetric_activations": True}),
        Refusal("fix the zero point of activations at 0", gives=False, method="static-int16x8",
                attempt=lambda _: policy_takes(16, symmetric=False),
                axes={"route": "litert-keras", "symmetric_activations": False}),
        Refusal("signed 8-bit activations", lambda _: static(("uint8",)), fails=ValueError,
                match="set to .tf.int8", method="static-int8", axes={"activations": "uint8"}),
        Refusal("by minimum and maximum only", method="static-int8", axes={"calibrator": "entropy"},
                attempt=lambda _: settings("histogram", "percentile", "entropy", "calibration"),
                gives=[]),
        Refusal("their moving average only", method="static-int8", gives=[],
                attempt=lambda _: litert_names("histogram", "percentile", "entropy"),
                axes={"route": "litert-keras", "calibrator": "entropy"}),
        Refusal("their moving average only", method="static-int8", gives=[],
                attempt=lambda _: litert_names("squared_error", "deviation", "sigma"),
                axes={"route": "litert-keras", "calibrator": "mse"}),
        Refusal("integer activations with float weights", lambda _: float_weights(),
                fails=ValueError, match="integer activation but float weights",
                method="static-int8", axes={"route": "litert-keras", "parts": "activations"}),
        Refusal("weights alone only as dynamic range", lambda _: quantizes_its_input(), gives=True,
                method="static-int8", axes={"parts": "weights"}),
        Refusal("always fold batch norm", lambda _: operators(quantize=False),
                gives=["CONV_2D", "PAD", "CONV_2D", "MEAN"], axes={"fusion": False}),
        Refusal("compute in float32", lambda _: computes_float16_in_float32(), gives=True,
                method="fp16", axes={"activations": "float16"}),
        Refusal("no 4-bit activations", lambda _: policy_takes(4, symmetric=False),
                fails=ValueError, match="only supported for 16 or 8 bits", method="static-int8",
                axes={"route": "litert-keras", "int4_activations": ["first"]}),
        Refusal("out of calibrated int8 only", lambda _: debugger(calibrated=False),
                fails=ValueError, match="must set representative_dataset", method="dynamic-int8",
                axes={"keep_float": ["first"]}),
        Refusal("out of calibrated int8 only", lambda _: multiplied(debugger(calibrated=True)),
                gives={("int8", "int8")}, method="static-int16x8", axes={"keep_float": ["first"]}),
        Refusal("no quantization-aware training", lambda _: litert_names("qat", "train"), gives=[],
                method="qat-int8", axes={"route": "litert-keras"}),
        Refusal("whether it was trained so or not", lambda _: partly_trained(),
                gives={("int8", "int8")}, method="qat-int8", axes={"keep_float": ["first"]}),
        Refusal("trains no scales", lambda _: trained_ranges(), gives=[], method="qat-int8",
                axes={"learned_scales": True}),
        Refusal("cannot be capped", lambda _: instruction_set_caps("ai_edge_litert"), gives=(),
                target=presets()["cpu-avx2"]),
        Refusal("no CUDA kernels", lambda _: resolvers("CUDA", "GPU"), gives=[],
                target=Target("cuda", device="cuda")),
        Refusal("use one thread", lambda _: threads_of_reference_kernels(), gives=0,
                target=Target("reference", kernels="reference", threads=4)),
        Refusal("groups for those of channels", lambda _: noise_of_groups(), gives=True,
                method="dynamic-int4", axes={"granularity": "group", "group_size": 32},
                target=Target("plain", optimize=False)),
    )  # fmt: skip
    not_built = (
        # fake-quantization nodes in the Keras model, or LiteRT Quantizer, would take the ranges
        NotBuilt("static-int8", {"ranges": "injected"}),
        # LiteRT Quantizer's recipes could, by scopes
        NotBuilt("dynamic-int8", {"only": ["first"]}),
        NotBuilt("dynamic-int8", {"parts": "weights"}),
        NotBuilt("static-int8", {"route": "eager"}),
        NotBuilt("static-int8", {"training": "qat"}),
        NotBuilt("fp32", {"route": "litert-torch", "training": "finetune"}),
        # TFLiteConverter gives int16 there
        NotBuilt("static-int16x8", {"io": "int8"}),
    )
    by_definition = (
        "as it is",
        "no ready",
        "the preset fixes",
        "nothing is quantized",
        "this method calibrates nothing",
        "this method has no static scales",
        "4-bit weights are among 8-bit ones",
        "nothing is trained",
        "so that nothing would be trained",
        "is not trained; use",
        "is a float method; use training",
        "something is trained",
        "needs calibration samples",
        "but group_size is",
        "but calibrator is",
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
