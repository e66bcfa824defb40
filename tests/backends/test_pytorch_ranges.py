"""Ranges of PyTorch's activations given from outside, and layers or parts of them quantized alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from quantbench.backend_api import Artifact
from quantbench.backend_api.registry import model as registered
from quantbench.errors import BadInput
from quantbench.spec import (
    Data,
    Method,
    Model,
    Samples,
    preset,
)
from quantbench.stats import sqnr_db
from quantbench.stats.affine import Grid, from_range
from quantbench.system import locate
from quantbench_backends.pytorch import session
from tests.backends.samples import SAMPLES
from tests.backends.test_pytorch_record import images  # noqa: F401 - a fixture
from tests.backends.test_pytorch_specifics import (
    BACKEND,
    CONVOLUTIONAL,
    CPU,
    QUANTIZER,
    RUNTIME,
    a_method,
    inputs_of,
    outputs_of,
)

RESIDUAL = SAMPLES["residual"].model
ROUTES = [("fx", CONVOLUTIONAL), ("pt2e", CONVOLUTIONAL), ("eager", RESIDUAL), ("fx", RESIDUAL)]
Ranges = dict[str, tuple[float, float]]


def injected(route: str, calibrator: str = "minmax", **axes: Any) -> Method:
    return a_method("static-int8", route=route, ranges="injected", calibrator=calibrator, **axes)


def samples_of(model: Model, count: int = 40) -> Samples:
    return Samples(inputs_of(model, count), np.zeros(count))


def observed(model: Model, method: Method) -> tuple[Ranges, dict[str, int]]:
    """Smallest and largest value of each activation, and how many samples were seen of it."""
    ranges: Ranges = {}
    counts: dict[str, int] = {}

    def see(name: str, values: np.ndarray) -> None:
        assert values.dtype == np.float32
        low, high = ranges.get(name, (np.inf, -np.inf))
        ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
        counts[name] = counts.get(name, 0) + len(values)

    QUANTIZER.observe(model, method, Data(samples_of(model), None, 0), see)
    return ranges, counts


def made(model: Model, method: Method, folder: Path, ranges: Ranges | None = None) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    assert QUANTIZER.refuse(model, method) is None
    return QUANTIZER.quantize(model, method, Data(samples_of(model), None, 0, ranges or {}), folder)


def grids(artifact: Artifact) -> list[tuple[float, int]]:
    """Scale and zero point of each activation, in order, those that pass one on once."""
    found = [
        (tensor.scale[0], tensor.zero_point[0])
        for tensor in QUANTIZER.inspect(artifact).tensors
        if tensor.role == "activation" and tensor.levels
    ]
    return list(dict.fromkeys(found))


# --- injected ranges -----------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "model"), ROUTES, ids=lambda x: getattr(x, "name", x))
def test_scales_in_the_file_are_those_of_the_injected_ranges(route, model, tmp_path):
    method = injected(route, "mse")
    seen, _ = observed(model, method)
    ranges = {
        name: (low * (0.5 + 0.01 * i), high * (0.6 + 0.01 * i))
        for i, (name, (low, high)) in enumerate(seen.items())
    }

    found = grids(made(model, method, tmp_path, ranges))

    # 7 bits for engine x86, whose sums saturate without VNNI
    grid = Grid(8 if route == "pt2e" else 7, signed=False)
    wanted = [from_range(low, high, grid) for low, high in ranges.values()]
    # the same scale computed in float32 here and there: 1.2e-7 and a little
    np.testing.assert_allclose([s for s, _ in found], [a.scale for a in wanted], rtol=1e-6)
    assert [z for _, z in found] == [int(a.zero_point) for a in wanted]


@pytest.mark.parametrize(("route", "model"), ROUTES, ids=lambda x: getattr(x, "name", x))
def test_injected_minima_and_maxima_give_the_file_of_the_native_observer(route, model, tmp_path):
    method = injected(route)
    ranges, counts = observed(model, method)

    ours = made(model, method, tmp_path / "ours", ranges)

    native = dataclasses.replace(method, ranges="native")
    assert ours.digest == made(model, native, tmp_path / "native").digest
    # a mean after a convolution shares its observer: that one sees both
    assert {count % 40 for count in counts.values()} == {0}


def test_four_bit_activations_take_injected_ranges_too(tmp_path):
    method = injected("fx", activations="uint4")
    ranges, _ = observed(CONVOLUTIONAL, method)

    ours = made(CONVOLUTIONAL, method, tmp_path / "ours", ranges)

    native = dataclasses.replace(method, ranges="native")
    assert ours.digest == made(CONVOLUTIONAL, native, tmp_path / "native").digest


@pytest.mark.parametrize(
    ("route", "names"),
    [("fx", ["image", "first", "second", "head"]), ("pt2e", ["image", "relu", "mean"])],
)
def test_activations_are_named_by_module_or_node(route, names):
    ranges, _ = observed(CONVOLUTIONAL, injected(route))

    assert list(ranges) == names


def test_an_activation_without_a_range_is_named(tmp_path):
    method = injected("fx")
    ranges, _ = observed(CONVOLUTIONAL, method)
    del ranges["second"]

    with pytest.raises(BadInput, match="activation 'second'"):
        made(CONVOLUTIONAL, method, tmp_path, ranges)


def test_what_has_no_static_ranges_is_not_observed():
    with pytest.raises(BadInput, match="no static ranges"):
        observed(CONVOLUTIONAL, a_method("dynamic-int8"))


@pytest.mark.data
@pytest.mark.long
def test_every_native_calibrator_finds_other_ranges_on_resnet20(images, tmp_path):  # noqa: F811
    resnet = registered("resnet20")
    found = {}
    for calibrator in ("minmax", "moving-average", "histogram"):
        axes = BACKEND.axes("static-int8", {"samples": 64, "calibrator": calibrator})
        folder = tmp_path / calibrator
        folder.mkdir()
        artifact = QUANTIZER.quantize(
            resnet, preset("static-int8", axes), Data(images, None, 0), folder
        )
        found[calibrator] = grids(artifact)

    scales = {name: np.array([s for s, _ in grid]) for name, grid in found.items()}
    # moving averages and searches clip, on some layer by more than a percent
    assert (scales["moving-average"] < 0.99 * scales["minmax"]).any()
    assert (scales["histogram"] < 0.99 * scales["minmax"]).any()
    assert (np.abs(scales["histogram"] / scales["moving-average"] - 1) > 0.01).any()


@pytest.mark.data
def test_resnet20_is_observed_where_it_is_quantized(images):  # noqa: F811
    axes = {"samples": 64, "ranges": "injected", "calibrator": "entropy"}
    method = preset("static-int8", BACKEND.axes("static-int8", axes))
    names: dict[str, int] = {}

    def see(name: str, values: np.ndarray) -> None:
        names[name] = names.get(name, 0) + len(values)

    QUANTIZER.observe(registered("resnet20"), method, Data(images, None, 0), see)

    # the input, 19 convolutions and a linear layer, 9 sums, the zeros added by 2 shortcuts
    assert len(names) == 1 + 19 + 1 + 9 + 2
    assert min(names.values()) == 64


# --- layers alone --------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["fx", "pt2e"])
@pytest.mark.parametrize("layer", ["first", "second", "head"])
def test_only_the_named_layer_has_integers(route, layer, tmp_path):
    method = a_method("static-int8", route=route, only=[layer])

    artifact = made(CONVOLUTIONAL, method, tmp_path)

    record = QUANTIZER.inspect(artifact, QUANTIZER.layers(CONVOLUTIONAL))
    weights = {t.layer: t.dtype for t in record.tensors if t.role == "weight"}
    assert weights == {
        name: "int8" if name == layer else "float32" for name in ("first", "second", "head")
    }
    multiplying = {n.layer: n.integer for n in record.nodes if n.role == "multiply"}
    assert multiplying == {name: name == layer for name in weights}


def test_only_the_named_layer_is_executed_on_integers(tmp_path):
    artifact = made(CONVOLUTIONAL, a_method("static-int8", only=["second"]), tmp_path)

    operations = RUNTIME.operations(artifact, CPU, inputs_of(CONVOLUTIONAL, 1))

    assert [op.integer for op in operations if op.macs] == [False, True, False]


def test_a_layer_that_is_not_there_is_no_layer_to_single_out(tmp_path):
    with pytest.raises(BadInput, match="Did you mean 'first'"):
        made(CONVOLUTIONAL, a_method("static-int8", only=["frist"]), tmp_path)


def test_eager_mode_has_no_layer_alone():
    reason = QUANTIZER.refuse(RESIDUAL, a_method("static-int8", route="eager", only=["stem"]))

    assert "outside the stubs" in reason


# --- weights or activations alone ----------------------------------------------------------------


@pytest.mark.parametrize(("route", "model"), [("fx", CONVOLUTIONAL), ("eager", RESIDUAL)])
def test_each_part_alone_is_nearer_to_float_than_both(route, model, tmp_path):
    inputs = inputs_of(model, 32, seed=1)
    name = model.outputs[0].name
    want = outputs_of(made(model, a_method("fp32"), tmp_path / "float"), inputs)[name]

    found = {}
    for parts in ("both", "weights", "activations"):
        method = a_method("static-int8", route=route, parts=parts)
        artifact = made(model, method, tmp_path / parts)
        found[parts] = sqnr_db(want, outputs_of(artifact, inputs)[name])

    assert found["weights"] > found["both"]
    assert found["activations"] > found["both"] - 2  # rounding may cancel
    assert found["weights"] < 80  # it is rounded
    assert found["activations"] < 80
    # errors that have nothing to do with each other add up
    noise = {parts: 10 ** (-db / 10) for parts, db in found.items()}
    assert noise["both"] == pytest.approx(noise["weights"] + noise["activations"], rel=0.5)


def test_weights_alone_are_those_of_the_integer_model_and_activations_stay_float(tmp_path):
    artifact = made(CONVOLUTIONAL, a_method("static-int8", parts="weights"), tmp_path / "part")

    record = QUANTIZER.inspect(artifact, QUANTIZER.layers(CONVOLUTIONAL))
    assert not [t for t in record.tensors if t.levels]
    assert {n.kind for n in record.nodes} == {
        "aten::_convolution", "aten::relu", "aten::mean", "aten::linear",
    }  # fmt: skip
    assert "weights alone" in artifact.details["simulated"]
    reason = {n.reason for n in record.nodes if n.role == "multiply"}
    assert reason == {artifact.details["simulated"]}
    weight = session.read_module(artifact, CPU).head.weight.detach().numpy()
    whole = made(CONVOLUTIONAL, a_method("static-int8"), tmp_path / "whole")
    scale = next(t.scale for t in QUANTIZER.inspect(whole).tensors if t.name == "head.weight")
    steps = weight / np.array(scale, np.float32)[:, None]
    # up to 127 steps in float32: 1.5e-5; what was not rounded is off by half a step
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)


def test_activations_alone_are_rounded_where_the_integer_model_has_them(tmp_path):
    artifact = made(CONVOLUTIONAL, a_method("static-int8", parts="activations"), tmp_path)

    operations = RUNTIME.operations(artifact, CPU, inputs_of(CONVOLUTIONAL, 1))

    rounding = [op for op in operations if "fake_quantize" in op.kind]
    assert len(rounding) == 5  # the input, two convolutions, their mean, the output
    assert {op.dtype for op in operations if op.macs} == {"float32"}


def test_a_part_of_one_layer_touches_that_layer_alone(tmp_path):
    method = a_method("static-int8", parts="weights", only=["head"])

    artifact = made(CONVOLUTIONAL, method, tmp_path)

    module = session.read_module(artifact, CPU)
    trained = locate(CONVOLUTIONAL.state)(Path())
    second, head = (
        getattr(layer, "0", layer).weight.detach().numpy() for layer in (module.second, module.head)
    )
    np.testing.assert_array_equal(second, trained["second.weight"])
    step = np.abs(trained["head.weight"]).max() / 127.5
    assert 0 < np.abs(head - trained["head.weight"]).max() <= step / 2 * 1.01
