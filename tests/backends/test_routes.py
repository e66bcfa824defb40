"""Routes: what a backend declares is what it builds, every route and no other."""

from __future__ import annotations

import pytest

from quantbench.backend_api import backend
from quantbench.backend_api.registry import names
from quantbench.spec import PRESETS, preset
from quantbench.system import locate
from quantbench_backends.onnxruntime import refusals as onnxruntime
from quantbench_backends.pytorch import refusals as pytorch
from quantbench_backends.pytorch import routes as pytorch_routes
from quantbench_backends.tflite import refusals as tflite
from tests.backends.samples import SAMPLES

KNOWN = {
    "pytorch": set(pytorch._BY_ROUTE),
    "tflite": {(name, route) for route, presets in tflite.BUILT.items() for name in presets},
    "onnxruntime": {
        (name, route) for name, axes in onnxruntime._AXES.items() for route in axes["route"][0]
    },
}
"""Presets and routes that each backend's refusals let pass."""


@pytest.mark.parametrize("name", names("backends"))
def test_every_route_of_the_refusals_is_declared(name):
    built = {preset for preset, _ in KNOWN[name]}

    assert {(p, route) for p in built for route in backend(name).ways(p)} == KNOWN[name]


@pytest.mark.parametrize("name", names("backends"))
def test_no_declared_route_is_refused_for_what_it_is(name):
    described = backend(name)
    quantizer = locate(described.quantizer)()

    for method in PRESETS:
        for route in described.ways(method):
            axes = described.axes(method, {"route": route} if route else {})
            reason = quantizer.refuse(SAMPLES["conv"].model, preset(method, axes))
            built = method in {preset for preset, _ in KNOWN[name]}
            assert (reason is None or "not installed" in reason) == built, (method, route, reason)


def test_pytorch_knows_the_file_that_every_route_leaves_and_no_other_route():
    declared = backend("pytorch").routes
    left = {
        (name, way)
        for name in PRESETS
        for way, route in pytorch_routes.ROUTES.items()
        if route.suffix(preset(name))
    }

    assert {way for ways in declared.values() for way in ways} == set(pytorch_routes.ROUTES)
    assert {(name, way) for name, ways in declared.items() for way in ways} <= left


@pytest.mark.parametrize(
    ("name", "route", "floats", "graph"),
    [
        ("pytorch", "eager", False, "traced"),  # its int8 file is an archive of TorchScript
        ("pytorch", "eager", True, "eager"),
        ("pytorch", "fx", False, "traced"),
        ("pytorch", "pt2e", False, "compiled"),
        ("pytorch", "torchao", False, "eager"),
        ("pytorch", "torchao-compiled", False, "compiled"),
        ("pytorch", "bitsandbytes", False, "eager"),
        ("tflite", "litert-keras", False, "keras"),
        ("tflite", "litert-torch", True, "litert-torch"),
        ("onnxruntime", "qoperator", False, ""),
    ],
)
def test_every_route_has_a_float_of_the_graph_that_runs_it(name, route, floats, graph):
    assert backend(name).graph(route, floats=floats) == graph


@pytest.mark.parametrize("name", names("backends"))
def test_the_float_of_a_graph_is_a_route_of_fp32(name):
    described = backend(name)

    for method in PRESETS:
        for route in described.ways(method):
            axes = preset(method, described.axes(method, {"route": route} if route else {}))
            assert described.graph(axes.route, floats=axes.is_float) in described.ways("fp32")
