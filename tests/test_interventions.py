"""Causes checked by intervention, on the published runs' own trials: what `explain` says, and what helps.

docs/explain.md has what was found. Each case builds two or more artifacts on noise and times calls in turns.
"""

from __future__ import annotations

import os

import pytest

from quantbench.backend_api import registry
from quantbench.errors import DataMissing
from quantbench.system import locate
from tests.interventions import Bench, parsed

pytestmark = pytest.mark.long

# run, trial, the cause (empty: none may be named), the operators that it must name, what is tried, and
# the least that it must help by; 0 where nothing is tried
CASES = (
    ("mobilenet_v2", "mobilenet-v2/onnxruntime/dynamic-int8/cpu-1", "slow-kernels", "ConvInteger", "static-int8", 5.0),
    ("mobilenet_v2", "mobilenet-v2/onnxruntime/fp16/cpu-1", "added-operators", "ReorderInput", "fp32", 1.2),
    ("methods_resnet20", "resnet20/onnxruntime/dynamic-int8/cpu-1", "slow-kernels", "ConvInteger", "static-int8", 5.0),
    ("mobilenet_v2", "mobilenet-v2/tflite/dynamic-int8/cpu-1", "other-kernels", "DEPTHWISE_CONV_2D", "static-int8", 1.5),
    ("rnn", "lstm/tflite/static-int8/cpu-1", "slow-kernels", "UNIDIRECTIONAL_SEQUENCE_LSTM", "dynamic-int8", 3.0),
    ("rnn", "lstm/pytorch/dynamic-int8/cpu-1", "other-kernels", "quantized_lstm", "static-int8", 1.5),
    ("methods_resnet20", "resnet20/pytorch/dynamic-int8/cpu-1", "", "", "fp32+route=traced", 0.0),
    ("mlperf_tiny", "mlperf-vww/tflite/dynamic-int8/cpu-1", "other-kernels", "DEPTHWISE_CONV_2D", "static-int8", 1.3),
    ("transformers", "minilm/onnxruntime/weight-only-int8/cpu-1", "slow-kernels", "MatMulNBits", "dynamic-int8", 2.0),
    ("methods_resnet20", "resnet20/tflite/static-int16x8/cpu-1", "other-kernels", "CONV_2D", "static-int8", 10.0),
    ("methods_resnet20", "resnet20/tflite/weight-only-int4/cpu-1", "other-kernels", "CONV_2D", "weight-only-int8", 1.5),
    ("methods_resnet20", "resnet20/tflite/dynamic-int4/cpu-1", "other-kernels", "CONV_2D", "dynamic-int8", 1.5),
    ("methods_resnet20", "resnet20/onnxruntime/static-int8+activations=int8/cpu-1", "conversions", "DequantizeLinear", "static-int8", 1.5),
    ("mlperf_tiny", "mlperf-vww/onnxruntime/static-int8+samples=100/cpu-1", "conversions", "DequantizeLinear", "static-int8+route=qoperator", 1.03),
    ("mlperf_tiny", "mlperf-kws/pytorch/fp16/cpu-1", "slow-kernels", "convolution", "fp32", 1.5),
)  # fmt: skip


@pytest.mark.parametrize(
    ("run", "trial", "cause", "operators", "method", "least"),
    CASES,
    ids=[case[1] for case in CASES],
)
def test_the_cause_is_what_an_intervention_finds(
    tmp_path, run, trial, cause, operators, method, least
):
    bench = Bench(run, tmp_path)
    try:
        locate(registry.model(trial.partition("/")[0]).weights)()
    except DataMissing as missing:
        if os.environ.get("QUANTBENCH_DATA") or os.environ.get("CI"):
            raise
        pytest.skip(str(missing))

    found, _ = bench.explained(trial)

    assert [one.name for one in found.causes] == ([cause] if cause else [])
    if cause:
        assert operators in found.causes[0].sentence
    if least:
        name, axes = parsed(method)
        faster = bench.ratio(bench.other(trial, name, **axes).id, trial)
        assert faster.value > least
