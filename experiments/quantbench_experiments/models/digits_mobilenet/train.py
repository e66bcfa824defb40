"""Training of the digits-mobilenet model: ``python -m quantbench_experiments.models.digits_mobilenet.train``.

On the 600 training images alone, in about 20 s on one core. Gradient descent with momentum and one
cycle of a high learning rate. Weights decay, but for biases, batch norms and, as Howard et al. have it
(MobileNets, 2017, section 3.2), depthwise convolutions.

The result is hard to quantize. The rate was chosen among several because it shows this; no weight was
touched afterwards. It drives a channel of the stem below 0 for good, so that ReLU6 leaves nothing of it.
The depthwise convolution behind then sees zeros there, and the variance in its batch norm becomes 0.
Folding that batch norm into the convolution divides by the root of its epsilon: weights of a channel that
says nothing become over a hundred times larger than those of its neighbours, to which one scale for all of
them leaves a step or two. That is what Sheng et al. (A Quantization-Friendly Separable Convolution for
MobileNets, 2018) found in MobileNet v1.

Seeded; another CPU or PyTorch version may round differently and give other weights, which is why the
trained ones are part of the package. After training anew, put the printed SHA-256 into the model's
description.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from quantbench.spec import Samples
from quantbench.system import file_sha256
from quantbench_experiments.models.digits.train import augment
from quantbench_experiments.models.digits_mobilenet import MODEL, WEIGHTS
from quantbench_experiments.models.digits_mobilenet.torch_form import build
from quantbench_experiments.models.fitting import accuracy, fit, save
from quantbench_experiments.tasks.digits import load

BATCH, RATE, DECAY = 50, 0.7, 1e-4
EPOCHS = 60


def train(samples: Samples, *, epochs: int, seed: int) -> nn.Module:
    """A trained model in evaluation mode."""
    torch.manual_seed(seed)
    module = build()
    groups = [
        {"params": [p for n, p in module.named_parameters() if decays(n)], "weight_decay": DECAY},
        {"params": [p for n, p in module.named_parameters() if not decays(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, RATE, momentum=0.9, nesterov=True)
    steps = epochs * -(-len(samples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.15, cycle_momentum=False
    )
    return fit(
        module, samples, optimizer, epochs=epochs, batch_size=BATCH, seed=seed,
        schedule=schedule, augment=augment,
    )  # fmt: skip


def decays(name: str) -> bool:
    """Whether a parameter of that name decays.

    >>> decays("blocks.0.pointwise.weight"), decays("blocks.0.depthwise.weight"), decays("bn.weight")
    (True, False, False)
    """
    return not ("depthwise" in name or "bn" in name or name.endswith("bias"))


def main() -> None:
    """Train, report the accuracies and write the weights."""
    parser = argparse.ArgumentParser(description=f"Train {MODEL.name} and write its weights.")
    parser.add_argument("-o", "--output", type=Path, default=WEIGHTS, help="safetensors file")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    module = train(load("train"), epochs=arguments.epochs, seed=arguments.seed)
    save(module, arguments.output)
    for split in ("train", "calibration", "test"):
        print(f"{MODEL.name} {split}: {accuracy(module, load(split)):.4f}")
    print(f"{arguments.output}: SHA-256 {file_sha256(arguments.output)}")


if __name__ == "__main__":
    main()
