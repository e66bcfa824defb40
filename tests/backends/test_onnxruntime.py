"""The ONNX Runtime backend passes the conformance suite."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from harness.registry import backend, converter, locate
from harness.target import no_gpu, presets
from harness.tensors import Arrays
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


def static(folder: Path, **options: Any) -> Path:
    """A statically quantized file."""
    from onnxruntime.quantization import quantize_static

    path = folder / "static.onnx"
    quantize_static(exported(folder), str(path), Calibration("conv"), **options)
    return path


def dynamic(folder: Path, **options: Any) -> Path:
    """A dynamically quantized file."""
    from onnxruntime.quantization import quantize_dynamic

    path = folder / "dynamic.onnx"
    quantize_dynamic(exported(folder, "linear"), str(path), **options)
    return path


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


def test_the_search_for_caps_finds_numpy_s():
    assert "NPY_DISABLE_CPU_FEATURES" in instruction_set_caps("numpy")


class TestOnnxRuntime(Conformance):
    backend = backend("onnxruntime")
    cells = (
        *grid("fp32", 115, "float32", None),
        *grid("fp16", 64, "float16", None),
        *grid("dynamic-int8", 29, "int8"),
        *grid("static-int8", 29, "int8"),
        Cell("linear", "dynamic-int8", 29, "int8", axes={"granularity": "per-channel"}),
        Cell("linear", "dynamic-int8", 29, "int8", axes={"symmetric_weights": False}),
        Cell("conv", "static-int8", 29, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "static-int8", 29, "int8", axes={"symmetric_activations": True}),
        Cell("linear", "static-int8", 29, "int8", axes={"activations": "int8"}),
        Cell("residual", "static-int8", 29, "int8", ("body1",), axes={"keep_float": ["body1"]}),
        Cell("residual", "dynamic-int8", 29, "int8", ("body1",), axes={"keep_float": ["body1"]}),
    )
    refusals = (
        Refusal("no bfloat16 convolution", lambda _: bfloat16("Conv", (1, 3, 6, 6), (4, 3, 3, 3)),
                fails=Exception, match="NOT_IMPLEMENTED.*Conv", method="bf16"),
        Refusal("does not train", lambda _: importlib.import_module("onnxruntime.training"),
                fails=ModuleNotFoundError, method="qat-int8"),
        Refusal("does not train", lambda _: importlib.import_module("onnxruntime.training"),
                fails=ModuleNotFoundError, method="static-int8", axes={"training": "finetune"}),
        Refusal("leaves inputs and outputs in float",
                lambda folder: dtypes_of_inputs_and_outputs(static(folder)),
                gives={"tensor(float)"}, method="static-int8", axes={"io": "int8"}),
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
        Refusal("chooses a zero point itself", gives=False, method="dynamic-int8",
                attempt=lambda folder: differ_by("ActivationSymmetric", folder, dynamic),
                axes={"symmetric_activations": True}),
        Refusal("makes per-channel weights symmetric", gives=False, method="static-int8",
                attempt=lambda folder: differ_by(
                    "WeightSymmetric", folder, static, per_channel=True),
                axes={"symmetric_weights": False}),
        Refusal("cannot be capped", lambda _: instruction_set_caps("onnxruntime"), gives=(),
                target=presets()["cpu-avx2"]),
        Refusal("no reference kernels", lambda _: providers("Reference"), gives=[],
                target=presets()["cpu-reference"]),
        Refusal(no_gpu() or "CPU-only wheel", lambda _: providers("CUDA"), gives=[],
                target=presets()["cuda"]),
    )  # fmt: skip
    not_built = (
        NotBuilt("dynamic-int4"),
        NotBuilt("static-int16x8"),
        NotBuilt("weight-only-int8"),
        NotBuilt("weight-only-int4"),
        NotBuilt("as-is"),
        NotBuilt("static-int8", {"ranges": "injected"}),
        NotBuilt("static-int8", {"calibrator": "percentile"}),
        NotBuilt("static-int8", {"percentile": 99.9}),
        NotBuilt("static-int8", {"activations": "int16"}),
        NotBuilt("static-int8", {"route": "qoperator"}),
        # an export without constant folding keeps batch norm
        NotBuilt("static-int8", {"fusion": False}),
    )
    by_definition = (
        " throughout",
        "a float method ",
        "fp32 leaves every layer in float",
        "calibrates nothing",
        "finds activation scales at run time",
        "fixes activation scales by calibration",
        "needs calibration samples",
        "quantize_dynamic has one way",
        "there is one way to a float ONNX file",
    )
    applied: ClassVar = {"cpu-1": {}, "cpu-all": {}}
    unoptimized = 0.0, {"graph_optimization": "ORT_DISABLE_ALL"}

    @staticmethod
    def plain_call(artifact, sample, inputs):
        session = open_session(artifact.path)
        found = session.run(None, dict(inputs))
        names = [spec.name for spec in sample.model.outputs]
        return dict(zip(names, found, strict=True))
