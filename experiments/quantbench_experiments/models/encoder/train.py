"""Training of the text encoders: AdamW on one set of texts, a minute on two cores."""

from __future__ import annotations

from pathlib import Path

import torch

from quantbench.spec import Samples
from quantbench_experiments.models.encoder import preprocess
from quantbench_experiments.models.encoder.torch_form import build
from quantbench_experiments.models.fitting import fit, save
from quantbench_experiments.tasks.text import load

EPOCHS, BATCH, RATE, SEED = 6, 32, 1e-3, 0


def weights(task: str, folder: Path) -> Path:
    """Train on one set and write the weights."""
    torch.manual_seed(SEED)
    module, texts = build(task), load(task, "train")
    samples = Samples(preprocess(task, texts.inputs), texts.labels)
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=0.1)
    steps = EPOCHS * -(-len(samples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=steps, pct_start=0.2
    )
    trained = fit(
        module, samples, optimizer, epochs=EPOCHS, batch_size=BATCH, seed=SEED, schedule=schedule,
        smoothing=0.1, clip=1.0,
    )  # fmt: skip
    return save(trained, folder / f"{task}.safetensors")
