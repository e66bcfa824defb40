"""Fitting: a plain seeded training loop in PyTorch, for the models that are trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from quantbench.spec import Samples

Augment = Callable[[Tensor, torch.Generator], Tensor]


def fit(
    module: nn.Module,
    samples: Samples,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    augment: Augment | None = None,
    smoothing: float = 0.0,
    clip: float = 0.0,
    penalty: Callable[[], Tensor] | None = None,
) -> nn.Module:
    """Train a classifier by cross entropy; returns it in evaluation mode.

    Parameters
    ----------
    samples
        Inputs in the order of the module's arguments; labels int64 [n].
    schedule
        Stepped after every batch.
    augment
        Of the first input, on batches.
    smoothing, clip : float
        Label smoothing; largest norm of the gradient (0 for any).
    penalty
        Added to the loss of each batch.
    """
    random = torch.Generator().manual_seed(seed)
    inputs = [torch.from_numpy(np.ascontiguousarray(a)) for a in samples.inputs.values()]
    labels = torch.from_numpy(np.ascontiguousarray(samples.labels))
    module.train()
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(labels), generator=random), batch_size):
            first, *rest = (array[batch] for array in inputs)
            if augment:
                first = augment(first, random)
            if first.ndim == 4:
                first = first.to(memory_format=torch.channels_last)
            loss = functional.cross_entropy(
                module(first, *rest), labels[batch], label_smoothing=smoothing
            )
            if penalty:
                loss = loss + penalty()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if clip:
                nn.utils.clip_grad_norm_(module.parameters(), clip)
            optimizer.step()
            if schedule:
                schedule.step()
    return module.eval()


def crop_and_flip(images: Tensor, random: torch.Generator) -> Tensor:
    """Padded by 4 pixels, cropped at one place for the whole batch, half of them mirrored."""
    size = images.shape[-1]
    down, right = torch.randint(0, 9, (2,), generator=random).tolist()
    moved = functional.pad(images, (4, 4, 4, 4))[:, :, down : down + size, right : right + size]
    mirrored = torch.rand(len(images), generator=random) < 0.5
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def accuracy(module: nn.Module, samples: Samples) -> float:
    """Top-1 accuracy, 0..1, of a model of one input."""
    found = []
    with torch.inference_mode():
        for batch in samples.batches(500):
            (array,) = batch.values()
            found.append(module(torch.from_numpy(np.ascontiguousarray(array))).argmax(1).numpy())
    return float((np.concatenate(found) == samples.labels).mean())


def save(module: nn.Module, path: Path) -> Path:
    """Write the weights by torch name, without batch counters."""
    kept = {k: v.contiguous() for k, v in module.state_dict().items() if "num_batches" not in k}
    save_file(kept, path)
    return path
