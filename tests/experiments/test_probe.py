"""The probe's models, and the matrix of capabilities that is kept in docs/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantbench.backend_api import registry
from quantbench.errors import BadInput
from quantbench.spec import PRESETS, Array, Arrays, Model, check_inputs
from quantbench.studies import capability
from quantbench.studies.probe import probe
from quantbench.system import locate
from quantbench_experiments.models.probe import MODELS, SHAPES
from quantbench_experiments.tasks.probe import SIZES

KEPT = Path(__file__).parents[2] / "docs" / "capabilities.md"
# a cut of the probe that takes a minute, every route of one method on one kind of layer; the whole
# is compared by quantbench probe --check docs/capabilities.md
CUT_METHODS = ("dynamic-int8",)
CUT_LAYERS = ("LSTM",)

by_name = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def state_of(model: Model) -> Arrays:
    state: Arrays = locate(model.state)(locate(model.weights)())
    return state


def inputs_of(model: Model, split: str) -> Array:
    samples = locate(registry.task(model.task).load)(split)
    return np.asarray(samples.inputs[model.inputs[0].name])


def torch_logits(model: Model, form: str) -> Array:
    torch = pytest.importorskip("torch")
    module = locate(model.forms[form])()
    module.load_state_dict({n: torch.from_numpy(a) for n, a in state_of(model).items()})
    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(inputs_of(model, "test"))).numpy())


@by_name
def test_models_and_data_come_from_a_seed_and_fit(model: Model) -> None:
    first, again = state_of(model), state_of(model)

    assert {n: a.shape for n, a in first.items()} == SHAPES[model.name.lower()]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    load = locate(registry.task(model.task).load)
    for split, size in SIZES.items():
        samples = load(split)
        check_inputs(model.inputs, samples.inputs, size)
        assert samples.labels.max() < 16
    with pytest.raises(BadInput, match="Did you mean 'test'"):
        load("tests")


@by_name
def test_the_torch_forms_are_one_function(model: Model) -> None:
    logits = torch_logits(model, "torch")

    assert 0.3 < logits.std() < 3
    np.testing.assert_array_equal(torch_logits(model, "torch-eager"), logits)


@pytest.mark.slow
@by_name
def test_the_keras_form_is_the_same_function(model: Model) -> None:
    pytest.importorskip("tf_keras")
    x = inputs_of(model, "test")

    keras = locate(model.forms["keras"])(state_of(model))

    got = np.asarray(keras(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x, training=False))
    # two frameworks add float32 in another order; a wrong layer is off by its whole output
    np.testing.assert_allclose(got, torch_logits(model, "torch"), atol=1e-5)
    weighted = {layer.name for layer in keras.layers if layer.get_weights()}
    assert weighted == {name.partition(".")[0] for name in SHAPES[model.name.lower()]}


def test_the_probe_s_models_are_not_among_those_to_choose() -> None:
    assert not {model.name for model in MODELS} & set(registry.names("models"))


def test_the_page_is_that_of_the_matrix_and_whole() -> None:
    matrix = capability.read(KEPT)

    assert KEPT.read_text(encoding="utf-8") == capability.markdown(matrix)
    assert matrix.layers == tuple(model.name for model in MODELS)
    assert set(matrix.backends) == set(registry.names("backends"))
    for name in matrix.backends:
        described = registry.backend(name)
        rows = {(name, preset, route) for preset in PRESETS for route in described.ways(preset)}
        assert {c.row for c in matrix.capabilities if c.backend == name} == rows


@pytest.mark.long
@pytest.mark.slow
def test_a_cut_of_the_probe_finds_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    kept = capability.read(KEPT)

    found = probe(methods=CUT_METHODS, models=[m for m in MODELS if m.name in CUT_LAYERS])

    compared = capability.compare(capability.cut(kept, found), found)
    newer = ", ".join(capability.changed_versions(kept, found)) or "none"
    assert not compared.differences, "\n".join(
        ("cells of docs/capabilities.md that are no longer so:", *compared.differences,
         f"changed versions: {newer}",
         "if that is right: quantbench probe --output docs/capabilities.md")
    )  # fmt: skip
