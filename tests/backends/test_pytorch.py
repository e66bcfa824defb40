"""The PyTorch backend passes the conformance suite."""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import Any, ClassVar

import pytest

from quantbench.backend_api import backend
from quantbench.spec import Target, presets
from quantbench.system import locate, no_gpu
from tests.backends.conformance import Cell, Conformance, NotBuilt, Refusal, grid
from tests.backends.samples import EAGER, SAMPLES, state, weights

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode

from quantbench_backends.pytorch.exported import quietly

pytestmark = [
    # the attempts call what the backend calls, where it silences them
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max:UserWarning"),
    pytest.mark.filterwarnings(
        "ignore:torch.quantize_per_tensor, torch.quantize_per_channel:UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning"),
]

CONVOLUTIONS = {
    "conv": None,
    "depthwise": ("stem", "depth", "point"),
    "groupnorm": ("first", "second"),
    "residual": None,
    "concat": None,
    "pair": ("look",),
    "larger": ("conv1", "conv2", "conv3", "conv4"),
}
LEFT = {name: CONVOLUTIONS.get(name, ()) or SAMPLES[name].layers for name in SAMPLES} | {
    "linear": ()
}
# torchao's CPU kernel for int4 takes outputs in 16s, and groups of 32 inputs
INT4_LEFT = LEFT | {
    "linear": ("second",),
    "depthwise": SAMPLES["depthwise"].layers,
    "groupnorm": SAMPLES["groupnorm"].layers,
    "larger": (*LEFT["larger"], "head"),
}
EAGER_MODE = {"route": "eager"}
PLAIN = os.environ.get("ATEN_CPU_CAPABILITY") == "default"
"""Under this cap inductor writes vector types for dynamic int8 that torch's own headers then leave out
(torch 2.13: g++ knows no ``at::vec``), so that this cell cannot be compiled."""
PT2E = {"route": "pt2e"}


# --- attempts: torch.ao without this project's code ----------------------------------------------


def dynamic(dtype: Any) -> list[str]:
    """The layers after quantize_dynamic to a dtype of weights."""
    nn = torch.nn
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 8)).eval()
    return [type(child).__name__ for child in ao().quantize_dynamic(module, dtype=dtype)]


def dynamic_outputs(activation: Any) -> Any:
    torch.manual_seed(0)
    module, x = torch.nn.Sequential(torch.nn.Linear(8, 8)), torch.randn(4, 8)
    qconfig = ao().QConfig(activation=activation, weight=ao().default_weight_observer)
    return ao().quantize_dynamic(module, {torch.nn.Linear: qconfig})(x)


def ignores(dtype: Any, **options: Any) -> bool:
    """Whether quantize_dynamic gives with these activations what it gives by default."""
    asked = ao().PlaceholderObserver.with_args(dtype=dtype, is_dynamic=True, **options)
    default = ao().default_dynamic_qconfig.activation
    return torch.equal(dynamic_outputs(asked), dynamic_outputs(default))


def static(activation: Any = torch.quint8, weight: Any = torch.qint8) -> int:
    """How many of a convolution and a linear layer FX graph mode converts with these dtypes."""
    from torch.ao.nn.quantized.modules.utils import WeightedQuantizedModule
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    nn = torch.nn
    observer = ao().MinMaxObserver.with_args
    chosen = ao().QConfig(activation=observer(dtype=activation), weight=observer(dtype=weight))
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).eval()
    x = torch.randn(2, 3, 8, 8)
    prepared = prepare_fx(module, ao().QConfigMapping().set_global(chosen), (x,))
    prepared(x)
    converted = convert_fx(prepared)
    return sum(isinstance(child, WeightedQuantizedModule) for child in converted.modules())


def observers(*words: str) -> list[str]:
    """torch.ao's observers with one of the words in their names."""
    from torch.ao.quantization import observer

    names = [name for name in dir(observer) if name.endswith("Observer")]
    return [name for name in names if any(word in name.lower() for word in words)]


def schemes() -> list[str]:
    """What a weight's scales can belong to."""
    return sorted(
        {n.split("_")[1] for n in dir(torch) if isinstance(getattr(torch, n), torch.qscheme)}
    )


def stubbed() -> Any:
    """A layer without a qconfig between the stubs of a converted eager model, called."""
    module = torch.nn.Sequential(ao().QuantStub(), torch.nn.Linear(4, 4), ao().DeQuantStub())
    module.eval().qconfig = ao().get_default_qconfig("x86")
    module[1].qconfig = None
    prepared = ao().prepare(module)
    prepared(torch.randn(2, 4))
    return ao().convert(prepared)(torch.randn(2, 4))


def learned_zero_point() -> float:
    """The zero point of learned symmetric ranges of unsigned activations, whose middle is 63."""
    from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

    fake = _LearnableFakeQuantize(
        ao().MinMaxObserver, 0, 127, dtype=torch.quint8, qscheme=torch.per_tensor_symmetric
    )
    fake(torch.tensor([-1.0, 1.0]))
    return fake.zero_point.item()


# --- attempts: torchao and bitsandbytes without this project's code --------------------------------


def x86_weights() -> Any:
    """How torchao's default configuration for x86 quantizes weights."""

    def ask() -> Any:
        import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86

        return x86.get_default_x86_inductor_quantization_config().weight.qscheme

    return quietly(ask)


def exported_operators() -> set[str]:
    """Operators of a convolution with batch norm, as soon as prepare_pt2e has seen it."""

    def ask() -> set[str]:
        import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

        nn = torch.nn
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        graph = torch.export.export(module, (torch.randn(1, 3, 8, 8),)).module()
        found = prepare_pt2e(graph, x86.X86InductorQuantizer())
        return {str(n.target) for n in found.graph.nodes if n.op == "call_function"}

    return quietly(ask)


def learnable() -> list[str]:
    """torchao's fake quantization with learned scales."""

    def ask() -> list[str]:
        from torchao.quantization.pt2e import fake_quantize

        return [name for name in dir(fake_quantize) if "learn" in name.lower()]

    return quietly(ask)


def torchao(configuration: str, folder: str = "torchao.quantization", **options: Any) -> Any:
    """A linear layer of 64 to 32 after quantize_."""

    def ask() -> Any:
        from torchao.quantization import quantize_

        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(64, 32)).eval().requires_grad_(False)
        module[0].weight += 0.5
        kind = getattr(importlib.import_module(folder), configuration)
        quantize_(module, kind(**options))
        return module

    return quietly(ask)


INT4 = "torchao.prototype.quantization.int4.inference_workflow"


def dynamic_inputs() -> set[Any]:
    """Dtypes of what torchao's dynamic quantization multiplies with the weights."""
    found = set()

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func._schema.name == "aten::_int_mm":
                found.add(args[0].dtype)
            return func(*args, **(kwargs or {}))

    program = quietly(lambda: exported(torchao("Int8DynamicActivationInt8WeightConfig")))
    with torch.no_grad(), Seen():
        program(torch.randn(2, 64))
    return found


def exported(module: Any) -> Any:
    from torchao.utils import unwrap_tensor_subclass

    return torch.export.export(unwrap_tensor_subclass(module), (torch.randn(2, 64),)).module()


def int8_zero_points() -> set[int]:
    """Zero points of skewed weights."""
    weight = torchao("Int8WeightOnlyConfig")[0].weight
    return set(weight.zero_point.flatten().tolist())


def int4_zero_points() -> bool:
    """Whether the groups of skewed weights have zero points."""
    weight = torchao("PrototypeInt4WeightOnlyConfig", INT4, group_size=32)[0].weight
    return bool(weight.scale_and_zero[..., 1].abs().min() > 0)


def int4_options() -> list[str]:
    from torchao.prototype.quantization.int4 import inference_workflow

    fields = dataclasses.fields(inference_workflow.PrototypeInt4WeightOnlyConfig)
    return [field.name for field in fields if "gran" in field.name or "channel" in field.name]


def int4_groups_of_16() -> Any:
    return torchao("PrototypeInt4WeightOnlyConfig", INT4, group_size=16)(torch.randn(1, 64))


def bitsandbytes(kind: str, **options: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of what a quantized linear layer of 64 to 32 holds."""
    nn = importlib.import_module("bitsandbytes").nn
    layer = getattr(nn, kind)(64, 32, **options).to("cpu")
    layer(torch.randn(2, 64))
    return {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}


def reference_engine() -> None:
    torch.backends.quantized.engine = "reference"


def integers_on_cuda() -> Any:
    x = torch.quantize_per_tensor(torch.zeros(1, 8, device="cuda"), 1.0, 0, torch.quint8)
    return torch.ao.nn.quantized.Linear(8, 8).to("cuda")(x)


def ao() -> Any:
    import torch.ao.quantization

    return torch.ao.quantization


def test_the_attempts_succeed_with_what_torch_has():
    assert dynamic(torch.qint8) == ["Conv2d", "BatchNorm2d", "Linear"]
    assert ignores(torch.quint8)
    assert static() == 2
    assert observers("histogram") == ["HistogramObserver"]
    assert "aten.conv2d.default" in exported_operators()
    assert torchao("Int8WeightOnlyConfig")(torch.randn(1, 64)).shape == (1, 32)


class TestPyTorch(Conformance):
    backend = backend("pytorch")
    cells = (
        *grid("fp32", 115, "float32", None),
        *grid("fp16", 58, "float16", None),
        *grid("bf16", 40, "bfloat16", None),
        # quantize_dynamic has linear and recurrent layers only: without one it changes nothing
        *grid("dynamic-int8", 29, "int8", CONVOLUTIONS),
        *grid("static-int8", 22, "int8"),
        *grid("qat-int8", 22, "int8"),
        *grid("weight-only-int8", 35, "int8", None, LEFT),
        *grid("weight-only-int4", 14, "int4", None, INT4_LEFT),
        *(Cell(name, "static-int8", 22, "int8", axes=EAGER_MODE) for name in EAGER),
        *(Cell(name, "qat-int8", 22, "int8", axes=EAGER_MODE) for name in EAGER),
        *(Cell(name, "static-int8", 30, "int8", axes=PT2E) for name in ("residual", "groupnorm")),
        Cell("conv", "qat-int8", 30, "int8", axes=PT2E),
        Cell(
            "residual",
            "static-int8",
            30,
            "int8",
            ("body1",),
            axes={**PT2E, "keep_float": ["body1"]},
        ),
        Cell("linear", "dynamic-int8", 29, "int8", axes={"granularity": "per-channel"}),
        Cell("pair", "dynamic-int8", 29, "int8", ("look",), axes={"route": "fx"}),
        Cell("linear", "dynamic-int8", 35, "int8", axes={"route": "torchao"}),
        *(Cell("linear", "dynamic-int8", 35, "int8", axes={"route": "torchao-compiled"}),)[PLAIN:],
        Cell("linear", "weight-only-int8", 35, "int8", None, axes={"route": "torchao-compiled"}),
        Cell(
            "linear",
            "weight-only-int8",
            35,
            "int8",
            None,
            axes={"granularity": "group", "group_size": 32},
        ),
        Cell("linear", "weight-only-int8", 35, "int8", None, {"keep_float": ["sec*"]}, ("second",)),
        Cell("linear", "weight-only-int8", 35, "int8", None, {"route": "bitsandbytes"}),
        Cell("linear", "weight-only-int4", 14, "nf4", None, {"route": "bitsandbytes"}),
        Cell(
            "linear",
            "weight-only-int4",
            14,
            "int4",
            None,
            {"route": "torchao-compiled"},
            ("second",),
        ),
        Cell("conv", "fp32", 115, "float32", None, axes={"route": "traced"}),
        Cell("residual", "fp32", 115, "float32", None, axes={"route": "stubs"}),
        Cell("conv", "fp32", 115, "float32", None, axes={"training": "finetune"}),
        Cell("conv", "fp16", 58, "float16", None, axes={"route": "traced"}),
        Cell("conv", "static-int8", 22, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "static-int8", 22, "int8", axes={"calibrator": "minmax"}),
        Cell("conv", "static-int8", 22, "int8", axes={"calibrator": "moving-average"}),
        Cell("conv", "static-int8", 22, "int8", axes={"symmetric_activations": True}),
        Cell("conv", "static-int8", 22, "int8", axes={"symmetric_weights": False}),
        Cell("conv", "static-int8", 22, "int8", axes={"fusion": False}),
        Cell("conv", "qat-int8", 22, "int8", axes={"fusion": False}),
        Cell("conv", "qat-int8", 22, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "qat-int8", 22, "int8", axes={"symmetric_activations": True}),
        Cell("conv", "qat-int8", 12, "int8", axes={"optimizer": "adam", "freeze_batchnorm": 1}),
        # simulated: 4-bit values in int8, or everything in float where activations have 4 bits
        Cell("conv", "static-int8", 12, "int8", axes={"weights": "int4"}),
        Cell("conv", "qat-int8", 12, "int8", axes={"weights": "int4", "learned_scales": True}),
        Cell("conv", "qat-int8", 12, "int8", axes={"int4_weights": ["first"]}),
        Cell("conv", "qat-int8", 5, "float32", None, axes={"activations": "uint4"}),
        Cell(
            "conv",
            "static-int8",
            5,
            "float32",
            None,
            axes={"int4_activations": ["first"], "calibrator": "minmax"},
        ),
        Cell("residual", "static-int8", 22, "int8", ("body1",), axes={"keep_float": ["body1"]}),
        Cell("conv", "static-int8", 22, "int8", ("first",), axes={"only": ["second"]}),
        Cell("conv", "static-int8", 22, "int8", ("first",), axes={**PT2E, "only": ["second"]}),
        # simulated
        Cell("conv", "static-int8", 22, "float32", None, axes={"parts": "weights"}),
        Cell("conv", "static-int8", 22, "float32", None, axes={"parts": "activations"}),
        Cell("conv", "static-int8", 22, "float32", None, axes={**EAGER_MODE, "parts": "weights"}),
        Cell("residual", "qat-int8", 22, "int8", ("body1",), axes={"keep_float": ["body1"]}),
        Cell("linear", "dynamic-int8", 29, "int8", ("second",), axes={"keep_float": ["second"]}),
    )
    refusals = (
        Refusal("not in its wheel", method="dynamic-int4", fails=AssertionError, match="da8w4",
                attempt=lambda _: torchao("Int8DynamicActivationInt4WeightConfig", INT4)),
        Refusal("one scale per channel", lambda _: x86_weights(), method="static-int8",
                gives=torch.per_channel_symmetric, axes={**PT2E, "granularity": "per-tensor"}),
        Refusal("zero point of weights at 0", lambda _: x86_weights(), method="static-int8",
                gives=torch.per_channel_symmetric, axes={**PT2E, "symmetric_weights": False}),
        Refusal("always folds batch norm", lambda _: exported_operators(), method="static-int8",
                gives={"aten.conv2d.default"}, axes={**PT2E, "fusion": False}),
        Refusal("learns no scales", lambda _: learnable(), gives=[], method="qat-int8",
                axes={**PT2E, "learned_scales": True}),
        Refusal("only outside the stubs", lambda _: stubbed(), fails=RuntimeError, match="QUInt8",
                method="static-int8", axes={**EAGER_MODE, "keep_float": ["first"]}),
        Refusal("lose the zero point", lambda _: learned_zero_point(), gives=0.0, method="qat-int8",
                axes={"learned_scales": True, "symmetric_activations": True}),
        Refusal("unsigned with a zero point", lambda _: dynamic_inputs(), gives={torch.uint8},
                method="dynamic-int8", axes={"route": "torchao", "activations": "int8"}),
        Refusal("zero point of int8 weights at 0", lambda _: int8_zero_points(), gives={0},
                method="weight-only-int8", axes={"symmetric_weights": False}),
        Refusal("a zero point in every group", lambda _: int4_zero_points(), gives=True,
                method="weight-only-int4", axes={"symmetric_weights": True}),
        Refusal("takes groups of weights", lambda _: int4_options(), gives=[],
                method="weight-only-int4", axes={"granularity": "per-channel"}),
        Refusal("groups of such sizes", lambda _: int4_groups_of_16(), fails=AssertionError, match="group size",
                method="weight-only-int4", axes={"group_size": 16}),
        Refusal("zero point of weights at 0", method="weight-only-int8",
                attempt=lambda _: bitsandbytes("Linear8bitLt", has_fp16_weights=False),
                gives={"weight": (32, 64), "bias": (32,), "SCB": (32,), "weight_format": ()},
                axes={"route": "bitsandbytes", "symmetric_weights": False}),
        Refusal("one scale per channel for int8", method="weight-only-int8",
                attempt=lambda _: bitsandbytes("Linear8bitLt", has_fp16_weights=False)["SCB"],
                gives=(32,), axes={"route": "bitsandbytes", "granularity": "group"}),
        Refusal("have blocks of weights", method="weight-only-int4",
                attempt=lambda _: bitsandbytes("Linear4bit", quant_type="nf4")["weight.absmax"],
                gives=(32,), axes={"route": "bitsandbytes", "granularity": "per-channel"}),
        Refusal("no int16 activations", lambda _: static(activation=torch.int16), gives=0,
                method="static-int16x8"),
        Refusal("uint8 activations only", lambda _: static(activation=torch.qint8), gives=0,
                method="static-int8", axes={"activations": "int8"}),
        Refusal("rounds weights to integers", lambda _: static(weight=torch.float16), fails=AssertionError,
                method="static-int8", axes={"weights": "float16"}),
        Refusal("activations to uint8", lambda _: ignores(torch.qint8), gives=True,
                method="dynamic-int8", axes={"activations": "int8"}),
        Refusal("choose a zero point themselves", gives=True, method="dynamic-int8",
                attempt=lambda _: ignores(torch.quint8, qscheme=torch.per_tensor_symmetric),
                axes={"symmetric_activations": True}),
        Refusal("quantize_dynamic fuses nothing", lambda _: dynamic(torch.qint8),
                gives=["Conv2d", "BatchNorm2d", "Linear"], method="dynamic-int8",
                axes={"fusion": False}),
        Refusal("no groups of weights", lambda _: schemes(), gives=["channel", "tensor"],
                method="dynamic-int8", axes={"group_size": 32}),
        Refusal("per tensor or per channel only", lambda _: schemes(), gives=["channel", "tensor"],
                method="static-int8", axes={"granularity": "group"}),
        Refusal("has no such setting in PyTorch", lambda _: observers("percentile"), gives=[],
                method="static-int8", axes={"percentile": 99.9}),
        Refusal("only outside the stubs", lambda _: stubbed(), fails=RuntimeError, match="QUInt8",
                method="static-int8", axes={**EAGER_MODE, "only": ["first"]}),
        Refusal("not one of torch.ao's observers", gives=[], method="static-int8",
                attempt=lambda _: observers("percentile", "entropy", "mse", "std"),
                axes={"calibrator": "entropy"}),
        Refusal("no reference kernels", lambda _: reference_engine(), fails=RuntimeError,
                match="not a valid value", target=presets()["cpu-reference"]),
        Refusal(no_gpu() or "CPU only", lambda _: integers_on_cuda(), method="static-int8",
                fails=(AssertionError, RuntimeError, NotImplementedError),
                target=Target("cuda", device="cuda")),
    )  # fmt: skip
    not_built = (
        NotBuilt("static-int8", {"io": "int8"}),
        NotBuilt("static-int8", {"ranges": "injected"}),
        NotBuilt("static-int8", {**PT2E, "symmetric_activations": True}),
        NotBuilt("static-int8", {**PT2E, "weights": "int4"}),
        NotBuilt("static-int8", {**PT2E, "int4_weights": ["first"]}),
        NotBuilt("static-int8", {**PT2E, "parts": "weights"}),
        NotBuilt("qat-int8", {"only": ["first"]}),
        NotBuilt("weight-only-int8", {"parts": "weights"}),
        NotBuilt("qat-int8", {"calibrator": "histogram"}),
        NotBuilt("dynamic-int8", {"weights": "float16"}),
        NotBuilt("weight-only-int8", {"granularity": "per-tensor"}),
        NotBuilt("weight-only-int4", {"route": "bitsandbytes", "group_size": 128}),
    )
    by_definition = (
        " throughout",
        "a float method ",
        "nothing is trained",
        "this is post-training quantization",
        "scales are learned in training only",
        "is trained with fake quantization",
        "is a float method",
        "so that nothing would be trained",
        "but something is trained",
        "weights alone are quantized",
        "does not calibrate activations",
        "every weight has 4 bits",
        "weight-only-int8 has int8 weights",
        "quantizing linear layers fuses nothing",
        "in other ways",
        "calibrates nothing",
        "finds activation scales at run time",
        "has static activation scales",
        "this method has no static ranges",
        "goes on to adapt the ranges itself",
        "needs calibration samples",
        "runs the float modules as they are",
        "no 'torch-eager' form",
        "not from a ready file",
    )
    applied: ClassVar = {"cpu-1": {}, "cpu-all": {}, "cpu-avx2": {"isa": "AVX2"}}
    unoptimized = 1.0, {"graph_optimization": "off"}

    @staticmethod
    def plain_call(artifact, sample, inputs):
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(
            artifact.details["method"], torch.float32
        )
        if artifact.path.suffix == ".pt":
            module = torch.jit.load(artifact.path)
        elif artifact.path.suffix == ".pt2":
            quietly(lambda: importlib.import_module("torchao.quantization"))
            module = torch.export.load(artifact.path).module()
        else:
            module = locate(sample.model.forms["torch"])()
            arrays = state(weights(sample.name))
            module.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
        torch.set_num_threads(1)
        with torch.inference_mode():
            module = module if artifact.path.suffix == ".pt2" else module.to(dtype).eval()
            outputs = module(*(torch.tensor(a).to(dtype) for a in inputs.values()))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        names = [spec.name for spec in sample.model.outputs]
        return {name: a.float().numpy() for name, a in zip(names, outputs, strict=True)}
