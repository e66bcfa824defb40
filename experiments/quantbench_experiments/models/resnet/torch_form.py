"""Torch form of the CIFAR-10 ResNets, any depth of 6n + 2.

Source: He et al., Deep Residual Learning for Image Recognition (2015), section 4.2; parameter
names as in https://github.com/akamaster/pytorch_resnet_cifar10.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (16, 32, 64)


class Shortcut(nn.Module):
    """Option A: every second row and column, zero channels added equally on both sides."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        """Map float [n, c, h, w] to [n, c + added, h / 2, w / 2]."""
        side = self.added // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their own input."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.shortcut = nn.Identity() if stride == 1 else Shortcut(width - channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [n, channels, h, w] to [n, width, h / stride, w / stride]."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """Convolution, three stages of ``(depth - 2) / 6`` blocks, mean over the image, linear."""

    def __init__(self, depth: int, block: type[Block] = Block) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        narrow, middle, wide = WIDTHS
        self.conv1 = nn.Conv2d(3, narrow, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.relu1 = nn.ReLU()
        self.layer1 = stage(block, narrow, narrow, blocks, stride=1)
        self.layer2 = stage(block, narrow, middle, blocks, stride=2)
        self.layer3 = stage(block, middle, wide, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(wide, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float [n, 10] of normalized images float [n, 3, 32, 32]."""
        x = self.relu1(self.bn1(self.conv1(image)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


def stage(
    block: type[Block], channels: int, width: int, blocks: int, *, stride: int
) -> nn.Sequential:
    """Blocks of one width; the first has the stride and changes the channels."""
    first = block(channels, width, stride)
    return nn.Sequential(first, *(block(width, width, 1) for _ in range(blocks - 1)))


def resnet(depth: str) -> nn.Module:
    """The architecture of one depth with fresh weights, in evaluation mode."""
    return ResNet(int(depth)).eval()
