"""Methods: PyTorch's own quantizers, one function each, in the order of its documentation."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.jit._trace import TracingCheckError

from backends.pytorch import archive, form
from backends.pytorch.refusals import route
from harness.errors import BadInput, did_you_mean
from harness.method import Method
from harness.model import Model
from harness.protocol import Artifact
from harness.task import Data

ENGINE = "x86"
CALIBRATION_BATCH = 32


def build(model: Model, method: Method, data: Data, folder: Path) -> Artifact:
    """Build ``model`` with ``method`` and save it in ``folder``; see `Quantizer.quantize`."""
    threads = torch.get_num_threads()
    torch.manual_seed(method.seed)
    torch.set_num_threads(1)  # sums in another order would give other ranges, and other bytes
    try:
        name, details = _save(model, method, data, folder)
    finally:
        torch.set_num_threads(threads)
    return Artifact(
        folder=folder,
        files=(name,),
        runtime="pytorch",
        inputs=tuple(map(form.stored, model.inputs)),
        outputs=tuple(map(form.stored, model.outputs)),
        task_inputs=model.inputs,
        task_outputs=model.outputs,
        details={**details, "method": method.name, "route": route(method)},
    ).save()


def _save(model: Model, method: Method, data: Data, folder: Path) -> tuple[str, dict[str, str]]:
    module = form.trained(model)
    _check_outputs(module, model)
    if method.is_float:
        module = floating(module, method)
        details = {"precision": method.weights, "engine": "none"}
        if route(method) != "traced":
            safetensors.torch.save_file(unshared(module), folder / "model.safetensors")
            return "model.safetensors", {**details, "architecture": model.forms["torch"]}
        script = traced(module, model, getattr(torch, method.weights))
        if method.fusion:
            with archive.deprecated_torchscript():
                script = torch.jit.freeze(script)
    else:
        details = {"precision": "float32", "engine": ENGINE}
        torch.backends.quantized.engine = ENGINE
        with _deprecated_quantization():
            if method.scales == "dynamic":
                module = dynamic_int8(module, method)
            else:
                form.check_finite(data.calibration.inputs, "calibration samples of")
                batches = data.calibration.batches(CALIBRATION_BATCH)
                calibration = (form.tensors(model, batch) for batch in batches)
                examples = form.examples(model, 2, torch.float32)
                module = static_int8(module, method, examples, calibration)
            script = traced(module, model, torch.float32)
    archive.write(script, folder / "model.pt")
    return "model.pt", details


def unshared(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that several modules share under their first name only.

    `safetensors.torch.load_model` ties them again. Its counterpart, ``save_model``, also notes the
    other names in the file, in an order that changes from process to process.
    """
    tensors: dict[tuple[int, torch.Size], tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict().items():
        tensors.setdefault((tensor.data_ptr(), tensor.shape), (name, tensor.contiguous()))
    return dict(tensors.values())


def floating(module: nn.Module, method: Method) -> nn.Module:
    """Parameters and buffers in the method's float dtype."""
    return module.to(getattr(torch, method.weights))


def dynamic_int8(module: nn.Module, method: Method) -> nn.Module:
    """Int8 weights of linear and recurrent layers; activations quantized at each call."""
    import torch.ao.quantization as ao

    activation = ao.default_dynamic_qconfig.activation
    qconfig = _qconfig(activation, weight_observer(method))
    layers: dict[Any, Any] = dict.fromkeys((nn.Linear, nn.LSTM, nn.GRU), qconfig)
    layers.update(dict.fromkeys(kept(module, method)))
    quantized: nn.Module = ao.quantize_dynamic(module, layers)  # type: ignore[no-untyped-call]
    return quantized


def static_int8(
    module: nn.Module,
    method: Method,
    examples: tuple[Tensor, ...],
    calibration: Iterable[tuple[Tensor, ...]],
) -> nn.Module:
    """FX graph mode quantization for engine x86, calibrated on ``calibration``'s batches."""
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    backend = backend_config(fusion=method.fusion)
    mapping = qconfig_mapping(method)
    for name in kept(module, method):
        mapping.set_module_name(name, None)
    prepared = prepare_fx(module, mapping, examples, backend_config=backend)
    with torch.no_grad():
        for batch in calibration:
            prepared(*batch)
    converted: nn.Module = convert_fx(prepared, backend_config=backend)
    return converted


def qconfig_mapping(method: Method) -> Any:
    """PyTorch's default mapping for engine x86, with the method's observers in place of its own."""
    from torch.ao.quantization import get_default_qconfig_mapping

    mapping = get_default_qconfig_mapping(ENGINE)
    default: Any = mapping.global_qconfig
    activation = activation_observer(method)
    mapping.set_global(_qconfig(activation, weight_observer(method)))
    for kind, qconfig in list(mapping.object_type_qconfigs.items()):
        # transposed convolutions and layer norm: weights of their own, activations as all others
        if qconfig is not None and qconfig.activation is default.activation:
            mapping.set_object_type(kind, _qconfig(activation, qconfig.weight))
    return mapping


def _qconfig(activation: Any, weight: Any) -> Any:
    from torch.ao.quantization import QConfig

    return QConfig(activation=activation, weight=weight)  # type: ignore[no-untyped-call]


def activation_observer(method: Method) -> Any:
    """What estimates the static range of an activation."""
    import torch.ao.quantization as ao

    observer: Any = {
        "histogram": ao.HistogramObserver,
        "minmax": ao.MinMaxObserver,
        "moving-average": ao.MovingAverageMinMaxObserver,
    }[method.calibrator]
    symmetry = "symmetric" if method.symmetric_activations else "affine"
    # 7 bits, as in the engine's default: sums of two 8-bit products saturate int16 without VNNI.
    # Its own way to say so, reduce_range, puts the zero point of symmetric ranges at 128, out of
    # the 7 bits: measured on AVX2 kernels, 9 of 100 digits were then read wrongly.
    return observer.with_args(
        dtype=torch.quint8,
        qscheme=getattr(torch, f"per_tensor_{symmetry}"),
        quant_min=0,
        quant_max=127,
    )


def weight_observer(method: Method) -> Any:
    """What finds the scales of a weight."""
    import torch.ao.quantization as ao

    per_channel = method.granularity == "per-channel"
    observer = ao.PerChannelMinMaxObserver if per_channel else ao.MinMaxObserver
    symmetry = "symmetric" if method.symmetric_weights else "affine"
    scheme = f"per_{'channel' if per_channel else 'tensor'}_{symmetry}"
    return observer.with_args(dtype=torch.qint8, qscheme=getattr(torch, scheme))


def backend_config(*, fusion: bool) -> Any:
    """PyTorch's native backend; without its patterns of fused modules where ``fusion`` is off."""
    from torch.ao.quantization.backend_config import BackendConfig, get_native_backend_config

    native = get_native_backend_config()
    if fusion:
        return native
    single = [pattern for pattern in native.configs if pattern.fuser_method is None]
    return BackendConfig(native.name).set_backend_pattern_configs(single)


def kept(module: nn.Module, method: Method) -> tuple[str, ...]:
    """The layers that ``keep_float`` names; raises `BadInput` for one that matches none."""
    layers = form.layers(module)
    for pattern in method.keep_float:
        if not fnmatch.filter(layers, pattern):
            raise BadInput(
                f"keep_float names '{pattern}', which is no layer.{did_you_mean(pattern, layers)}"
            )
    return tuple(n for n in layers if any(fnmatch.fnmatch(n, p) for p in method.keep_float))


def traced(module: nn.Module, model: Model, precision: torch.dtype) -> torch.jit.ScriptModule:
    """The module as TorchScript, good for every batch size.

    Raises
    ------
    BadInput
        If the module cannot be traced, or its trace computes something else at batch sizes 1 or 3.
    """
    examples, *others = (form.examples(model, size, precision) for size in (2, 1, 3))
    with archive.deprecated_torchscript(), torch.no_grad(), _slow_attention():
        try:
            archive.forget_traces()
            script = torch.jit.trace(module, examples, check_inputs=others)  # type: ignore[no-untyped-call]
        except TracingCheckError as error:
            raise BadInput(
                f"model '{model.name}' depends on the batch size in Python code, which a trace "
                "cannot follow; write it with tensor operations, or use fp32 with route: eager"
            ) from error
    assert isinstance(script, torch.jit.ScriptModule)  # noqa: S101 - what trace gives for a module
    return script


def _check_outputs(module: nn.Module, model: Model) -> None:
    with torch.no_grad():
        outputs = module(*form.examples(model, 2, torch.float32))
    count = 1 if isinstance(outputs, Tensor) else len(outputs)
    if count != len(model.outputs):
        raise BadInput(
            f"model '{model.name}' names {len(model.outputs)} outputs, its module returns {count}"
        )


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Attention by its plain operators: the fused ones read float weights, even quantized ones."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@contextmanager
def _deprecated_quantization() -> Iterator[None]:
    """Silence torch.ao's own deprecation: its successor, torchao, is not what is measured here."""
    with warnings.catch_warnings():
        for message in (
            "torch.ao.quantization is deprecated",
            "Please use quant_min and quant_max to specify the range for observers",
            "torch.quantize_per_tensor, torch.quantize_per_channel and other quantized tensor",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
