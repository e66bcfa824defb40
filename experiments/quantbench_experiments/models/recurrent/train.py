"""Training of the recurrent models: ``python -m quantbench_experiments.models.recurrent.train [lstm] [gru]``.

Writes the weights beside this module; after training anew, put the printed SHA-256 there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quantbench.spec import Samples
from quantbench.system import file_sha256
from quantbench_experiments.models.fitting import accuracy, fit, save
from quantbench_experiments.models.recurrent import SHA256
from quantbench_experiments.models.recurrent.torch_form import Recurrent, build
from quantbench_experiments.tasks.fsdd import load

EPOCHS, BATCH, RATE = 60, 64, 3e-3
PIECE = 4  # frames between two looks at the cells
LARGEST_CELL = 4.0
"""TFLite's LSTM cuts cell states at 10: TFLiteConverter writes that limit into the file. A model whose cells
grow beyond is another function there, so they are kept well below while training."""


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
    watched = Watched(module)
    fit(
        watched, samples, optimizer, epochs=EPOCHS, batch_size=BATCH, seed=seed, schedule=schedule,
        augment=shifted, smoothing=0.05, clip=1.0, penalty=watched.beyond if kind == "lstm" else None,
    )  # fmt: skip
    return module.eval()


class Watched(nn.Module):
    """A recurrent model that is run in pieces, and what of its cell states was too large between them."""

    def __init__(self, module: Recurrent) -> None:
        super().__init__()
        self.module = module
        self._cells: list[Tensor] = []

    def forward(self, frames: Tensor) -> Tensor:
        """As the model."""
        state, outputs = None, []
        for piece in torch.split(frames, PIECE, dim=1):
            output, state = self.module.recurrent(piece, state)
            outputs.append(output)
            self._cells.append(state[-1])
        logits: Tensor = self.module.linear(torch.cat(outputs, 1).mean(1))
        return logits

    def beyond(self) -> Tensor:
        """The penalty on cells beyond `LARGEST_CELL` since it was last asked for."""
        excess = torch.relu(torch.stack(self._cells).abs() - LARGEST_CELL)
        self._cells.clear()
        return 10 * (excess * excess).mean()


def largest_cell(module: nn.Module, samples: Samples) -> float:
    """The largest cell state of an LSTM over some samples, at any step."""
    frames = torch.from_numpy(np.ascontiguousarray(samples.inputs["frames"]))
    largest, state = 0.0, None
    recurrent: Callable[..., Any] = module.recurrent  # type: ignore[assignment]
    with torch.inference_mode():
        for step in torch.split(frames, 1, dim=1):
            _, state = recurrent(step, state)
            largest = max(largest, float(state[1].abs().max()))
    return largest


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
        if kind == "lstm":
            scores += f", largest cell {largest_cell(module, load('test')):.1f}"
        print(f"{kind}: {scores}; {path}: SHA-256 {file_sha256(path)}")


if __name__ == "__main__":
    main()
