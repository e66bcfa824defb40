"""Training of mobilenet-v2: ``python -m quantbench_experiments.models.mobilenet.train [--epochs N]``.

Half an hour on one core. Writes the weights beside this module; after training anew, put the printed SHA-256 there.
"""

from __future__ import annotations

import argparse
import time

import torch

from quantbench.spec import Samples
from quantbench.system import file_sha256
from quantbench_experiments.models.fitting import accuracy, crop_and_flip, fit, save
from quantbench_experiments.models.mobilenet import WEIGHTS
from quantbench_experiments.models.mobilenet.torch_form import build
from quantbench_experiments.models.resnet import preprocess
from quantbench_experiments.tasks.cifar10 import load

BATCH, RATE, SEED = 64, 0.1, 0


def prepared(split: str) -> Samples:
    """A split as the model takes it."""
    samples = load(split)
    return Samples(preprocess(samples.inputs), samples.labels)


def main() -> None:
    """Train, report the accuracies and write the weights."""
    parser = argparse.ArgumentParser(description="Train mobilenet-v2 and write its weights.")
    parser.add_argument("--epochs", type=int, default=16)
    epochs = parser.parse_args().epochs
    torch.manual_seed(SEED)
    # channels last: depthwise convolutions train twice as fast
    module = build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    samples, test = prepared("train"), prepared("test")
    optimizer = torch.optim.SGD(
        module.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=4e-5
    )
    steps = epochs * -(-len(samples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.2
    )
    started = time.monotonic()
    for epoch in range(epochs):
        fit(
            module, samples, optimizer, epochs=1, batch_size=BATCH, seed=SEED + epoch,
            schedule=schedule, augment=crop_and_flip, smoothing=0.1,
        )  # fmt: skip
        print(
            f"epoch {epoch + 1}: test {accuracy(module, test):.4f}, {time.monotonic() - started:.0f} s",
            flush=True,
        )
        save(module, WEIGHTS)
    print(f"{WEIGHTS}: SHA-256 {file_sha256(WEIGHTS)}")


if __name__ == "__main__":
    main()
