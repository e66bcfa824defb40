"""A candidate run against a baseline: every kind of planted regression is caught, and nothing else."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from harness import gates, regression, regression_report
from harness.cli import app
from harness.errors import NotComparable
from harness.regression import BETTER, MISSING, NEW, SAME, UNDECIDED, WORSE, Change, changes
from harness.results import SCHEMAS, Results, load_results, write_table
from harness.rounds import bursts, log_times, paired
from harness.statistics import Interval, exp_interval, rounds_interval
from tests.harness.sample_results import TYPICAL, sample_results

PUBLISHED = Path(__file__).parents[2] / "results" / "reference"
TRIAL = "digits/tflite/static-int8/cpu-1"


@pytest.fixture(scope="module")
def published() -> Results:
    return load_results(PUBLISHED / "quickstart")


def scaled(metric: str, factor: float) -> Callable[[Results], Results]:
    """A metric of `TRIAL`, and its interval, multiplied."""

    def plant(results: Results) -> Results:
        rows = results.measurements.copy()
        mine = (rows["trial"] == TRIAL) & (rows["metric"] == metric)
        rows.loc[mine, ["value", "low", "high"]] *= factor
        return replace(results, measurements=rows)

    return plant


def wrong(count: int) -> Callable[[Results], Results]:
    """So many of the samples that `TRIAL` had right are answered wrongly."""

    def plant(results: Results) -> Results:
        predictions, rows = results.predictions.copy(), results.measurements.copy()
        mine = predictions.index[(predictions["trial"] == TRIAL) & (predictions["outcome"] == 1)]
        predictions.loc[mine[:count], "outcome"] = 0.0
        predictions.loc[mine[:count], "prediction"] += 1
        score = predictions.loc[predictions["trial"] == TRIAL, "outcome"].mean()
        rows.loc[(rows["trial"] == TRIAL) & (rows["metric"] == "quality"), "value"] = score
        return replace(results, predictions=predictions, measurements=rows)

    return plant


def gone(results: Results) -> Results:
    return replace(results, trials=results.trials[results.trials["trial"] != TRIAL])


def crashed(results: Results) -> Results:
    trials = results.trials.copy()
    trials.loc[trials["trial"] == TRIAL, ["status", "reason"]] = ["crashed", "signal 11"]
    return replace(results, trials=trials)


def found(metric: str, old: Results, new: Results) -> Change:
    (one,) = [c for c in changes(old, new) if (c.trial, c.metric) == (TRIAL, metric)]
    return one


def failures(old: Results, new: Results) -> list[gates.Finding]:
    return [f for f in gates.judge(changes(old, new), gates.DEFAULT) if f.failed]


def test_a_run_against_itself_has_not_changed(published: Results) -> None:
    every = changes(published, published)

    assert {c.verdict for c in every} == {SAME}
    assert {c.metric for c in every} == set(regression.QUANTITIES) - {"missing"}
    assert failures(published, published) == []


@pytest.mark.parametrize(
    ("plant", "metric"),
    [
        (wrong(20), "quality_drop"),
        (wrong(40), "agreement"),
        (scaled("size_bytes", 1.02), "size_bytes"),
        (scaled("integer_macs_fraction", 0.5), "integer_macs_fraction"),
        (scaled("speedup", 0.9), "speedup"),
        (gone, "missing"),
        (crashed, "missing"),
    ],
    ids=["accuracy", "answers", "size", "coverage", "speed", "gone", "crashed"],
)
def test_a_planted_regression_fails_its_gate_and_no_other_trial_s(
    published: Results, plant: Callable[[Results], Results], metric: str
) -> None:
    failed = failures(published, plant(published))

    assert metric in {f.gate.metric for f in failed}
    assert {f.trial for f in failed} == {TRIAL}


@pytest.mark.parametrize(
    ("plant", "metric", "verdict"),
    [
        (scaled("size_bytes", 0.5), "size_bytes", BETTER),
        (scaled("size_bytes", 1.001), "size_bytes", WORSE),
        (scaled("speedup", 1.2), "speedup", BETTER),
        (scaled("speedup", 1.01), "speedup", SAME),
        (scaled("latency_ms", 1.3), "latency_ms", WORSE),
        (scaled("sqnr_db", 0.99), "sqnr_db", SAME),
        (scaled("sqnr_db", 0.5), "sqnr_db", WORSE),
        (wrong(1), "quality_drop", UNDECIDED),
    ],
)
def test_each_change_has_its_verdict(
    published: Results, plant: Callable[[Results], Results], metric: str, verdict: str
) -> None:
    assert found(metric, published, plant(published)).verdict == verdict


def test_the_other_way_round_better_is_worse(published: Results) -> None:
    slower = scaled("speedup", 0.8)(published)

    there = found("speedup", published, slower)
    back = found("speedup", slower, published)

    assert (there.verdict, back.verdict) == (WORSE, BETTER)
    assert there.change is not None
    assert back.change is not None
    assert (1 + there.change.value) * (1 + back.change.value) == pytest.approx(1)


def test_quality_is_paired_by_sample(published: Results) -> None:
    change = found("quality_drop", published, wrong(20)(published))

    assert change.change is not None
    assert change.change.value == pytest.approx(20 / 897)
    # of 897 samples 20 are discordant: narrower than two unpaired intervals would be
    assert change.change.half_width < 0.011


def test_other_test_samples_are_not_paired(published: Results) -> None:
    other = published.predictions.assign(label=lambda rows: rows["label"] + 1)

    change = found("quality_drop", published, replace(published, predictions=other))

    assert change.reason == "the runs scored other samples: from the two intervals"
    assert change.verdict == SAME


def test_milliseconds_are_compared_on_one_machine_only(published: Results) -> None:
    elsewhere = replace(published, machine={**published.machine, "fingerprint": "another"})

    assert {c.metric for c in changes(published, elsewhere)} == set(regression.QUANTITIES) - {
        "missing", "latency_ms",
    }  # fmt: skip


def test_speed_ups_over_other_references_are_not_compared(published: Results) -> None:
    run = {**published.run, "reference": {"digits/cpu-1/batch1": "digits/tflite/fp32/cpu-1"}}

    change = found("speedup", published, replace(published, run=run))

    assert change.change is None
    assert change.reason.startswith("its references differ")


def test_a_trial_that_only_the_candidate_has_is_new_and_fails_nothing(published: Results) -> None:
    before = gone(published)

    assert found("missing", before, published).verdict == NEW
    assert failures(before, published) == []


def test_a_trial_that_crashed_is_missing_with_its_reason(published: Results) -> None:
    change = found("missing", published, crashed(published))

    assert (change.verdict, change.reason) == (MISSING, "its status is crashed: signal 11")


def test_runs_without_a_trial_in_common_are_not_comparable(
    published: Results, tmp_path: Path
) -> None:
    other = sample_results(tmp_path, [replace(t, model="other") for t in TYPICAL])

    with pytest.raises(NotComparable, match="no trial in common"):
        changes(published, other)


# --- generations of one A/A run, re-sampled ------------------------------------------------------


def resampled(rng: np.random.Generator, rounds: list[Any], slower: float = 1.0) -> Interval:
    """A speed-up from five generations, drawn with replacement; the artifact slower by a factor."""
    drawn = [rounds[i] - np.log(slower) for i in rng.integers(0, len(rounds), 5)]
    return exp_interval(rounds_interval(drawn))


def judged(old: Interval, new: Interval) -> bool:
    """Whether the default gate on speed fails."""
    change = regression.timed(TRIAL, "speedup", 1, old, new, claim=0.01)
    (finding,) = gates.judge([change], [g for g in gates.DEFAULT if g.metric == "speedup"])
    return finding.failed


@pytest.mark.parametrize("run", ["quickstart", "resnet20_cifar10"])
def test_generations_of_one_artifact_are_called_worse_at_most_once_in_1000(run: str) -> None:
    results = load_results(PUBLISHED / run)
    reference = next(iter(results.run["reference"].values()))
    timed = results.samples[results.samples["trial"] != "calibration-loop"]
    rounds = paired(log_times(bursts(timed)), reference, f"{reference}@control")
    rng = np.random.default_rng(0)

    alarms = sum(judged(resampled(rng, rounds), resampled(rng, rounds)) for _ in range(1000))
    caught = sum(judged(resampled(rng, rounds), resampled(rng, rounds, 1.15)) for _ in range(200))

    assert len(rounds) >= 5
    assert alarms <= 1
    assert caught >= 190


# --- what people and machines read ---------------------------------------------------------------


@pytest.fixture
def pair(published: Results, tmp_path: Path) -> tuple[Path, Path]:
    """The published run, and a copy of it with a larger file and worse answers."""
    worse = wrong(20)(scaled("size_bytes", 1.5)(published))
    folder = tmp_path / "candidate"
    folder.mkdir()
    for name in SCHEMAS:
        frame: pd.DataFrame = getattr(worse, name)
        write_table(
            folder, name, frame.astype(object).where(frame.notna(), None).to_dict("records")
        )
    for name in ("run.json", "machine.json"):
        (folder / name).write_text((PUBLISHED / "quickstart" / name).read_text())
    return PUBLISHED / "quickstart", folder


def test_the_command_says_what_failed_and_exits_with_1(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    xml, comment, data = (tmp_path / name for name in ("junit.xml", "comment.md", "found.json"))

    done = CliRunner().invoke(
        app,
        ["compare", *map(str, pair), "--junit", str(xml), "--markdown", str(comment), "--json",
         str(data)],
    )  # fmt: skip

    assert done.exit_code == 1, done.output
    assert "3 of 64 checks failed, in 1 trial" in done.output
    suite = ET.parse(xml).getroot()  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures")) == ("13", "1")
    (failure,) = suite.iter("failure")
    assert "size_bytes +50.00 % (gate: size_bytes > +1%)" in (failure.text or "")
    assert f"| {TRIAL} |" in comment.read_text()
    assert json.loads(data.read_text())["failed"] == 3


def test_gates_of_a_file_and_of_options_add_up(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("fail_on: ['size_bytes > +60%']\n")

    passed = CliRunner().invoke(app, ["compare", *map(str, pair), "--gate", str(path)])
    failed = CliRunner().invoke(
        app, ["compare", *map(str, pair), "--gate", str(path), "--fail-on", "size_bytes > +40%"]
    )

    assert (passed.exit_code, failed.exit_code) == (0, 1)


def test_a_hostile_name_stays_text() -> None:
    name = 'a"<script>|\x00&\n`x`'
    change = Change(name, "size_bytes", None, 1, 2, Interval(1, 1, 1), WORSE)
    judged_ = gates.judge([change], gates.DEFAULT)

    xml = regression_report.junit(judged_)
    comment = regression_report.markdown([change], judged_)

    (case,) = ET.fromstring(xml).iter("testcase")  # noqa: S314 - our own
    assert case.get("name") == 'a"<script>|\ufffd&\n`x`'
    assert "<script>" not in xml
    assert "<script>" not in comment.replace(r"\<", "").replace(r"\>", "")
    assert len([line for line in comment.splitlines() if line.startswith("| a")]) == 2
