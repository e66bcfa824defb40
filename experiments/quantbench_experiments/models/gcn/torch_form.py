"""Torch form of the gcn model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantbench_experiments.models.gcn import HIDDEN
from quantbench_experiments.tasks.cora import CLASSES, WORDS


class Gcn(nn.Module):
    """Twice a linear layer whose outputs are summed over weighted edges."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(WORDS, HIDDEN, bias=False)
        self.first_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.relu = nn.ReLU()
        self.second = nn.Linear(HIDDEN, CLASSES, bias=False)
        self.second_bias = nn.Parameter(torch.zeros(CLASSES))
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        """Logits float [n, nodes, 7] of features [n, nodes, 1433] and edges [n, nodes, nodes]."""
        x = torch.matmul(adjacency, self.first(self.dropout(features))) + self.first_bias
        x = self.second(self.dropout(self.relu(x)))
        return torch.matmul(adjacency, x) + self.second_bias


def build() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode."""
    return Gcn().eval()
