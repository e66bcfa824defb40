"""FX graph mode: torch.ao's quantization of a traced graph, static, dynamic and for training."""

from __future__ import annotations

from typing import Any

import torch.ao.quantization as ao
from torch import Tensor, nn
from torch.ao.quantization.backend_config import BackendConfig, get_native_backend_config
from torch.ao.quantization.quantize_fx import (
    convert_fx,
    convert_to_reference_fx,
    prepare_fx,
    prepare_qat_fx,
)

from quantbench.spec import Method
from quantbench_backends.pytorch import form, observers, routes

Examples = tuple[Tensor, ...]


def prepared(module: nn.Module, method: Method, examples: Examples, *, fake: bool) -> nn.Module:
    """The module with observers, or with fake quantization, in evaluation mode."""
    prepare = prepare_qat_fx if fake else prepare_fx
    done: nn.Module = prepare(
        module.train(fake),
        qconfig_mapping(module, method, fake=fake),
        examples,
        backend_config=backend_config(method),
    )
    return done.eval()


def converted(prepared: Any, method: Method) -> nn.Module:
    """The integer model."""
    done: nn.Module = convert_fx(prepared, backend_config=backend_config(method))
    return done


def reference(prepared: Any, method: Method) -> nn.Module:
    """The same in float operators between quantize and dequantize, for other runtimes."""
    done: nn.Module = convert_to_reference_fx(prepared, backend_config=backend_config(method))
    return done


def dynamic(module: nn.Module, method: Method, examples: Examples) -> nn.Module:
    """Int8 weights of linear and recurrent layers; activations quantized at each call."""
    told = observers.pair(
        ao.default_dynamic_qconfig.activation, observers.weight(method, "int8", fake=False)
    )
    mapping = ao.QConfigMapping().set_global(told)
    for kind in (nn.Embedding, nn.EmbeddingBag):  # they take weights of another dtype only
        mapping.set_object_type(kind, None)
    for name in form.matching("keep_float", method.keep_float, module):
        mapping.set_module_name(name, None)
    done: nn.Module = convert_fx(prepare_fx(module, mapping, examples))
    return done


def qconfig_mapping(module: nn.Module, method: Method, *, fake: bool) -> Any:
    """PyTorch's default mapping for engine x86, with the method's observers in place of its own."""
    default = ao.get_default_qat_qconfig_mapping if fake else ao.get_default_qconfig_mapping
    mapping = default(routes.X86)
    usual: Any = mapping.global_qconfig
    told = observers.qconfig(method, method.weights, method.activations, fake=fake)
    mapping.set_global(told)
    for kind, qconfig in list(mapping.object_type_qconfigs.items()):
        # transposed convolutions and layer norm: weights of their own, activations as all others
        if qconfig is not None and qconfig.activation is usual.activation:
            mapping.set_object_type(kind, observers.pair(told.activation, qconfig.weight))
    different = observers.by_layer(module, method, fake=fake)
    if not method.only:
        for name, qconfig in different.items():
            mapping.set_module_name(name, qconfig)
        return mapping
    # no default: the layers that the method names, and what is fused into them
    single = ao.QConfigMapping()
    for name in form.matching("only", method.only, module):
        own = mapping.object_type_qconfigs.get(type(module.get_submodule(name)), told)
        single.set_module_name(name, different.get(name, own))
    return single


def backend_config(method: Method) -> Any:
    """PyTorch's native backend; without its patterns of fused modules where ``fusion`` is off."""
    native = get_native_backend_config()
    if method.fusion:
        return native
    single = [pattern for pattern in native.configs if pattern.fuser_method is None]
    return BackendConfig(native.name).set_backend_pattern_configs(single)
