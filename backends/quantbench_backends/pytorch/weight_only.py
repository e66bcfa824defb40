"""Weight-only and dynamic quantization of linear layers: torchao's ``quantize_``, and bitsandbytes."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from quantbench.errors import BadInput
from quantbench.spec import Method
from quantbench_backends.pytorch import exported, form

INT4_OUTPUTS = 16
"""Outputs of a layer that torchao's CPU kernel for int4 takes together; it has none for others."""
GROUP = 32
"""Group size of 4-bit layers among 8-bit ones that have one scale per channel."""


def quantized(module: nn.Module, method: Method) -> nn.Module:
    """The module with torchao's weights in its linear layers, all but those kept in float.

    Raises
    ------
    BadInput
        If the group size does not divide a layer's inputs.
    """
    kept = form.matching("keep_float", method.keep_float, module)
    chosen = [name for name in linear_layers(module) if name not in kept]
    narrow = form.matching("int4_weights", method.int4_weights, module)
    if method.weights == "int4":
        narrow = tuple(chosen)
        chosen = [name for name in chosen if _outputs(module, name) % INT4_OUTPUTS == 0]
    _check_groups(module, chosen, narrow, method)

    def apply() -> nn.Module:
        from torchao.quantization import quantize_
        from torchao.utils import unwrap_tensor_subclass

        for name in chosen:
            configuration = _int4(method) if name in narrow else _int8(method)
            quantize_(module, configuration, lambda _, fqn, name=name: fqn == name)
        unwrapped: nn.Module = unwrap_tensor_subclass(module)
        return unwrapped

    done: nn.Module = exported.quietly(apply)
    return done


def linear_layers(module: nn.Module) -> list[str]:
    """Paths of the layers that torchao quantizes."""
    return [name for name, child in module.named_modules() if type(child) is nn.Linear]


def _int8(method: Method) -> Any:
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        PerGroup,
        PerRow,
    )

    if method.scales == "dynamic":
        return Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    group = method.granularity == "group"
    granularity = PerGroup(method.group_size) if group else PerRow()
    return Int8WeightOnlyConfig(granularity=granularity, set_inductor_config=False)


def _int4(method: Method) -> Any:
    from torchao.prototype.quantization.int4.inference_workflow import (
        PrototypeInt4WeightOnlyConfig,
    )

    return PrototypeInt4WeightOnlyConfig(
        group_size=method.group_size or GROUP, set_inductor_config=False
    )


def _outputs(module: nn.Module, name: str) -> int:
    return int(module.get_submodule(name).out_features)  # type: ignore[arg-type]


def _check_groups(
    module: nn.Module, layers: list[str], narrow: tuple[str, ...], method: Method
) -> None:
    for name in layers:
        size = method.group_size or (GROUP if name in narrow else 0)
        width = int(module.get_submodule(name).in_features)  # type: ignore[arg-type]
        if size and width % size:
            fits = [n for n in (256, 128, 64, 32) if width % n == 0]
            remedy = f"use group_size: {fits[0]}" if fits else "add it to keep_float"
            raise BadInput(
                f"group_size {size} does not divide the {width} inputs of layer '{name}'; {remedy}"
            )
        if name in narrow and _outputs(module, name) % INT4_OUTPUTS:
            raise BadInput(
                f"torchao's CPU kernel for int4 takes outputs in {INT4_OUTPUTS}s, but layer "
                f"'{name}' has {_outputs(module, name)}; take it out of int4_weights"
            )


# --- bitsandbytes --------------------------------------------------------------------------------

BLOCK = 64
"""Weights that share a scale in 4-bit formats, bitsandbytes' default."""


def swapped(module: nn.Module, method: Method) -> nn.Module:
    """The module with bitsandbytes' linear layers, quantized, all but those kept in float."""
    kept = form.matching("keep_float", method.keep_float, module)
    for name in linear_layers(module):
        if name not in kept:
            linear = module.get_submodule(name)
            assert isinstance(linear, nn.Linear)  # noqa: S101 - for the type checker
            _replace(module, name, _bitsandbytes(linear, method))
    return module.to("cpu")


def _bitsandbytes(linear: nn.Linear, method: Method) -> nn.Module:
    layer, weight = _empty(linear, eight=method.weights == "int8"), linear.weight.data
    if method.weights == "int8":
        layer.weight = _bnb().Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        layer.weight = _bnb().Params4bit(
            weight, requires_grad=False, quant_type=method.weights, blocksize=BLOCK
        )
    layer.bias = linear.bias
    quantized: nn.Module = layer.to("cpu")  # quantizes
    return quantized


def _bnb() -> Any:
    return importlib.import_module("bitsandbytes").nn


def _empty(linear: nn.Linear, *, eight: bool) -> Any:
    shape = (linear.in_features, linear.out_features, linear.bias is not None)
    if eight:
        return _bnb().Linear8bitLt(*shape, has_fp16_weights=False)
    return _bnb().Linear4bit(*shape, compute_dtype=torch.float32)


def _replace(module: nn.Module, name: str, child: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, child)


def packed(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a swapped module for a safetensors file."""
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}


def unpacked(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """The architecture with the layers that `packed` wrote.

    Raises
    ------
    KeyError, RuntimeError
        If they do not fit.
    """
    rest = dict(tensors)
    for name in linear_layers(module):
        eight = f"{name}.SCB" in rest
        if not eight and f"{name}.weight.absmax" not in rest:
            continue
        linear = module.get_submodule(name)
        assert isinstance(linear, nn.Linear)  # noqa: S101 - for the type checker
        layer, weight = _empty(linear, eight=eight), rest.pop(f"{name}.weight")
        if eight:
            del rest[f"{name}.weight_format"]
            layer.weight = _bnb().Int8Params(
                weight, requires_grad=False, CB=weight, SCB=rest.pop(f"{name}.SCB")
            )
        else:
            prefix = f"{name}.weight."
            stats = {n.removeprefix(prefix): rest.pop(n) for n in [*rest] if n.startswith(prefix)}
            layer.weight = _bnb().Params4bit.from_prequantized(weight, stats, device="cpu")
        rest[f"{name}.weight"] = layer.weight
        _replace(module, name, layer)
    for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
        if rest[name] is not parameter:
            with torch.no_grad():
                parameter.copy_(rest[name])
    return module.requires_grad_(False)
