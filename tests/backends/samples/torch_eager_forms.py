"""Torch forms of some sample models for eager mode quantization: stubs, and fusion by name."""

from __future__ import annotations

import torch.ao.quantization as ao
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional

from tests.backends.samples import torch_forms


class Stubs(nn.Module):
    """A quantizable module: where integers begin and end, and which modules are joined."""

    joined: tuple[tuple[str, ...], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.quantize, self.dequantize = ao.QuantStub(), ao.DeQuantStub()

    def fuse_model(self, *, is_qat: bool) -> None:
        fuse = ao.fuse_modules_qat if is_qat else ao.fuse_modules
        fuse(self, [list(names) for names in self.joined], inplace=True)


class Conv(Stubs, torch_forms.Conv):
    joined = (("first", "norm", "relu"),)

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(self.quantize(image))))
        return self.dequantize(self.second(x).mean((2, 3)))


class Depthwise(Stubs, torch_forms.Depthwise):
    joined = (("stem", "norm1", "relu1"), ("depth", "norm2", "relu2"), ("point", "relu3"))

    def __init__(self) -> None:
        super().__init__()
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.stem(self.quantize(image))))
        x = self.relu3(self.point(self.relu2(self.norm2(self.depth(x)))))
        return self.dequantize(self.head(x.mean((2, 3))))


class Residual(Stubs, torch_forms.Residual):
    joined = (("stem", "relu1"), ("body1", "norm1", "relu2"))

    def __init__(self) -> None:
        super().__init__()
        self.relu1, self.relu2, self.add = nn.ReLU(), nn.ReLU(), FloatFunctional()

    def forward(self, image: Tensor) -> Tensor:
        x = self.relu1(self.stem(self.quantize(image)))
        y = self.body2(self.relu2(self.norm1(self.body1(x))))
        return self.dequantize(self.add.add_relu(x, y))


class Concat(Stubs, torch_forms.Concat):
    joined = (("left", "relu1"), ("right", "relu2"))

    def __init__(self) -> None:
        super().__init__()
        self.relu1, self.relu2, self.both = nn.ReLU(), nn.ReLU(), FloatFunctional()

    def forward(self, image: Tensor) -> Tensor:
        x = self.quantize(image)
        x = self.both.cat([self.relu1(self.left(x)), self.relu2(self.right(x))], 1)
        return self.dequantize(self.join(x).mean((2, 3)))


conv, depthwise, residual, concat = Conv, Depthwise, Residual, Concat
