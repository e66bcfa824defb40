"""Torch forms of the MLPerf Tiny models: layers by their Keras names, channels first inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantbench_experiments.models.mlperf import EPSILON


class ImageClassifier(nn.Module):
    """ResNet-8: three stages of one block, 16, 32 and 64 channels."""

    conv2d: nn.Module
    conv2d_1: nn.Module
    conv2d_2: nn.Module
    conv2d_3: nn.Module
    conv2d_4: nn.Module
    conv2d_5: nn.Module
    conv2d_6: nn.Module
    conv2d_7: nn.Module
    conv2d_8: nn.Module
    batch_normalization: nn.Module
    batch_normalization_1: nn.Module
    batch_normalization_2: nn.Module
    batch_normalization_3: nn.Module
    batch_normalization_4: nn.Module
    batch_normalization_5: nn.Module
    batch_normalization_6: nn.Module

    def __init__(self) -> None:
        super().__init__()
        widths = (
            (3, 16),
            (16, 16),
            (16, 16),
            (16, 32),
            (32, 32),
            (16, 32),
            (32, 64),
            (64, 64),
            (32, 64),
        )
        for i, (channels, width) in enumerate(widths):
            size = 1 if i in (5, 8) else 3
            stride = 2 if i in (3, 5, 6, 8) else 1
            padding = 1 if (size, stride) == (3, 1) else 0
            layer = nn.Conv2d(channels, width, size, stride, padding)
            self.add_module(_name("conv2d", i), layer)
        for i, width in enumerate((16, 16, 16, 32, 32, 64, 64)):
            self.add_module(_name("batch_normalization", i), nn.BatchNorm2d(width, EPSILON))
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities float [n, 10] of pixels 0..255 float [n, 3, 32, 32]."""
        x = self.relu(self.batch_normalization(self.conv2d(image)))
        y = self.relu(self.batch_normalization_1(self.conv2d_1(x)))
        x = self.relu(x + self.batch_normalization_2(self.conv2d_2(y)))
        y = self.relu(self.batch_normalization_3(self.conv2d_3(_below(x))))
        x = self.relu(self.conv2d_5(x) + self.batch_normalization_4(self.conv2d_4(y)))
        y = self.relu(self.batch_normalization_5(self.conv2d_6(_below(x))))
        x = self.relu(self.conv2d_8(x) + self.batch_normalization_6(self.conv2d_7(y)))
        scores: Tensor = torch.softmax(self.dense(torch.flatten(self.pool(x), 1)), 1)
        return scores


class KeywordSpotter(nn.Module):
    """DS-CNN: a wide convolution, four depthwise-separable ones, 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(1, 64, (10, 4), 2)
        self.batch_normalization = nn.BatchNorm2d(64, EPSILON)
        for i in range(4):
            _separable(self, i, 64, 64, 1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(64, 12)

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities float [n, 12] of features float [n, 1, 49, 10]."""
        x = functional.pad(features, (1, 1, 4, 5))
        x = self.relu(self.batch_normalization(self.conv2d(x)))
        for i in range(4):
            x = _run(self, i, x, 1)
        scores: Tensor = torch.softmax(self.dense(torch.flatten(self.pool(x), 1)), 1)
        return scores


class PersonFinder(nn.Module):
    """MobileNet v1 of a quarter of the width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(3, 8, 3, 2)
        self.batch_normalization = nn.BatchNorm2d(8, EPSILON)
        channels = 8
        for i, (width, stride) in enumerate(STAGES):
            _separable(self, i, channels, width, stride)
            channels = width
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dense = nn.Linear(channels, 2)

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities float [n, 2] of images 0..1 float [n, 3, 96, 96]."""
        x = self.relu(self.batch_normalization(self.conv2d(_below(image))))
        for i, (_, stride) in enumerate(STAGES):
            x = _run(self, i, x, stride)
        scores: Tensor = torch.softmax(self.dense(torch.flatten(self.pool(x), 1)), 1)
        return scores


STAGES = (
    (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1),
)  # fmt: skip
"""Width and stride of each depthwise-separable convolution of the MobileNet."""


def _separable(module: nn.Module, i: int, channels: int, width: int, stride: int) -> None:
    """Give a module its i-th depthwise and 1x1 convolution, each with its batch norm."""
    padding = 1 if stride == 1 else 0
    depthwise = nn.Conv2d(channels, channels, 3, stride, padding, groups=channels)
    module.add_module(_name("depthwise_conv2d", i), depthwise)
    module.add_module(_name("batch_normalization", 2 * i + 1), nn.BatchNorm2d(channels, EPSILON))
    module.add_module(_name("conv2d", i + 1), nn.Conv2d(channels, width, 1))
    module.add_module(_name("batch_normalization", 2 * i + 2), nn.BatchNorm2d(width, EPSILON))


def _run(module: nn.Module, i: int, x: Tensor, stride: int) -> Tensor:
    """What `_separable` added, with a ReLU after each batch norm."""
    layers = dict(module.named_children())
    x = layers[_name("depthwise_conv2d", i)](x if stride == 1 else _below(x))
    x = layers["relu"](layers[_name("batch_normalization", 2 * i + 1)](x))
    x = layers[_name("conv2d", i + 1)](x)
    out: Tensor = layers["relu"](layers[_name("batch_normalization", 2 * i + 2)](x))
    return out


def _below(x: Tensor) -> Tensor:
    """One more row below and column to the right, as Keras pads at stride 2."""
    return functional.pad(x, (0, 1, 0, 1))


def _name(kind: str, i: int) -> str:
    return f"{kind}_{i}" if i else kind


def ic() -> nn.Module:
    """The architecture with fresh weights, in evaluation mode; likewise the others."""
    return ImageClassifier().eval()


def kws() -> nn.Module:
    """See `ic`."""
    return KeywordSpotter().eval()


def vww() -> nn.Module:
    """See `ic`."""
    return PersonFinder().eval()
