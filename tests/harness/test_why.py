"""The report's words on what artifacts are, on why they are slow, and its pictures of sweeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from quantbench.analysis import baseline, explain, trial_frame, trial_rows
from quantbench.errors import BadInput
from quantbench.report.sections import calibrator_ranges as report_ranges
from quantbench.report.sections.section import Seen
from quantbench.report.sections.slowdowns import SECTION, explanations, specifications
from quantbench.report.sections.sweeps import sweeps
from tests.harness.sample_results import TYPICAL, Invented, sample_results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return sample_results(tmp_path_factory.mktemp("why"))


def test_a_slow_dynamic_convolution_is_explained_from_a_run(results):
    found = explain(results, "digits/onnxruntime/dynamic-int8/cpu-1")

    assert found.reference == "digits/onnxruntime/fp32/cpu-1"
    assert found.summary.startswith(
        "7.12 times slower than its float model (1.710 against 0.240 ms)"
    )
    assert [cause.name for cause in found.possible] == ["dynamic-convolutions"]
    assert (found.causes, found.difference) == ((), None)  # nothing was profiled


def test_float16_without_its_instructions_is_explained_from_a_run(results):
    found = explain(results, "digits/pytorch/fp16/cpu-1")

    assert [cause.name for cause in found.possible] == ["instruction-set-missing"]
    assert "float16" in found.possible[0].sentence


def test_nothing_could_explain_a_fast_artifact_or_the_float_model_itself(results):
    for trial in ("digits/tflite/static-int8/cpu-1", "digits/tflite/fp32/cpu-1"):
        assert explain(results, trial).possible == ()


def test_a_route_is_compared_with_its_own_float_model(results):
    trials = {row.trial: row for row in trial_rows(results)}

    plain = baseline(trials.values(), trials["digits/pytorch/fp16/cpu-1"])
    assert plain == "digits/pytorch/fp32/cpu-1"
    traced = trials["digits/pytorch/fp32+route=traced/cpu-1"]
    assert baseline(trials.values(), traced) == traced.trial


def test_what_did_not_run_is_not_explained(results):
    with pytest.raises(BadInput, match=r"was not run \(unsupported\): ONNX Runtime's CPU provider"):
        explain(results, "digits/onnxruntime/fp16/cpu-1")
    with pytest.raises(BadInput, match="Did you mean 'digits/onnxruntime/fp32/cpu-1'"):
        explain(results, "digits/onnxruntime/fp23/cpu-1")


def test_the_report_lists_the_slowest_first_with_what_could_explain_them(results):
    found = explanations(results)

    assert [(why.backend, why.label) for why in found][:2] == [
        ("onnxruntime", "dynamic-int8"), ("pytorch", "fp16"),
    ]  # fmt: skip
    assert "may have no fast kernel" in found[0].causes[0]
    assert "could explain" in SECTION.intro(Seen(results, trial_rows(results), None, ()))


def test_specifications_tell_levels_and_mark_methods_that_are_not_the_same(results):
    held = specifications(results)

    pytorch = held["digits/pytorch/static-int8/cpu-1"]
    assert pytorch == (
        "weights int8, 256 levels", "per-channel, symmetric", "≠ other backends",
    )  # fmt: skip
    assert "255 levels" in held["digits/tflite/static-int8/cpu-1"][0]
    # both other backends have 255 levels there
    assert held["digits/tflite/dynamic-int8/cpu-1"] == (
        "weights int8, 255 levels",
        "per-channel, symmetric",
    )
    assert "digits/tflite/fp32/cpu-1" not in held


@pytest.mark.pictures
def test_a_sweep_over_samples_and_shifted_models_become_pictures(tmp_path):
    swept = tuple(
        Invented(backend, "static-int8", 0.1, sqnr_db=20.0 + count**0.5, axes={"samples": count})
        for backend in ("pytorch", "tflite") for count in (1, 8, 32, 128)
    )  # fmt: skip
    shifted = tuple(
        Invented("tflite", method, 0.1, lost=lost, model=model)
        for model in ("digits@noise=0.1", "digits@noise=0.1:recalibrated", "digits@blur=1")
        for method, lost in (("fp32", 10), ("static-int8", 60))
    )
    results = sample_results(tmp_path, (*TYPICAL, *swept, *shifted))

    pictures = sweeps(trial_frame(results), {"pytorch": "#0067a5", "tflite": "#c44601",
                                                    "onnxruntime": "#00805c"})  # fmt: skip

    assert [picture.title for picture in pictures] == [
        "SQNR by calibration samples, a line per backend",
        "Quality under shifted inputs",
        "What quantization adds: SQNR against the float model under the same shift",
    ]
    assert "static-int8, recalibrated" in pictures[1].wide
    assert "fp32, recalibrated" not in pictures[1].wide
    assert "noise=0.1" in pictures[1].wide


def test_a_run_without_sweeps_has_no_pictures_of_them(results):
    assert sweeps(trial_frame(results), {}) == ()


CALIBRATED = ("minmax", "percentile", "mse")


def calibrated(tmp_path, kept: dict[str, float]):
    """A run whose calibrators keep a share of one activation, and all of another."""
    trials = tuple(
        Invented(backend, "static-int8", 0.1, axes={"ranges": "injected", "calibrator": name})
        for backend in ("pytorch", "onnxruntime") for name in CALIBRATED
    )  # fmt: skip
    results = sample_results(tmp_path, (*TYPICAL, *trials))
    tensors = [
        {"trial": t.id, "kind": "tensor", "role": "activation", "name": f"{layer}_out", "layer": layer,
         "low": 0.0, "high": high, "bits": 8, "levels": 256, "granularity": "per-tensor",
         "signed": False, "symmetric": False}
        for t in trials
        for layer, high in (("first", 4.0), ("last", 8.0 * kept[str(t.axes["calibrator"])]))
    ]  # fmt: skip
    histograms = [
        {"trials": [t.id for t in trials if t.backend == backend], "role": "activation",
         "name": f"{layer}_out", "start": 0.0, "width": top / 4, "counts": np.array([70, 20, 9, 1]),
         "minimum": 0.0, "maximum": top, "mean": 1.0, "std": 1.0, "count": 100}
        for backend in ("pytorch", "onnxruntime") for layer, top in (("first", 4.0), ("last", 8.0))
    ]  # fmt: skip
    return dataclasses.replace(
        results,
        artifacts=pd.concat([results.artifacts, pd.DataFrame(tensors)], ignore_index=True),
        histograms=pd.DataFrame(histograms),
    )


@pytest.mark.pictures
def test_ranges_of_several_calibrators_become_two_pictures(tmp_path):
    results = calibrated(tmp_path, {"minmax": 1.0, "percentile": 0.5, "mse": 0.75})

    rows = pd.DataFrame(list(report_ranges._ranges(results)))
    last = rows[(rows["backend"] == "pytorch") & (rows["layer"] == "last")]
    assert dict(zip(last["calibrator"], last["share"], strict=True)) == {
        "minmax": 1.0, "percentile": 0.5, "mse": 0.75,
    }  # fmt: skip
    shares, values = report_ranges.ranges(results)
    assert all(name in shares.wide for name in CALIBRATED)
    # the activation whose ranges differ is drawn, not the one where all agree
    assert "pytorch: last" in values.wide
    assert "first" not in values.wide


def test_one_calibrator_alone_is_no_picture(results, tmp_path):
    assert report_ranges.ranges(results) == ()
    alone = calibrated(tmp_path, dict.fromkeys(CALIBRATED, 1.0))
    trials = alone.trials[alone.trials["calibrator"] != "percentile"]
    trials = trials[trials["calibrator"] != "mse"]

    assert report_ranges.ranges(dataclasses.replace(alone, trials=trials)) == ()
