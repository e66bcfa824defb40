"""Torch form of the CIFAR-10 ResNets for eager mode quantization: stubs, and fusion by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.ao.quantization as ao
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional

from quantbench_experiments.models.resnet.torch_form import Block, ResNet


class QuantizableBlock(Block):
    """A block that adds and rectifies in one operator."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__(channels, width, stride)
        self.add = FloatFunctional()

    def forward(self, x: Tensor) -> Tensor:
        """Map float [n, channels, h, w] to [n, width, h / stride, w / stride]."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.add.add_relu(y, self.shortcut(x))


class QuantizableResNet(ResNet):
    """The network between the points where integers begin and end."""

    def __init__(self, depth: int) -> None:
        super().__init__(depth, QuantizableBlock)
        self.quantize = ao.QuantStub()
        self.dequantize = ao.DeQuantStub()

    def forward(self, image: Tensor) -> Tensor:
        """Logits float [n, 10] of normalized images float [n, 3, 32, 32]."""
        logits: Tensor = self.dequantize(super().forward(self.quantize(image)))
        return logits

    def fuse_model(self, *, is_qat: bool) -> None:
        """Join each convolution with its batch norm and, where one follows, its ReLU."""
        fuse: Callable[..., Any] = ao.fuse_modules_qat if is_qat else ao.fuse_modules
        fuse(self, [["conv1", "bn1", "relu1"]], inplace=True)
        for block in self.modules():
            if isinstance(block, QuantizableBlock):
                fuse(block, [["conv1", "bn1", "relu1"], ["conv2", "bn2"]], inplace=True)


def resnet(depth: str) -> nn.Module:
    """The architecture of one depth with fresh weights, in evaluation mode."""
    return QuantizableResNet(int(depth)).eval()
