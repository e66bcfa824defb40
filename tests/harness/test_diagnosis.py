"""Diagnosis with a fake framework whose middle layer is planted to break under one scale."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from rich.console import Console

from quantbench.cli.terminal import show_diagnosis
from quantbench.errors import BadInput, NotComparable
from quantbench.report import write_diagnosis
from quantbench.results import SensitivityRow
from quantbench.runs import Reporter
from quantbench.studies import Diagnosis, diagnose, guide
from quantbench.studies.sensitivity import Request, fidelity
from tests.harness import deep
from tests.harness.conftest import install

REQUEST = Request("deep", "static-int8", {}, ("deepery",), modes=("quantized", "kept"), samples=200)


def install_deep(monkeypatch, folder):
    """Leave only the fake framework of three layers in the registry."""
    return install(
        monkeypatch, folder, backends={"deepery": deep.BACKEND}, models={"deep": deep.MODEL},
        tasks={"deep-task": deep.TASK},
    )  # fmt: skip


@pytest.fixture
def deepery(monkeypatch, tmp_path):
    return install_deep(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One diagnosis, used by several tests."""
    patch = pytest.MonkeyPatch()
    yield examine(install_deep(patch, tmp_path_factory.mktemp("diagnosis")))
    patch.undo()


def of_layer(found: Diagnosis, layer: str) -> SensitivityRow:
    return next(row for row in found.ranking("deepery") if row.layer == layer)


def examine(folder, request: Request = REQUEST):
    return diagnose(request, results=folder / "results", reporter=Reporter(quiet=True))


def test_the_planted_layer_is_first_and_named_to_keep_in_float(found):
    ranking = found.ranking("deepery")
    assert ranking[0].layer == "b"
    assert found.keep_float("deepery") == ["b"]
    # alone quantized it does all the damage; alone kept in float it repairs it
    alone = {row.layer: row.sqnr_db for row in ranking}
    kept = {row.layer: row.sqnr_db for row in found.ranking("deepery", "kept")}
    whole = found.whole("deepery").sqnr_db
    assert alone["b"] == pytest.approx(whole, abs=1.0)
    assert kept["b"] > whole + 20
    assert kept["a"] == pytest.approx(whole, abs=1.0)


def test_every_number_of_a_layer_is_recomputed_here(found):
    row = of_layer(found, "b")
    x = deep.load("test").inputs["x"][:200]
    w = deep.state()
    full = deep.layers(x, w)
    inner = np.maximum(x @ w["a.weight"], 0)
    scale = np.abs(w["b.weight"]).max() / 127
    rounded = (np.rint(w["b.weight"] / scale) * scale).astype(np.float32)
    seen = np.maximum(calibrated() @ w["a.weight"], 0)
    step = float(seen.max()) / 255
    fed = np.clip(np.rint(inner / step), 0, 255) * step
    own = np.maximum((fed @ rounded).astype(np.float32), 0) @ w["c.weight"]
    noise = ((full.astype(np.float64) - own) ** 2).sum()

    assert row.sqnr_db == pytest.approx(10 * math.log10((full**2).sum() / noise), abs=0.05)
    assert row.agreement == pytest.approx((own.argmax(1) == full.argmax(1)).mean(), abs=0.006)
    assert row.quality_drop == pytest.approx(1 - row.quality)
    beyond = (inner > seen.max()).mean()
    assert row.unseen == pytest.approx(beyond, abs=1e-3)
    assert row.saturation == pytest.approx(beyond, abs=2e-3)
    assert row.outlier_ratio == pytest.approx(inner.max() / inner.std(), rel=1e-3)
    error = math.sqrt(((fed - inner) ** 2).mean())
    assert row.error_over_scale == pytest.approx(error / step, rel=0.05)


def test_the_error_of_each_activation_is_recomputed_here(found):
    x = deep.load("test").inputs["x"][:128]
    w = deep.state()
    full, own = {}, {}
    deep.layers(x, w, lambda name, values: full.__setitem__(name, values))
    seen = {}
    deep.layers(calibrated(), w, lambda name, values: seen.__setitem__(name, values))
    values = x
    for layer in ("a", "b", "c"):
        name = deep.INPUT_OF[layer]
        low, high = min(float(seen[name].min()), 0.0), float(seen[name].max())
        step = (high - low) / 255
        zero = round(-low / step)
        own[name] = values = (np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step
        scale = np.abs(w[f"{layer}.weight"]).max() / 127
        rounded = (np.rint(w[f"{layer}.weight"] / scale) * scale).astype(np.float32)
        values = np.maximum(values.astype(np.float32) @ rounded, 0)

    rows = found.depth("deepery")

    assert [row.change for row in rows] == ["x", "ya", "yb"]
    assert [row.layer for row in rows] == ["a", "b", "c"]
    for row in rows:
        noise = full[row.change].astype(np.float64) - own[row.change]
        sqnr = 10 * math.log10((full[row.change] ** 2).sum() / (noise**2).sum())
        # 0.05 dB: a value at a tie may be rounded to the other side
        assert row.sqnr_db == pytest.approx(sqnr, abs=0.05)
        assert math.sqrt(row.mse) == pytest.approx(math.sqrt((noise**2).mean()), rel=0.01)
        assert row.samples == 128
    # the planted layer is where the error comes from
    assert rows[2].sqnr_db < rows[1].sqnr_db - 20


def test_the_page_and_model_explorer_are_given_the_errors(found):
    text = write_diagnosis(found).read_text(encoding="utf-8")
    told = json.loads((found.folder / "node-data-deepery.json").read_text(encoding="utf-8"))

    assert "Along the depth" in text
    assert text.count("<h3>Activations of the whole model</h3>") == 1
    (graph,) = told.values()
    assert graph["results"] == {
        row.change: {"value": round(row.sqnr_db, 2)} for row in found.depth("deepery")
    }
    assert [step["stop"] for step in graph["gradient"]] == [0, 0.5, 1]


def test_what_cannot_be_read_is_said_with_its_reason(found, capsys):
    reason = "deepery does not show what its files compute on the way"
    table = found.sensitivity
    kept = table[table["mode"] != "depth"]
    row = {**table.iloc[0].to_dict(), "mode": "depth", "status": "unsupported", "reason": reason}
    blind = dataclasses.replace(found, sensitivity=pd.concat([kept, pd.DataFrame([row])]))

    text = write_diagnosis(blind).read_text(encoding="utf-8")
    show_diagnosis(blind, Console(width=200))

    assert f"Activations of the whole model: {reason}." in text
    assert "Along the depth" not in text
    assert f"activations: {reason}" in capsys.readouterr().out


def test_the_terminal_shows_the_worst_activations(found, capsys):
    show_diagnosis(found, Console(width=200))

    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "worst 3 of 3" in line)
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["yb", "ya", "x"]


def calibrated() -> np.ndarray:
    """The calibration samples that seed 0 chooses."""
    x = deep.load("calibration").inputs["x"]
    return x[np.random.default_rng(0).permutation(len(x))[:64]]


def test_the_guide_says_which_part_hurts_and_what_mends_it(found):
    assert guide.part(found, "deepery", "b").startswith("its weights cost most")
    best = next(guide.advice(found, "deepery", "b"))
    assert best.startswith("granularity: per-channel: +")
    assert "keep_float: [b]" in list(guide.advice(found, "deepery", "b"))[-1]
    refused = found.remedies("deepery", "")
    entropy = next(row for row in refused if "entropy" in row.change)
    assert (entropy.status, entropy.reason) == (
        "unsupported", "the fake has no entropy; use mse",
    )  # fmt: skip


def test_each_taught_step_is_a_check_with_its_number(found):
    by_question = {check.question: check for check in guide.checks(found, "deepery")}
    assert len(by_question) == 5
    assert by_question["Is an operation unsupported?"].number == "all 3 layers can be quantized"
    assert "steps (ideal 0.289)" in by_question["Is a range clipped?"].number
    assert by_question["Does a wider bit width help?"].answer.startswith("the fake has no")
    assert by_question["Are values numerically unstable?"].tone == "good"


@pytest.mark.long
def test_a_layer_that_crashes_the_worker_costs_itself_alone(deepery):
    request = Request("deep", "static-int8", {"route": "crash:a"}, ("deepery",), samples=50)

    found = examine(deepery, request)

    crashed = of_layer(found, "a")
    assert crashed.status == "crashed"
    assert "SIGSEGV" in crashed.reason
    assert {of_layer(found, layer).status for layer in ("b", "c")} == {"ok"}
    check = next(c for c in guide.checks(found, "deepery") if "unsupported" in c.question)
    assert check.number == "1 of 3 layers cannot be quantized alone"


@pytest.mark.long
def test_a_refusal_while_building_is_a_row_with_its_reason(deepery):
    request = Request("deep", "static-int8", {"route": "bad:b"}, ("deepery",), samples=50)

    row = of_layer(examine(deepery, request), "b")

    assert (row.status, row.reason) == (
        "unsupported", "this layer cannot be quantized alone; take another",
    )  # fmt: skip


@pytest.mark.long
def test_a_second_diagnosis_starts_no_worker(deepery, monkeypatch):
    first = examine(deepery)

    def refuse(*arguments, **known):
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr("quantbench.execution.process.Process", refuse)
    second = examine(deepery)

    pd.testing.assert_frame_equal(first.sensitivity, second.sensitivity)


def test_a_method_that_no_backend_has_is_not_comparable(deepery):
    with pytest.raises(
        NotComparable, match="deepery: the fake has no dynamic-int8; use static-int8"
    ):
        examine(deepery, Request("deep", "dynamic-int8", {}, ("deepery",)))


def test_an_unknown_name_gets_the_nearest(deepery):
    with pytest.raises(BadInput, match=r"unknown model 'dep'\. Did you mean 'deep'"):
        examine(deepery, Request("dep", "static-int8", {}, ("deepery",)))
    with pytest.raises(BadInput, match=r"unknown mode 'kep'\. Did you mean 'kept'"):
        examine(deepery, Request("deep", "static-int8", {}, ("deepery",), modes=("kep",)))


def test_the_page_has_every_layer_check_and_remedy(found):
    text = write_diagnosis(found).read_text(encoding="utf-8")

    for title in ("Quantized alone", "Kept in float alone"):
        assert text.count(f"<h3>{title}</h3>") == 1
    for layer in ("a", "b", "c"):
        assert text.count(f'<th scope="row"><bdi>{layer}</bdi></th>') == 2
    assert "keep_float: [b]" in text
    for check in guide.checks(found, "deepery"):
        assert str(escape(check.question)) in text
        assert str(escape(check.number)) in text
    for line in list(guide.advice(found, "deepery", "b"))[:5]:
        assert str(escape(line)) in text


def test_names_on_the_page_are_escaped(found, tmp_path):
    hostile = "<script>alert(1)</script>"
    rows = found.sensitivity.assign(layer=found.sensitivity["layer"].replace("b", hostile))
    (tmp_path / "machine.json").write_text('{"cpu": "<b>x"}')
    changed = dataclasses.replace(found, folder=tmp_path, sensitivity=rows)

    text = write_diagnosis(changed).read_text(encoding="utf-8")

    assert "<script" not in text
    assert "<b>x" not in text
    assert str(escape(hostile)) in text


def test_fidelity_of_numbers_by_hand():
    floats = {"y": np.array([[3.0, 4.0]], np.float32)}

    found = fidelity(floats, {"y": np.array([[3.0, 3.0]], np.float32)})

    assert found["sqnr_db"] == pytest.approx(10 * math.log10(25 / 1))
    assert found["mse"] == pytest.approx(0.5)
    assert found["cosine"] == pytest.approx(21 / (5 * math.sqrt(18)))
