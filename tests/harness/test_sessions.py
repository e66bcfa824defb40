"""What two sessions differ by: measured on published runs, and what `compare` makes of it, simulated."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from quantbench.analysis import Change, gates, with_retimed
from quantbench.analysis.compare import BETTER, WORSE, verdict
from quantbench.analysis.time_changes import SESSION_SD, TWO_RUNS, least, ratio_change
from quantbench.errors import NotComparable
from quantbench.results import Measurement, TrialRow, load_results, rows
from quantbench.runs import Retimed
from quantbench.spec import Scenario
from quantbench.stats import Interval, exp_interval, rounds_interval

ROOT = Path(__file__).parents[2]
GATE = gates.parse("speedup < -5%")

# --- the deviation between sessions, of the published runs ---


@cache
def sessions() -> dict[str, tuple[tuple[float, ...], ...]]:
    """By metric, the logarithms of one file's values in each run that timed it, of one machine."""
    values: dict[tuple[str, ...], list[float]] = {}
    for folder in sorted((ROOT / "results" / "reference").iterdir()):
        try:
            run = load_results(folder)
        except (NotComparable, FileNotFoundError):
            continue  # a study, which is no run
        files = dict(zip(run.trials["trial"], run.trials["sha256"], strict=True))
        machines = {row.trial: row.machine for row in rows(TrialRow, run.trials)}
        for row in rows(Measurement, run.measurements):
            alone = row.scenario == Scenario.SINGLE_STREAM
            if row.metric in SESSION_SD and alone and row.known:
                of = tuple(str(files.get(name, "")) for name in (row.trial, row.reference))
                key = (row.metric, machines[row.trial], row.trial, row.reference, *of)
                values.setdefault(key, []).append(math.log(row.value))
    return {
        metric: tuple(
            tuple(own) for key, own in values.items() if key[0] == metric and len(own) > 1
        )
        for metric in SESSION_SD
    }


@pytest.mark.parametrize("metric", sorted(SESSION_SD))
def test_the_deviation_between_sessions_is_that_of_the_published_runs(metric):
    found = sessions()[metric]
    squares = sum(np.var(own) * len(own) for own in found)
    degrees = sum(len(own) - 1 for own in found)

    # of a deviation on 40 degrees of freedom or more, 0.25 of it is more than two standard errors
    assert degrees >= 40
    assert math.sqrt(squares / degrees) == pytest.approx(SESSION_SD[metric], rel=0.25)


# --- what is said of changes that are none, and of true ones ---

SIMULATED = {1.0: 10_000, 1.10: 2_000, 1.20: 2_000}
"""Comparisons that are simulated, by how much slower the candidate is."""
NOISE = {"quiet": (0.003, 0.01), "usual": (0.01, 0.02), "noisy": (0.03, 0.05)}
"""Deviations of the log ratio between generations, and between the rounds of one."""
TRUE = {"nothing": 1.0, "10 %": 1.10, "20 %": 1.20}
"""How much slower the candidate truly is."""


def measured(draw: np.random.Generator, true: float, noise: tuple[float, float]) -> Interval:
    """A speed-up as a run of five generations of seven rounds, in a session of its own, has it."""
    between, within = noise
    session = draw.normal(0, SESSION_SD["speedup"])
    generations = session + true + draw.normal(0, between, (5, 1)) + draw.normal(0, within, (5, 7))
    return exp_interval(rounds_interval(list(generations)))


@cache
def apart(noise: str, slower: float) -> dict[str, float]:
    """Shares of comparisons of two runs: ``worse``, ``better``, failed by the default gate."""
    seed, count = [list(NOISE).index(noise), round(100 * slower)], SIMULATED[slower]
    draw, told = np.random.default_rng(seed), {"worse": 0, "better": 0, "gate": 0}
    for _ in range(count):
        one, other = (measured(draw, true, NOISE[noise]) for true in (0.0, -math.log(slower)))
        # the control is of the session, and so knows nothing of another
        change = ratio_change(one, other, floor=least([None]), sessions=TWO_RUNS["speedup"])
        called = verdict(change, "speedup")
        whole = Change("t", "speedup", "", 1, 1.0, 1.0, change, "%", called, "", {})
        told["worse"] += called == WORSE
        told["better"] += called == BETTER
        told["gate"] += gates.judge([whole], [GATE])[0].failed
    return {name: number / count for name, number in told.items()}


@cache
def again(noise: str, slower: float) -> dict[str, float]:
    """The same of artifacts timed again: baseline, candidate and control in the rounds of one session."""
    seed, count = [list(NOISE).index(noise), round(100 * slower), 1], SIMULATED[slower]
    draw, told = np.random.default_rng(seed), {"worse": 0, "better": 0, "gate": 0}
    # each of a ratio's two processes has its share of the noise
    between, within = (sd / math.sqrt(2) for sd in NOISE[noise])
    for _ in range(count):
        times = draw.normal(0, between, (3, 5, 1)) + draw.normal(0, within, (3, 5, 7))
        gain, control = (
            rounds_interval(list(times[0] - times[other] + true))
            for other, true in ((1, -math.log(slower)), (2, 0.0))
        )
        one = Retimed(
            "t",
            1,
            1.0,
            1.0,
            exp_interval(Interval(-gain.value, -gain.high, -gain.low)),
            exp_interval(control),
        )
        status = Change("t", "status", "", None, None, None, None, "", "same", "", {})
        changes = with_retimed([status], [one])
        (speedup,) = (change for change in changes if change.metric == "speedup")
        told["worse"] += speedup.verdict == WORSE
        told["better"] += speedup.verdict == BETTER
        told["gate"] += gates.judge([speedup], [GATE])[0].failed
    return {name: number / count for name, number in told.items()}


@pytest.mark.long
@pytest.mark.parametrize("rates", [apart, again])
@pytest.mark.parametrize("noise", NOISE)
def test_of_unchanged_trials_at_most_one_in_a_hundred_is_worse_and_as_few_better(rates, noise):
    found = rates(noise, 1.0)

    assert found["worse"] <= 0.01
    assert found["better"] <= 0.01
    assert found["gate"] <= 0.001


@pytest.mark.long
@pytest.mark.parametrize(("rates", "how"), [(apart, "two runs"), (again, "timed again")])
@pytest.mark.parametrize("noise", NOISE)
def test_the_rates_are_those_of_the_page(rates, how, noise):
    text = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| {how} \| {noise} \|(.*)\|$", text, re.MULTILINE)
    told = [float(cell.strip().removesuffix("%")) / 100 for cell in line.split("|")]

    found = [
        rates(noise, 1.0)["worse"], rates(noise, 1.0)["better"],
        *(rates(noise, TRUE[size])[called] for size in ("10 %", "20 %") for called in ("worse", "gate")),
    ]  # fmt: skip

    # the simulation is seeded; another version of NumPy or SciPy may round a draw otherwise
    assert told == [pytest.approx(x, abs=0.006) for x in found]
