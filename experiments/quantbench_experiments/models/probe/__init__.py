"""Models of the probe: three layers each, one kind of layer after another, weights from a seed.

They are not registered: `quantbench probe` finds `MODELS` here, nothing else shows them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from quantbench.spec import Array, Model, TensorSpec

SEED = 0
HERE = f"{__name__}"
TASKS = "quantbench_experiments.tasks.probe"

IMAGE = TensorSpec("image", (None, 3, 12, 12), "float32", "NCHW")
FEATURES = TensorSpec("features", (None, 64), "float32")
TOKENS = TensorSpec("tokens", (None, 8, 64), "float32")
LOGITS = TensorSpec("logits", (None, 16), "float32")

# every width is a multiple of 32, so that each group of 4-bit weights fits, and every matrix has
# 1024 elements or more, below which TFLiteConverter leaves it in float
SHAPES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "convolution": {
        "first.weight": (32, 3, 3, 3), "first.bias": (32,),
        "second.weight": (64, 32, 3, 3), "second.bias": (64,),
        "head.weight": (16, 64), "head.bias": (16,),
    },
    "linear": {
        "first.weight": (128, 64), "first.bias": (128,),
        "second.weight": (64, 128), "second.bias": (64,),
        "head.weight": (16, 64), "head.bias": (16,),
    },
    "lstm": {
        "lstm.weight_ih_l0": (256, 64), "lstm.weight_hh_l0": (256, 64),
        "lstm.bias_ih_l0": (256,), "lstm.bias_hh_l0": (256,),
        "second.weight": (64, 64), "second.bias": (64,),
        "head.weight": (16, 64), "head.bias": (16,),
    },
    "attention": {
        "attention.in_proj_weight": (192, 64), "attention.in_proj_bias": (192,),
        "attention.out_proj.weight": (64, 64), "attention.out_proj.bias": (64,),
        "second.weight": (64, 64), "second.bias": (64,),
        "head.weight": (16, 64), "head.bias": (16,),
    },
}  # fmt: skip


def weights() -> Path:
    """The file of this module: it draws the weights, and there is no other file of them."""
    return Path(__file__)


def draw(model: str, path: Path) -> dict[str, Array]:
    """A model's weights by torch name, float32: normal, of variance 2 / inputs; biases of variance 0.01."""
    # RandomState, not Generator: NumPy promises that its stream never changes
    random = np.random.RandomState(SEED)
    state = {}
    for name, shape in SHAPES[model].items():
        spread = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        state[name] = (random.standard_normal(shape) * spread).astype(np.float32)
    return state


convolution_state = partial(draw, "convolution")
linear_state = partial(draw, "linear")
lstm_state = partial(draw, "lstm")
attention_state = partial(draw, "attention")


def _model(name: str, task: str, given: TensorSpec, description: str) -> Model:
    own = name.lower()
    return Model(
        name=name,
        task=f"{TASKS}:{task}",
        inputs=(given,),
        outputs=(LOGITS,),
        weights=f"{HERE}:weights",
        state=f"{HERE}:{own}_state",
        forms={
            "torch": f"{HERE}.torch_form:{own}",
            "torch-eager": f"{HERE}.torch_eager_form:{own}",
            "keras": f"{HERE}.keras_form:{own}",
        },
        description=description,
    )


MODELS = (
    _model("convolution", "IMAGES", IMAGE, "Convolution, convolution, mean, linear"),
    _model("linear", "VECTORS", FEATURES, "Linear, linear, linear"),
    _model("LSTM", "SEQUENCES", TOKENS, "LSTM, linear of its last step, linear"),
    _model("attention", "SEQUENCES", TOKENS, "Self-attention of 4 heads, mean, linear, linear"),
)
