"""Sample models: one small network for each kind of layer, the same function in three forms.

Torch and Keras build the forms that backends take; the NumPy form is the independent reference.
Weights are drawn from a seed and written to a safetensors file of this process's own folder.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from quantbench.spec import Arrays, Model, TensorSpec

HERE = "tests.backends.samples"
Shapes = Mapping[str, tuple[int, ...]]

IMAGE = TensorSpec("image", (None, 3, 12, 10), "float32", "NCHW")
EAGER = ("conv", "depthwise", "residual", "concat")
"""Samples with a form for PyTorch's eager mode quantization."""
FULL, HALF = 12 * 10, 6 * 5  # pixels of an image, and after a stride of 2


@dataclass(frozen=True)
class Sample:
    """A model, the shapes of its weights, and where its layers multiply.

    ``positions``: for every layer with weights, how often one sample meets all of them (pixels of
    the output; 1 for linear layers), so that the layer has ``positions * weights`` MACs.
    """

    model: Model
    shapes: Shapes
    positions: Mapping[str, int]

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.positions)

    def elements(self, layer: str) -> int:
        """Number of weights of one layer, its bias left out."""
        return prod(self.shapes[f"{layer}.weight"])

    def macs(self, layer: str) -> int:
        """Multiply-accumulates of one layer for one sample."""
        return self.positions[layer] * self.elements(layer)

    def inputs(self, count: int, seed: int = 1) -> Arrays:
        """Standard normal arrays of ``count`` samples."""
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), seed])
        return {
            spec.name: rng.standard_normal((count, *spec.shape[1:])).astype(np.float32)
            for spec in self.model.inputs
        }


def conv(name: str, out: int, into: int, size: int, *, bias: bool = True) -> Shapes:
    weight = {f"{name}.weight": (out, into, size, size)}
    return {**weight, f"{name}.bias": (out,)} if bias else weight


def norm(name: str, channels: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    counter: Shapes = {f"{name}.num_batches_tracked": ()}
    return {**{f"{name}.{v}": (channels,) for v in vectors}, **counter}


def vectors(name: str, channels: int) -> Shapes:
    """What group norm holds: a scale and an offset per channel."""
    return {f"{name}.{v}": (channels,) for v in ("weight", "bias")}


def linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def sample(
    name: str,
    *shapes: Shapes,
    inputs: tuple[TensorSpec, ...] = (IMAGE,),
    outputs: tuple[TensorSpec, ...],
    positions: Mapping[str, int],
) -> Sample:
    model = Model(
        name=name,
        task="none",
        inputs=inputs,
        outputs=outputs,
        weights=f"{HERE}:{name}_weights",
        state=f"{HERE}:state",
        forms={
            "torch": f"{HERE}.torch_forms:{name}",
            "keras": f"{HERE}.keras_forms:{name}",
            **({"torch-eager": f"{HERE}.torch_eager_forms:{name}"} if name in EAGER else {}),
        },
    )
    return Sample(model, {k: v for part in shapes for k, v in part.items()}, positions)


def logits(count: int) -> TensorSpec:
    return TensorSpec("logits", (None, count), "float32")


FEATURES = TensorSpec("features", (None, 64), "float32")
PHOTO = TensorSpec("photo", (None, 3, 64, 48), "float32", "NCHW")

# TFLite's dynamic range quantizes weights of 1024 elements or more
SAMPLES: Mapping[str, Sample] = {
    each.name: each
    for each in (
        sample(
            "linear",
            linear("first", 128, 64),
            linear("second", 10, 128),
            inputs=(FEATURES,),
            outputs=(logits(10),),
            positions={"first": 1, "second": 1},
        ),
        sample(
            "conv",
            conv("first", 48, 3, 3, bias=False),
            norm("norm", 48),
            conv("second", 10, 48, 3),
            outputs=(logits(10),),
            positions={"first": FULL, "second": HALF},
        ),
        sample(
            "depthwise",
            conv("stem", 40, 3, 3, bias=False),
            norm("norm1", 40),
            conv("depth", 40, 1, 3, bias=False),
            norm("norm2", 40),
            conv("point", 48, 40, 1),
            linear("head", 24, 48),
            outputs=(logits(24),),
            positions={"stem": FULL, "depth": FULL, "point": FULL, "head": 1},
        ),
        sample(
            "groupnorm",
            conv("first", 48, 3, 3, bias=False),
            vectors("norm", 48),
            conv("second", 32, 48, 3),
            linear("head", 40, 32),
            outputs=(logits(40),),
            positions={"first": FULL, "second": HALF, "head": 1},
        ),
        sample(
            "residual",
            conv("stem", 48, 3, 3),
            conv("body1", 48, 48, 3, bias=False),
            norm("norm1", 48),
            conv("body2", 48, 48, 3),
            outputs=(TensorSpec("map", (None, 48, 12, 10), "float32", "NCHW"),),
            positions={"stem": FULL, "body1": FULL, "body2": FULL},
        ),
        sample(
            "concat",
            conv("left", 40, 3, 3),
            conv("right", 16, 3, 5),
            conv("join", 24, 56, 1),
            outputs=(logits(24),),
            positions={"left": FULL, "right": FULL, "join": FULL},
        ),
        # alphabetical order, which some formats bring, is neither that of inputs nor of outputs
        sample(
            "pair",
            conv("look", 64, 3, 3),
            linear("read", 64, 64),
            linear("head", 32, 64),
            inputs=(IMAGE, FEATURES),
            outputs=(
                TensorSpec("scores", (None, 32), "float32"),
                TensorSpec("map", (None, 64, 12, 10), "float32", "NCHW"),
            ),
            positions={"look": FULL, "read": 1, "head": 1},
        ),
        sample(
            "larger",
            conv("conv1", 32, 3, 3, bias=False),
            norm("norm1", 32),
            conv("conv2", 64, 32, 3, bias=False),
            norm("norm2", 64),
            conv("conv3", 128, 64, 3, bias=False),
            norm("norm3", 128),
            conv("conv4", 256, 128, 3, bias=False),
            norm("norm4", 256),
            linear("hidden", 512, 256),
            linear("head", 10, 512),
            inputs=(PHOTO,),
            outputs=(logits(10),),
            positions={
                "conv1": 32 * 24, "conv2": 16 * 12, "conv3": 8 * 6, "conv4": 4 * 3,
                "hidden": 1, "head": 1,
            },
        ),
    )
}  # fmt: skip


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Where this process keeps the weights; removed at its end."""
    return tempfile.TemporaryDirectory(prefix="quantbench-samples-")


@cache
def weights(name: str) -> Path:
    """The weights file of a sample, written at the first call: the same in every process."""
    path = Path(folder().name) / f"{name}.safetensors"
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    save_file({key: draw(rng, key, shape) for key, shape in SAMPLES[name].shapes.items()}, path)
    return path


def draw(rng: np.random.Generator, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights that keep a signal's size (He et al. 2015), and batch norms that are not the identity."""
    if key.endswith("num_batches_tracked"):
        return np.array(1, np.int64)
    if key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = np.sqrt(2 / prod(shape[1:])) if len(shape) > 1 else 0.1
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def state(path: Path) -> Arrays:
    """Weights by torch name."""
    return load_file(path)


def spoiled_state(path: Path) -> Arrays:
    """The same weights, one of which is NaN."""
    arrays = load_file(path)
    next(array for array in arrays.values() if array.ndim > 1).flat[7] = np.nan
    return arrays


linear_weights = partial(weights, "linear")
conv_weights = partial(weights, "conv")
depthwise_weights = partial(weights, "depthwise")
groupnorm_weights = partial(weights, "groupnorm")
residual_weights = partial(weights, "residual")
concat_weights = partial(weights, "concat")
pair_weights = partial(weights, "pair")
larger_weights = partial(weights, "larger")
