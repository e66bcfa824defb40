"""The ONNX Runtime backend: models exported from PyTorch, quantized and run by ONNX Runtime."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from quantbench.backend_api import Backend, Converter

# MLAS multiplies uint8 by int8 on x86 (int8 by int8 is slower than float32 there), and int8 by
# int8 on ARM.
FASTEST_ACTIVATIONS = "int8" if platform.machine().lower() in ("aarch64", "arm64") else "uint8"

# What ONNX Runtime does where nobody says otherwise. Dynamic activations are always uint8, and
# ConvInteger knows one weight scale per tensor only. MatMulNBits has scales per group only, and
# its kernels that multiply integers make activations symmetric. QAT is PyTorch's, with its
# defaults, so that one training serves both backends.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "dynamic-int8": {"activations": "uint8", "granularity": "per-tensor"},
    "dynamic-int4": {"granularity": "group", "group_size": 32, "symmetric_activations": True},
    "static-int8": {"activations": FASTEST_ACTIVATIONS, "route": "qdq"},
    "static-int16x8": {"route": "qdq"},
    "weight-only-int8": {"granularity": "group", "group_size": 32},
    "qat-int8": {"activations": "uint8", "calibrator": "moving-average", "route": "fx"},
}

BACKEND = Backend(
    name="onnxruntime",
    quantizer=f"{__name__}.quantizer:OnnxQuantizer",
    runtime=f"{__name__}.runtime:OnnxRuntime",
    build_packages=("onnx", "onnx-ir", "onnxruntime"),
    run_packages=("onnxruntime",),
    install="pip install 'quantbench[onnxruntime]'",
    run_modules=("onnxruntime",),
    methods=DEFAULTS,
    routes={"static-int8": {"qdq": {}, "qoperator": {}}},
    trainer="quantbench_backends.pytorch.trainer:PyTorchTrainer",
    kinds=("onnx",),
    own=f"{__name__}.user_models",
)

FROM_TORCH = Converter(
    source="torch",
    target="onnx",
    convert=f"{__name__}.from_torch:convert",
    packages=("torch", "onnx"),
    install="pip install 'quantbench[pytorch,onnxruntime]'",
)

FROM_TORCH_UNFUSED = Converter(
    source="torch",
    target="onnx-unfused",
    convert=f"{__name__}.from_torch:convert_unfused",
    packages=("torch", "onnx"),
    install="pip install 'quantbench[pytorch,onnxruntime]'",
)

FROM_TORCH_QAT = Converter(
    source="torch",
    target="onnx-qat",
    convert=f"{__name__}.from_torch_qat:convert",
    packages=("torch", "onnx"),
    install="pip install 'quantbench[pytorch,onnxruntime]'",
)
