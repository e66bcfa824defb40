"""Activations of whole quantized models against float, layer after layer, in every backend and route."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quantbench.backend_api import Artifact, Backend, missing_packages, registry
from quantbench.errors import BadInput
from quantbench.spec import Samples
from quantbench.studies.depth import Error, measure
from quantbench.system import locate
from tests.backends.asking import method_of
from tests.backends.conformance import with_form
from tests.backends.samples import SAMPLES

SAMPLE = SAMPLES["residual"]
# routes by backend, with the layers of which each route's file says which activation they give
ROUTES = [
    ("onnxruntime", "qdq", {"stem", "body1", "body2"}),
    ("onnxruntime", "qoperator", {"body2"}),  # a ReLU that was removed took the name with it
    ("tflite", "keras", {"stem", "body1", "body2"}),
    ("tflite", "litert-keras", {"stem", "body1", "body2"}),
    ("tflite", "litert-torch", {"stem", "body2"}),
    ("pytorch", "fx", {"stem", "body1", "body2"}),
    ("pytorch", "eager", {"stem", "body1", "body2"}),
    ("pytorch", "pt2e", set()),  # its graph names operators alone
]


def backend_of(name: str) -> Backend:
    backend = registry.backend(name)
    if missing := missing_packages(backend.build_packages + backend.run_packages):
        pytest.skip(f"{', '.join(missing)} is not installed")
    return backend


def made(built: Any, name: str, preset: str = "static-int8", **axes: Any) -> Artifact:
    backend = backend_of(name)
    return built(backend, SAMPLE.name, method_of(backend, preset, axes))


def inputs(count: int) -> Samples:
    return Samples(SAMPLE.inputs(count), np.zeros(count, np.int64))


@pytest.mark.parametrize(
    ("name", "route", "layers"), ROUTES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_layer_of_the_whole_model_has_its_error(built, tmp_path, name, route, layers):
    backend = backend_of(name)
    method, tool = method_of(backend, "static-int8", {"route": route}), locate(backend.quantizer)()
    model = with_form(backend, SAMPLE.model, method, tmp_path)

    found = list(measure(model, method, tool, made(built, name, route=route), inputs(40)))

    assert layers <= {error.layer for error in found}
    assert len(found) >= 2
    for error in found:
        # 8 bits, and at worst 7, of activations that were calibrated: neither exact nor broken
        assert 20 < error.sqnr_db < 60, error
        assert error.cosine > 0.99
        assert error.count % 40 == 0


def test_an_error_is_what_numbers_by_hand_give():
    error = Error("x", "layer")

    error.add(np.array([[3.0, 0.0]]), np.array([[3.0, 1.0]]))
    error.add(np.array([[4.0, 0.0]]), np.array([[4.0, 0.0]]))

    assert error.sqnr_db == pytest.approx(10 * np.log10(25 / 1))
    assert error.mse == pytest.approx(1 / 4)
    assert error.cosine == pytest.approx(25 / np.sqrt(25 * 26))


@pytest.mark.parametrize(
    ("name", "preset", "axes", "says"),
    [
        ("pytorch", "fp32", {"route": "compiled"}, "inductor makes one function"),
        ("pytorch", "static-int8", {"activations": "uint4"}, "rounded in float"),
        ("tflite", "dynamic-int4", {"granularity": "group", "group_size": 32}, "scales of groups"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_reason(built, name, preset, axes, says):
    backend = backend_of(name)
    artifact = built(backend, "linear", method_of(backend, preset, axes))

    with pytest.raises(BadInput, match=says):
        locate(backend.quantizer)().activations(
            artifact, SAMPLES["linear"].inputs(2), lambda name, values: None
        )
