"""A cut of the QAT experiment on real images: one epoch over 512 of them, in each framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.registry import backend, missing_packages
from harness.runner import run

EXPERIMENT = """
models: [resnet20]
backends: [{backend}]
recipe: {{epochs: 1, batch_size: 32, train_samples: 512, learning_rate: 0.001,
          augmentation: crop-flip, freeze_batchnorm: 0}}
methods:
  - fp32
  - fp32: {{training: finetune}}
  - static-int8
  - qat-int8
precision: {{name: test, generations: 1, max_generations: 1, rounds: 6, warmup_s: 0.01,
            burst_ms: 1.0, memory_processes: 1}}
"""


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["pytorch", "tflite"])
def test_qat_on_real_images_keeps_the_accuracy(name: str, real_data: Path, tmp_path: Path) -> None:
    missing = missing_packages(backend(name).packages)
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    path = tmp_path / "qat.yaml"
    path.write_text(EXPERIMENT.format(backend=name))

    found = run(path, results=tmp_path / "results")

    rows = found.trials.set_index("trial")
    assert set(rows["status"]) == {"ok"}, rows["reason"].to_dict()
    scores = found.measurements.query("metric == 'quality'").set_index("trial")["value"]
    quality = scores.rename(rows["label"]).to_dict()
    assert quality["fp32"] == 0.9173
    for label in ("static-int8", "qat-int8", "fp32+training=finetune"):
        assert abs(quality[label] - quality["fp32"]) < 0.006, label
    assert np.isfinite(found.training["loss"]).all()
    assert set(found.training.groupby("trial").size()) == {16}
