"""The reference quantizer against the frameworks' own: values, ties, and gradients.

What was measured on x86-64 (torch 2.13, onnxruntime 1.31, LiteRT 2.3, TensorFlow 2.21):

========================================  =====================  ================================
quantizer                                 ties                   quotient
========================================  =====================  ================================
quantbench.stats.affine, ONNX QuantizeLinear       half to even           x / scale
torch fake_quantize, torchao              half to even           x * (1 / scale)
torch.quantize_per_tensor                 half to even, the      x * (1 / scale)
                                          zero point included
TFLite, XNNPACK (8 bits, per tensor)      half to even           x * (1 / scale)
TFLite, reference kernels, and two or     half away from zero    x / scale
more channels whatever the kernels
TFLite, optimized kernels (and 16 bits)   to even where SIMD,    x * (1 / scale) where SIMD
                                          away in the remainder
tf.quantization.fake_quant                half up                x * (1 / scale)
========================================  =====================  ================================

The reciprocal is itself rounded, so that a quotient within an ulp or two of a tie can fall to the
other side: `NEAR_TIE` is an example. Elsewhere all agree. Dequantization is the same product in
all of them, but for TFLite's optimized kernels, which add ``-scale * zero_point``, rounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quantbench.stats.affine import (
    Affine,
    Grid,
    dequantize,
    fake_quantize,
    from_range,
    from_scale,
    quantize,
)

CHANNELS = 5
INT8, UINT8, INT16, UINT16 = Grid(8), Grid(8, False), Grid(16), Grid(16, False)
TIES = np.array([-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5], np.float32)
EVEN, AWAY = [-4, -2, -2, 0, 0, 2, 2, 4], [-4, -3, -2, -1, 1, 2, 3, 4]

# x / scale is 23.499998, but x * (1 / scale) is 23.5
NEAR_TIE = np.float32(5.0356784), np.float32(0.2142842)

per_grid = pytest.mark.parametrize("grid", [INT8, UINT8, INT16, UINT16], ids=str)
per_axis = pytest.mark.parametrize("axis", [None, 1], ids=["per-tensor", "per-channel"])


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def tf() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # for the tests after these
    return pytest.importorskip("tensorflow")


@pytest.fixture
def onnx() -> Any:
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


@pytest.fixture
def litert() -> Any:
    return pytest.importorskip("ai_edge_litert.interpreter")


# --- the reference, a seeded quantizer and its tensor --------------------------------------------


def placed(grid: Grid, axis: int | None, seed: int, *, centred: bool = False) -> Affine:
    """A random scale and zero point, one or one per channel; zero points all 0 if ``centred``."""
    rng = np.random.default_rng(seed)
    shape = () if axis is None else CHANNELS
    points = rng.integers(grid.qmin, grid.qmax, shape, endpoint=True)
    return from_scale(rng.uniform(0.001, 0.3, shape), points * (not centred), grid, axis=axis)


def tensor(affine: Affine, seed: int) -> np.ndarray:
    """Normal values [2000, channels, 3], a few of which saturate."""
    values = np.random.default_rng(seed).normal(0, 1, (2000, CHANNELS, 3))
    width = (affine.high - affine.low).reshape(-1, 1) / 3
    return (values * width).astype(np.float32)


def spread(affine: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Scales and zero points against the middle axis."""
    shape = (1,) if affine.axis is None else (-1, 1)
    return affine.scale.reshape(shape), affine.zero_point.reshape(shape)


def by_reciprocal(x: np.ndarray, affine: Affine) -> np.ndarray:
    """`quantize`, half to even, with a product in place of the quotient."""
    scale, point = spread(affine)
    steps = np.rint(x * (np.float32(1) / scale)) + point
    return np.clip(steps, affine.grid.qmin, affine.grid.qmax).astype(affine.grid.dtype)


def near_ties(x: np.ndarray, affine: Affine) -> np.ndarray:
    """Where the exact quotient is within four ulps of float32 of a tie."""
    steps = x.astype(np.float64) / spread(affine)[0]
    return np.abs(steps - np.floor(steps) - 0.5) <= np.abs(steps) * 2.0**-22


def assert_equal_but_for_ties(q: np.ndarray, x: np.ndarray, affine: Affine) -> None:
    """The integers of the reference; at ties and beside them, one more or less."""
    away = np.abs(q.astype(np.int64) - quantize(x, affine))
    assert away.max() <= 1
    assert not (away.astype(bool) & ~near_ties(x, affine)).any()


@per_grid
@per_axis
def test_a_reciprocal_matters_beside_ties_only(grid, axis):
    affine = placed(grid, axis, 0)
    x = tensor(affine, 1)

    assert_equal_but_for_ties(by_reciprocal(x, affine), x, affine)


def test_the_example_where_a_reciprocal_matters():
    x, scale = NEAR_TIE
    affine = from_scale(scale, 0, INT8)

    assert quantize(x, affine) == 23
    assert by_reciprocal(x, affine) == 24


# --- torch ---------------------------------------------------------------------------------------


def torch_fake(torch: Any, x: Any, affine: Affine) -> Any:
    """torch.fake_quantize_per_tensor_affine, or per_channel."""
    ends = affine.grid.qmin, affine.grid.qmax
    if affine.axis is None:
        call = torch.fake_quantize_per_tensor_affine
        return call(x, float(affine.scale), int(affine.zero_point), *ends)
    scale = torch.from_numpy(affine.scale)
    point = torch.from_numpy(affine.zero_point.astype(np.int32))
    return torch.fake_quantize_per_channel_affine(x, scale, point, affine.axis, *ends)


@pytest.mark.parametrize(
    "grid",
    [INT8, UINT8, INT16, UINT16, Grid(2), Grid(4), Grid(4, False), Grid(8, narrow=True), Grid(12)],
    ids=str,
)
@per_axis
def test_torch_fake_quantizes_as_the_reference_does_with_a_reciprocal(torch, grid, axis):
    affine = placed(grid, axis, 2)
    x = tensor(affine, 3)

    found = torch_fake(torch, torch.from_numpy(x), affine).numpy()

    assert np.array_equal(found, dequantize(by_reciprocal(x, affine), affine))


@pytest.mark.parametrize("zero_point", [0, 7])
def test_torch_rounds_ties_to_even_and_beside_them_as_its_reciprocal_falls(torch, zero_point):
    x, scale = NEAR_TIE
    ones, beside = from_scale(1.0, zero_point, INT8), from_scale(scale, zero_point, INT8)

    assert torch_fake(torch, torch.from_numpy(TIES), ones).tolist() == EVEN
    assert torch_fake(torch, torch.tensor([x]), beside).numpy() == np.float32(24) * scale
    assert fake_quantize(x, beside) == np.float32(23) * scale


@pytest.mark.filterwarnings(
    "ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning"
)
def test_torch_s_integers_add_an_odd_zero_point_before_they_round(torch):
    quantized = torch.quantize_per_tensor(torch.from_numpy(TIES), 1.0, 7, torch.qint8)

    assert (quantized.int_repr() - 7).tolist() == [-3, -3, -1, -1, 1, 1, 3, 3]
    assert (quantize(TIES, from_scale(1.0, 7, INT8)) - 7).tolist() == EVEN


@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.7), (0.4, 3.0), (-2.0, -1.0), (-1e-3, 50.0)])
def test_torch_s_observer_finds_the_reference_s_asymmetric_scale_and_zero_point(torch, low, high):
    observer = torch.ao.quantization.MinMaxObserver(dtype=torch.quint8)
    observer(torch.tensor([low, high]))

    scale, point = observer.calculate_qparams()

    expected = from_range(low, high, UINT8)
    assert scale.item() == pytest.approx(float(expected.scale), rel=2e-7)
    assert point.item() == expected.zero_point


def test_torch_s_symmetric_observer_divides_by_half_the_steps(torch):
    observer = torch.ao.quantization.MinMaxObserver(
        dtype=torch.qint8, qscheme=torch.per_tensor_symmetric
    )
    observer(torch.tensor([-1.0, 0.5]))

    scale, _ = observer.calculate_qparams()

    assert scale.item() == pytest.approx(1 / 127.5)
    assert from_range(-1.0, 0.5, INT8, symmetric=True).scale == pytest.approx(1 / 127)


# --- ONNX ----------------------------------------------------------------------------------------


def onnx_round_trip(onnx: Any, x: np.ndarray, affine: Affine) -> list[np.ndarray]:
    """The outputs of QuantizeLinear and of DequantizeLinear after it, in ONNX Runtime.

    Opset 21 is the first with 16 bits.
    """
    import onnxruntime

    make, real = onnx.helper, onnx.TensorProto.FLOAT
    stored = make.np_dtype_to_tensor_dtype(affine.grid.dtype)
    axis = {} if affine.axis is None else {"axis": affine.axis}
    graph = make.make_graph(
        [
            make.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **axis),
            make.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **axis),
        ],
        "round trip",
        [make.make_tensor_value_info("x", real, x.shape)],
        [
            make.make_tensor_value_info("q", stored, x.shape),
            make.make_tensor_value_info("y", real, x.shape),
        ],
        [
            onnx.numpy_helper.from_array(affine.scale, "scale"),
            onnx.numpy_helper.from_array(affine.zero_point.astype(affine.grid.dtype), "zero"),
        ],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["q", "y"], {"x": x})


@per_grid
@per_axis
def test_onnx_quantizes_exactly_as_the_reference_does(onnx, grid, axis):
    affine = placed(grid, axis, 4)
    x = tensor(affine, 5)

    q, y = onnx_round_trip(onnx, x, affine)

    assert q.dtype == grid.dtype
    assert np.array_equal(q, quantize(x, affine))
    assert np.array_equal(y, fake_quantize(x, affine))


@per_grid
def test_onnx_rounds_ties_to_even_and_divides(onnx, grid):
    x, scale = NEAR_TIE

    ties, _ = onnx_round_trip(onnx, TIES, from_scale(1.0, 7, grid))
    beside, _ = onnx_round_trip(onnx, np.array([x]), from_scale(scale, 7, grid))

    assert (ties.astype(int) - 7).tolist() == EVEN
    assert beside - 7 == 23


# --- TFLite --------------------------------------------------------------------------------------

XNNPACK, OPTIMIZED, REFERENCE = "AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF"


def tflite_file(affine: Affine, shape: tuple[int, ...]) -> bytes:
    """A model of two operators, QUANTIZE and DEQUANTIZE, both of whose results are outputs."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def made(kind: str, **fields: Any) -> Any:
        found = getattr(schema, f"{kind}T")()
        for name, value in fields.items():
            setattr(found, name, value)
        return found

    # the versions of the converter: tflite/tools/versioning/op_version.cc
    versions = {"QUANTIZE": 2, "DEQUANTIZE": 2}
    if affine.axis is not None:
        versions = {"QUANTIZE": 3, "DEQUANTIZE": 5}
    quantization = made(
        "QuantizationParameters",
        scale=affine.scale.reshape(-1).tolist(),
        zeroPoint=affine.zero_point.reshape(-1).tolist(),
        quantizedDimension=affine.axis or 0,
    )
    stored = getattr(schema.TensorType, affine.grid.dtype.name.upper())
    real = {"type": schema.TensorType.FLOAT32, "shape": shape, "buffer": 0}
    graph = made(
        "SubGraph",
        tensors=[
            made("Tensor", name="x", **real),
            made("Tensor", name="q", **{**real, "type": stored}, quantization=quantization),
            made("Tensor", name="y", **real),
        ],
        inputs=[0],
        outputs=[1, 2],
        operators=[
            made("Operator", opcodeIndex=i, inputs=[i], outputs=[i + 1])
            for i in range(len(versions))
        ],
    )
    codes = [
        made(
            "OperatorCode",
            builtinCode=getattr(schema.BuiltinOperator, name),
            deprecatedBuiltinCode=getattr(schema.BuiltinOperator, name),
            version=version,
        )
        for name, version in versions.items()
    ]
    model = made(
        "Model", version=3, operatorCodes=codes, subgraphs=[graph], buffers=[made("Buffer")]
    )
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tflite_round_trip(
    litert: Any, x: np.ndarray, affine: Affine, kernels: str
) -> tuple[np.ndarray, np.ndarray, bool]:
    """The outputs of QUANTIZE and of DEQUANTIZE after it, and whether XNNPACK took them."""
    interpreter = litert.Interpreter(
        model_content=tflite_file(affine, x.shape),
        experimental_op_resolver_type=litert.OpResolverType[kernels],
        num_threads=1,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    q, y = (interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details())
    delegated = any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    return q, y, delegated


def tflite_ties(litert: Any, affine: Affine, kernels: str) -> list[int]:
    """The integers of `TIES`, zero point taken off; two equal channels, of which the first."""
    q, _, _ = tflite_round_trip(litert, np.stack([TIES, TIES], 1), affine, kernels)
    return (q.astype(int) - affine.zero_point)[:, 0].tolist()


@pytest.mark.parametrize("grid", [INT8, UINT8], ids=str)
def test_xnnpack_quantizes_as_the_reference_does_with_a_reciprocal(litert, grid):
    affine = placed(grid, None, 6)
    x = tensor(affine, 7)

    q, y, delegated = tflite_round_trip(litert, x, affine, XNNPACK)

    assert delegated
    assert np.array_equal(q, by_reciprocal(x, affine))
    assert np.array_equal(y, dequantize(q, affine))


@pytest.mark.parametrize("grid", [INT8, UINT8], ids=str)
def test_xnnpack_rounds_ties_to_even_and_beside_them_as_its_reciprocal_falls(litert, grid):
    x, scale = NEAR_TIE

    beside, _, _ = tflite_round_trip(litert, np.array([x]), from_scale(scale, 7, grid), XNNPACK)

    assert tflite_ties(litert, from_scale(1.0, 7, grid), XNNPACK) == EVEN
    assert beside - 7 == 24


@pytest.mark.parametrize(("grid", "centred"), [(INT8, False), (UINT8, False), (INT16, True)])
def test_tflite_s_reference_kernels_quantize_as_the_reference_does_half_away(litert, grid, centred):
    affine = placed(grid, None, 8, centred=centred)
    x = tensor(affine, 9)

    q, y, delegated = tflite_round_trip(litert, x, affine, REFERENCE)

    assert not delegated
    assert np.array_equal(q, quantize(x, affine, rounding="half-away"))
    assert np.array_equal(y, dequantize(q, affine))
    assert_equal_but_for_ties(q, x, affine)


def test_tflite_s_reference_kernels_round_ties_away_from_zero_and_divide(litert):
    x, scale = NEAR_TIE

    beside, _, _ = tflite_round_trip(litert, np.array([x]), from_scale(scale, 7, INT8), REFERENCE)

    assert tflite_ties(litert, from_scale(1.0, 7, INT8), REFERENCE) == AWAY
    assert tflite_ties(litert, from_scale(1.0, 0, INT16), REFERENCE) == AWAY
    assert beside - 7 == 23


@pytest.mark.parametrize("grid", [INT8, UINT8], ids=str)
@pytest.mark.parametrize("kernels", [XNNPACK, OPTIMIZED, REFERENCE])
def test_tflite_quantizes_channels_half_away_with_every_kernel(litert, grid, kernels):
    affine = placed(grid, 1, 10)
    x = tensor(affine, 11)

    q, y, delegated = tflite_round_trip(litert, x, affine, kernels)

    assert not delegated
    assert np.array_equal(q, quantize(x, affine, rounding="half-away"))
    assert np.array_equal(y, dequantize(q, affine))
    assert tflite_ties(litert, from_scale([1.0, 1.0], [7, 7], grid, axis=1), kernels) == AWAY


@pytest.mark.parametrize(
    ("grid", "kernels", "centred"),
    [(INT8, OPTIMIZED, False), (UINT8, OPTIMIZED, False), (INT16, XNNPACK, True)],
)
def test_tflite_s_optimized_kernels_quantize_as_the_reference_does_but_for_ties(
    litert, grid, kernels, centred
):
    """XNNPACK has no kernels of 16 bits: the default falls back to the optimized ones."""
    affine = placed(grid, None, 12, centred=centred)
    x = tensor(affine, 13)

    q, y, delegated = tflite_round_trip(litert, x, affine, kernels)

    assert not delegated
    assert_equal_but_for_ties(q, x, affine)
    slack = float(affine.scale) * (abs(int(affine.zero_point)) + 128) * 2.0**-23
    assert np.abs(y - dequantize(q, affine)).max() <= slack


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (from_scale(1.0, 5, INT16), "zero_point != 0"),
        (from_scale([1.0, 1.0], [0, 0], INT16, axis=1), "not supported for per-channel"),
        (from_scale(1.0, 0, UINT16), "kTfLiteUInt8"),
    ],
    ids=["int16 with a zero point", "int16 per channel", "uint16"],
)
@pytest.mark.parametrize("kernels", [XNNPACK, REFERENCE])
def test_what_tflite_refuses_at_16_bits(litert, affine, says, kernels):
    with pytest.raises(RuntimeError, match=says):
        tflite_ties(litert, affine, kernels)


# --- the straight-through estimator --------------------------------------------------------------
#
# A fake quantizer's gradient is that of the clipped identity, though its output is a staircase.
# Each entry below answers the gradient, with respect to x, of the sum of its outputs.

Gradient = Callable[[Any, np.ndarray, Affine], tuple[np.ndarray, np.ndarray]]


def of_torch(call: Callable[[Any, Any, Affine], Any]) -> Gradient:
    """Outputs and gradient of a call that takes torch, a tensor and the quantizer."""

    def gradient(torch: Any, x: np.ndarray, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
        given = torch.tensor(x, requires_grad=True)
        y = call(torch, given, affine)
        y.sum().backward()
        return y.detach().numpy(), given.grad.numpy()

    return gradient


def fixed(torch: Any, module: Any, affine: Affine) -> Any:
    """A fake-quantize module of torch, its scale and zero point given instead of observed."""
    module.disable_observer()
    # the fused modules derive the scale from the range at every call, observing or not
    module.activation_post_process.min_val = torch.tensor(affine.low)
    module.activation_post_process.max_val = torch.tensor(affine.high)
    module.scale = torch.tensor(affine.scale.reshape(-1))
    module.zero_point = torch.tensor(affine.zero_point.reshape(-1).astype(np.int32))
    return module


def options(torch: Any, affine: Affine) -> dict[str, Any]:
    """Arguments of a fake-quantize module."""
    chosen = {
        "dtype": torch.qint8 if affine.grid.signed else torch.quint8,
        "quant_min": affine.grid.qmin,
        "quant_max": affine.grid.qmax,
    }
    if affine.axis is None:
        return {**chosen, "qscheme": torch.per_tensor_affine}
    return {**chosen, "qscheme": torch.per_channel_affine, "ch_axis": affine.axis}


def torch_module(torch: Any, x: Any, affine: Affine, kind: str) -> Any:
    from torch.ao import quantization as ao

    observer = ao.MovingAverageMinMaxObserver
    if affine.axis is not None:
        observer = ao.MovingAveragePerChannelMinMaxObserver
    module = getattr(ao, kind)(observer, **options(torch, affine))
    return fixed(torch, module, affine)(x)


def torchao_pt2e_module(torch: Any, x: Any, affine: Affine, kind: str) -> Any:
    pytest.importorskip("torchao")
    from torchao.quantization import pt2e

    observer = pt2e.MovingAverageMinMaxObserver
    if affine.axis is not None:
        observer = pt2e.MovingAveragePerChannelMinMaxObserver
    chosen = {**options(torch, affine), "dtype": torch.int8 if affine.grid.signed else torch.uint8}
    return fixed(torch, getattr(pt2e, kind)(observer, **chosen), affine)(x)


def torchao_intx(torch: Any, x: Any, affine: Affine) -> Any:
    """torchao's own: rounding with a straight-through gradient, then a clamp; channels first."""
    pytest.importorskip("torchao")
    from torchao.quantization.qat import IntxFakeQuantizeConfig, IntxFakeQuantizer

    dtype = torch.int8 if affine.grid.signed else torch.uint8
    config = IntxFakeQuantizeConfig(dtype, "per_channel", is_symmetric=False, is_dynamic=False)
    module = IntxFakeQuantizer(config)
    shape = (CHANNELS, 1)
    module.scale = torch.tensor(np.broadcast_to(affine.scale.reshape(-1, 1), shape).copy())
    point = np.broadcast_to(affine.zero_point.reshape(-1, 1), shape).astype(np.int32)
    module.zero_point = torch.tensor(point)
    return module(x.T).T


def of_tensorflow(tf: Any, x: np.ndarray, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
    """tf.quantization.fake_quant_with_min_max_vars, per channel or not."""
    given = tf.constant(x)
    call = tf.quantization.fake_quant_with_min_max_vars
    if affine.axis is not None:
        call = tf.quantization.fake_quant_with_min_max_vars_per_channel
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = call(given, affine.low, affine.high, affine.grid.bits, affine.grid.narrow)
    return y.numpy(), tape.gradient(y, given).numpy()


def of_tensorflow_args(tf: Any, x: np.ndarray, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
    """tf.quantization.fake_quant_with_min_max_args."""
    given, ends = tf.constant(x), (float(affine.low), float(affine.high))
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = tf.quantization.fake_quant_with_min_max_args(given, *ends, affine.grid.bits)
    return y.numpy(), tape.gradient(y, given).numpy()


def clipped_slope(x: np.ndarray, affine: Affine) -> np.ndarray:
    """Central finite differences of ``clip(x, low, high)``, in float64, over a tenth of a step."""
    h = affine.scale.astype(np.float64) / 20

    def clipped(values: np.ndarray) -> np.ndarray:
        return np.clip(values, affine.low.astype(np.float64), affine.high.astype(np.float64))

    return (clipped(x + h) - clipped(x - h)) / (2 * h)


def assert_straight_through(gradient: Gradient, framework: Any, affine: Affine) -> None:
    """Slope 1 inside and 0 outside of the range, on values a step or more from its ends."""
    rng = np.random.default_rng(14)
    x = rng.uniform(affine.low * 1.5, affine.high * 1.5, (500, CHANNELS)).astype(np.float32)
    near = np.minimum(np.abs(x - affine.low), np.abs(x - affine.high)) < affine.scale
    x = np.where(near, np.float32(0), x)

    y, found = gradient(framework, x, affine)

    expected = clipped_slope(x, affine)
    assert set(expected.round(6).ravel().tolist()) == {0.0, 1.0}
    assert found == pytest.approx(expected, abs=1e-6)
    # the forward pass is the staircase
    off = np.abs(y - fake_quantize(x, affine))
    ties = np.abs(x / affine.scale % 1 - 0.5) < 1e-4
    assert (off <= np.where(ties, 1.01, 1e-4) * affine.scale).all()


BY_TENSOR = from_scale(0.02, -28, INT8)
BY_CHANNEL = from_scale(np.linspace(0.01, 0.3, CHANNELS), [-100, -5, 0, 5, 90], INT8, axis=1)
UNSIGNED = from_scale(0.02, 100, UINT8)
UNSIGNED_CHANNELS = from_scale(
    np.linspace(0.01, 0.3, CHANNELS), [28, 100, 128, 133, 200], UINT8, axis=1
)
TORCH: dict[str, Callable[[Any, Any, Affine], Any]] = {
    "torch.fake_quantize": torch_fake,
    "torch.ao FakeQuantize": lambda *a: torch_module(*a, "FakeQuantize"),
    "torch.ao Fused": lambda *a: torch_module(*a, "FusedMovingAvgObsFakeQuantize"),
    "torchao pt2e FakeQuantize": lambda *a: torchao_pt2e_module(*a, "FakeQuantize"),
    "torchao pt2e Fused": lambda *a: torchao_pt2e_module(*a, "FusedMovingAvgObsFakeQuantize"),
    "torchao IntxFakeQuantizer": torchao_intx,
}


@pytest.mark.parametrize(
    "affine",
    [BY_TENSOR, BY_CHANNEL, UNSIGNED, UNSIGNED_CHANNELS],
    ids=["int8", "int8 per channel", "uint8", "uint8 per channel"],
)
@pytest.mark.parametrize("name", TORCH)
def test_torch_s_gradient_is_that_of_the_clipped_identity(torch, name, affine):
    assert_straight_through(of_torch(TORCH[name]), torch, affine)


@pytest.mark.parametrize(
    ("gradient", "affine"),
    [
        (of_tensorflow_args, UNSIGNED),
        (of_tensorflow, UNSIGNED),
        (of_tensorflow, UNSIGNED_CHANNELS),
        (of_tensorflow, from_scale(0.05, 3, Grid(4, False))),
        (of_tensorflow, from_scale(0.02, 100, Grid(8, False, narrow=True))),
    ],
    ids=["args", "vars", "vars per channel", "4 bits", "narrow"],
)
def test_tensorflow_s_gradient_is_that_of_the_clipped_identity(tf, gradient, affine):
    assert_straight_through(gradient, tf, affine)


# low is -7, high is 248
ENDS = from_scale(1.0, 7, UINT8)
BEYOND = np.array([-7.6, -7.4, -7.0, 248.0, 248.4, 248.6], np.float32)


@pytest.mark.parametrize("name", ["torch.fake_quantize", "torch.ao FakeQuantize"])
def test_torch_s_gradient_reaches_half_a_step_beyond_the_range(torch, name):
    """It is 1 wherever rounding alone, without clipping, stays on the grid."""
    _, found = of_torch(TORCH[name])(torch, BEYOND, ENDS)

    assert found.tolist() == [0, 1, 1, 1, 1, 0]


def test_tensorflow_s_gradient_ends_with_the_range(tf):
    _, found = of_tensorflow(tf, BEYOND, ENDS)

    assert found.tolist() == [0, 0, 1, 1, 0, 0]


def test_tensorflow_rounds_ties_up(tf):
    y, _ = of_tensorflow(tf, TIES, ENDS)

    assert y.tolist() == [-3, -2, -1, 0, 1, 2, 3, 4]
