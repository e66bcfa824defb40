"""The ONNX Runtime backend passes the conformance suite."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from quantbench.backend_api import backend
from quantbench.backend_api.registry import converter
from quantbench.spec import Arrays, presets
from quantbench.system import locate, no_gpu
from tests.backends.conformance import (
    Cell,
    Conformance,
    NotBuilt,
    Refusal,
    grid,
    instruction_set_caps,
)
from tests.backends.samples import SAMPLES

CONV, LINEAR = SAMPLES["conv"], SAMPLES["linear"]


# --- attempts: ONNX Runtime and its quantizer without this project's code -------------------------


def exported(folder: Path, sample: str = "conv") -> str:
    """The sample's ONNX form."""
    return str(locate(converter("torch", "onnx").convert)(SAMPLES[sample].model, folder))


class Calibration:
    """Batches of the sample's inputs for quantize_static."""

    def __init__(self, sample: str) -> None:
        self.batches: Iterator[Arrays] = iter([SAMPLES[sample].inputs(4)])

    def get_next(self) -> Arrays | None:
        return next(self.batches, None)


def static(folder: Path, route: str = "QDQ", **options: Any) -> Path:
    """A statically quantized file."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    path = folder / "static.onnx"
    shape = {"quant_format": QuantFormat[route], **options}
    quantize_static(exported(folder), str(path), Calibration("conv"), **shape)
    return path


def dynamic(folder: Path, **options: Any) -> Path:
    """A dynamically quantized file."""
    from onnxruntime.quantization import quantize_dynamic

    path = folder / "dynamic.onnx"
    quantize_dynamic(exported(folder, "linear"), str(path), **options)
    return path


def quant_type(name: str) -> Any:
    from onnxruntime.quantization import QuantType

    return QuantType[name]


def calibrated(folder: Path, name: str) -> bytes:
    """A statically quantized file with ranges from a calibrator; the histograms print."""
    from onnxruntime.quantization import CalibrationMethod

    with contextlib.redirect_stdout(io.StringIO()):
        return static(folder, calibrate_method=CalibrationMethod[name]).read_bytes()


def float_outputs(path: Path) -> bool:
    """Whether the file has convolutions that take integers and give floats."""
    import onnx

    graph = onnx.load(path).graph
    floats = {value.name for value in graph.value_info if value.type.tensor_type.elem_type == 1}
    convolutions = [node for node in graph.node if node.op_type == "QLinearConv"]
    return any(node.output[0] in floats for node in convolutions)


def members(kind: str) -> set[str]:
    """Names in an enumeration of ONNX Runtime's quantizer."""
    from onnxruntime import quantization

    return set(getattr(quantization, kind).__members__)


def four_bits_in_qoperator(folder: Path) -> None:
    told = {"TensorQuantOverrides": {"second.weight": [{"quant_type": quant_type("QInt4")}]}}
    static(folder, "QOperator", extra_options=told)


def in_groups(weight: np.ndarray, x: np.ndarray, size: int, level: int = 0) -> np.ndarray:
    """x @ weight by MatMulNBits, 4 bits in groups of ``size``."""
    from onnx import helper, numpy_helper
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    values = [
        helper.make_tensor_value_info(n, 1, ["n", k])
        for n, k in zip("xy", weight.shape, strict=True)
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", values[:1], values[1:],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    quantizer = MatMulNBitsQuantizer(
        model, 4, size, is_symmetric=True, accuracy_level=level, nodes_to_exclude=()
    )
    quantizer.process()
    (found,) = open_session(quantizer.model.model.SerializeToString()).run(None, {"x": x})
    return found


def random_groups(size: int = 32, level: int = 0) -> bytes:
    """`in_groups` of numbers drawn from a seed."""
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((64, 8)), rng.standard_normal((4, 64))
    return in_groups(weight.astype(np.float32), x.astype(np.float32), size, level).tobytes()


def steps_of_activations() -> bool:
    """Whether numbers from 10 to 10.5 are rounded to multiples of 10.5 / 127, without an offset."""
    pick = np.zeros((16, 1), np.float32)
    pick[3] = -1.0  # exact in 4 bits, where the scale is the largest weight / -8
    x = np.full((8, 16), 10.5, np.float32)
    x[:, 3] = np.linspace(10, 10.5, 8)
    step = np.float32(10.5 / 127)
    found = in_groups(pick, x, 16, level=4)[:, 0]
    # a thousandth of the step of 0.083: float32 of numbers around 10 has 1e-6
    return bool(np.allclose(found, -np.rint(x[:, 3] / step) * step, atol=1e-4))


def executed_kinds(path: str) -> set[str]:
    """Operators that a session of the file really executes for the sample ``conv``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = f"{path}.optimized.onnx"
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    import onnx

    return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


def unfused(folder: Path) -> str:
    """The sample's ONNX form with batch norm in nodes of its own."""
    found = locate(converter("torch", "onnx-unfused").convert)(SAMPLES["conv"].model, folder)
    import onnx

    assert "BatchNormalization" in {node.op_type for node in onnx.load(found).graph.node}
    return str(found)


def torch_convolution(dtype: str) -> None:
    """PyTorch's integer convolution of activations of a dtype."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.quantize_per_tensor(torch.ones(1, 3, 5, 5), 0.1, 0, getattr(torch, dtype))
        torch.ao.nn.quantized.Conv2d(3, 4, 3)(x)


def learned_zero_point() -> float:
    """PyTorch's zero point of learned symmetric ranges of unsigned numbers, whose middle is 63."""
    import torch
    from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

    scheme = {"dtype": torch.quint8, "qscheme": torch.per_tensor_symmetric}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fake = _LearnableFakeQuantize(torch.ao.quantization.MinMaxObserver, 0, 127, **scheme)
        fake(torch.tensor([-1.0, 1.0]))
    return fake.zero_point.item()


def torch_observers(word: str) -> list[str]:
    import torch

    return [name for name in dir(torch.ao.quantization) if word in name.lower()]


def differ_by(option: str, folder: Path, quantize: Any, **others: Any) -> bool:
    """Whether an extra option of the quantizer, on or off, gives different files."""
    files = [
        quantize(folder, extra_options={option: value}, **others).read_bytes()
        for value in (True, False)
    ]
    return files[0] != files[1]


def dtypes_of_inputs_and_outputs(path: Path) -> set[str]:
    session = open_session(path)
    return {value.type for value in (*session.get_inputs(), *session.get_outputs())}


def open_session(model: Any, **options: Any) -> Any:
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = 1
    chosen.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    options.setdefault("providers", ["CPUExecutionProvider"])
    return onnxruntime.InferenceSession(source, chosen, **options)


def bfloat16(kind: str, *shapes: tuple[int, ...]) -> None:
    """A session of one bfloat16 node that multiplies."""
    from onnx import TensorProto, helper

    dtype = TensorProto.BFLOAT16
    values = [helper.make_tensor_value_info(n, dtype, s) for n, s in zip("xw", shapes, strict=True)]
    out = helper.make_tensor_value_info("y", dtype, None)
    graph = helper.make_graph([helper.make_node(kind, ["x", "w"], ["y"])], "g", values, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    open_session(model.SerializeToString())


def shapes_of_scales(path: Path) -> set[tuple[int, ...]]:
    """Shapes of the weights' scales in a file."""
    import onnx

    constants = onnx.load(path).graph.initializer
    return {tuple(c.dims) for c in constants if c.name.endswith("weight_scale")}


def providers(*words: str) -> list[str]:
    """ONNX Runtime's execution providers with one of the words in their names."""
    import onnxruntime

    names = onnxruntime.get_available_providers()
    return [name for name in names if any(word in name for word in words)]


def test_the_attempts_succeed_with_what_onnx_runtime_has(tmp_path):
    assert differ_by("WeightSymmetric", tmp_path, static, per_channel=False)
    assert differ_by("WeightSymmetric", tmp_path, dynamic)
    assert shapes_of_scales(dynamic(tmp_path, per_channel=True)) == {(128,), (10,)}
    assert providers("CPU") == ["CPUExecutionProvider"]
    assert calibrated(tmp_path, "Percentile") != calibrated(tmp_path, "MinMax")
    assert random_groups(level=4) != random_groups(level=0)
    assert torch_convolution("quint8") is None
    assert torch_observers("histogram")


def test_the_search_for_caps_finds_numpy_s():
    assert "NPY_DISABLE_CPU_FEATURES" in instruction_set_caps("numpy")


def matrix_products(method: str, floor_db: float, weights: str, *, integer: bool) -> Iterator[Cell]:
    """Cells of a method that quantizes linear layers only, and does nothing where there are none."""
    for name, sample in SAMPLES.items():
        convolutions = tuple(n for n in sample.layers if len(sample.shapes[f"{n}.weight"]) > 2)
        if convolutions == sample.layers:
            yield Cell(name, method, floor_db, "float32", None)
        else:
            floats = convolutions if integer else None
            yield Cell(name, method, floor_db, weights, floats, left=convolutions)


class TestOnnxRuntime(Conformance):
    backend = backend("onnxruntime")
    cells = (
        *grid("fp32", 115, "float32", None),
        *grid("fp16", 64, "float16", None),
        *grid("dynamic-int8", 29, "int8"),
        *grid("static-int8", 28, "int8"),
        *grid("static-int16x8", 31, "int8", None),
        *grid("qat-int8", 22, "int8"),
        *matrix_products("weight-only-int8", 40, "int8", integer=False),
        *matrix_products("weight-only-int4", 16, "int4", integer=False),
        *matrix_products("dynamic-int4", 16, "int4", integer=True),
        Cell("conv", "fp32", 40, "float32", None, axes={"training": "finetune"}),
        Cell("linear", "dynamic-int8", 29, "int8", axes={"granularity": "per-channel"}),
        Cell("linear", "dynamic-int8", 29, "int8", axes={"symmetric_weights": False}),
        Cell("residual", "dynamic-int8", 29, "int8", ("body1",), axes={"keep_float": ["body1"]}),
        Cell("conv", "dynamic-int8", 29, "int8", axes={"fusion": False}),
        Cell("conv", "static-int8", 29, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "static-int8", 29, "int8", axes={"symmetric_activations": True}),
        Cell("conv", "static-int8", 29, "int8", axes={"symmetric_weights": False}),
        Cell("linear", "static-int8", 29, "int8", axes={"activations": "int8"}),
        Cell("linear", "static-int8", 29, "int8", axes={"symmetric_weights": False}),
        Cell("residual", "static-int8", 29, "int8", ("body1",), axes={"keep_float": ["body1"]}),
        Cell("residual", "static-int8", 29, "int8", axes={"fusion": False}),
        Cell("conv", "static-int8", 29, "int8", axes={"calibrator": "moving-average"}),
        Cell(
            "conv", "static-int8", 24, "int8", axes={"calibrator": "percentile", "percentile": 99.9}
        ),
        *(Cell(name, "static-int8", 28, "int8", axes={"route": "qoperator"}) for name in SAMPLES),
        Cell(
            "residual",
            "static-int8",
            29,
            "int8",
            axes={"route": "qoperator", "activations": "int8"},
        ),
        Cell(
            "linear",
            "static-int8",
            29,
            "int8",
            axes={"route": "qoperator", "symmetric_weights": False},
        ),
        Cell(
            "residual",
            "static-int8",
            29,
            "int8",
            ("body1",),
            axes={"route": "qoperator", "keep_float": ["body1"]},
        ),
        Cell("conv", "static-int8", 12, "int4", None, axes={"weights": "int4"}),
        Cell("linear", "static-int8", 10, "int8", None, axes={"activations": "uint4"}),
        Cell("conv", "static-int16x8", 31, "int8", None, axes={"activations": "uint16"}),
        Cell("linear", "weight-only-int8", 40, "int8", None, axes={"symmetric_weights": False}),
        Cell(
            "linear",
            "weight-only-int8",
            40,
            "int8",
            None,
            {"keep_float": ["second"]},
            left=("second",),
        ),
        Cell(
            "larger",
            "weight-only-int4",
            16,
            "int4",
            None,
            {"group_size": 128},
            left=("conv1", "conv2", "conv3", "conv4"),
        ),
        Cell("conv", "static-int8", 20, "int8", axes={"calibrator": "entropy"}),
        Cell("residual", "static-int8", 29, "int8", None, {"parts": "weights"}),
        Cell("residual", "static-int8", 29, "float32", None, {"parts": "activations"}),
        Cell("residual", "static-int8", 29, "int8", ("stem", "body2"), {"only": ["body1"]}),
        Cell("conv", "qat-int8", 22, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "qat-int8", 22, "int8", axes={"symmetric_weights": False}),
        Cell("conv", "qat-int8", 22, "int8", axes={"learned_scales": True}),
        Cell("conv", "qat-int8", 22, "int8", axes={"fusion": False, "calibrator": "minmax"}),
        Cell("conv", "qat-int8", 12, "int8", axes={"weights": "int4", "learned_scales": True}),
        Cell("conv", "qat-int8", 12, "int8", axes={"int4_weights": ["first"]}),
        Cell("conv", "qat-int8", 5, "int8", None, axes={"activations": "uint4"}),
        Cell("residual", "qat-int8", 22, "int8", ("body1",), axes={"keep_float": ["body1"]}),
    )
    refusals = (
        Refusal("no bfloat16 convolution", lambda _: bfloat16("Conv", (1, 3, 6, 6), (4, 3, 3, 3)),
                fails=Exception, match="NOT_IMPLEMENTED.*Conv", method="bf16"),
        Refusal("leaves inputs and outputs in float",
                lambda folder: dtypes_of_inputs_and_outputs(static(folder)),
                gives={"tensor(float)"}, method="static-int8", axes={"io": "int8"}),
        Refusal("folds batch norm when it loads", gives=False, axes={"fusion": False},
                attempt=lambda folder: "BatchNormalization" in executed_kinds(unfused(folder))),
        Refusal("no groups", method="dynamic-int8", axes={"group_size": 32}, gives={()},
                attempt=lambda folder: shapes_of_scales(
                    dynamic(folder, extra_options={"BlockSize": 32}))),
        Refusal("one scale per channel or per tensor", method="static-int8",
                attempt=lambda folder: static(folder, extra_options={"BlockSize": 32}),
                fails=NotImplementedError, match="only supported for rank-2",
                axes={"granularity": "group"}),
        Refusal("to uint8 only", lambda folder: dynamic(folder, activation_type="int8"),
                fails=TypeError, match="activation_type", method="dynamic-int8",
                axes={"activations": "int8"}),
        Refusal("quantize_dynamic packs no 4-bit weights", method="dynamic-int8",
                attempt=lambda folder: dynamic(folder, weight_type=quant_type("QInt4")),
                fails=RuntimeError, match="must be 8-bit", axes={"int4_weights": ["first"]}),
        Refusal("chooses a zero point itself", gives=False, method="dynamic-int8",
                attempt=lambda folder: differ_by("ActivationSymmetric", folder, dynamic),
                axes={"symmetric_activations": True}),
        Refusal("by minmax, moving-average, percentile and entropy only", lambda _: members("CalibrationMethod"), method="static-int8",
                # the last one is for floats of 8 bits
                gives={"MinMax", "Entropy", "Percentile", "Distribution"},
                axes={"calibrator": "mse"}),
        Refusal("take integers and give integers", method="static-int8",
                attempt=lambda folder: float_outputs(
                    static(folder, "QOperator", nodes_to_quantize=["/first/Conv"],
                           extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]})),
                gives=False, axes={"route": "qoperator", "only": ["first"]}),
        Refusal("has two formats", lambda _: members("QuantFormat"), method="static-int8",
                gives={"QOperator", "QDQ"}, axes={"route": "eager"}),
        Refusal("format of quantize_static has no 4-bit tensors", four_bits_in_qoperator,
                fails=RuntimeError, match="must be 8-bit", method="static-int8",
                axes={"route": "qoperator", "int4_weights": ["second"]}),
        Refusal("only the QDQ format", method="static-int16x8", fails=ValueError, match="16-bit",
                attempt=lambda folder: static(
                    folder, "QOperator", activation_type=quant_type("QInt16")),
                axes={"route": "qoperator"}),
        Refusal("no groups longer than 256", lambda _: random_groups(512), fails=RuntimeError,
                method="weight-only-int8", axes={"granularity": "per-channel"}),
        Refusal("a power of two from 16 to 256", lambda _: random_groups(48), fails=RuntimeError,
                method="weight-only-int4", axes={"group_size": 48}),
        # 2 and 3 are for float16 and bfloat16
        Refusal("int8 activations or float ones", method="dynamic-int4", gives={True},
                attempt=lambda _: {random_groups(level=n) == random_groups() for n in (1, 2, 3)},
                axes={"activations": "uint8"}),
        Refusal("gives its activations no zero point", lambda _: steps_of_activations(), gives=True,
                method="dynamic-int4", axes={"symmetric_activations": False}),
        Refusal("kernels that take uint8 activations", lambda _: torch_convolution("qint8"),
                fails=RuntimeError, method="qat-int8", axes={"activations": "int8"}),
        Refusal("lose the zero point", lambda _: learned_zero_point(), gives=0.0, method="qat-int8",
                axes={"learned_scales": True, "symmetric_activations": True}),
        Refusal("no percentile observer", lambda _: torch_observers("percentile"), gives=[],
                method="qat-int8", axes={"percentile": 99.9}),
        Refusal("cannot be capped", lambda _: instruction_set_caps("onnxruntime"), gives=(),
                target=presets()["cpu-avx2"]),
        Refusal("no reference kernels", lambda _: providers("Reference"), gives=[],
                target=presets()["cpu-reference"]),
        Refusal(no_gpu() or "CPU-only wheel", lambda _: providers("CUDA"), gives=[],
                target=presets()["cuda"]),
    )  # fmt: skip
    not_built = (
        NotBuilt("static-int8", {"calibrator": "histogram", "ranges": "injected"}),
        NotBuilt("dynamic-int8", {"only": ["first"]}),
        NotBuilt("weight-only-int4", {"parts": "weights"}),
        NotBuilt("weight-only-int4", {"route": "qdq"}),
        NotBuilt("qat-int8", {"route": "pt2e"}),
        NotBuilt("qat-int8", {"calibrator": "histogram"}),
    )
    by_definition = (
        "as it is",
        "no ready",
        " throughout",
        "a float method ",
        "fp32 leaves every layer in float",
        "weight-only methods leave activations in float",
        "the weights of this method are",
        "PyTorch trains weights of 8 and of 4 bits",
        "this method calibrates nothing",
        "this method quantizes after training",
        "this method fixes activation scales by calibration",
        "has activations of up to 8 bits, and",
        "has 16-bit activations, and",
        "finds activation scales at run time",
        "is trained with fake quantization",
        "nothing is trained",
        "nothing would be trained",
        "but calibrator is minmax",
        "the ranges of this method are trained",
        "needs calibration samples",
        "quantize_dynamic is the one way",
        "there is one way to a float ONNX file",
        "but something is trained",
    )
    applied: ClassVar = {"cpu-1": {}, "cpu-all": {}}
    unoptimized = 0.0, {"graph_optimization": "ORT_DISABLE_ALL"}

    @staticmethod
    def plain_call(artifact, sample, inputs):
        session = open_session(artifact.path)
        found = session.run(None, dict(inputs))
        names = [spec.name for spec in sample.model.outputs]
        return dict(zip(names, found, strict=True))
