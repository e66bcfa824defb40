"""The PyTorch backend passes the conformance suite."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from harness.registry import backend, locate
from harness.target import Target, no_gpu, presets
from tests.backends.conformance import Cell, Conformance, NotBuilt, Refusal, grid
from tests.backends.samples import state, weights

torch = pytest.importorskip("torch")
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
    "residual": None,
    "concat": None,
    "pair": ("look",),
    "larger": ("conv1", "conv2", "conv3", "conv4"),
}


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


class TestPyTorch(Conformance):
    backend = backend("pytorch")
    cells = (
        *grid("fp32", 115, "float32", None),
        *grid("fp16", 58, "float16", None),
        *grid("bf16", 40, "bfloat16", None),
        # quantize_dynamic has linear and recurrent layers only: without one it changes nothing
        *grid("dynamic-int8", 29, "int8", CONVOLUTIONS),
        *grid("static-int8", 22, "int8"),
        Cell("linear", "dynamic-int8", 29, "int8", axes={"granularity": "per-channel"}),
        Cell("conv", "fp32", 115, "float32", None, axes={"route": "traced"}),
        Cell("conv", "fp16", 58, "float16", None, axes={"route": "traced"}),
        Cell("conv", "static-int8", 22, "int8", axes={"granularity": "per-tensor"}),
        Cell("conv", "static-int8", 22, "int8", axes={"calibrator": "minmax"}),
        Cell("conv", "static-int8", 22, "int8", axes={"calibrator": "moving-average"}),
        Cell("conv", "static-int8", 22, "int8", axes={"symmetric_activations": True}),
        Cell("conv", "static-int8", 22, "int8", axes={"symmetric_weights": False}),
        Cell("conv", "static-int8", 22, "int8", axes={"fusion": False}),
        Cell("residual", "static-int8", 22, "int8", ("body1",), axes={"keep_float": ["body1"]}),
        Cell("linear", "dynamic-int8", 29, "int8", ("second",), axes={"keep_float": ["second"]}),
    )
    refusals = (
        Refusal("no int4", lambda _: dynamic(torch.quint4x2), method="dynamic-int4",
                gives=["Conv2d", "BatchNorm2d", "Linear"]),
        Refusal("no int16 activations", lambda _: static(activation=torch.int16), gives=0,
                method="static-int16x8"),
        Refusal("uint8 activations only", lambda _: static(activation=torch.qint8), gives=0,
                method="static-int8", axes={"activations": "int8"}),
        Refusal("int8 weights only", lambda _: static(weight=torch.quint8), gives=0,
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
        Refusal("no percentile observer", lambda _: observers("percentile"), gives=[],
                method="static-int8", axes={"percentile": 99.9}),
        Refusal("one of torch.ao's observers", gives=[], method="static-int8",
                attempt=lambda _: observers("percentile", "entropy", "mse", "std"),
                axes={"calibrator": "entropy"}),
        Refusal("no reference kernels", lambda _: reference_engine(), fails=RuntimeError,
                match="not a valid value", target=presets()["cpu-reference"]),
        Refusal(no_gpu() or "CPU only", lambda _: integers_on_cuda(), method="static-int8",
                fails=(AssertionError, RuntimeError, NotImplementedError),
                target=Target("cuda", device="cuda")),
    )  # fmt: skip
    not_built = (
        NotBuilt("weight-only-int8"),
        NotBuilt("weight-only-int4"),
        NotBuilt("qat-int8"),
        NotBuilt("static-int8", {"io": "int8"}),
        NotBuilt("static-int8", {"ranges": "injected"}),
        NotBuilt("static-int8", {"training": "finetune"}),
        NotBuilt("static-int8", {"route": "eager"}),
        NotBuilt("dynamic-int8", {"route": "fx"}),
        NotBuilt("dynamic-int8", {"weights": "float16"}),
    )
    by_definition = (
        " throughout",
        "a float method ",
        "nothing is trained",
        "calibrates nothing",
        "finds activation scales at run time",
        "fixes activation scales by calibration",
        "needs calibration samples",
        "runs the float modules as they are",
        "runs a float model in one of three ways",
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
        else:
            module = locate(sample.model.forms["torch"])()
            arrays = state(weights(sample.name))
            module.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
        torch.set_num_threads(1)
        with torch.inference_mode():
            outputs = module.to(dtype).eval()(*(torch.tensor(a).to(dtype) for a in inputs.values()))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        names = [spec.name for spec in sample.model.outputs]
        return {name: a.float().numpy() for name, a in zip(names, outputs, strict=True)}
