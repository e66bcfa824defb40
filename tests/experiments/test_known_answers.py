"""Published files of MLPerf Tiny through our runtime: counts that others have, to the sample.

Source: https://github.com/mlcommons/tiny, commit 1afd2c9 (files and labels); the counts
were found by others on the same kernels.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from quantbench.backend_api import Artifact
from quantbench.spec import Array, Target, TensorSpec
from quantbench.stats.quality_metrics import top1
from quantbench.steps import run_all
from quantbench_experiments.tasks.cifar10 import TEST, read

pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.long

KERNELS = {
    "xnnpack": Target("xnnpack"),
    "builtin": Target("builtin", optimize=False),
    "reference": Target("reference", kernels="reference"),
}
KWS_SCALE, KWS_ZERO = 0.5847029089927673, 83


def given(path: Path, folder: Path, inputs: TensorSpec, classes: int) -> Artifact:
    """A file as it is, with what its tensors are called."""
    from quantbench_backends.tflite import signature

    if not path.is_file():
        pytest.skip(f"{path} is missing; it is in {path.parent.name} of mlcommons/tiny")
    folder.mkdir()
    shutil.copyfile(path, folder / "model.tflite")
    (source,) = signature.read(path.read_bytes()).inputs.values()
    (result,) = signature.read(path.read_bytes()).outputs.values()
    outputs = TensorSpec("scores", (None, classes), "float32")
    return Artifact(
        folder, ("model.tflite",), "tflite",
        (source.spec(inputs, channels_last=True),), (result.spec(outputs, channels_last=True),),
        (inputs,), (outputs,), {"inputs": str(source.index), "outputs": str(result.index)},
    ).save()  # fmt: skip


def right(artifact: Artifact, inputs: Array, labels: Array, kernels: str) -> int:
    """How many samples have the right answer, one at a time on one thread."""
    from quantbench_backends.tflite.runtime import LiteRTRuntime

    session = LiteRTRuntime().load(artifact, KERNELS[kernels], 1)
    assert session.effective["kernels"] == kernels
    (spec,) = artifact.task_inputs
    outputs, _ = run_all(session, {spec.name: inputs}, 1)
    return int(top1(outputs["scores"], labels).outcome.sum())


@pytest.mark.parametrize(
    ("name", "kernels", "expected"),
    [
        ("pretrainedResnet", "xnnpack", 8719),
        ("pretrainedResnet_quant", "xnnpack", 8697),
        ("pretrainedResnet_quant", "builtin", 8702),
    ],
)
def test_image_classification_on_all_10000_images(real_data, tmp_path, name, kernels, expected):
    image = TensorSpec("image", (None, 32, 32, 3), "float32", "NHWC")
    path = real_data / "mlperf_tiny" / "ic" / f"{name}.tflite"
    pixels, labels = read(TEST)

    artifact = given(path, tmp_path / "artifact", image, 10)

    # raw pixels: the int8 file's scale is 1 and its zero point -128
    assert right(artifact, pixels.astype(np.float32), labels, kernels) == expected


@pytest.mark.parametrize(
    ("kernels", "expected"), [("xnnpack", 902), ("builtin", 901), ("reference", 901)]
)
def test_keyword_spotting_on_its_1000_clips(real_data, tmp_path, kernels, expected):
    features = TensorSpec("features", (None, 49, 10, 1), "float32", "NHWC")
    folder = real_data / "mlperf_tiny" / "kws"
    artifact = given(folder / "kws_ref_model.tflite", tmp_path / "artifact", features, 12)
    with np.load(folder / "kws01.npz", allow_pickle=False) as file:
        stored, labels = file["x"], file["y"]

    assert (artifact.inputs[0].scale, artifact.inputs[0].zero_point) == (KWS_SCALE, KWS_ZERO)
    real = (stored.astype(np.float32) - KWS_ZERO) * np.float32(KWS_SCALE)
    assert right(artifact, real.reshape(-1, 49, 10, 1), labels, kernels) == expected


@pytest.mark.parametrize("name", ["kws_ref_model_float32", "kws_ref_model"])
def test_a_file_that_is_called_float_and_holds_integers_is_found(real_data, tmp_path, name):
    """MLPerf Tiny's float file of keyword spotting has int8 weights."""
    from quantbench_backends.tflite.artifact_record import record

    path = real_data / "mlperf_tiny" / "kws" / f"{name}.tflite"
    features = TensorSpec("features", (None, 49, 10, 1), "float32", "NHWC")

    held = record(given(path, tmp_path / "artifact", features, 12).path, ())

    assert {t.dtype for t in held.tensors if t.role == "weight"} >= {"int8"}
