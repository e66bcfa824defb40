"""PT2E: torchao's quantization of an exported graph, which inductor lowers to oneDNN's int8 kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from quantbench.spec import Method, Model
from quantbench_backends.pytorch import exported, form


def prepared(module: nn.Module, model: Model, method: Method, *, fake: bool) -> nn.Module:
    """The exported graph with observers, or with fake quantization, in evaluation mode."""
    pt2e = _torchao()
    # batch norm in training mode is what prepare_qat_pt2e looks for
    graph = exported.export(module.train(fake), model).module()
    quantizer = _quantizer(module, method, fake=fake)
    prepare = pt2e.prepare_qat_pt2e if fake else pt2e.prepare_pt2e
    done: nn.Module = exported.quietly(lambda: prepare(graph, quantizer))
    to_evaluation(done)
    return done


def converted(
    prepared: nn.Module, model: Model
) -> tuple[torch.export.ExportedProgram, dict[str, str]]:
    """The graph with int8 weights between quantize and dequantize, without the float weights.

    Beside it the paths of the weights, which it only numbers.
    """
    done = exported.quietly(lambda: _torchao().convert_pt2e(prepared))
    to_evaluation(done)
    return exported.export(exported.without_unused(done), model), _paths(done)


def _paths(module: Any) -> dict[str, str]:
    """The path of each quantized weight by its number, from the layer whose operator reads it."""
    found = {}
    for node in module.graph.nodes:
        if node.op == "get_attr" and node.target.startswith("_frozen_param"):
            reader = node
            while len(reader.users) == 1 and not reader.meta.get("nn_module_stack"):
                (reader,) = reader.users
            stack = reader.meta.get("nn_module_stack")
            if stack:
                path, _ = list(stack.values())[-1]
                found[node.target] = f"{path.removeprefix('L__self___')}.weight"
    return found


def to_training(module: nn.Module, *, frozen: bool) -> None:
    """Training mode; with ``frozen`` batch norm (and dropout with it) stays in evaluation mode."""
    if frozen:
        to_evaluation(module)
    else:
        from torchao.quantization.pt2e import move_exported_model_to_train

        exported.quietly(lambda: move_exported_model_to_train(module))


def to_evaluation(module: nn.Module) -> None:
    """Evaluation mode."""
    from torchao.quantization.pt2e import move_exported_model_to_eval

    exported.quietly(lambda: move_exported_model_to_eval(module))


def _torchao() -> Any:
    def load() -> Any:
        import torchao.quantization.pt2e.quantize_pt2e as pt2e

        return pt2e

    return exported.quietly(load)


def _quantizer(module: nn.Module, method: Method, *, fake: bool) -> Any:
    """Torchao's default for x86 with the method's observers, and its layers in float."""
    x86 = exported.quietly(_x86)
    quantizer = x86.X86InductorQuantizer()
    told = _configuration(method, fake=fake)
    only = form.matching("only", method.only, module)
    if not only:
        quantizer.set_global(told)
    for name in only:
        quantizer.set_module_name_qconfig(name, told)
    for name in form.matching("keep_float", method.keep_float, module):
        quantizer.set_module_name_qconfig(name, None)
    return quantizer


def _x86() -> Any:
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86

    return x86


def _configuration(method: Method, *, fake: bool) -> Any:
    from torchao.quantization.pt2e import observer
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    default = _x86().get_default_x86_inductor_quantization_config(is_qat=fake)
    calibrator = "minmax" if method.ranges == "injected" else method.calibrator
    if calibrator == ("moving-average" if fake else "histogram"):
        return default
    chosen: Any = {
        "minmax": observer.MinMaxObserver,
        "moving-average": observer.MovingAverageMinMaxObserver,
    }[calibrator]
    spec = QuantizationSpec(
        dtype=torch.uint8, quant_min=0, quant_max=255, qscheme=torch.per_tensor_affine,
        is_dynamic=False, observer_or_fake_quant_ctr=chosen.with_args(eps=2**-12),
    )  # fmt: skip
    return type(default)(spec, spec, default.weight, default.bias, default.is_qat)
