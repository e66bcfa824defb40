"""Torch form of minilm: BERT's encoder with the published names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantbench_experiments.models.minilm import HEADS, LAYERS, LENGTH, WIDE, WIDTH, WORDS

EPSILON = 1e-12
FAR = -1e4
"""Added to the scores of padding before the softmax."""


class Embeddings(nn.Module):
    """Words, places and the one kind of sentence there is, added and normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(WORDS, WIDTH)
        self.position_embeddings = nn.Embedding(512, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, ids: Tensor) -> Tensor:
        """Float [n, length, width] of words int [n, length]."""
        places = self.position_embeddings.weight[:LENGTH] + self.token_type_embeddings.weight[0]
        out: Tensor = self.LayerNorm(self.word_embeddings(ids) + places)
        return out


class SelfAttention(nn.Module):
    """Attention of twelve heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map float [n, length, width] to the same; ``bias`` float [n, 1, 1, length] of padding."""
        query, key, value = (_heads(part(x)) for part in (self.query, self.key, self.value))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(WIDTH // HEADS) + bias
        mixed = torch.matmul(torch.softmax(scores, 3), value)
        return mixed.transpose(1, 2).reshape(-1, LENGTH, WIDTH)


def _heads(x: Tensor) -> Tensor:
    return x.reshape(-1, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)


class Output(nn.Module):
    """A linear layer, added to what came before and normalized."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Map float [n, length, width] to [n, length, 384]."""
        out: Tensor = self.LayerNorm(self.dense(x) + before)
        return out


class Attention(nn.Module):
    """Attention with its output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.self = SelfAttention()
        self.output = Output(WIDTH)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map float [n, length, width] to the same."""
        out: Tensor = self.output(self.self(x, bias), x)
        return out


class Intermediate(nn.Module):
    """The wide layer and its activation function."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDTH, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [n, length, width] to [n, length, 1536]."""
        return functional.gelu(self.dense(x))


class Layer(nn.Module):
    """Attention, then two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.intermediate = Intermediate()
        self.output = Output(WIDE)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map float [n, length, width] to the same."""
        x = self.attention(x, bias)
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Encoder(nn.Module):
    """The layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map float [n, length, width] to the same."""
        for layer in self.layer:
            x = layer(x, bias)
        return x


class SentenceEncoder(nn.Module):
    """The mean of the words' last states, of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = Encoder()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings float [n, 384] of words int [n, 64]; ``mask`` float [n, 64], 1 for words."""
        x, weight = self.embeddings(ids), mask.unsqueeze(2)
        bias = ((1 - mask) * FAR).unsqueeze(1).unsqueeze(1)
        x = self.encoder(x, bias)
        mean = (x * weight).sum(1) / weight.sum(1)
        embedding: Tensor = mean / torch.sqrt((mean * mean).sum(1, keepdim=True))
        return embedding


def build() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode."""
    return SentenceEncoder().eval()
