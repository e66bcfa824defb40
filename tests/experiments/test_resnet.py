from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.errors import DataMissing
from quantbench.spec import Array, Model
from quantbench.system import locate
from quantbench_experiments.models import resnet
from quantbench_experiments.models.resnet import RESNET20
from quantbench_experiments.tasks.cifar10 import load


def normalized_test_images() -> Array:
    """The test split as the model expects it."""
    return resnet.preprocess(load("test").inputs)["image"]


def torch_resnet20() -> Any:
    """The torch form with the published weights."""
    torch = pytest.importorskip("torch")
    model = locate(RESNET20.forms["torch"])()
    state = resnet.state(locate(RESNET20.weights)())
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model


def torch_logits(model: Any, images: Array) -> Array:
    """Logits [n, 10], 100 images at a time."""
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        batches = [model(batch).numpy() for batch in torch.from_numpy(images).split(100)]
    return np.concatenate(batches)


def test_the_description_survives_json() -> None:
    assert Model.from_json(RESNET20.to_json()) == RESNET20


def test_missing_weights_say_what_to_get_and_where_to_put_it(empty_data: Path) -> None:
    with pytest.raises(DataMissing) as caught:
        locate(RESNET20.weights)()
    assert str(caught.value) == (
        f"{empty_data}/weights/resnet20-12fca82f.th is missing; "
        "download pretrained_models/resnet20-12fca82f.th from "
        "https://github.com/akamaster/pytorch_resnet_cifar10 and put it into "
        f"{empty_data}/weights ($QUANTBENCH_DATA/weights)"
    )


@pytest.mark.data
@pytest.mark.parametrize("damage", ["altered", "truncated"])
def test_damaged_weights_are_refused(
    damage: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(resnet.weights("20").read_bytes())
    content[500_000] ^= 1
    damaged = tmp_path / "weights" / "resnet20-12fca82f.th"
    damaged.parent.mkdir()
    damaged.write_bytes(content if damage == "altered" else content[:400_000])
    monkeypatch.setenv("QUANTBENCH_DATA", str(tmp_path))
    with pytest.raises(DataMissing, match=r"has SHA-256 .* expected 12fca82f.*; download"):
        resnet.weights("20")


def test_preprocessing_normalizes_each_channel() -> None:
    pixels = np.zeros((2, 3, 32, 32), np.float32)
    pixels[1] = 255
    image = resnet.preprocess({"image": pixels})["image"]
    assert image.dtype == np.float32
    assert pixels.max() == 255
    # the published numbers have five digits after the point
    np.testing.assert_allclose(image[0, :, 0, 0], [-2.11790, -2.03571, -1.80444], atol=1e-5)
    # as above
    np.testing.assert_allclose(image[1, :, 9, 9], [2.24891, 2.42857, 2.64000], atol=1e-5)


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (56, 853_018)])
def test_each_depth_has_the_published_number_of_parameters(depth: int, parameters: int) -> None:
    pytest.importorskip("torch")
    from quantbench_experiments.models.resnet.torch_form import ResNet

    assert sum(weight.numel() for weight in ResNet(depth).parameters()) == parameters


def test_the_shortcut_takes_every_second_pixel_and_centres_the_channels() -> None:
    torch = pytest.importorskip("torch")
    from quantbench_experiments.models.resnet.torch_form import Shortcut

    x = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    y = Shortcut(2)(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[0, 1:3], x[0, :, ::2, ::2])
    assert y[0, [0, 3]].abs().sum() == 0


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.long
def test_the_torch_form_scores_the_published_accuracy(real_data: Path) -> None:
    predicted = torch_logits(torch_resnet20(), normalized_test_images()).argmax(1)
    right = int((predicted == load("test").labels).sum())
    assert right == 9173
    assert right / 10_000 == RESNET20.published


@pytest.mark.data
@pytest.mark.slow
def test_the_keras_form_is_the_same_function(real_data: Path) -> None:
    pytest.importorskip("tf_keras")
    images = normalized_test_images()[:512]
    expected = torch_logits(torch_resnet20(), images)
    model = locate(RESNET20.forms["keras"])(resnet.state(resnet.weights("20")))
    got = np.asarray(model(images.transpose(0, 2, 3, 1), training=False))
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.array_equal(got.argmax(1), expected.argmax(1))


@pytest.mark.data
@pytest.mark.slow
def test_keras_layers_carry_the_torch_names(real_data: Path) -> None:
    pytest.importorskip("tf_keras")
    state = resnet.state(resnet.weights("20"))
    model = locate(RESNET20.forms["keras"])(state)
    weighted = {layer.name for layer in model.layers if layer.get_weights()}
    fixed = {"layer2.0.shortcut", "layer3.0.shortcut"}
    assert weighted - fixed == {name.rpartition(".")[0] for name in state}
    assert fixed <= weighted
    trainable = {weight.name.partition("/")[0] for weight in model.trainable_weights}
    assert not fixed & trainable
