"""Methods: PyTorch's own quantizers, one function each, in the order of its documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.ao.quantization as ao
from torch import Tensor, nn
from torch.jit._trace import TracingCheckError

from quantbench.backend_api import Artifact, See, check_finite
from quantbench.errors import BadInput
from quantbench.spec import Data, Method, Model
from quantbench_backends.pytorch import (
    archive,
    eager,
    exported,
    exported_program_record,
    form,
    fx,
    observation_points,
    observers,
    partial_quantization,
    pt2e,
    qat,
    routes,
    torchscript_record,
    weight_only,
)
from quantbench_backends.pytorch.determinism import deterministic
from quantbench_backends.pytorch.refusals import form_of, route


def build(model: Model, method: Method, data: Data, folder: Path) -> Artifact:
    """Build ``model`` with ``method`` and save it in ``folder``; see `Quantizer.quantize`."""
    folder.mkdir(parents=True, exist_ok=True)
    with deterministic(method.seed):
        name, details = _save(model, method, data, folder)
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
    """Build and write; returns the file's name and what the runtime must know of it."""
    check_finite("calibration samples", data.calibration.inputs)
    name = f"model{routes.named(route(method)).suffix(method)}"
    if method.is_float:
        details = _floating(model, method, folder / name)
    elif route(method) == "pt2e":
        details = _pt2e(model, method, data, folder / name)
    elif route(method) in ("torchao", "torchao-compiled"):
        details = _torchao(model, method, folder / name)
    elif route(method) == "bitsandbytes":
        details = _bitsandbytes(model, method, folder / name)
    else:
        details = _torch_ao(model, method, data, folder / name)
    return name, details


def _floating(model: Model, method: Method, path: Path) -> dict[str, str]:
    """The module's parameters and buffers in the method's dtype."""
    own = form_of(method)
    module = _checked(model, own).to(getattr(torch, method.weights))
    details = {"precision": method.weights, "engine": "none"}
    if path.suffix == routes.WEIGHTS:
        safetensors.torch.save_file(unshared(module), path)
        return {**details, "architecture": model.forms[own]}
    script = traced(module, model, getattr(torch, method.weights))
    if method.fusion:
        with archive.deprecated_torchscript():
            script = torch.jit.freeze(script)
    archive.write(script, path)
    return details


def _pt2e(model: Model, method: Method, data: Data, path: Path) -> dict[str, str]:
    """The calibrated graph with int8 weights, and beside it the paths that it only numbers."""
    program, paths = pt2e.converted(_calibrated(model, method, data), model)
    details = _exported(program, method, path)
    return {**details, exported_program_record.LAYERS: json.dumps(paths)}


def _torchao(model: Model, method: Method, path: Path) -> dict[str, str]:
    """The exported module with torchao's weights."""
    module = weight_only.quantized(_checked(model), method)
    return _exported(exported.export(module, model), method, path)


def _exported(program: torch.export.ExportedProgram, method: Method, path: Path) -> dict[str, str]:
    exported.write(program, path)
    operators = routes.named(route(method)).operators
    return {"precision": "float32", "engine": "none", "imports": operators}


def _bitsandbytes(model: Model, method: Method, path: Path) -> dict[str, str]:
    """The tensors of bitsandbytes' layers."""
    module = weight_only.swapped(_checked(model), method)
    safetensors.torch.save_file(weight_only.packed(module), path)
    return {"precision": "float32", "engine": "none", "architecture": model.forms["torch"]}


def _torch_ao(model: Model, method: Method, data: Data, path: Path) -> dict[str, str]:
    """torch.ao's integer modules as TorchScript; fake quantization where there is no kernel."""
    torch.backends.quantized.engine = routes.X86
    details = {"precision": "float32", "engine": routes.X86}
    with qat.deprecated_quantization():
        if method.scales == "dynamic":
            module = dynamic_int8(_checked(model), model, method)
        else:
            low, high = observers.ACTIVATIONS["uint8"]
            details[torchscript_record.GRID] = f"{low} {high}"
            module = _calibrated(model, method, data)
            if why := simulated(method):
                details |= {"engine": "none", "simulated": why}
            if method.parts != "both":
                module = partial_quantization.alone(module, method)
            elif not why:
                if method.learned_scales:
                    observers.bake(module)
                module = _converted(module, method)
        if four := narrow_weights(method):
            details.setdefault("simulated", four)
        script = traced(module, model, torch.float32)
    archive.write(script, path)
    return details


def observe(model: Model, method: Method, data: Data, see: See) -> None:
    """Show every activation whose range the method needs, batch by batch; see `Quantizer.observe`."""
    check_finite("calibration samples", data.calibration.inputs)
    with deterministic(method.seed), qat.deprecated_quantization():
        module = _prepared(model, method)
        observers.observe(module)
        observation_points.show(module, see)
        _observed(module, model, data)


def _prepared(model: Model, method: Method) -> nn.Module:
    """The module with observers that have seen nothing; fake quantization where that is what is built."""
    _checked(model)
    if route(method) == "pt2e":
        return pt2e.prepared(form.trained(model), model, method, fake=False)
    if _fake(method):
        return qat.prepared(model, method)
    if route(method) == "eager":
        return eager.prepared(form.trained(model, "torch-eager"), method, fake=False)
    examples = form.examples(model, 2, torch.float32)
    return fx.prepared(form.trained(model), method, examples, fake=False)


def _calibrated(model: Model, method: Method, data: Data) -> nn.Module:
    """The module with ranges: trained ones, those of the calibration samples, or given ones."""
    if method.training == "qat":
        return qat.restored(model)
    module = _prepared(model, method)
    if method.ranges == "injected":
        observers.observe(module)
        # one sample for the weights, which some routes observe in the graph
        first = Data(data.calibration.take(np.arange(1)), None, data.seed)
        _observed(module, model, first)
        observation_points.give(module, data.ranges)
        observers.imitate(module, adapt=False)
    elif _fake(method):
        qat.calibrate(module, model, data.calibration)
    else:
        _observed(module, model, data)
    return module


def _observed(module: nn.Module, model: Model, data: Data) -> nn.Module:
    with torch.no_grad():
        for batch in data.calibration.batches(qat.CALIBRATION_BATCH):
            module(*form.tensors(model, batch))
    return module


def _converted(prepared: nn.Module, method: Method) -> nn.Module:
    if route(method) == "eager":
        return eager.converted(prepared)
    return fx.converted(prepared, method)


def _fake(method: Method) -> bool:
    """Whether fake quantization itself is what is built, without training."""
    return bool(narrow_activations(method)) and method.parts == "both"


def simulated(method: Method) -> str:
    """Why no kernel computes the method; nothing where one does."""
    if method.parts != "both":
        return f"no kernel of PyTorch takes {method.parts} alone as integers: computed in float"
    return narrow_activations(method)


def narrow_activations(method: Method) -> str:
    """Why 4-bit activations are computed in float; nothing where there are none."""
    if method.activations == "uint4" or method.int4_activations:
        return "PyTorch has no kernel for 4-bit activations: computed in float, fake-quantized"
    return ""


def narrow_weights(method: Method) -> str:
    """Why torch.ao's 4-bit weights have no latency; nothing where there are none."""
    if method.weights == "int4" or method.int4_weights:
        return "engine x86 has no kernel for 4-bit weights: their values are held in int8"
    return ""


def unshared(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that several modules share under their first name only.

    `safetensors.torch.load_model` ties them again. Its counterpart, ``save_model``, also notes the
    other names in the file, in an order that changes from process to process.
    """
    tensors: dict[tuple[int, torch.Size], tuple[str, Tensor]] = {}
    for name, tensor in module.state_dict().items():
        tensors.setdefault((tensor.data_ptr(), tensor.shape), (name, tensor.contiguous()))
    return dict(tensors.values())


def dynamic_int8(module: nn.Module, model: Model, method: Method) -> nn.Module:
    """Int8 weights of linear and recurrent layers; activations quantized at each call."""
    if route(method) == "fx":
        return fx.dynamic(module, method, form.examples(model, 2, torch.float32))
    told = observers.pair(
        ao.default_dynamic_qconfig.activation, observers.weight(method, "int8", fake=False)
    )
    layers: dict[Any, Any] = dict.fromkeys((nn.Linear, nn.LSTM, nn.GRU), told)
    layers.update(dict.fromkeys(form.matching("keep_float", method.keep_float, module)))
    quantized: nn.Module = ao.quantize_dynamic(module, layers)  # type: ignore[no-untyped-call]
    return quantized


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


def _checked(model: Model, name: str = "torch") -> nn.Module:
    """The trained module; raises `BadInput` unless it returns the outputs that the model names."""
    module = form.trained(model, name)
    with torch.no_grad():
        outputs = module(*form.examples(model, 2, torch.float32))
    count = 1 if isinstance(outputs, Tensor) else len(outputs)
    if count != len(model.outputs):
        raise BadInput(
            f"model '{model.name}' names {len(model.outputs)} outputs, its module returns {count}"
        )
    return module


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Attention by its plain operators: the fused ones read float weights, even quantized ones."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
