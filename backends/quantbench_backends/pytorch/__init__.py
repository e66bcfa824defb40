"""The PyTorch backend: float models, torch.ao's and torchao's quantization, bitsandbytes, training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbench.backend_api import Backend
from quantbench_backends.pytorch import routes

# What PyTorch does where nobody says otherwise. Its int8 kernels take unsigned activations,
# get_default_qconfig_mapping("x86") calibrates with histograms, get_default_qat_qconfig_mapping
# with moving averages, and torchao's CPU kernel for 4-bit weights has a zero point in every group.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"route": "eager"},
    "fp16": {"route": "eager"},
    "bf16": {"route": "eager"},
    "dynamic-int8": {"route": "eager", "activations": "uint8", "granularity": "per-tensor"},
    "static-int8": {"route": "fx", "activations": "uint8", "calibrator": "histogram"},
    "weight-only-int8": {"route": "torchao"},
    "weight-only-int4": {"route": "torchao", "symmetric_weights": False},
    "qat-int8": {"route": "fx", "activations": "uint8", "calibrator": "moving-average"},
}

_TORCHAO_DYNAMIC = {"granularity": "per-channel"}
ROUTES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "fp32": {"eager": {}, "traced": {}, "compiled": {}, "stubs": {}},
    "fp16": {"eager": {}, "traced": {}, "compiled": {}},
    "bf16": {"eager": {}, "traced": {}, "compiled": {}},
    "dynamic-int8": {
        "eager": {}, "fx": {}, "torchao": _TORCHAO_DYNAMIC, "torchao-compiled": _TORCHAO_DYNAMIC,
    },
    "static-int8": {"fx": {}, "eager": {}, "pt2e": {}},
    "weight-only-int8": {"torchao": {}, "torchao-compiled": {}, "bitsandbytes": {}},
    "weight-only-int4": {
        "torchao": {},
        "torchao-compiled": {},
        "bitsandbytes": {"weights": "nf4", "group_size": 64, "symmetric_weights": True},
    },
    "qat-int8": {"fx": {}, "eager": {}, "pt2e": {}},
}  # fmt: skip

BACKEND = Backend(
    name="pytorch",
    quantizer=f"{__name__}.quantizer:PyTorchQuantizer",
    runtime=f"{__name__}.runtime:PyTorchRuntime",
    build_packages=("torch", "torchao"),
    run_packages=("torch", "torchao"),
    install="pip install 'quantbench[pytorch]'",
    run_modules=("torch",),
    methods=DEFAULTS,
    routes=ROUTES,
    graphs={name: route.graph for name, route in routes.ROUTES.items() if route.integers},
    trainer=f"{__name__}.trainer:PyTorchTrainer",
    optional_packages=("bitsandbytes",),
    kinds=("torch", "pt2"),
    own=f"{__name__}.user_models",
)
