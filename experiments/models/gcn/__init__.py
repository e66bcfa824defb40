"""Model gcn: two graph convolutions on Cora; its trained weights are made from a seed in seconds."""

from __future__ import annotations

from dataclasses import replace

from experiments.tasks.cora import CLASSES, NODES, TASK
from harness.model import Model
from harness.tensors import TensorSpec

HIDDEN = 16
SEEDS = range(10)

MODEL = Model(
    name="gcn",
    task="cora",
    inputs=TASK.inputs,
    outputs=(TensorSpec("logits", (None, NODES, CLASSES), "float32"),),
    weights="harness.making:made(experiments.models.gcn.train:weights(0))",
    state="experiments.models.stored:state",
    forms={
        "torch": "experiments.models.gcn.torch_form:build",
        "keras": "experiments.models.gcn.keras_form:build",
    },
    published=0.815,
    source="https://arxiv.org/abs/1609.02907",
    description="Two-layer graph convolutional network (Kipf and Welling 2017), edge weights as a "
    "dense input; published: mean of 100 first weights",
)


def of_seed(seed: int) -> Model:
    """The model that another seed gives."""
    weights = f"harness.making:made(experiments.models.gcn.train:weights({seed}))"
    return replace(MODEL, name=f"gcn-{seed}", weights=weights)
