"""TFLite: Google's on-device format, built by TFLiteConverter and run by the LiteRT interpreter."""

from __future__ import annotations

from quantbench.backend_api import Backend, Converter

BACKEND = Backend(
    name="tflite",
    quantizer=f"{__name__}.quantizer:TfliteQuantizer",
    runtime=f"{__name__}.runtime:LiteRTRuntime",
    build_packages=(
        "tensorflow",
        "tf-keras",
        "tensorflow-model-optimization",
        "litert-quantizer",
        "ai-edge-litert",
    ),
    run_packages=("ai-edge-litert",),
    install="pip install 'quantbench[tflite]'",
    run_modules=("ai_edge_litert.interpreter",),
    methods={
        "fp32": {"route": "keras"},
        # the file stores float16, LiteRT's CPU kernels compute in float32
        "fp16": {"route": "keras", "activations": "float32"},
        "dynamic-int8": {"route": "keras"},
        "dynamic-int4": {"route": "litert-keras"},
        "static-int8": {"route": "keras", "io": "int8"},
        "static-int16x8": {"route": "keras"},
        "weight-only-int8": {"route": "litert-keras"},
        # LiteRT Quantizer has groups for dynamic-int4 only
        "weight-only-int4": {
            "route": "litert-keras",
            "granularity": "per-channel",
            "group_size": 0,
        },
        "qat-int8": {"route": "keras", "io": "int8"},
    },
    graphs={"litert-torch": "litert-torch"},
    trainer=f"{__name__}.trainer:KerasTrainer",
    kinds=("keras", "tflite"),
    own=f"{__name__}.user_models",
    routes={
        "fp32": {"keras": {}, "litert-torch": {}},
        **{
            name: {"keras": {}, "litert-keras": {}, "litert-torch": {}}
            for name in ("fp16", "dynamic-int8", "static-int8", "static-int16x8")
        },
        **{
            name: {"litert-keras": {}, "litert-torch": {}}
            for name in ("dynamic-int4", "weight-only-int8", "weight-only-int4")
        },
    },
)

FROM_TORCH = Converter(
    source="torch",
    target="tflite",
    convert=f"{__name__}.from_torch:convert",
    packages=("torch", "litert-torch"),
    install="pip install 'quantbench[litert-torch]'",
)
