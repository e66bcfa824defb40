"""Model gcn: two graph convolutions on Cora; its trained weights are made from a seed in seconds."""

from __future__ import annotations

from dataclasses import replace

from quantbench.execution import made
from quantbench.spec import Model, TensorSpec
from quantbench.system import locator
from quantbench_experiments.tasks.cora import CLASSES, NODES, TASK

HIDDEN = 16
SEEDS = range(10)

MODEL = Model(
    name="gcn",
    task="cora",
    inputs=TASK.inputs,
    outputs=(TensorSpec("logits", (None, NODES, CLASSES), "float32"),),
    weights=locator(made, f"{__name__}.train:weights(0)"),
    state="quantbench_experiments.models.stored:state",
    forms={
        "torch": f"{__name__}.torch_form:build",
        "keras": f"{__name__}.keras_form:build",
    },
    published=0.815,
    source="https://arxiv.org/abs/1609.02907",
    description="Two-layer graph convolutional network (Kipf and Welling 2017), edge weights as a "
    "dense input; published: mean of 100 first weights",
)


def of_seed(seed: int) -> Model:
    """The model that another seed gives."""
    weights = locator(made, f"{__name__}.train:weights({seed})")
    return replace(MODEL, name=f"gcn-{seed}", weights=weights)
