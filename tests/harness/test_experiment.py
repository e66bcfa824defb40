"""Experiment files: what they expand to, and what is said about mistakes."""

from __future__ import annotations

import pytest

from quantbench.errors import BadExperiment, BadInput
from quantbench.experiment import Experiment

GOOD = """\
models: [digits]
backends: [pytorch, onnxruntime]
methods:
  - fp32
  - static-int8: {activations: [uint8, int8], backends: [onnxruntime]}
targets: [cpu-1]
"""


def load(tmp_path, text: str, **options) -> Experiment:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return Experiment.load(path, **options)


def problems(tmp_path, text: str) -> list[str]:
    with pytest.raises(BadExperiment) as caught:
        load(tmp_path, text)
    return [line.partition("my.yaml:")[2] for line in str(caught.value).splitlines()]


def test_lists_on_axes_are_swept_for_the_backends_named(tmp_path):
    experiment = load(tmp_path, GOOD)

    assert [t.id for t in experiment.trials] == [
        "digits/pytorch/fp32/cpu-1",
        "digits/onnxruntime/fp32/cpu-1",
        "digits/onnxruntime/static-int8/cpu-1",
        "digits/onnxruntime/static-int8+activations=int8/cpu-1",
    ]


DYNAMIC = """\
models: [digits]
backends: [pytorch]
methods: [fp32, dynamic-int8]
"""


@pytest.mark.parametrize(
    ("text", "added"),
    [
        (DYNAMIC, ["digits/pytorch/fp32+route=traced/cpu-1"]),
        (DYNAMIC + "twins: false\n", []),
        # nobody compares with a float model that is not listed
        (DYNAMIC.replace("fp32, ", ""), []),
        (DYNAMIC.replace("fp32, ", "fp32, {fp32: {route: traced}}, "), []),
        (DYNAMIC.replace("dynamic-int8", "{fp16: {route: compiled}}"),
         ["digits/pytorch/fp32+route=compiled/cpu-1"]),
        (DYNAMIC.replace("pytorch", "tflite"), []),
        (DYNAMIC.replace("pytorch", "tflite").replace("dynamic-int8", "{dynamic-int8: {route: litert-torch}}"),
         ["digits/tflite/fp32+route=litert-torch/cpu-1"]),
    ],
)  # fmt: skip
def test_the_plain_twin_of_a_method_in_another_graph_is_added(tmp_path, text, added):
    listed = load(tmp_path, f"{text.replace('twins: false', '')}twins: false\n")

    experiment = load(tmp_path, text)

    assert [t.id for t in experiment.trials] == [*(t.id for t in listed.trials), *added]


def test_only_narrows_by_several_keys(tmp_path):
    experiment = load(tmp_path, GOOD, only=["backend=onnxruntime", "method=fp32"])

    assert [t.id for t in experiment.trials] == ["digits/onnxruntime/fp32/cpu-1"]


def test_only_that_leaves_nothing_says_what_there_is(tmp_path):
    with pytest.raises(BadInput, match="leaves no trial"):
        load(tmp_path, GOOD, only=["backend=tflite"])


def test_seeds_make_trials_of_their_own(tmp_path):
    experiment = load(tmp_path, GOOD.replace("[cpu-1]", "[cpu-1]\nseeds: [0, 1]"))

    assert "digits/pytorch/fp32/cpu-1/seed1" in [t.id for t in experiment.trials]
    assert load(tmp_path, GOOD, seed=7).trials[0].method.seed == 7


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("models:", "modles:", ["1: unknown key 'modles'. Did you mean 'models'?"]),
        ("[digits]", "[digit]", ["1: unknown model 'digit'. Did you mean 'digits'?"]),
        ("[digits]", "[]", ["1: 'models' is empty; list at least one"]),
        ("[pytorch,", "[pytroch,", ["2: unknown backend 'pytroch'. Did you mean 'pytorch'?"]),
        ("- fp32", "- fp23", ["4: unknown method 'fp23'. Did you mean 'fp32'?"]),
        ("static-int8:", "static-in8:", ["5: unknown method 'static-in8'. Did you mean 'static-int8'?"]),
        ("activations:", "activation:", ["5: unknown axis 'activation'. Did you mean 'activations'?"]),
        ("[uint8, int8]", "[uint8, int9]", [
            "5: axis 'activations' takes one of float32, float16, bfloat16, int8, uint8, int16, "
            "uint16, int4, uint4, not 'int9'. Did you mean 'int8'?"]),
        ("[uint8, int8]", "[]", ["5: axis 'activations' has an empty list"]),
        ("[uint8, int8]", "[uint8, uint8]", [
            "5: trial 'digits/onnxruntime/static-int8/cpu-1' is listed twice"]),
        ("  - fp32\n", "  - fp32\n  - fp32\n", [
            "5: trial 'digits/onnxruntime/fp32/cpu-1' is listed twice",
            "5: trial 'digits/pytorch/fp32/cpu-1' is listed twice"]),
        ("[cpu-1]", "[cpu-2]", ["6: unknown target 'cpu-2'. Did you mean 'cpu-1'?"]),
        ("[cpu-1]", "[{name: mine, thread: 2}]", ["6: unknown key 'thread'. Did you mean 'threads'?"]),
        ("[cpu-1]", "[cpu-1]\nprecision: previw", ["7: unknown precision 'previw'. Did you mean 'preview'?"]),
        ("[cpu-1]", "[cpu-1]\nbatch_sizes: [0]", ["7: batch size 0 is below 1"]),
        ("[cpu-1]", "[cpu-1]\nreference: {backnd: tflite}", [
            "7: unknown key 'backnd' in reference. Did you mean 'backend'?"]),
        ("[cpu-1]", "[cpu-1]\nrecipe: {epoch: 2}", [
            "7: unknown axis 'epoch' in recipe. Did you mean 'epochs'?"]),
        ("[cpu-1]", "[cpu-1]\nrecipe: {learning_rate: fast}", [
            "7: axis 'learning_rate' takes a number, not 'fast'"]),
        ("- fp32", "- fp32: {seeds: [a]}", [
            "4: 'seeds' takes a list of whole numbers, such as [0, 1, 2], not ['a']"]),
        ("- fp32", "- fp32: {backends: pytorch}", [
            "4: 'backends' takes a list of names, such as [pytorch], not 'pytorch'"]),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_with_its_place_and_the_nearest_word(tmp_path, old, new, expected):
    assert old in GOOD

    assert sorted(problems(tmp_path, GOOD.replace(old, new, 1))) == sorted(expected)


def test_a_wrong_type_names_the_key_and_line(tmp_path):
    found = problems(tmp_path, GOOD + "batch_sizes: many\n")

    assert len(found) == 1
    assert found[0].startswith("7: 'batch_sizes': input should be a valid list, not 'many'")


def test_several_mistakes_are_all_reported(tmp_path):
    text = GOOD.replace("digits", "digit").replace("- fp32", "- fp23")

    assert [line.split(":")[0] for line in problems(tmp_path, text)] == ["1", "4"]


def test_broken_yaml_names_the_line(tmp_path):
    found = problems(tmp_path, "models: [digits\nbackends: [pytorch]\n")

    assert len(found) == 1
    assert "not valid YAML" in found[0]


def test_yaml_cannot_make_python_objects(tmp_path):
    mark = tmp_path / "made"
    text = f"models: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]\n"

    with pytest.raises(BadExperiment):
        load(tmp_path, text + GOOD[GOOD.index("backends") :])
    assert not mark.exists()


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "quickstart.yaml").write_text(GOOD)

    with pytest.raises(BadExperiment, match=r"Did you mean 'quickstart\.yaml'\?"):
        Experiment.load(tmp_path / "quikstart.yaml")


def test_the_recipe_is_for_what_is_trained_and_no_part_of_its_name(tmp_path):
    text = GOOD.replace(
        "  - fp32\n", "  - fp32\n  - fp32: {training: finetune}\n  - qat-int8: {epochs: [1, 3]}\n"
    )

    trials = load(tmp_path, f"{text}recipe: {{epochs: 3, optimizer: adam}}\n").trials

    found = {t.label: (t.method.epochs, t.method.optimizer) for t in trials}
    assert found["fp32"] == (0, "none")
    assert found["fp32+training=finetune"] == (3, "adam")
    assert found["qat-int8"] == (3, "adam")
    assert found["qat-int8+epochs=1"] == (1, "adam")


def test_a_method_may_have_seeds_of_its_own(tmp_path):
    text = GOOD.replace("  - fp32\n", "  - fp32\n  - fp16: {seeds: [3, 4]}\n")

    trials = [t for t in load(tmp_path, text).trials if t.backend == "pytorch"]

    assert {"digits/pytorch/fp16/cpu-1/seed3", "digits/pytorch/fp32/cpu-1"} <= {
        t.id for t in trials
    }
    assert {t.seed for t in trials if t.method.name == "fp16"} == {3, 4}


def test_an_axis_of_layers_is_swept_by_a_list_of_lists(tmp_path):
    text = GOOD.replace("  - fp32\n", "  - fp16: {keep_float: [[fc], [fc, conv1]]}\n")

    trials = [t for t in load(tmp_path, text).trials if t.method.name == "fp16"]

    assert {t.method.keep_float for t in trials} == {("fc",), ("fc", "conv1")}


def test_what_a_route_implies_is_filled_in_and_no_part_of_the_name(tmp_path):
    text = GOOD.replace(
        "  - fp32\n",
        "  - weight-only-int4: {route: [torchao, bitsandbytes], backends: [pytorch]}\n"
        "  - weight-only-int4: {route: bitsandbytes, group_size: 128, backends: [pytorch]}\n",
    )

    trials = [t for t in load(tmp_path, text).trials if t.backend == "pytorch"]

    assert {t.label: (t.method.weights, t.method.group_size) for t in trials} == {
        "weight-only-int4": ("int4", 32),
        "weight-only-int4+route=bitsandbytes": ("nf4", 64),
        "weight-only-int4+group_size=128+route=bitsandbytes": ("nf4", 128),
    }
