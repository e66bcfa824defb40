"""Plan: what is refused before any work, and the reason given."""

from __future__ import annotations

import pytest

from quantbench.backend_api import registry
from quantbench.errors import BadInput
from quantbench.experiment import resolve
from quantbench.spec import Trial, preset, presets


def cell(backend: str, method: str = "fp32", target: str = "cpu-1", **axes):
    own = registry.backend(backend).axes(method)
    chosen = preset(method, {**own, **axes})
    return resolve(Trial("digits", backend, chosen, method, presets()[target], 0))


@pytest.mark.parametrize(
    ("gone", "backend", "says"),
    [
        ("torch", "pytorch", "torch is not installed; pip install 'quantbench[pytorch]'"),
        ("tensorflow", "tflite", "tensorflow is not installed; pip install 'quantbench[tflite]'"),
        ("onnxruntime", "onnxruntime", "onnxruntime is not installed; pip install 'quantbench[onnxruntime]'"),
        ("torch", "onnxruntime", "the onnx form of digits is made from its torch form, which needs torch; "
         "pip install 'quantbench[pytorch,onnxruntime]'"),
    ],
)  # fmt: skip
def test_what_is_not_installed_is_unsupported_with_the_command_that_helps(
    monkeypatch, gone, backend, says
):
    monkeypatch.setattr(
        registry, "missing_packages", lambda packages: [p for p in packages if p == gone]
    )

    assert cell(backend).refusal == says


def test_a_missing_framework_refuses_only_its_own_backends(monkeypatch):
    monkeypatch.setattr(
        registry, "missing_packages", lambda packages: [p for p in packages if p == "tensorflow"]
    )

    assert cell("pytorch").refusal == ""
    assert cell("onnxruntime").refusal == ""


@pytest.mark.parametrize(
    ("target", "works"),
    [
        ("cpu-1", {"pytorch", "tflite", "onnxruntime"}),
        ("cpu-all", {"pytorch", "tflite", "onnxruntime"}),
        ("cpu-reference", {"tflite"}),
    ],
)
def test_each_target_runs_where_it_truly_can(target, works):
    names = {"pytorch", "tflite", "onnxruntime"}

    assert {name for name in names if not cell(name, target=target).refusal} == works


@pytest.mark.parametrize("backend", ["tflite", "onnxruntime"])
def test_a_runtime_without_an_instruction_set_cap_says_so(backend):
    assert "cap" in cell(backend, target="cpu-avx2").refusal


@pytest.mark.skipif(registry.missing_packages(("torch",)) != [], reason="needs PyTorch")
@pytest.mark.parametrize("backend", ["pytorch", "tflite", "onnxruntime"])
def test_cuda_is_refused_where_there_is_no_gpu(backend, monkeypatch):
    monkeypatch.setattr("quantbench.system.cpu.no_gpu", lambda: "no NVIDIA GPU on this machine")

    assert cell(backend, target="cuda").refusal


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(BadInput, match=r"unknown model 'digit'\. Did you mean 'digits'\?"):
        registry.model("digit")
    with pytest.raises(
        BadInput, match=r"unknown method 'static-in8'\. Did you mean 'static-int8'\?"
    ):
        preset("static-in8")
    with pytest.raises(BadInput, match=r"axis 'samples' takes a number, not 'many'"):
        preset("static-int8", {"samples": "many"})
