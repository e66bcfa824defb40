"""NumPy forms of the sample models in float64: the reference that no framework has touched."""

from __future__ import annotations

import numpy as np

from quantbench.spec import Array, Arrays
from tests.backends.samples import SAMPLES, state, weights


def outputs(name: str, inputs: Arrays) -> Arrays:
    """The sample's outputs by name, float64, in the task's layout."""
    found = FORMS[name](Layers(state(weights(name))), *inputs.values())
    found = found if isinstance(found, tuple) else (found,)
    return {spec.name: a for spec, a in zip(SAMPLES[name].model.outputs, found, strict=True)}


class Layers:
    """Layers by name on arrays of torch's layout."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = {name: array.astype(np.float64) for name, array in arrays.items()}

    def linear(self, x: Array, name: str) -> Array:
        return x @ self.arrays[f"{name}.weight"].T + self.arrays[f"{name}.bias"]

    def conv(self, x: Array, name: str, *, stride: int = 1) -> Array:
        """Padded with zeros on all sides, so that stride 1 keeps the size."""
        kernel = self.arrays[f"{name}.weight"]
        size = kernel.shape[-1]
        side = size // 2
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (side, side), (side, side)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))
        windows = windows[:, :, ::stride, ::stride]
        if kernel.shape[1] == 1:  # depthwise
            y = np.einsum("nchwij,cij->nchw", windows, kernel[:, 0])
        else:
            y = np.tensordot(windows, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        return y + self.vector(f"{name}.bias") if f"{name}.bias" in self.arrays else y

    def norm(self, x: Array, name: str) -> Array:
        weight, bias, centre, variance = (
            self.vector(f"{name}.{v}") for v in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - centre) / np.sqrt(variance + 1e-5) * weight + bias

    def group_norm(self, x: Array, name: str, *, groups: int) -> Array:
        parts = x.reshape(len(x), groups, -1)
        centre, spread = parts.mean(2, keepdims=True), parts.std(2, keepdims=True)
        even = ((parts - centre) / np.sqrt(spread**2 + 1e-5)).reshape(x.shape)
        return even * self.vector(f"{name}.weight") + self.vector(f"{name}.bias")

    def vector(self, name: str) -> Array:
        return self.arrays[name][:, None, None]


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def mean(x: Array) -> Array:
    return x.mean((2, 3))


def linear(layers: Layers, features: Array) -> Array:
    return layers.linear(relu(layers.linear(features, "first")), "second")


def conv(layers: Layers, image: Array) -> Array:
    x = relu(layers.norm(layers.conv(image, "first"), "norm"))
    return mean(layers.conv(x, "second", stride=2))


def depthwise(layers: Layers, image: Array) -> Array:
    x = relu(layers.norm(layers.conv(image, "stem"), "norm1"))
    x = relu(layers.norm(layers.conv(x, "depth"), "norm2"))
    return layers.linear(mean(relu(layers.conv(x, "point"))), "head")


def groupnorm(layers: Layers, image: Array) -> Array:
    x = relu(layers.group_norm(layers.conv(image, "first"), "norm", groups=6))
    return layers.linear(mean(relu(layers.conv(x, "second", stride=2))), "head")


def residual(layers: Layers, image: Array) -> Array:
    x = relu(layers.conv(image, "stem"))
    return relu(x + layers.conv(relu(layers.norm(layers.conv(x, "body1"), "norm1")), "body2"))


def concat(layers: Layers, image: Array) -> Array:
    both = relu(layers.conv(image, "left")), relu(layers.conv(image, "right"))
    return mean(layers.conv(np.concatenate(both, 1), "join"))


def pair(layers: Layers, image: Array, features: Array) -> tuple[Array, Array]:
    seen = relu(layers.conv(image, "look"))
    return layers.linear(relu(mean(seen) + layers.linear(features, "read")), "head"), seen


def larger(layers: Layers, photo: Array) -> Array:
    x = photo
    for i in (1, 2, 3, 4):
        x = relu(layers.norm(layers.conv(x, f"conv{i}", stride=2), f"norm{i}"))
    return layers.linear(relu(layers.linear(mean(x), "hidden")), "head")


FORMS = {
    "linear": linear, "conv": conv, "depthwise": depthwise, "residual": residual,
    "concat": concat, "pair": pair, "larger": larger, "groupnorm": groupnorm,
}  # fmt: skip
