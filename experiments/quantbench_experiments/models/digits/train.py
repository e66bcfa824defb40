"""Training of the digits model: ``python -m quantbench_experiments.models.digits.train``.

Trains on the 600 training images alone and writes the weights beside this module, in about 40 s on
one core. Seeded; another CPU or PyTorch version may round differently and give other weights,
which is why the trained ones are part of the package. After training anew, put the printed
SHA-256 into the model's description.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from quantbench.spec import Samples
from quantbench.system import file_sha256, write_atomically
from quantbench_experiments.models.digits import MODEL, WEIGHTS
from quantbench_experiments.models.digits.torch_form import build
from quantbench_experiments.models.fitting import accuracy
from quantbench_experiments.tasks.digits import load

BATCH = 50


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Turned, scaled, sheared and shifted a little, then noised; float [n, 1, 8, 8] both ways."""
    n = len(images)

    def uniform(reach: float) -> Tensor:
        return (torch.rand(n, generator=random) * 2 - 1) * reach

    angle, shear = uniform(math.radians(12)), uniform(0.15)
    width, height = 1 + uniform(0.12), 1 + uniform(0.12)
    # grid_sample's unit is half an image: one pixel is 2 / 8
    right, down = uniform(0.25), uniform(0.25)
    rows = (
        torch.stack([width * angle.cos(), shear - angle.sin(), right], dim=1),
        torch.stack([angle.sin(), height * angle.cos(), down], dim=1),
    )
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    return moved + 0.04 * torch.randn(images.shape, generator=random)


def train(samples: Samples, *, epochs: int, seed: int) -> nn.Module:
    """A trained model in evaluation mode: SGD with one cycle of the learning rate."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(np.ascontiguousarray(samples.inputs["image"]))
    labels = torch.from_numpy(np.ascontiguousarray(samples.labels))
    model = build().train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=steps, pct_start=0.15
    )
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=random)
        for batch in torch.split(order, BATCH):
            loss = functional.cross_entropy(
                model(augment(images[batch], random)), labels[batch], label_smoothing=0.05
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, report the accuracies and write the weights."""
    parser = argparse.ArgumentParser(description="Train the digits model and write its weights.")
    parser.add_argument("-o", "--output", type=Path, default=WEIGHTS, help="safetensors file")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = train(load("train"), epochs=arguments.epochs, seed=arguments.seed)
    weights = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    write_atomically(arguments.output, save(weights))
    for split in ("train", "calibration", "test"):
        print(f"{MODEL.name} {split}: {accuracy(model, load(split)):.4f}")
    print(f"{arguments.output}: SHA-256 {file_sha256(arguments.output)}")


if __name__ == "__main__":
    main()
