"""Training of the gcn model, as published: 200 epochs of Adam on the 140 labelled nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from quantbench_experiments.models.fitting import save
from quantbench_experiments.models.gcn.torch_form import Gcn
from quantbench_experiments.tasks.cora import load

EPOCHS, RATE, DECAY, DROPOUT = 200, 0.01, 5e-4, 0.5


def weights(seed: str, folder: Path) -> Path:
    """Train from one seed and write the weights.

    Weight decay on the first layer alone; Glorot's initial weights (Kipf and Welling 2017, 5.2).
    """
    torch.manual_seed(int(seed))
    module = Gcn(DROPOUT)
    for layer in (module.first, module.second):
        nn.init.xavier_uniform_(layer.weight)
    first = [module.first.weight, module.first_bias]
    second = [module.second.weight, module.second_bias]
    groups: list[dict[str, Any]] = [{"params": first, "weight_decay": DECAY}, {"params": second}]
    optimizer = torch.optim.Adam(groups, RATE)
    samples = load("train")
    features, adjacency = (torch.from_numpy(a[0]) for a in samples.inputs.values())
    sparse = adjacency.to_sparse_csr()
    labels = torch.from_numpy(samples.labels[0])
    known = labels >= 0
    for _ in range(EPOCHS):
        x = torch.sparse.mm(sparse, module.first(module.dropout(features))) + module.first_bias
        x = module.second(module.dropout(module.relu(x)))
        logits = torch.sparse.mm(sparse, x) + module.second_bias
        loss = functional.cross_entropy(logits[known], labels[known])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return save(module, folder / f"gcn-{seed}.safetensors")
