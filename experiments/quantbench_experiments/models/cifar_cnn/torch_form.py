"""Torch form of the cifar-cnn model."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CifarCnn(nn.Module):
    """Three times a 3x3 convolution, ReLU and a halving of the image; two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(64, 128, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(128, 256, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.pool3 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(256 * 4 * 4, 1024)
        self.relu4 = nn.ReLU()
        self.fc2 = nn.Linear(1024, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float [n, 10] of images float [n, 3, 32, 32]."""
        x = self.pool1(self.relu1(self.conv1(image)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.pool3(self.relu3(self.conv3(x)))
        logits: Tensor = self.fc2(self.relu4(self.fc1(torch.flatten(x, 1))))
        return logits


def build() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode."""
    return CifarCnn().eval()
