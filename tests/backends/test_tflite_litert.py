"""LiteRT Quantizer after litert-torch and TFLiteConverter: layers by name, bits, groups, batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.backend_api import Artifact, integer_macs_fraction, missing_packages
from quantbench.backend_api.registry import converter
from quantbench.errors import BadArtifact, BadInput
from quantbench.spec import Arrays, Method, Model, Target, TensorSpec
from quantbench.stats import sqnr_db
from quantbench.system import locate
from quantbench_backends.tflite import BACKEND, FROM_TORCH, layers
from tests.backends.conformance import build, calibration, method_of, outputs_of, with_form
from tests.backends.samples import SAMPLES, numpy_forms

pytestmark = pytest.mark.skipif(
    bool(missing_packages((*BACKEND.packages, *FROM_TORCH.packages))),
    reason=f"needs {FROM_TORCH.install}",
)

HERE = "tests.backends.test_tflite_litert"
CPU = Target("cpu-1")
TORCH = {"route": "litert-torch"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """Builds a sample with a method on the route from torch; each model is converted once."""
    forms: dict[str, Model] = {}

    def get(sample: str, name: str, **axes: Any) -> Artifact:
        method = method_of(BACKEND, name, {**TORCH, **axes})
        if sample not in forms:
            folder = tmp_path_factory.mktemp("form")
            forms[sample] = with_form(BACKEND, SAMPLES[sample].model, method, folder)
        return build(BACKEND, forms[sample], method, tmp_path_factory.mktemp("made"))

    return get


def runs(artifact: Artifact, sample: str, count: int = 8) -> tuple[float, float | None]:
    """Signal to noise of the worst output, and the share of integer multiplications."""
    inputs = SAMPLES[sample].inputs(count)
    runtime = locate(BACKEND.runtime)()
    found = outputs_of(runtime.load(artifact, CPU, count), inputs)
    reference = numpy_forms.outputs(sample, inputs)
    noise = min(sqnr_db(reference[name], array) for name, array in found.items())
    operations = runtime.operations(artifact, CPU, SAMPLES[sample].inputs(1))
    return noise, integer_macs_fraction(operations)


@pytest.mark.parametrize(
    ("sample", "name", "floor_db", "fraction"),
    [
        ("pair", "fp32", 125, 0),
        ("groupnorm", "fp32", 125, 0),
        ("depthwise", "fp16", 64, 0),
        ("depthwise", "dynamic-int8", 36, 1),
        ("pair", "static-int8", 25, 1),
        ("groupnorm", "static-int8", 35, 1),
        ("residual", "static-int16x8", 38, 1),
        ("concat", "weight-only-int8", 40, 0),
        ("linear", "weight-only-int4", 15, 0),
        ("pair", "dynamic-int4", 15, 1),
    ],
)
def test_methods_start_from_the_torch_form(made, sample, name, floor_db, fraction):
    noise, integer = runs(made(sample, name), sample)

    assert noise > floor_db
    assert integer == fraction


def test_the_form_is_the_registered_converter_s_and_its_bytes_do_not_change(tmp_path):
    model = SAMPLES["pair"].model
    assert converter("torch", "tflite") == FROM_TORCH
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(locate(FROM_TORCH.convert)(model, tmp_path / name).read_bytes())

    assert files[0] == files[1]


def test_images_keep_torch_s_layout(made):
    artifact = made("pair", "fp32")

    assert [spec.layout for spec in artifact.inputs] == ["NCHW", ""]
    assert [spec.name for spec in artifact.outputs] == ["scores", "map"]


@pytest.mark.parametrize("name", ["static-int8", "dynamic-int8", "weight-only-int8", "fp16"])
def test_layers_are_left_in_float_by_their_torch_names(made, name):
    kept = made("conv", name, keep_float=("sec*",))
    inspect = locate(BACKEND.quantizer)().inspect

    weights = inspect(kept).weight_bytes

    sample = SAMPLES["conv"]
    stored = "float16" if name == "fp16" else "int8"
    assert weights[stored] == sample.elements("first") * (2 if name == "fp16" else 1)
    assert weights["float32"] >= 4 * sample.elements("second")
    assert runs(kept, "conv")[0] > runs(made("conv", name), "conv")[0] - 1


@pytest.mark.parametrize("name", ["static-int8", "dynamic-int8", "weight-only-int8"])
def test_layers_get_four_bits_by_their_names(made, name):
    artifact = made("conv", name, int4_weights=("second",))

    weights = locate(BACKEND.quantizer)().inspect(artifact).weight_bytes

    sample = SAMPLES["conv"]
    assert weights["int4"] == sample.elements("second") / 2
    assert weights["int8"] == sample.elements("first")
    assert 14 < runs(artifact, "conv")[0] < 25


@pytest.mark.parametrize("size", [32, 64])
def test_groups_have_scales_of_their_own(made, size):
    artifact = made("linear", "dynamic-int4", granularity="group", group_size=size)

    groups = sum(SAMPLES["linear"].elements(n) for n in ("first", "second")) // size
    weights = locate(BACKEND.quantizer)().inspect(artifact).weight_bytes
    assert weights["float16"] == 2 * groups
    assert runs(artifact, "linear") > (16, 1)
    plain = Target("plain", optimize=False)
    method = method_of(BACKEND, "dynamic-int4", {"granularity": "group", "group_size": size})
    assert "leaves them to XNNPACK" in locate(BACKEND.runtime)().refuse(plain, method)


def test_minimum_and_maximum_of_all_samples_beat_the_tool_s_own_average(made):
    extremes, average = (
        made("linear", "static-int8"),
        made("linear", "static-int8", calibrator="moving-average"),
    )

    assert runs(extremes, "linear")[0] > runs(average, "linear")[0] + 10


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"keep_float": ("secnd",)}, "no layer 'secnd'. Did you mean 'second'?"),
        ({"int4_weights": ("third*",)}, "int4_weights: no layer 'third*'"),
    ],
)
def test_layers_that_there_are_not_are_bad_input(made, axes, words):
    with pytest.raises(BadInput) as raised:
        made("conv", "dynamic-int8", **axes)

    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("sample", "size", "remedy"), [("linear", 128, "use group_size: 64"), ("depthwise", 32, "use granularity: per-channel")]
)  # fmt: skip
def test_a_group_that_does_not_divide_the_features_is_bad_input(made, sample, size, remedy):
    with pytest.raises(BadInput, match="does not divide the") as raised:
        made(sample, "dynamic-int4", granularity="group", group_size=size)

    assert remedy in str(raised.value)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("net/conv1/Conv2D", "conv1"),
        ("net/relu/Relu;net/bn1/FusedBatchNormV3;net/conv1/Conv2D1", "conv1"),
        ("net/layer1.0.conv1/Conv2D", "layer1.0.conv1"),
        ("a.Net/torch.nn.Sequential_layer1/a.Block_0/torch.nn.Conv2d_conv1;2", "layer1.0.conv1"),
        ("a.Net/torch.nn.BatchNorm2d_bn1;;a.Net/torch.nn.Conv2d_conv1;1", "conv1"),
        ("a.Net/torch.nn.Conv2d_my_conv1;", "my_conv1"),
        ("arith.constant3", None),
    ],
)
def test_tensors_are_named_after_layers(tensor, layer):
    known = ("conv1", "my_conv1", "layer1.0.conv1")

    assert layers._layer(tensor, known) == layer


# --- models of this file -------------------------------------------------------------------------


def weights() -> Path:
    return Path(__file__)


def state(path: Path) -> Arrays:
    return {"weight": np.ones((3, 4), np.float32), "bias": np.zeros(3, np.float32)}


def sorting() -> Any:
    """A module that litert-torch has no lowering for."""
    import torch

    class Sorting(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return torch.linalg.eigvals(super().forward(x).T @ super().forward(x)).real

    return Sorting(4, 3)


def halving() -> Any:
    """A module that takes every second pixel, as option-A shortcuts do."""
    import torch

    class Halving(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x[:, ::2, ::2])

    return Halving(4, 3)


def centring() -> Any:
    """A module whose samples depend on each other."""
    import torch

    class Centring(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x - x.mean(0))

    return Centring(4, 3)


def converted(form: str, folder: Path) -> Artifact:
    x, y = (TensorSpec(n, (None, size, size, c), "float32") for n, size, c in (("x", 6, 4), ("y", 3 if form == "halving" else 6, 3)))  # fmt: skip
    model = Model(form, "none", (x,), (y,), f"{HERE}:weights", f"{HERE}:state", {"torch": f"{HERE}:{form}"})  # fmt: skip
    method = method_of(BACKEND, "fp32", TORCH)
    model = with_form(BACKEND, model, method, folder / "form")
    (folder / "made").mkdir()
    quantizer = locate(BACKEND.quantizer)()
    return quantizer.quantize(model, method, calibration("linear", 0), folder / "made")


def test_a_slice_takes_every_sample_of_a_batch(tmp_path):
    artifact = converted("halving", tmp_path)
    x = np.random.default_rng(0).standard_normal((5, 6, 6, 4)).astype(np.float32)

    found = outputs_of(locate(BACKEND.runtime)().load(artifact, CPU, 5), {"x": x})["y"]

    assert artifact.inputs[0].shape[0] is None
    wanted = x[:, ::2, ::2] @ np.ones((4, 3))
    # float32 against NumPy's float64 sums of 4 numbers
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_file_that_computes_something_else_for_a_batch_takes_one_sample(tmp_path):
    artifact = converted("centring", tmp_path)
    runtime = locate(BACKEND.runtime)()

    assert runtime.load(artifact, CPU, 1)
    with pytest.raises(BadArtifact, match=r"use batch_sizes: \[1\]"):
        runtime.load(artifact, CPU, 2)


def test_a_module_that_litert_torch_cannot_convert_is_one_line(tmp_path):
    x = TensorSpec("x", (None, 4), "float32")
    model = Model("odd", "none", (x,), (x,), f"{HERE}:weights", f"{HERE}:state", {"torch": f"{HERE}:sorting"})  # fmt: skip

    with pytest.raises(BadInput, match="litert-torch cannot convert") as raised:
        locate(FROM_TORCH.convert)(model, tmp_path)

    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith("use route: keras")


def test_a_form_that_is_no_tflite_file_is_bad_input(tmp_path):
    path = tmp_path / "form.tflite"
    path.write_bytes(b"nothing of the kind")
    model = dataclasses.replace(SAMPLES["linear"].model, forms={"tflite": str(path)})
    method = method_of(BACKEND, "fp32", TORCH)

    with pytest.raises((BadInput, BadArtifact), match="not a TFLite file"):
        locate(BACKEND.quantizer)().quantize(model, method, calibration("linear", 0), tmp_path)


def test_a_model_with_a_torch_form_alone_is_taken_on_its_route():
    model = dataclasses.replace(SAMPLES["linear"].model, forms={"torch": "x:y"})
    quantizer = locate(BACKEND.quantizer)()

    assert quantizer.refuse(model, method_of(BACKEND, "static-int8", TORCH)) is None
    assert quantizer.form(method_of(BACKEND, "static-int8", TORCH)) == "tflite"
    assert "use route: litert-torch" in quantizer.refuse(model, Method("fp32"))
