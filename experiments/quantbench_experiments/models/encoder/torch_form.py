"""Torch form of the text encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantbench_experiments.models.encoder import (
    CLASSES,
    FIRST,
    HEADS,
    LAYERS,
    LENGTH,
    PADDING,
    WIDTH,
    vocabulary,
)

FAR = -1e4
"""Added to the scores of padding before the softmax; finite, so that float16 holds it."""


class Layer(nn.Module):
    """Attention and two linear layers, each added to its input and normalized after (BERT's order)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 4 * WIDTH)
        self.gelu = nn.GELU()
        self.narrow = nn.Linear(4 * WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map float [n, length, width] to the same; ``bias`` float [n, length] of padding."""
        y = self.attention(x, x, x, key_padding_mask=bias, need_weights=False)[0]
        x = self.norm1(x + self.dropout(y))
        y = self.narrow(self.gelu(self.wide(x)))
        out: Tensor = self.norm2(x + self.dropout(y))
        return out


class Encoder(nn.Module):
    """Embeddings of words and places, layers, the mean over the words, a linear layer."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.2)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits float [n, classes] of words int [n, length]."""
        known = (ids != PADDING).to(self.places.dtype)
        x = self.dropout(self.norm(self.words(ids) + self.places))
        for layer in self.layers:
            x = layer(x, (1 - known) * FAR)
        weight = known.unsqueeze(2)
        mean = (x * weight).sum(1) / weight.sum(1).clamp(min=1)  # a text may be empty
        logits: Tensor = self.head(self.dropout(mean))
        return logits


def build(task: str) -> nn.Module:
    """The architecture for one set of texts with fresh weights, in evaluation mode."""
    return Encoder(FIRST + len(vocabulary(task)), CLASSES[task]).eval()
