"""Training of cifar-cnn: as the course did, Adam over 10,000 images for 5 epochs."""

from __future__ import annotations

from pathlib import Path

import torch

from quantbench_experiments.models.cifar_cnn import preprocess
from quantbench_experiments.models.cifar_cnn.torch_form import build
from quantbench_experiments.models.fitting import fit, save
from quantbench_experiments.tasks.cifar10 import load

IMAGES = 10_000


def weights(seed: str, folder: Path) -> Path:
    """Train and write the weights; about two minutes on two cores.

    The seed gives the first weights and the order of images; another CPU or version of PyTorch
    rounds differently and gives another model of about the same accuracy.
    """
    torch.manual_seed(int(seed))
    module = build()
    samples = load("train")
    first = samples.take(torch.arange(IMAGES).numpy())
    inputs = preprocess(first.inputs)
    trained = fit(
        module, type(first)(inputs, first.labels), torch.optim.Adam(module.parameters(), 1e-3),
        epochs=5, batch_size=64, seed=int(seed),
    )  # fmt: skip
    return save(trained, folder / "cifar-cnn.safetensors")
