"""The built-in models: their known scores, the same function in each framework's form, their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbench.backend_api import registry
from quantbench.spec import Array, Arrays, Model
from quantbench.stats import FIDELITY, metric_of
from quantbench.system import locate

pytestmark = [pytest.mark.data]
pytest.importorskip("torch")

FEW = 64
"""Samples that forms are compared on."""

# score, samples of the test split, how far from the published score it may be
SCORES = {
    "resnet32": (0.9263, 10_000, 0.0),
    "resnet56": (0.9339, 10_000, 0.0),
    "mlperf-ic": (0.8719, 10_000, 0.0),
    "minilm": (0.8203, 1_379, 0.0001),
    "mlperf-kws": (0.913, 1_000, 0.0005),
}
OURS = {
    "mobilenet-v2": 0.80,
    "lstm": 0.95,
    "gru": 0.95,
    "gcn": 0.79,
    "bert-tiny-trec": 0.80,
}
"""What models without published weights have to reach: a digit's target, Kipf's 81.5 % less the spread of
one seed, a TF-IDF less 8 points."""
PARAMETERS = {
    "cifar-cnn": 4_576_394, "resnet32": 464_154, "resnet56": 853_018, "lstm": 27_786, "gru": 21_002,
    "gcn": 23_063, "mlperf-ic": 78_186,
}  # fmt: skip


def prepared(model: Model) -> tuple[Arrays, Array]:
    """The test split as the model takes it."""
    samples = locate(registry.task(model.task).load)("test")
    inputs = dict(samples.inputs)
    return (locate(model.preprocess)(inputs) if model.preprocess else inputs), samples.labels


def torch_outputs(model: Model, inputs: Arrays) -> Array:
    import torch

    from quantbench_backends.pytorch.form import tensors, trained

    module = trained(model)
    count = len(next(iter(inputs.values())))
    pieces = []
    with torch.inference_mode():
        for start in range(0, count, 200):
            batch = {name: np.asarray(a[start : start + 200]) for name, a in inputs.items()}
            pieces.append(module(*tensors(model, batch)).numpy())
    return np.concatenate(pieces)


@pytest.mark.long
@pytest.mark.parametrize("name", SCORES)
def test_the_published_score_is_reproduced(name: str, real_data: Path) -> None:
    model = registry.model(name)
    published, count, tolerance = SCORES[name]
    inputs, labels = prepared(model)

    found = metric_of(registry.task(model.task).metric)(torch_outputs(model, inputs), labels)

    assert model.published == published
    assert len(found.outcome) == count
    assert found.score == pytest.approx(published, abs=max(tolerance, 1e-12))


@pytest.mark.long
@pytest.mark.parametrize("name", OURS)
def test_a_model_of_our_own_training_is_worth_quantizing(name: str, real_data: Path) -> None:
    model = registry.model(name)
    inputs, labels = prepared(model)

    found = metric_of(registry.task(model.task).metric)(torch_outputs(model, inputs), labels)

    assert found.score >= OURS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_its_number_of_parameters(name: str) -> None:
    module: Any = locate(registry.model(name).forms["torch"])()

    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name]


def test_most_of_the_courses_cnn_is_in_its_linear_layers() -> None:
    module: Any = locate(registry.model("cifar-cnn").forms["torch"])()
    sizes = {name: p.numel() for name, p in module.named_parameters()}

    linear = sum(size for name, size in sizes.items() if name.startswith("fc"))
    assert linear == pytest.approx(4.20e6, rel=0.005)
    assert sum(sizes.values()) - linear == pytest.approx(0.37e6, rel=0.01)
    assert 4 * sum(sizes.values()) == pytest.approx(18.31e6, rel=0.001)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet32",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("mobilenet-v2", "mlperf-kws", "mlperf-vww")
        ),
        "mlperf-ic",
        "lstm",
        "gru",
        pytest.param("gcn", marks=pytest.mark.long),
        pytest.param("minilm", marks=pytest.mark.long),
        pytest.param("bert-tiny-trec", marks=pytest.mark.long),
    ],
)
def test_the_keras_form_is_the_same_function(name: str, real_data: Path) -> None:
    pytest.importorskip("tf_keras")
    from quantbench.spec import preset
    from quantbench_backends.tflite import form

    model = registry.model(name)
    inputs, _ = prepared(model)
    few = {key: np.asarray(array[:FEW]) for key, array in inputs.items()}
    expected = torch_outputs(model, few)

    keras = form.of(model, preset("fp32", {}))
    arrays = [keras.stored(few)[key] for key in keras.keras.input_names]
    found = np.asarray(keras.keras(arrays if len(arrays) > 1 else arrays[0], training=False))

    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.long
def test_ten_seeds_of_the_graph_network_have_the_published_mean(real_data: Path) -> None:
    from quantbench_experiments.models.gcn import SEEDS, of_seed

    scores = []
    for seed in SEEDS:
        model = of_seed(seed)
        inputs, labels = prepared(model)
        scores.append(metric_of("top1")(torch_outputs(model, inputs), labels).score)

    assert np.mean(scores) == pytest.approx(0.815, abs=0.01)


@pytest.mark.slow
def test_the_lstm_s_cells_stay_within_what_tflite_computes_with(real_data: Path) -> None:
    """TFLite's fused LSTM cuts cell states at 10, which would make it another function."""
    from quantbench_backends.pytorch.form import trained
    from quantbench_experiments.models.recurrent.train import largest_cell
    from quantbench_experiments.tasks.fsdd import load

    assert largest_cell(trained(registry.model("lstm")), load("test")) < 10


@pytest.mark.parametrize("name", registry.names("models"))
def test_a_model_describes_itself_without_its_data(name: str) -> None:
    model = registry.model(name)
    task = registry.task(model.task)

    assert model.description
    assert {spec.name for spec in model.inputs}
    assert task.metric == FIDELITY or metric_of(task.metric)
    assert Model.from_json(model.to_json()) == model
