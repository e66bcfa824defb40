"""What could explain the published runs: the cases that everybody asks about, and their opposites."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.analysis import explain
from quantbench.results import load_results

RUN = Path(__file__).parents[1] / "results" / "reference" / "methods_resnet20"


@pytest.fixture(scope="module")
def run():
    return load_results(RUN)


def causes(run, trial: str) -> list[str]:
    return [cause.name for cause in explain(run, f"resnet20/{trial}/cpu-1").possible]


@pytest.mark.parametrize(
    ("trial", "cause"),
    [
        ("onnxruntime/static-int8+activations=int8", "slow-activation-type"),
        ("onnxruntime/dynamic-int8", "dynamic-convolutions"),
        ("tflite/static-int16x8", "reference-kernels"),
        ("pytorch/fp16", "instruction-set-missing"),
        ("pytorch/dynamic-int8+route=fx", "left-in-float"),
        ("pytorch/dynamic-int8", "left-in-float"),
    ],
)
def test_the_known_slow_cases_have_what_could_explain_them(run, trial, cause):
    assert cause in causes(run, trial)


@pytest.mark.parametrize(
    "trial",
    [
        "onnxruntime/static-int8", "tflite/static-int8", "pytorch/static-int8",
        "tflite/dynamic-int8", "pytorch/static-int8+route=pt2e", "onnxruntime/fp32", "tflite/fp32",
    ],
)  # fmt: skip
def test_what_is_fast_has_none(run, trial):
    assert causes(run, trial) == []
