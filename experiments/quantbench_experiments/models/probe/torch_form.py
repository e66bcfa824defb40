"""Torch forms of the probe's models."""

from __future__ import annotations

from torch import Tensor, nn


class Convolution(nn.Module):
    """Two 3x3 convolutions, the mean over the image, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.second = nn.Conv2d(32, 64, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(64, 16)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float [n, 16] of images float [n, 3, 12, 12]."""
        x = self.relu2(self.second(self.relu1(self.first(image))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Linear(nn.Module):
    """Three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 128)
        self.relu1 = nn.ReLU()
        self.second = nn.Linear(128, 64)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(64, 16)

    def forward(self, features: Tensor) -> Tensor:
        """Logits float [n, 16] of features float [n, 64]."""
        x = self.relu1(self.first(features))
        logits: Tensor = self.head(self.relu2(self.second(x)))
        return logits


class Lstm(nn.Module):
    """An LSTM, and two linear layers of what it gives at the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 64, batch_first=True)
        self.second = nn.Linear(64, 64)
        self.relu = nn.ReLU()
        self.head = nn.Linear(64, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits float [n, 16] of sequences float [n, 8, 64]."""
        x = self.lstm(tokens)[0][:, -1]
        logits: Tensor = self.head(self.relu(self.second(x)))
        return logits


class Attention(nn.Module):
    """Self-attention of four heads, the mean over the sequence, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.second = nn.Linear(64, 64)
        self.relu = nn.ReLU()
        self.head = nn.Linear(64, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits float [n, 16] of sequences float [n, 8, 64]."""
        x = self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)
        logits: Tensor = self.head(self.relu(self.second(x)))
        return logits


def convolution() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode; likewise the others."""
    return Convolution().eval()


def linear() -> nn.Module:
    """See `convolution`."""
    return Linear().eval()


def lstm() -> nn.Module:
    """See `convolution`."""
    return Lstm().eval()


def attention() -> nn.Module:
    """See `convolution`."""
    return Attention().eval()
