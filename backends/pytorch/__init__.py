"""The PyTorch backend: eager, traced and compiled float models, and torch.ao's int8 quantization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.protocol import Backend

# What PyTorch does where nobody says otherwise. Its int8 kernels take unsigned activations, and
# get_default_qconfig_mapping("x86") calibrates with histograms.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"route": "eager"},
    "fp16": {"route": "eager"},
    "bf16": {"route": "eager"},
    "dynamic-int8": {"route": "eager", "activations": "uint8", "granularity": "per-tensor"},
    "static-int8": {"route": "fx", "activations": "uint8", "calibrator": "histogram"},
}

BACKEND = Backend(
    name="pytorch",
    quantizer="backends.pytorch.quantizer:PyTorchQuantizer",
    runtime="backends.pytorch.runtime:PyTorchRuntime",
    build_packages=("torch",),
    run_packages=("torch",),
    install="pip install 'quantbench[pytorch]'",
    run_modules=("torch",),
    methods=DEFAULTS,
)
