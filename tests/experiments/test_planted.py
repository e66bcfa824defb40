"""Diagnosis and tuning of a real model in a real framework, with a layer planted to break."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from quantbench.backend_api import missing_packages, registry
from quantbench.runs import Reporter
from quantbench.spec import PRECISIONS, Precision, preset
from quantbench.studies import Budget, tune
from tests.experiments import planted

QUICK = Precision("quick", 1, 1, 6, 0.02, 30.0, 0.01, 1.0, 1)


@pytest.mark.slow
@pytest.mark.long
def test_tune_finds_the_planted_layer_and_recovers_the_accuracy(monkeypatch, tmp_path):
    backend = registry.backend("onnxruntime")
    if missing := missing_packages((*backend.packages, "torch")):
        pytest.skip(f"{', '.join(missing)} is not installed")
    known = registry._entry_points
    entry = SimpleNamespace(load=lambda: planted.MODEL, value="planted")
    monkeypatch.setattr(
        registry,
        "_entry_points",
        lambda group: {**known(group), **({"planted": entry} if group.endswith("models") else {})},
    )
    monkeypatch.setitem(PRECISIONS, "quick", QUICK)
    axes = {"granularity": "per-tensor", "samples": 64}

    found = tune(
        "planted", "onnxruntime", Budget(0.01, "size"), precision="quick", samples=200,
        method=preset("static-int8", backend.axes("static-int8", axes)),
        results=tmp_path, reporter=Reporter(quiet=True),
    )  # fmt: skip

    ranking = found.diagnosis.ranking("onnxruntime")
    assert ranking[0].layer == planted.LAYER
    assert ranking[0].sqnr_db < ranking[1].sqnr_db - 10
    broken = next(one.row for one in found.candidates if one.row.label == "static-int8")
    assert broken.status == "invalid" or broken.value("quality_drop") > 0.05
    assert found.qualified
    chosen = next(one.row for one in found.candidates if one.row.trial == found.chosen)
    assert planted.LAYER in chosen.axes["keep_float"]
    assert chosen.value("quality_drop") <= 0.002
