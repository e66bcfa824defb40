"""Models and data of one's own: the documented example, and every way to give them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from quantbench import run
from quantbench.backend_api import registry
from quantbench.errors import BadExperiment
from quantbench.experiment import Experiment
from quantbench.experiment.plan import plan
from quantbench.report import render
from quantbench.spec import preset
from quantbench.studies import Budget, diagnose, requests, tune

PAGE = Path(__file__).parents[2] / "docs" / "own-models.md"
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.relu = nn.ReLU()
        self.second = nn.Linear(16, classes)
    def forward(self, x):
        return self.second(self.relu(self.first(x)))

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.linear = nn.Linear(4, 2)
    def forward(self, ids, weight):
        return self.linear((self.words(ids) * weight.unsqueeze(2)).sum(1))

def build():
    return Net()

def two():
    return Two()

def nothing():
    return 3

def halved(inputs):
    return {name: array / 2 for name, array in inputs.items()}

def nearness(outputs, labels):
    return -abs(outputs[:, 0] - labels)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder, with a module and arrays; imports and caches of its own."""
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(NETS)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(260, 6)).astype(np.float32)
    y = x[:, :3].argmax(1)
    np.savez(
        tmp_path / "data.npz", x_test=x[:200], y_test=y[:200], x_train=x[200:], y_train=y[200:]
    )
    return tmp_path


def nets(folder: Path) -> str:
    return next(folder.glob("nets_*.py")).stem


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text.replace("NETS", nets(folder)))
    return path


def status(found) -> dict[str, str]:
    return dict(zip(found.trials["trial"], found.trials["status"], strict=True))


@pytest.mark.long
def test_the_documented_example_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    text = PAGE.read_text(encoding="utf-8")
    for name, body in re.findall(r"`([\w.]+)`[^\n]*\n```\w+\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(body)
    (commands,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)

    for command in commands.strip().splitlines():
        program, *rest = command.split()
        main = "import sys; from quantbench.cli.app import main; sys.exit(main())"
        known = {"python": [sys.executable], "quantbench": [sys.executable, "-c", main]}
        done = subprocess.run(
            [*known[program], *rest], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    assert "onnxruntime/static-int8" in done.stdout
    (report,) = (tmp_path / "results" / "mine").glob("*/report.html")
    assert "onnxruntime static-int8" in report.read_text(encoding="utf-8")


@pytest.mark.long
def test_weights_that_a_function_builds_are_made_once_and_shared(folder):
    path = written(
        folder,
        "model: {torch: 'NETS:build'}\ntask: {arrays: data.npz}\nbackends: [pytorch, onnxruntime]\n"
        "methods: [fp32, dynamic-int8]\nprecision: preview\n",
    )

    found = run(path, results=folder / "results")

    assert set(status(found).values()) == {"ok"}
    scores = found.measurements.query("metric == 'quality'").set_index("trial")["value"]
    # the same seeded weights in both frameworks
    assert scores["build/pytorch/fp32/cpu-1"] == scores["build/onnxruntime/fp32/cpu-1"]
    made = list((folder / "cache" / "made").glob("*/weights.safetensors"))
    assert len(made) == 1
    assert load_file(made[0])["first.weight"].shape == (16, 6)


@pytest.mark.long
def test_without_labels_the_quality_is_fidelity_and_the_report_says_so(folder):
    path = written(
        folder,
        "model: {torch: 'NETS:build', input: [1, 6]}\nbackends: [pytorch]\n"
        "methods: [fp32, dynamic-int8]\nprecision: preview\n",
    )

    found = run(path, results=folder / "results")

    rows = found.measurements.query("metric == 'quality'").set_index("trial")
    assert rows.loc["build/pytorch/fp32/cpu-1", "value"] == 1.0
    assert set(rows["reason"]) == {"no labels: against the answers of the float model"}
    card, _, table = render(found).partition('<h2 id="tradeoff-h">')
    for part in (card, table):
        assert "no labels: against the answers of the float model" in part


@pytest.mark.long
def test_several_inputs_a_metric_and_a_preprocessing_of_ones_own(folder):
    rng = np.random.default_rng(1)
    weight = rng.random((64, 5)).astype(np.float32)
    np.savez(
        folder / "two.npz",
        ids_test=rng.integers(0, 10, (64, 5)),
        weight_test=weight,
        y_test=weight[:, 0],
    )
    path = written(
        folder,
        "model: {torch: 'NETS:two'}\n"
        "task: {arrays: two.npz, metric: 'NETS:nearness'}\n"
        "backends: [pytorch, onnxruntime]\nmethods: [fp32]\nprecision: preview\n",
    )

    experiment = Experiment.load(path)
    found = run(path, results=folder / "results")

    (model,) = experiment.models.values()
    assert [(s.name, s.shape, s.dtype) for s in model.inputs] == [
        ("ids", (None, 5), "int64"), ("weight", (None, 5), "float32"),
    ]  # fmt: skip
    assert [s.shape for s in model.outputs] == [(None, 2)]
    assert set(status(found).values()) == {"ok"}
    rows = found.measurements.query("metric == 'quality'")
    assert (rows["value"] < 0).all()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_onnx_file_is_quantized_and_run_as_it_is(folder):
    import torch

    sys.path.insert(0, str(folder))
    module = __import__(nets(folder)).build().eval()
    names = {"input_names": ["x"], "output_names": ["y"]}
    axes = {"dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
    torch.onnx.export(
        module, (torch.zeros(1, 6),), folder / "net.onnx", dynamo=False, **names, **axes
    )
    path = written(
        folder,
        "model: {onnx: net.onnx}\ntask: {arrays: data.npz}\nbackends: [onnxruntime, tflite, pytorch]\n"
        "methods: [fp32, static-int8: {samples: 15}, as-is]\nprecision: preview\n".replace(
            "static-int8: {samples: 15}", "{static-int8: {samples: 15}}"
        ),
    )

    found = run(path, results=folder / "results")

    known = status(found)
    assert known["net/onnxruntime/fp32/cpu-1"] == "ok"
    assert known["net/onnxruntime/as-is/cpu-1"] == "ok"
    assert known["net/onnxruntime/static-int8+samples=15/cpu-1"] == "ok"
    assert {known[f"net/{b}/fp32/cpu-1"] for b in ("tflite", "pytorch")} == {"unsupported"}
    reasons = found.trials.set_index("trial")["reason"]
    assert "Keras form" in reasons["net/tflite/fp32/cpu-1"]
    assert "has no torch form" in reasons["net/pytorch/fp32/cpu-1"]
    artifact = found.trials.set_index("trial").loc["net/onnxruntime/as-is/cpu-1", "artifact"]
    stored = next((found.folder / "artifacts" / artifact).glob("*.onnx"))
    assert stored.read_bytes() == (folder / "net.onnx").read_bytes()


@pytest.mark.long
def test_a_pickled_module_is_read_only_where_it_is_trusted(folder):
    import torch

    sys.path.insert(0, str(folder))
    module = __import__(nets(folder)).build()
    torch.save(module, folder / "whole.pt")
    torch.save(module.state_dict(), folder / "state.pt")
    text = (
        "model: {torch: 'NETS:build', weights: WEIGHTS}\ntask: {arrays: data.npz}\n"
        "backends: [pytorch]\nmethods: [fp32]\nprecision: preview\n"
    )

    plain = run(written(folder, text.replace("WEIGHTS", "state.pt")), results=folder / "a")
    refused = run(written(folder, text.replace("WEIGHTS", "whole.pt")), results=folder / "b")
    trusted = run(
        written(folder, text.replace("WEIGHTS", "whole.pt, trust: true")), results=folder / "c"
    )

    assert list(plain.trials["status"]) == ["ok"]
    assert list(refused.trials["status"]) == ["failed"]
    assert "trust: true" in refused.trials["reason"].iloc[0]
    assert list(trusted.trials["status"]) == ["ok"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: {torch: 'NETS:build'}", "key 'task' is missing; say what data it is scored on"),
        ("model: {weights: w.pt}\ntask: {arrays: data.npz}", "a model is given as one of"),
        ("model: {tourch: 'NETS:build'}", "unknown key 'tourch'. Did you mean 'torch'?"),
        ("model: {torch: 'NETS:bild'}\ntask: {arrays: data.npz}", "has no attribute 'bild'"),
        ("model: {torch: 'netz:build'}\ntask: {arrays: data.npz}", "no module 'netz'"),
        ("model: {torch: 'NETS:nothing'}\ntask: {arrays: data.npz}", "returns no torch.nn.Module"),
        ("model: {torch: 'NETS:two'}\ntask: {arrays: data.npz}", "does not run on x [None, 6] float32"),
        ("model: {torch: 'NETS:build'}\ntask: {arrays: date.npz}", "Did you mean 'data.npz'?"),
        ("model: {torch: 'NETS:build'}\ntask: {arrays: mine.yaml}", "no .npz file of plain arrays"),
        ("model: {torch: 'NETS:build'}\ntask: {arrays: data.npz, metric: top2}", "unknown metric 'top2'"),
        ("model: {torch: 'NETS:build'}\ntask: {metric: top1}", "data are given as one of arrays"),
        ("model: {torch: 'NETS:build'}\ntask: cifar11", "unknown task 'cifar11'. Did you mean 'cifar10'?"),
        ("model: {torch: 'NETS:build', input: [1, 7]}\ntask: {arrays: data.npz}", "the task's data is"),
        ("model: {pt2: data.npz}\ntask: {arrays: data.npz}", "say trust: true"),
        ("model: {onnx: net.onnx}\ntask: {arrays: data.npz}", "no file"),
        ("backends: []", "'backends' is empty"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_its_place(folder, text, says):
    path = written(
        folder,
        f"{text}\n" + ("" if "backends" in text else "backends: [pytorch]\n") + "methods: [fp32]\n",
    )

    with pytest.raises(BadExperiment) as caught:
        Experiment.load(path)

    (line,) = [line for line in str(caught.value).splitlines() if says in line]
    assert re.match(rf"{re.escape(str(path))}:\d+: ", line)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
@pytest.mark.long
def test_a_keras_file_reaches_tflite(folder):
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])
    model.save(folder / "net.h5")
    path = written(
        folder,
        "model: {keras: net.h5}\ntask: {arrays: data.npz}\nbackends: [tflite]\n"
        "methods: [fp32, dynamic-int8]\nprecision: preview\n",
    )

    found = run(path, results=folder / "results")

    assert status(found)["net/tflite/fp32/cpu-1"] == "ok"
    assert [s.shape for s in Experiment.load(path).models["net"].outputs] == [(None, 3)]


@pytest.mark.long
def test_a_ready_tflite_file_is_run_as_it_is_and_is_its_own_reference(folder):
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((6,)), layers.Dense(3)])
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    (folder / "net.tflite").write_bytes(content)
    path = written(
        folder,
        "model: {tflite: net.tflite}\ntask: {arrays: data.npz}\nbackends: [tflite]\n"
        "methods: [as-is, fp32]\nprecision: preview\n",
    )

    found = run(path, results=folder / "results")

    assert status(found) == {"net/tflite/as-is/cpu-1": "ok", "net/tflite/fp32/cpu-1": "unsupported"}
    rows = found.measurements.set_index("metric")
    assert rows.loc["agreement", "value"] == 1.0
    assert [one.trial for one in found.references] == ["net/tflite/as-is/cpu-1"]


def test_images_from_folders_and_from_tables_are_the_same(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from quantbench.experiment import user_data

    rng = np.random.default_rng(2)
    rows = []
    for split in ("test", "calibration"):
        for kind in ("cat", "dog"):
            (folder / "images" / split / kind).mkdir(parents=True)
            for i in range(3):
                path = folder / "images" / split / kind / f"{i}.png"
                Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
                if split == "test":
                    rows.append({"image": path.read_bytes(), "label": int(kind == "dog")})
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    normalize = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}

    def loaded(entry, split="test"):
        from quantbench.backend_api import registry

        task = registry.task(user_data.task_locator({**entry, "normalize": normalize}, folder))
        from quantbench.system import locate

        return task, locate(task.load)(split)

    task, images = loaded({"imagefolder": "images"})
    _, table = loaded({"parquet": {"test": "test.parquet"}})
    _, calibration = loaded({"imagefolder": "images"}, "calibration")

    assert (task.inputs[0].shape, task.inputs[0].layout) == ((None, 3, 8, 8), "NCHW")
    assert np.array_equal(images.inputs["x"], table.inputs["x"])
    assert list(images.labels) == list(table.labels) == [0, 0, 0, 1, 1, 1]
    assert len(calibration) == 6
    assert -2.01 < images.inputs["x"].min() < images.inputs["x"].max() < 2.01


def test_every_trial_of_an_own_model_is_planned_with_it(folder):
    path = written(
        folder,
        "models: [digits, {torch: 'NETS:build', task: {arrays: data.npz}, name: mine}]\n"
        "backends: [pytorch, tflite]\nmethods: [fp32]\n",
    )

    cells = plan(Experiment.load(path))

    assert [(c.model.name, c.backend.name) for c in cells] == [
        ("digits", "pytorch"), ("digits", "tflite"), ("mine", "pytorch"), ("mine", "tflite"),
    ]  # fmt: skip
    assert "has no Keras form" in cells[3].refusal
    assert json.loads(json.dumps(cells[2].model.to_json()))["name"] == "mine"


@pytest.mark.long
def test_a_hugging_face_folder_brings_its_head_and_runs_in_every_framework(folder):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, num_labels=3,
        architectures=["BertForSequenceClassification"],
    )  # fmt: skip
    config.save_pretrained(folder / "models" / "bert")
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 50, (260, 8)), np.ones((260, 8), np.int64)
    mask[::2, 6:] = 0
    labels = rng.integers(0, 3, 260)
    np.savez(
        folder / "text.npz", ids_test=ids[:200], mask_test=mask[:200], y_test=labels[:200],
        ids_train=ids[200:], mask_train=mask[200:], y_train=labels[200:],
    )  # fmt: skip
    path = written(
        folder,
        "model: {torch: 'hf:models/bert'}\ntask: {arrays: text.npz}\n"
        "backends: [pytorch, onnxruntime, tflite]\nprecision: preview\n"
        "methods: [fp32: {backends: [pytorch, onnxruntime]}, dynamic-int8: {backends: [pytorch]}, "
        "fp32: {route: litert-torch, backends: [tflite]}]\n",
    )

    found = run(path, results=folder / "results")

    assert set(status(found).values()) == {"ok"}
    # a slash in the name would be taken for a part of the trials' ids
    assert set(found.trials["model"]) == {"bert"}
    scores = found.measurements.query("metric == 'quality'")
    # one seeded network in three frameworks, and traced beside dynamic int8
    floats = scores[scores["trial"].str.contains("fp32")]["value"]
    assert len(floats) == 4
    assert floats.nunique() == 1


@pytest.mark.long
@pytest.mark.parametrize("collection", ["torchvision", "timm"])
def test_a_zoo_is_asked_for_its_architecture_with_seeded_weights(folder, monkeypatch, collection):
    """By stand-ins of the two packages: their builds for this PyTorch are not always to be had."""
    makers = {
        "torchvision": "class models:\n    get_model = staticmethod(lambda name, weights: made(name, weights))",
        "timm": "create_model = lambda name, pretrained: made(name, pretrained or None)",
    }
    (folder / f"{collection}.py").write_text(
        "import torch\ndef made(name, weights):\n    assert (name, weights) == ('tiny', None)\n"
        f"    return torch.nn.Linear(6, 3)\n{makers[collection]}\n"
    )
    monkeypatch.delitem(sys.modules, collection, raising=False)
    path = written(
        folder,
        f"model: {{torch: '{collection}:tiny', input: [1, 6]}}\nbackends: [pytorch]\n"
        "methods: [fp32]\nprecision: preview\n",
    )

    found = run(path, results=folder / "results")

    assert status(found) == {"tiny/pytorch/fp32/cpu-1": "ok"}


OWN = (
    "model: {torch: 'NETS:build', weights: w.npz}\ntask: {arrays: data.npz}\n"
    "backends: [onnxruntime]\nmethods: [fp32, static-int8: {samples: 15}]\nprecision: preview\n"
)


def save_weights(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = {
        "first.weight": (16, 6), "first.bias": (16,), "second.weight": (3, 16), "second.bias": (3,),
    }  # fmt: skip
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(folder / "w.npz", **state)


@pytest.mark.long
def test_the_same_file_with_other_weights_is_another_run(folder):
    path = written(folder, OWN)

    save_weights(folder, 0)
    first = run(path, results=folder / "results")
    again = run(path, results=folder / "results")
    save_weights(folder, 1)
    other = run(path, results=folder / "results")

    assert again.folder == first.folder
    assert other.folder != first.folder
    assert set(first.trials["sha256"]).isdisjoint(other.trials["sha256"])


@pytest.mark.long
def test_a_model_of_ones_own_is_diagnosed_and_tuned(folder):
    path = written(folder, OWN)
    save_weights(folder, 0)

    (request,) = requests(str(path), "static-int8", samples=100, worst=1)
    found = diagnose(request, results=folder / "results")
    start = preset("static-int8", registry.backend("onnxruntime").axes("static-int8", request.axes))
    tuned = tune(
        request.model, "onnxruntime", Budget(0.5), own=request.own, method=start, samples=100,
        results=folder / "results",
    )  # fmt: skip

    assert {row.layer for row in found.ranking("onnxruntime")} == {"first", "second"}
    assert {one.row.status for one in tuned.candidates} == {"ok", "simulated"}
    assert tuned.chosen.startswith("build/onnxruntime/")


@pytest.mark.parametrize("name", ["../../../climbed", "save_infer_model/scale_0.tmp_1"])
@pytest.mark.long
def test_an_output_called_like_a_path_writes_nothing_elsewhere(folder, name):
    onnx = pytest.importorskip("onnx")
    weights = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], [name])], "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, folder / "net.onnx")
    before = set(folder.parent.iterdir())

    path = written(
        folder,
        "model: {onnx: net.onnx}\ntask: {arrays: data.npz}\nbackends: [onnxruntime]\n"
        "methods: [fp32, static-int8: {samples: 8}]\nprecision: preview\n",
    )

    results = run(path, results=folder / "results")

    assert set(results.trials["status"]) == {"ok"}, results.trials["reason"].tolist()
    assert set(folder.parent.iterdir()) == before
    assert not list(folder.rglob("climbed*"))
    assert not list(folder.rglob("scale_0*"))
    sqnr = results.measurements.query("metric == 'sqnr_db'").set_index("trial")["value"]
    int8 = next(trial for trial in sqnr.index if "static-int8" in trial)
    assert 10 < sqnr[int8] < 80, "int8 is compared with fp32, not with itself"
