"""A converter that crashes its process costs one trial, and the row says what to do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from quantbench import run
from quantbench.backend_api import missing_packages, registry
from quantbench.runs import exit_code
from tests.backends import gru

pytestmark = pytest.mark.skipif(
    bool(missing_packages(("tensorflow",))), reason="tensorflow is not installed"
)

EXPERIMENT = """
models: [gru]
backends: [tflite]
methods: [fp32, dynamic-int8, static-int8: {samples: 32}]
precision: {name: test, generations: 1, max_generations: 1, rounds: 6, warmup_s: 0.01,
            burst_ms: 1.0, memory_processes: 1}
"""


@pytest.mark.long
def test_int8_calibration_of_a_gru_crashes_tensorflow_and_costs_one_trial(tmp_path, monkeypatch):
    known = {"models": {"gru": gru.MODEL}, "tasks": {"sequences": gru.TASK}}
    installed = registry._entry_points

    def entries(group):
        own = known.get(group.partition(".")[2])
        if own is None:
            return installed(group)
        return {n: SimpleNamespace(load=lambda f=f: f, value=n) for n, f in own.items()}

    monkeypatch.setattr(registry, "_entry_points", entries)
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "gru.yaml"
    path.write_text(EXPERIMENT)

    found = run(path, results=tmp_path / "results")

    rows = found.trials.set_index("method")
    assert rows["status"].to_dict() == {
        "fp32": "ok", "dynamic-int8": rows.loc["dynamic-int8", "status"], "static-int8": "crashed",
    }  # fmt: skip
    assert rows.loc["dynamic-int8", "status"] in ("ok", "no-op")
    assert "SIGSEGV" in rows.loc["static-int8", "reason"]
    assert "take another route or backend" in rows.loc["static-int8", "reason"]
    assert exit_code(found) == 1
