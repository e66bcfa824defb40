"""Training of Keras forms: ranges, statistics, what stays fixed, resumption, and bad input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from quantbench.backend_api import Course, missing_packages
from quantbench.errors import BadInput
from quantbench.spec import Arrays, Data, Method, Model, Samples, Target, TensorSpec
from quantbench.stats import sqnr_db
from quantbench.system import locate
from quantbench_backends.tflite import BACKEND
from tests.backends.conformance import method_of, outputs_of

pytestmark = pytest.mark.skipif(
    bool(missing_packages(BACKEND.packages)), reason=f"needs {BACKEND.install}"
)

HERE = "tests.backends.test_tflite_training"
IMAGE, LOGITS = TensorSpec("image", (None, 2, 6, 6), "float32", "NCHW"), (None, 4)


def weights() -> Path:
    return Path(__file__)


def state(path: Path) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (3, 3, 2, 8), "conv2.weight": (3, 3, 8, 8), "head.weight": (8, 4)}
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def small_form(state: Arrays) -> Any:
    """Two convolutions with batch norms, and a shortcut by a fixed one."""
    from tf_keras import Input, layers
    from tf_keras import Model as Keras

    image = Input((6, 6, 2), name="image")
    conv, conv2 = (
        layers.Conv2D(8, 3, padding="same", use_bias=False, name=n) for n in ("conv", "conv2")
    )
    fixed = layers.Conv2D(8, 1, use_bias=False, trainable=False, name="fixed")
    head = layers.Dense(4, use_bias=False, name="head")
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(conv(image)))
    y = layers.BatchNormalization(name="norm2")(conv2(x))
    y = layers.ReLU(name="relu2")(layers.Add()([y, fixed(image)]))
    model = Keras(image, head(layers.GlobalAveragePooling2D()(y)))
    for layer in (conv, conv2, head):
        layer.set_weights([state[f"{layer.name}.weight"]])
    fixed.set_weights([np.eye(2, 8, dtype=np.float32)[None, None]])
    return model


def lambda_form(state: Arrays) -> Any:
    from tf_keras import Input, layers
    from tf_keras import Model as Keras

    image = Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3)(layers.Lambda(lambda x: 2 * x, name="twice")(image))
    return Keras(image, layers.GlobalAveragePooling2D()(x))


def model_of(form: str = "small_form") -> Model:
    return Model(
        name=form,
        task="none",
        inputs=(IMAGE,),
        outputs=(TensorSpec("logits", LOGITS, "float32"),),
        weights=f"{HERE}:weights",
        state=f"{HERE}:state",
        forms={"keras": f"{HERE}:{form}"},
    )


def images(count: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"image": rng.standard_normal((count, 2, 6, 6)).astype(np.float32)}


def data(count: int = 64) -> Data:
    """Classes that a linear layer could tell apart."""
    inputs = images(count)
    labels = inputs["image"].mean((2, 3)).argmax(1) + 2 * (inputs["image"].std((1, 2, 3)) > 1)
    return Data(Samples(images(32, 1), np.zeros(32)), Samples(inputs, labels), 0)


def method(name: str, **axes: Any) -> Method:
    usual = {"batch_size": 32, "learning_rate": 0.05, "epochs": 2}
    return method_of(BACKEND, name, {**usual, **axes})


QAT, FINETUNE = method("qat-int8"), method("fp32", training="finetune")


def train(chosen: Method, folder: Path, *, kind: type[Course] = Course, **changes: Any) -> Model:
    """The model after its training in ``folder``, continued if something is there."""
    model, known = model_of(**changes), data()
    folder.mkdir(exist_ok=True)
    samples = known.train
    assert samples is not None
    layouts = {"image": "NCHW"}
    course = kind(chosen, samples, layouts, "cross-entropy", folder, folder / "workspace")
    locate(BACKEND.trainer)().train(model, chosen, known, course)
    return dataclasses.replace(model, trained=str(folder))


def variables(model: Model) -> Arrays:
    return load_file(Path(model.trained) / "keras.safetensors")


class Killed(Exception):
    pass


class Interrupted(Course):
    """A course that ends with the process, after its first epoch."""

    def save(self, epoch: int, arrays: Arrays) -> None:
        Course.save(self, epoch, arrays)
        raise Killed


@pytest.mark.parametrize(
    "chosen", [QAT, FINETUNE, dataclasses.replace(QAT, optimizer="adam", freeze_batchnorm=1)]
)
@pytest.mark.long
def test_a_resumed_training_gives_the_same_bytes(tmp_path, chosen):
    whole = train(chosen, tmp_path / "whole")

    with pytest.raises(Killed):
        train(chosen, tmp_path / "parts", kind=Interrupted)
    parts = train(chosen, tmp_path / "parts")

    for name in ("keras.safetensors", "journal.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert variables(whole).keys() == variables(parts).keys()


@pytest.mark.parametrize("chosen", [QAT, FINETUNE], ids=["qat", "finetune"])
def test_weights_are_trained_but_not_those_of_fixed_layers(tmp_path, chosen):
    found = variables(train(chosen, tmp_path / "trained"))

    start = state(Path())
    for layer in ("conv", "conv2", "head"):
        assert not np.array_equal(found[f"{layer}/kernel:0"], start[f"{layer}.weight"])
    np.testing.assert_array_equal(found["fixed/kernel:0"][0, 0], np.eye(2, 8))
    assert found["norm/gamma:0"].std() > 0


@pytest.mark.parametrize(
    ("chosen", "epoch", "moved"), [(QAT, 0, False), (QAT, 1, True), (FINETUNE, 0, False)]
)
@pytest.mark.long
def test_statistics_of_batch_norms_move_until_they_are_frozen(tmp_path, chosen, epoch, moved):
    model = train(dataclasses.replace(chosen, freeze_batchnorm=epoch), tmp_path / "trained")

    assert bool(variables(model)["norm/moving_mean:0"].any()) == moved


@pytest.mark.parametrize("calibrator", ["minmax", "moving-average"])
def test_ranges_start_from_the_calibration_samples(tmp_path, calibrator):
    # at a learning rate near 0 the moving averages of training hardly change them
    still = dataclasses.replace(QAT, calibrator=calibrator, learning_rate=1e-9, epochs=1)

    found = variables(train(still, tmp_path / "trained"))

    from tf_keras import Model as Keras

    form = small_form(state(Path()))
    inner = Keras(form.input, [form.get_layer(n).output for n in ("relu", "relu2")])
    for name, output in zip(("relu", "relu2"), inner(nhwc(images(32, 1))), strict=True):
        top = float(np.max(output))
        found_top = found[f"quant_{name}/output_max:0"]
        assert found_top == pytest.approx(top, rel=0.03)
        assert found[f"quant_{name}/output_min:0"] == 0


def nhwc(inputs: Arrays) -> Any:
    return inputs["image"].transpose(0, 2, 3, 1)


@pytest.mark.long
def test_the_file_computes_what_the_fake_quantized_model_did(tmp_path):
    model = train(QAT, tmp_path / "trained")
    (tmp_path / "built").mkdir()
    inputs = images(32, 3)

    simulated = locate(BACKEND.trainer)().outputs(model, QAT, inputs)["logits"]
    artifact = locate(BACKEND.quantizer)().quantize(model, QAT, data(), tmp_path / "built")

    session = locate(BACKEND.runtime)().load(artifact, Target("cpu-1"), 32)
    found = outputs_of(session, inputs)["logits"]
    assert sqnr_db(simulated, found) > 30
    assert set(locate(BACKEND.quantizer)().inspect(artifact).weight_bytes) == {"int8", "int32"}


def test_training_lowers_the_loss_and_a_finetune_changes_the_file(tmp_path):
    longer = dataclasses.replace(FINETUNE, epochs=8)

    model = train(longer, tmp_path / "trained")

    lines = (tmp_path / "trained" / "journal.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < losses[0]
    (tmp_path / "built").mkdir()
    artifact = locate(BACKEND.quantizer)().quantize(model, longer, data(), tmp_path / "built")
    session = locate(BACKEND.runtime)().load(artifact, Target("cpu-1"), 4)
    simulated = locate(BACKEND.trainer)().outputs(model, longer, images(4))
    # two kernels add float32 in another order; untrained weights are off by far more
    np.testing.assert_allclose(
        outputs_of(session, images(4))["logits"], simulated["logits"], atol=1e-5
    )


def test_a_layer_that_tfmot_cannot_take_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"layer 'twice' \(Lambda\)") as raised:
        train(QAT, tmp_path / "trained", form="lambda_form")

    assert "\n" not in str(raised.value)


def test_a_diverging_training_is_one_line(tmp_path):
    wild = dataclasses.replace(FINETUNE, learning_rate=1e30, epochs=4)

    with pytest.raises(BadInput, match="training diverged"):
        train(wild, tmp_path / "trained")


def test_calibration_samples_of_a_training_must_be_finite(tmp_path):
    known = data()
    known.calibration.inputs["image"][3] = np.nan
    model, samples = model_of(), known.train
    assert samples is not None
    course = Course(QAT, samples, {"image": "NCHW"}, "cross-entropy", tmp_path, tmp_path / "w")

    with pytest.raises(BadInput, match="calibration samples: 'image' holds NaN"):
        locate(BACKEND.trainer)().train(model, QAT, known, course)
