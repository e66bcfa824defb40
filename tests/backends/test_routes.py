"""Routes: what a backend declares is what it builds, every route and no other."""

from __future__ import annotations

import pytest

from backends.onnxruntime import refusals as onnxruntime
from backends.pytorch import refusals as pytorch
from backends.tflite import refusals as tflite
from harness.method import PRESETS, preset
from harness.registry import backend, locate, names
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
