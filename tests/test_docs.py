"""The texts: numbers are those of the published runs, and what they name exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quantbench.errors import QuantbenchError
from quantbench.experiment import Experiment
from quantbench.results import SCHEMAS, load_results
from quantbench.results.schema import SINCE_5, SINCE_6
from quantbench.spec import FAILURES

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLISHED = sorted(path.parent for path in (ROOT / "results" / "reference").glob("*/run.json"))

# a mask of -10,000 stretches the ranges of attention's scores; TFLiteConverter's int8 GRU crashes
STATIC = "{}/{}/static-int8/cpu-1"
KNOWN_FAILURES = {
    "rnn": {"gru/tflite/static-int8/cpu-1"},
    "transformers": {
        *(STATIC.format("minilm", b) for b in ("pytorch", "tflite", "onnxruntime")),
        *(STATIC.format("bert-tiny-sst2", b) for b in ("pytorch", "tflite")),
        *(STATIC.format("bert-tiny-trec", b) for b in ("pytorch", "tflite")),
        STATIC.format("bert-tiny-emotion", "tflite"),
    },
}


def test_the_numbers_in_the_texts_are_those_of_the_published_runs():
    found = subprocess.run(
        [sys.executable, "tools/figures.py", "check"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert found.returncode == 0, found.stderr


def test_a_changed_number_is_noticed(tmp_path):
    from tools import figures

    text = (ROOT / "README.md").read_text()

    changed = text.replace("| onnxruntime | fp32 |", "| onnxruntime | fp32! |")

    assert changed != text
    assert figures.filled(changed) == text


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_and_files_named_exist(path):
    text = path.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_text_that_names_mlperf_says_that_nobody_verified_the_results(path):
    text = " ".join(path.read_text().split())

    if "MLPerf" in text:
        assert "not verified by MLCommons Association" in text
        marked = text.count("MLPerf®") + text.count("The MLPerf name and logo")
        # names of files of theirs are what they are
        assert text.count("MLPerf") == marked + text.count("MLPerf_")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_experiment_file_is_valid(path):
    assert Experiment.load(path).trials


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_a_published_run_is_whole_and_fails_only_where_that_is_known(folder):
    found = load_results(folder)
    failed = found.trials[found.trials["status"].isin(FAILURES)]

    assert set(failed["trial"]) == KNOWN_FAILURES.get(folder.name, set())
    assert failed["reason"].str.len().gt(20).all()
    later = [n for n in (*SINCE_5, *SINCE_6) if not (folder / f"{n}.parquet").exists()]
    assert all(len(getattr(found, name)) for name in SCHEMAS if name not in ("training", *later))
    assert (folder / "report.html").exists()


def test_every_published_run_is_there():
    assert [path.name for path in PUBLISHED] == [
        "calibration_samples", "calibrators", "drift", "gnn", "methods_resnet20", "mlperf_tiny",
        "mobilenet_v2", "qat_resnet20", "quickstart", "resnet20_cifar10", "resnets_cifar10", "rnn",
        "seed_cifar10", "transformers",
    ]  # fmt: skip


def quality_of(found) -> dict[str, float]:
    rows = found.measurements.query("metric == 'quality'")
    return dict(zip(rows["trial"], rows["value"], strict=True))


def test_post_training_int8_loses_little_in_every_framework():
    found = load_results(ROOT / "results" / "reference" / "methods_resnet20")
    quality = quality_of(found)

    for backend in ("pytorch", "tflite", "onnxruntime"):
        fp32, int8 = (quality[f"resnet20/{backend}/{m}/cpu-1"] for m in ("fp32", "static-int8"))
        assert fp32 == 0.9173
        assert fp32 - int8 <= 0.003
    sizes = found.measurements.query("metric == 'size_bytes'").set_index("trial")["value"]
    assert sizes["resnet20/tflite/static-int8/cpu-1"] <= 0.29 * sizes["resnet20/tflite/fp32/cpu-1"]


@pytest.mark.parametrize(
    ("experiment", "scores"),
    [
        ("resnets_cifar10", {"resnet20": 0.9173, "resnet32": 0.9263, "resnet56": 0.9339}),
        ("mlperf_tiny", {"mlperf-ic": 0.8719, "mlperf-kws": 0.913}),
        ("transformers", {"minilm": 0.8203}),
    ],
)
def test_float_scores_are_reproduced_in_every_framework(experiment, scores):
    quality = quality_of(load_results(ROOT / "results" / "reference" / experiment))

    for model, published in scores.items():
        for backend in ("pytorch", "tflite", "onnxruntime"):
            assert quality[f"{model}/{backend}/fp32/cpu-1"] == pytest.approx(published, abs=0.003)


def test_the_graph_network_s_mean_over_ten_seeds_is_the_published_one_in_every_framework():
    scores = json.loads((ROOT / "results" / "reference" / "gcn_seeds.json").read_text())

    assert set(scores) == {"pytorch", "tflite", "onnxruntime"}
    for found in scores.values():
        assert len(found) == 10
        assert sum(found) / 10 == pytest.approx(0.815, abs=0.01)


def test_mobilenet_in_int8_is_smaller_and_faster_at_under_a_point_of_loss():
    found = load_results(ROOT / "results" / "reference" / "mobilenet_v2")
    rows = found.measurements
    size, drop = (
        rows[rows["metric"] == metric].set_index("trial")["value"]
        for metric in ("size_bytes", "quality_drop")
    )
    speed = rows[rows["metric"] == "speedup"].set_index(["trial", "reference"])["low"]

    for backend in ("pytorch", "tflite", "onnxruntime"):
        fp32, int8 = (f"mobilenet-v2/{backend}/{m}/cpu-1" for m in ("fp32", "static-int8"))
        assert size[fp32] / size[int8] > 2.5
        assert speed[int8, fp32] > 1.4
        assert drop[int8] < 0.01


def test_linear_layers_alone_keep_transformers_usable_where_static_int8_of_all_does_not():
    quality = quality_of(load_results(ROOT / "results" / "reference" / "transformers"))

    for backend in ("pytorch", "tflite", "onnxruntime"):
        whole, linear = (
            quality[f"minilm/{backend}/static-int8{axes}/cpu-1"] for axes in ("", "+only=*")
        )
        assert linear - whole > 0.2
        assert linear > 0.75


def test_the_course_s_network_is_a_quarter_of_its_size_and_four_times_as_fast():
    found = load_results(ROOT / "results" / "reference" / "seed_cifar10")
    rows = found.measurements.query("batch_size == 1 or batch_size != batch_size")
    size, speed, drop = (
        rows[rows["metric"] == metric].set_index("trial")
        for metric in ("size_bytes", "speedup", "quality_drop")
    )
    eager, best = (f"cifar-cnn/{t}/cpu-1" for t in ("pytorch/fp32", "tflite/dynamic-int8"))

    assert size.loc[best, "value"] <= 0.26 * size.loc[eager, "value"]
    assert speed[speed["reference"] == eager].loc[best, "low"] >= 4
    assert drop.loc[best, "verdict"] == "keeps"
    assert len(found.run["published"]) == 4


def test_qat_keeps_the_accuracy_of_its_control_and_beats_post_training_at_four_bits():
    found = load_results(ROOT / "results" / "reference" / "qat_resnet20")
    quality = quality_of(found)
    bounds = found.measurements.query("metric == 'seeds_control_drop_bound'")
    bound = dict(zip(bounds["trial"], bounds["value"], strict=True))

    for backend in ("pytorch", "tflite"):
        assert bound[f"resnet20/{backend}/qat-int8/cpu-1/seed0"] < 0.01 * 0.9173
    for seed in (0, 1, 2):
        ptq, qat = (
            quality[f"resnet20/pytorch/{m}+weights=int4/cpu-1/seed{seed}"]
            for m in ("static-int8", "qat-int8")
        )
        assert qat > ptq
    for _, steps in found.training.groupby("trial"):
        tenth = len(steps) // 10
        losses = steps.sort_values("step")["loss"]
        assert steps["epoch"].max() <= 2
        assert losses.iloc[-tenth:].mean() < losses.iloc[:tenth].mean()
    assert (found.trials["trained_s"].dropna() < 15 * 60).all()


def test_every_module_is_in_the_architecture_page():
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = {
        path.stem
        for path in (ROOT / "harness" / "quantbench").rglob("*.py")
        if not path.stem.startswith("__")
    }

    assert {name for name in modules if f"`{name}`" not in text} == set()


def test_the_example_in_the_readme_is_a_valid_experiment(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(block[1])

    try:
        # nine, and the float that runs in the graph of PyTorch's dynamic int8
        assert len(Experiment.load(path).trials) == 10
    except QuantbenchError as error:
        pytest.fail(str(error))
