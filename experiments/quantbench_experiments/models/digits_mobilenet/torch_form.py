"""Torch form of the digits-mobilenet model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantbench_experiments.models.digits_mobilenet import BLOCKS, EPSILON, STEM


class Block(nn.Module):
    """A 3x3 convolution of each channel alone, then a 1x1 convolution of all; batch norm after each."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, EPSILON)
        self.relu1 = nn.ReLU6()
        self.pointwise = nn.Conv2d(channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, EPSILON)
        self.relu2 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Map float [n, channels, h, w] to [n, width, h / stride, w / stride]."""
        y = self.relu1(self.bn1(self.depthwise(x)))
        out: Tensor = self.relu2(self.bn2(self.pointwise(y)))
        return out


class DigitsMobileNet(nn.Module):
    """Convolution, depthwise separable blocks, mean over the image, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, STEM, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(STEM, EPSILON)
        self.relu = nn.ReLU6()
        widths = (STEM, *(width for width, _ in BLOCKS))
        self.blocks = nn.Sequential(
            *(
                Block(channels, width, stride)
                for channels, (width, stride) in zip(widths, BLOCKS, strict=False)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float [n, 10] of images float [n, 1, 8, 8]."""
        x = self.blocks(self.relu(self.bn(self.conv(image))))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


def build() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode."""
    return DigitsMobileNet().eval()
