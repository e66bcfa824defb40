"""The course of a training: its batches, learning rates, record and checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from quantbench.backend_api import JOURNAL, Course, first_refusal
from quantbench.backend_api.training_recipe import augment, learning_rate
from quantbench.errors import BadInput
from quantbench.spec import Samples, preset

IMAGES = np.arange(20 * 3 * 6 * 5, dtype=np.float32).reshape(20, 3, 6, 5)
SAMPLES = Samples({"image": IMAGES}, np.arange(20))


def course(folder: Path, **axes) -> Course:
    folder.mkdir(exist_ok=True)
    method = preset("qat-int8", {"batch_size": 4, "epochs": 3, **axes})
    return Course(method, SAMPLES, {"image": "NCHW"}, "cross-entropy", folder, folder / "workspace")


def seen(of: Course, epoch: int) -> list[int]:
    return [int(label) for step in of.steps(epoch) for label in step.labels]


def test_an_epoch_takes_every_sample_once_in_an_order_of_its_own(tmp_path):
    of = course(tmp_path)

    first, second = seen(of, 0), seen(of, 1)

    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first == seen(course(tmp_path), 0)


def test_another_seed_gives_another_order(tmp_path):
    of = course(tmp_path)
    of.method = dataclasses.replace(of.method, seed=1)

    assert seen(of, 0) != seen(course(tmp_path), 0)


def test_fewer_samples_are_the_same_ones_in_every_epoch(tmp_path):
    of = course(tmp_path, train_samples=8)

    assert len(seen(of, 0)) == 8
    assert set(seen(of, 0)) == set(seen(of, 2)) < set(range(20))


def test_an_incomplete_last_batch_is_left_out(tmp_path):
    assert len(seen(course(tmp_path, batch_size=6), 0)) == 18


def test_more_samples_than_there_are_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="set 'train_samples: 20' or less"):
        course(tmp_path, train_samples=21)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [1, 1, 1]), ("linear", [1, 0.5, 0]), ("cosine", [1, 0.5, 0])],
)
def test_a_schedule_runs_from_the_learning_rate_to_its_end(schedule, expected):
    method = preset("qat-int8", {"learning_rate": 1.0, "schedule": schedule})

    found = [learning_rate(method, progress) for progress in (0, 0.5, 1)]

    assert found == pytest.approx(expected, abs=1e-12)


def test_a_flip_mirrors_some_images_and_leaves_the_others(tmp_path):
    changed = augment(IMAGES, "NCHW", "flip", np.random.default_rng(0))

    mirrored = [bool((a == b[:, :, ::-1]).all()) for a, b in zip(changed, IMAGES, strict=True)]
    same = [bool((a == b).all()) for a, b in zip(changed, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert any(mirrored)
    assert any(same)


def test_a_crop_moves_an_image_by_at_most_the_padding():
    spot = np.zeros((200, 1, 9, 9), np.float32)
    spot[:, 0, 4, 4] = 1

    moved = augment(spot, "NCHW", "crop-flip", np.random.default_rng(0))

    rows, columns = np.nonzero(moved.sum((0, 1)))
    assert moved.sum() == 200
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 8, 0, 8)


def test_both_layouts_are_augmented_alike():
    one = augment(IMAGES, "NCHW", "crop-flip", np.random.default_rng(3))
    other = augment(IMAGES.transpose(0, 2, 3, 1), "NHWC", "crop-flip", np.random.default_rng(3))

    np.testing.assert_array_equal(one, other.transpose(0, 3, 1, 2))


def test_augmentation_of_what_is_no_image_is_bad_input():
    with pytest.raises(BadInput, match="use augmentation: none"):
        augment(np.zeros((4, 7)), "", "flip", np.random.default_rng(0))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training_with_advice(tmp_path, loss):
    of = course(tmp_path, learning_rate=0.5)

    with pytest.raises(BadInput, match=r"diverged.*use a learning_rate below 0\.5"):
        of.record(next(of.steps(0)), loss)


def test_a_course_goes_on_where_its_last_checkpoint_was(tmp_path):
    before = course(tmp_path)
    assert before.restore() is None
    for epoch in (0, 1):
        for step in before.steps(epoch):
            before.record(step, 1.0)
        before.save(epoch, {"w": np.full(3, epoch, np.float32)})
    for step in before.steps(2):
        before.record(step, 9.0)  # killed before it was saved

    after = course(tmp_path)
    state = after.restore()

    assert state is not None
    np.testing.assert_array_equal(state["w"], np.ones(3, np.float32))
    assert list(after.epochs()) == [2]
    for step in after.steps(2):
        after.record(step, 2.0)
    after.finish()
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(15))
    assert [line["loss"] for line in lines] == [1.0] * 10 + [2.0] * 5


def test_a_damaged_checkpoint_means_to_start_again(tmp_path):
    before = course(tmp_path)
    before.save(0, {"w": np.ones(3, np.float32)})
    (tmp_path / "workspace" / "checkpoint.json").write_text('{"epoch": 0')

    assert course(tmp_path).restore() is None


@pytest.mark.parametrize(
    ("name", "axes", "says"),
    [
        ("static-int8", {"epochs": 2}, "epochs is 2, but nothing is trained"),
        ("fp32", {"learning_rate": 0.1}, "learning_rate is 0.1, but nothing is trained"),
        ("fp32", {"training": "qat"}, "use training: finetune"),
        ("static-int8", {"training": "finetune"}, "use training: qat"),
        ("qat-int8", {"epochs": 0}, "use epochs: 1"),
        ("qat-int8", {"learning_rate": 0}, "use learning_rate: 0.005"),
        ("qat-int8", {"optimizer": "none"}, "use optimizer: sgd"),
        ("qat-int8", {"schedule": "none"}, "use schedule: cosine"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_with_a_way_out(name, axes, says):
    assert says in str(first_refusal(preset(name, axes), {}))


def test_a_recipe_is_complete_where_something_is_trained():
    method = preset("fp32", {"training": "finetune"})

    assert first_refusal(method, {}) is None
    assert (method.epochs, method.optimizer, method.schedule) == (1, "sgd", "cosine")
