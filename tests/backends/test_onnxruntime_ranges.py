"""Ranges from outside, and one layer or one part at a time: what ends up in the file."""

import dataclasses

import numpy as np
import pytest
import torch

from quantbench.backend_api import Artifact, Record, executed
from quantbench.errors import BadInput
from quantbench.spec import Method, Model, Target, preset
from quantbench.stats import sqnr_db
from quantbench.stats.affine import Grid, from_range
from quantbench_backends.onnxruntime import BACKEND, from_torch
from quantbench_backends.onnxruntime import observe as observation
from quantbench_backends.onnxruntime.quantizer import OnnxQuantizer
from quantbench_backends.onnxruntime.runtime import OnnxRuntime
from tests.backends.test_onnxruntime_record import (
    IMAGES,
    LAYERS,
    SAMPLES,
    SMALL,
    constants,
    operations,
    small,
)

CPU = Target("cpu")


def method(**axes) -> Method:
    return preset("static-int8", BACKEND.axes("static-int8", {"activations": "uint8", **axes}))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    path = from_torch.convert(SMALL, tmp_path_factory.mktemp("form"))
    return dataclasses.replace(SMALL, forms={**SMALL.forms, "onnx": str(path)})


@pytest.fixture
def build(model, tmp_path):
    def built(known=None, **axes) -> Artifact:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        data = dataclasses.replace(SAMPLES, ranges=known or {})
        return OnnxQuantizer().quantize(model, method(**axes), data, folder)

    return built


def observed(model: Model, **axes) -> dict[str, list[np.ndarray]]:
    batches: dict[str, list[np.ndarray]] = {}
    OnnxQuantizer().observe(
        model, method(ranges="injected", **axes), SAMPLES,
        lambda name, values: batches.setdefault(name, []).append(np.array(values)),
    )  # fmt: skip
    return batches


def minmax(batches) -> dict[str, tuple[float, float]]:
    return {
        name: (float(min(b.min() for b in found)), float(max(b.max() for b in found)))
        for name, found in batches.items()
    }


def record_of(artifact: Artifact) -> Record:
    return OnnxQuantizer().inspect(artifact, LAYERS)


def scales(artifact: Artifact) -> dict[str, tuple[float, int]]:
    """Scale and zero point of quantized activations by the float tensor's name."""
    found = {}
    for tensor in record_of(artifact).tensors:
        if tensor.levels and tensor.role == "activation":
            name = tensor.name.removesuffix("_QuantizeLinear_Output").removesuffix("_quantized")
            found[name] = (tensor.scale[0], tensor.zero_point[0])
    return found


# --- observation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["qdq", "qoperator"])
def test_what_is_observed_is_what_is_quantized(model, route):
    batches = observed(model, route=route)

    # after the activation functions, which are folded into what is before
    assert [name for name in batches if name != "image"] == [
        "/Relu_output_0", "/GlobalAveragePool_output_0", "/Relu_1_output_0", "logits",
    ]  # fmt: skip
    assert [[len(b) for b in found] for found in batches.values()] == [[32, 16]] * 5
    np.testing.assert_array_equal(np.concatenate(batches["image"]), IMAGES)
    assert all(found[0].dtype == np.float32 for found in batches.values())


def test_activations_are_observed_in_groups_that_fit_the_memory(model, monkeypatch):
    whole = observed(model)
    monkeypatch.setattr(observation, "MOST_BYTES", 1)

    apart = observed(model)

    assert apart.keys() == whole.keys()
    for name, found in whole.items():
        np.testing.assert_array_equal(np.concatenate(apart[name]), np.concatenate(found))


# --- injection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["qdq", "qoperator"])
def test_injected_minima_and_maxima_give_the_file_of_the_native_calibrator(model, build, route):
    ranges = minmax(observed(model, route=route))

    injected = build(ranges, ranges="injected", route=route)

    assert injected.digest == build(route=route).digest


@pytest.mark.parametrize(
    ("axes", "grid"),
    [
        ({"activations": "uint8"}, Grid(8, signed=False)),
        ({"activations": "int8"}, Grid(8)),
        ({"activations": "int8", "symmetric_activations": True}, Grid(8)),
        ({"activations": "uint8", "route": "qoperator"}, Grid(8, signed=False)),
    ],
)
@pytest.mark.parametrize("calibrator", ["mse", "entropy"])
def test_scales_are_those_of_the_injected_ranges(model, build, axes, grid, calibrator):
    names = list(observed(model, **axes))
    ranges = {name: (-0.1 * i - 0.3, 0.7 * i + 0.4) for i, name in enumerate(names)}

    found = scales(build(ranges, ranges="injected", calibrator=calibrator, **axes))

    # QOperator names what an activation function gives after the node before it
    after = {"/conv/Conv_output_0": "/Relu_output_0", "/first/Gemm_output_0": "/Relu_1_output_0"}
    observed_as = {name: after.get(name, name) for name in found}
    checked = {name: source for name, source in observed_as.items() if source in ranges}
    assert set(checked.values()) == set(names)
    for name, source in checked.items():
        symmetric = axes.get("symmetric_activations", False)
        expected = from_range(*ranges[source], grid, symmetric=symmetric)
        assert found[name] == (float(expected.scale), int(expected.zero_point)), name


def test_a_range_that_is_missing_is_bad_input_with_its_name(model, build):
    ranges = minmax(observed(model))
    del ranges["/Relu_1_output_0"]

    with pytest.raises(BadInput, match="/Relu_1_output_0"):
        build(ranges, ranges="injected")


def test_a_range_beside_0_is_widened_to_hold_it(model, build):
    ranges = dict.fromkeys(observed(model), (1.0, 2.55))

    assert set(scales(build(ranges, ranges="injected")).values()) == {(np.float32(0.01), 0)}


@pytest.mark.parametrize("calibrator", ["moving-average", "percentile", "entropy"])
def test_every_native_calibrator_gives_ranges_of_its_own(build, calibrator):
    axes = {"percentile": 99.0} if calibrator == "percentile" else {}

    found, usual = scales(build(calibrator=calibrator, **axes)), scales(build())

    assert found.keys() == usual.keys()
    assert any(found[name] != usual[name] for name in usual)
    # a range that leaves something out is never wider
    assert all(found[name][0] <= usual[name][0] * (1 + 1e-6) for name in usual)


# --- one layer, one part --------------------------------------------------------------------------


def outputs(artifact: Artifact) -> np.ndarray:
    session = OnnxRuntime().load(artifact, CPU, len(IMAGES))
    session.bind({"image": IMAGES})
    session.run()
    return session.read()["logits"]


def exact() -> np.ndarray:
    with torch.no_grad():
        return small()(torch.from_numpy(IMAGES)).numpy()


def integer_weights(artifact: Artifact) -> set[str]:
    return {t.layer for t in record_of(artifact).tensors if t.role == "weight" and t.levels}


def test_one_layer_is_quantized_with_its_input_and_output_and_nothing_else(build):
    # an output is quantized behind its activation function, as in the whole model
    expected = {
        "conv": {"image", "/Relu_output_0"},
        "first": {"/Flatten_output_0", "/Relu_1_output_0"},
    }
    for layer, activations in expected.items():
        artifact = build(only=[layer])

        assert integer_weights(artifact) == {layer}
        assert set(scales(artifact)) == activations
        assert "simulated" not in artifact.details


def test_a_layer_alone_is_executed_in_integers(build):
    found = operations(build(only=["conv"]))

    assert [op.dtype for op in found if op.role == "multiply" and op.integer] == ["uint8"]


def test_layers_alone_lose_less_than_all(build):
    whole = sqnr_db(exact(), outputs(build()))

    for layer in LAYERS:
        assert sqnr_db(exact(), outputs(build(only=[layer]))) > whole


def test_patterns_of_layers_and_injected_ranges_go_together(model, build):
    ranges = minmax(observed(model, only=["*ir*", "conv"]))

    artifact = build(ranges, ranges="injected", only=["*ir*", "conv"])

    assert set(ranges) == {
        "image", "/Relu_output_0", "/Flatten_output_0", "/Relu_1_output_0",
    }  # fmt: skip
    assert integer_weights(artifact) == {"conv", "first"}


@pytest.mark.parametrize("only", [[], ["conv"], ["first"]])
def test_weights_alone_are_those_of_both(build, only):
    artifact, both = build(parts="weights", only=only), build(only=only)

    assert not scales(artifact)
    assert integer_weights(artifact) == (set(only) or set(LAYERS))
    found = constants(artifact)
    for name, array in constants(both).items():
        if array.dtype == np.int8 and array.ndim > 1:
            np.testing.assert_array_equal(found[name], array)
    assert executed(OnnxRuntime().operations(artifact, CPU, {"image": IMAGES[:1]})).macs == 0


@pytest.mark.parametrize("only", [[], ["conv"], ["first"]])
def test_activations_alone_are_those_of_both(build, only):
    artifact, both = build(parts="activations", only=only), build(only=only)

    assert scales(artifact) == scales(both)
    assert not integer_weights(artifact)
    assert executed(OnnxRuntime().operations(artifact, CPU, {"image": IMAGES[:1]})).macs == 0


@pytest.mark.parametrize("only", [[], ["conv"]])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_the_errors_of_the_parts_are_smaller_than_that_of_both(build, only, activations):
    found = {
        part: sqnr_db(exact(), outputs(build(parts=part, only=only, activations=activations)))
        for part in ("weights", "activations", "both")
    }

    assert min(found["weights"], found["activations"]) > found["both"] - 0.5
    assert all(value > 25 for value in found.values())


def test_layers_that_are_never_quantized_say_so(build):
    with pytest.raises(BadInput, match="only: no layer 'frist'"):
        build(only=["frist"])
