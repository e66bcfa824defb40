"""Training of the recurrent models: ``python -m experiments.models.recurrent.train [lstm] [gru]``.

Writes the weights beside this module; after training anew, put the printed SHA-256 there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from experiments.models.fitting import fit, save
from experiments.models.recurrent import SHA256
from experiments.models.recurrent.torch_form import build
from experiments.tasks.fsdd import load
from harness.protocol import file_sha256
from harness.task import Samples

EPOCHS, BATCH, RATE = 60, 64, 3e-3


def shifted(frames: Tensor, random: torch.Generator) -> Tensor:
    """Later by up to 12 frames, louder or softer, with a little noise."""
    late = int(torch.randint(0, 13, (1,), generator=random))
    silence = frames[:, -1:].expand(-1, late, -1)
    moved = torch.cat([silence, frames[:, : frames.shape[1] - late]], 1)
    gain = 0.2 * (torch.rand(len(frames), 1, 1, generator=random) - 0.5)
    return moved + gain + 0.05 * torch.randn(moved.shape, generator=random)


def train(kind: str, seed: int = 0) -> nn.Module:
    """A trained model in evaluation mode: Adam with one cycle of the learning rate."""
    torch.manual_seed(seed)
    module, samples = build(kind), load("train")
    optimizer = torch.optim.Adam(module.parameters(), RATE, weight_decay=1e-5)
    steps = EPOCHS * -(-len(samples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    return fit(
        module, samples, optimizer, epochs=EPOCHS, batch_size=BATCH, seed=seed, schedule=schedule,
        augment=shifted, smoothing=0.05, clip=1.0,
    )  # fmt: skip


def accuracy(module: nn.Module, samples: Samples) -> float:
    """Top-1 accuracy, 0..1."""
    with torch.inference_mode():
        logits = module(torch.from_numpy(np.ascontiguousarray(samples.inputs["frames"])))
    return float((logits.argmax(1).numpy() == samples.labels).mean())


def main() -> None:
    """Train, report the accuracies and write the weights."""
    parser = argparse.ArgumentParser(description="Train the recurrent models, write their weights.")
    parser.add_argument("kinds", nargs="*", default=list(SHA256))
    for kind in parser.parse_args().kinds:
        module = train(kind)
        path = save(module, Path(__file__).with_name(f"{kind}.safetensors"))
        scores = ", ".join(
            f"{s} {accuracy(module, load(s)):.4f}" for s in ("train", "calibration", "test")
        )
        print(f"{kind}: {scores}; {path}: SHA-256 {file_sha256(path)}")


if __name__ == "__main__":
    main()
