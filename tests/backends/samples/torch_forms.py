"""Torch forms of the sample models: architectures without weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 128)
        self.second = nn.Linear(128, 10)

    def forward(self, features: Tensor) -> Tensor:
        return self.second(relu(self.first(features)))


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.second = nn.Conv2d(48, 10, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.second(relu(self.norm(self.first(image)))).mean((2, 3))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 40, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(40)
        self.depth = nn.Conv2d(40, 40, 3, padding=1, groups=40, bias=False)
        self.norm2 = nn.BatchNorm2d(40)
        self.point = nn.Conv2d(40, 48, 1)
        self.head = nn.Linear(48, 24)

    def forward(self, image: Tensor) -> Tensor:
        x = relu(self.norm1(self.stem(image)))
        x = relu(self.norm2(self.depth(x)))
        return self.head(relu(self.point(x)).mean((2, 3)))


class GroupNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(6, 48)
        self.second = nn.Conv2d(48, 32, 3, stride=2, padding=1)
        self.head = nn.Linear(32, 40)

    def forward(self, image: Tensor) -> Tensor:
        x = relu(self.norm(self.first(image)))
        return self.head(relu(self.second(x)).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 3, padding=1)
        self.body1 = nn.Conv2d(48, 48, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(48)
        self.body2 = nn.Conv2d(48, 48, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = relu(self.stem(image))
        return relu(x + self.body2(relu(self.norm1(self.body1(x)))))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 40, 3, padding=1)
        self.right = nn.Conv2d(3, 16, 5, padding=2)
        self.join = nn.Conv2d(56, 24, 1)

    def forward(self, image: Tensor) -> Tensor:
        both = torch.cat([relu(self.left(image)), relu(self.right(image))], 1)
        return self.join(both).mean((2, 3))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 64, 3, padding=1)
        self.read = nn.Linear(64, 64)
        self.head = nn.Linear(64, 32)

    def forward(self, image: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        seen = relu(self.look(image))
        return self.head(relu(seen.mean((2, 3)) + self.read(features))), seen


class Larger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 128, 3, stride=2, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(128)
        self.conv4 = nn.Conv2d(128, 256, 3, stride=2, padding=1, bias=False)
        self.norm4 = nn.BatchNorm2d(256)
        self.hidden = nn.Linear(256, 512)
        self.head = nn.Linear(512, 10)

    def forward(self, photo: Tensor) -> Tensor:
        x = relu(self.norm1(self.conv1(photo)))
        x = relu(self.norm2(self.conv2(x)))
        x = relu(self.norm3(self.conv3(x)))
        x = relu(self.norm4(self.conv4(x)))
        return self.head(relu(self.hidden(x.mean((2, 3)))))


linear, conv, depthwise, residual = Linear, Conv, Depthwise, Residual
concat, pair, larger, groupnorm = Concat, Pair, Larger, GroupNorm
