"""Torch form of the digits model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantbench_experiments.models.digits import BLOCKS, WIDTH


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their own input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map float [n, width, h, w] to the same shape."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu2(y + x)
        return out


class Digits(nn.Module):
    """Convolution, residual blocks, mean over the image, linear."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float [n, 10] of images float [n, 1, 8, 8]."""
        x = self.blocks(self.relu(self.bn(self.conv(image))))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


def build() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode."""
    return Digits(WIDTH, BLOCKS).eval()
