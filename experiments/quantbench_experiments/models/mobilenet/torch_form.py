"""Torch form of the mobilenet-v2 model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantbench_experiments.models.mobilenet import CLASSES, LAST, STEM, blocks


class Block(nn.Module):
    """Wide by 1x1, depthwise 3x3, narrow by 1x1; added to its input where the shape allows."""

    def __init__(self, channels: int, expansion: int, width: int, stride: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and channels == width
        if self.expands:
            self.conv1 = nn.Conv2d(channels, hidden, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(hidden)
            self.relu1 = nn.ReLU6()
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU6()
        self.conv3 = nn.Conv2d(hidden, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [n, channels, h, w] to [n, width, h / stride, w / stride]."""
        y = self.relu1(self.bn1(self.conv1(x))) if self.expands else x
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(y)))))
        out: Tensor = x + y if self.adds else y
        return out


class MobileNet(nn.Module):
    """Stem, inverted residual blocks, a wide 1x1 convolution, mean over the image, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu1 = nn.ReLU6()
        described = blocks()
        self.blocks = nn.Sequential(*(Block(*shape) for _, *shape in described))
        self.conv2 = nn.Conv2d(described[-1][3], LAST, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(LAST)
        self.relu2 = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(LAST, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float [n, 10] of normalized images float [n, 3, 32, 32]."""
        x = self.blocks(self.relu1(self.bn1(self.conv1(image))))
        x = self.relu2(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


def build() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode."""
    return MobileNet().eval()
