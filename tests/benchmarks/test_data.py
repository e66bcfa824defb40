"""Loading data by pytest-benchmark."""

from __future__ import annotations

import pytest

from quantbench_experiments.data import data_folder
from quantbench_experiments.tasks import cifar10

CIFAR10 = data_folder() / "cifar10" / cifar10.TEST.parquet


@pytest.mark.data
@pytest.mark.skipif(not CIFAR10.is_file(), reason=f"no {CIFAR10}; see docs/data.md")
def test_loading_the_cifar10_test_images_from_the_cache(benchmark):
    """Limit 0.5 s, checksums included; the first round fills the cache and is not timed."""
    cifar10.load("test")

    samples = benchmark(cifar10.load, "test")

    assert samples.inputs["image"].shape == (10_000, 3, 32, 32)
