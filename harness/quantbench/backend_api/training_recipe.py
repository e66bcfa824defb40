"""Training: one recipe for every framework: the batches, learning rates, record and checkpoints.

A backend's trainer goes through a `Course` and does what only its framework can: the gradient step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quantbench.errors import BadInput
from quantbench.spec import Array, Arrays, Method, Samples, relayout
from quantbench.system import tell, write_atomically, write_json

LOSSES: Mapping[str, str] = dict.fromkeys(("top1", "top5", "f1", "auc"), "cross-entropy")
"""Metric -> the loss that the first output is trained with."""
MOMENTUM = 0.9
PADDING = 4  # pixels around an image before it is cropped (He et al. 2015, arXiv 1512.03385, 4.2)
CHECKPOINT, POSITION, JOURNAL = "checkpoint.safetensors", "checkpoint.json", "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Step:
    """One gradient step: inputs and labels (first axis the batch) and the learning rate."""

    epoch: int
    number: int
    inputs: Arrays
    labels: Array
    learning_rate: float


@dataclass(slots=True)
class Course:
    """One training from its first step to its last, continued after an interruption.

    Parameters
    ----------
    method : Method
        Whose recipe axes say how.
    samples : Samples
        The training split; ``train_samples`` of it are used, chosen by the seed.
    layouts : mapping
        Input name -> layout, for augmentation.
    loss : str
        ``cross-entropy`` (labels are classes [n]) or ``mean-squared-error`` (labels are the output
        that is wanted, in the task's layout): of the model's first output, the batch's mean.
    folder : Path
        Where the trainer leaves its result.
    workspace : Path
        Where journal and checkpoints lie, kept when the process is killed.
    """

    method: Method
    samples: Samples
    layouts: Mapping[str, str]
    loss: str
    folder: Path
    workspace: Path
    _chosen: Array = field(init=False)
    _started: float = field(init=False, default_factory=time.monotonic)
    _first: int = field(init=False, default=0)
    _before: float = field(init=False, default=0.0)
    _journal: list[dict[str, float]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        wanted, have = self.method.train_samples, len(self.samples)
        if have == 0:
            raise BadInput("the training split is empty; give the task training samples")
        if wanted > have:
            raise BadInput(
                f"{wanted} training samples were asked for, but the training split has {have}; "
                f"set 'train_samples: {have}' or less"
            )
        order = np.random.default_rng([self.method.seed, 0]).permutation(have)
        self._chosen = order[: wanted or have]
        self.workspace.mkdir(parents=True, exist_ok=True)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch; the last batch is left out where it would be smaller."""
        return max(len(self._chosen) // self.method.batch_size, 1)

    def restore(self) -> Arrays | None:
        """The arrays of the last checkpoint, to go on from, or None at the start."""
        try:
            position = json.loads((self.workspace / POSITION).read_text(encoding="utf-8"))
            from safetensors.numpy import load_file

            arrays: Arrays = load_file(self.workspace / position["file"])
        except (OSError, ValueError, KeyError):
            return None
        self._first = position["epoch"] + 1
        self._before = position["seconds"]
        self._journal = position["journal"]
        return arrays

    def epochs(self) -> range:
        """The epochs left to do, from 0."""
        return range(self._first, self.method.epochs)

    def steps(self, epoch: int) -> Iterator[Step]:
        """The steps of an epoch, in an order and with an augmentation of its own."""
        rng = np.random.default_rng([self.method.seed, 1, epoch])
        order = rng.permutation(self._chosen)
        size, total = self.method.batch_size, self.method.epochs * self.steps_per_epoch
        for i in range(self.steps_per_epoch):
            batch = self.samples.take(np.asarray(order[i * size : (i + 1) * size]))
            inputs = {
                name: augment(array, self.layouts[name], self.method.augmentation, rng)
                for name, array in batch.inputs.items()
            }
            number = epoch * self.steps_per_epoch + i
            rate = learning_rate(self.method, number / total)
            yield Step(epoch, number, inputs, batch.labels, rate)

    def record(self, step: Step, loss: float) -> None:
        """Note the loss of a step, and tell how far the training is.

        Raises
        ------
        BadInput
            If the loss is not finite.
        """
        if not math.isfinite(loss):
            raise BadInput(
                f"training diverged: the loss is {loss} at step {step.number + 1} of epoch "
                f"{step.epoch + 1}; use a learning_rate below {self.method.learning_rate:g}"
            )
        self._journal.append(
            {
                "epoch": step.epoch,
                "step": step.number,
                "loss": loss,
                "learning_rate": step.learning_rate,
            }
        )
        done = step.number + 1 - self._first * self.steps_per_epoch
        left = self.method.epochs * self.steps_per_epoch - step.number - 1
        seconds = (time.monotonic() - self._started) / done * left
        tell(
            f"epoch {step.epoch + 1}/{self.method.epochs}, "
            f"step {step.number % self.steps_per_epoch + 1}/{self.steps_per_epoch}, "
            f"loss {loss:.3f}, about {seconds:.0f} s left"
        )

    def save(self, epoch: int, arrays: Arrays) -> None:
        """Checkpoint the end of an epoch: everything that the trainer needs to go on from there."""
        name = f"epoch{epoch}-{CHECKPOINT}"
        from safetensors.numpy import save_file

        save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, self.workspace / name)
        position = {
            "epoch": epoch, "file": name, "seconds": self.seconds, "journal": self._journal,
        }  # fmt: skip
        write_json(self.workspace / POSITION, position)
        for old in self.workspace.glob(f"epoch*-{CHECKPOINT}"):
            if old.name != name:
                old.unlink()

    @property
    def seconds(self) -> float:
        """Time spent, that before an interruption included up to its last checkpoint."""
        return self._before + time.monotonic() - self._started

    def finish(self) -> None:
        """Leave the journal beside the result."""
        lines = "".join(json.dumps(line) + "\n" for line in self._journal)
        write_atomically(self.folder / JOURNAL, lines.encode())


def learning_rate(method: Method, progress: float) -> float:
    """The learning rate at ``progress`` (0 to 1) of the training.

    Cosine: Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5, without restarts.

    >>> from quantbench.spec.method import preset
    >>> learning_rate(preset("qat-int8", {"learning_rate": 0.1, "schedule": "linear"}), 0.75)
    0.025
    """
    factor = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": (1.0 + math.cos(math.pi * progress)) / 2,
    }[method.schedule]
    return method.learning_rate * factor


def augment(array: Array, layout: str, augmentation: str, rng: np.random.Generator) -> Array:
    """The images ``array`` (``NCHW`` or ``NHWC``), each changed at random; padding is 0.

    Raises
    ------
    BadInput
        If an augmentation of images is asked for, and the layout is another.
    """
    if augmentation == "none":
        return np.asarray(array)
    if layout not in ("NCHW", "NHWC"):
        raise BadInput(
            f"augmentation '{augmentation}' is for images, but an input has "
            f"{f'the layout {layout}' if layout else 'no layout'}; use augmentation: none"
        )
    images = relayout(array, layout, "NHWC")
    n, height, width, _ = images.shape
    flipped = np.where(rng.random((n, 1, 1, 1)) < 0.5, images[:, :, ::-1], images)
    if augmentation == "flip":
        return np.ascontiguousarray(relayout(flipped, "NHWC", layout))
    padded = np.pad(flipped, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    top, left = rng.integers(0, 2 * PADDING + 1, (2, n))
    corners = enumerate(zip(top, left, strict=True))
    cropped = np.stack([padded[i, y : y + height, x : x + width] for i, (y, x) in corners])
    return np.ascontiguousarray(relayout(cropped, "NHWC", layout))
