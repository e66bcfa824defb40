"""Assembling again: a finished run's numbers follow from what it holds, with the code of today."""

from __future__ import annotations

import gzip
import importlib
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from quantbench import run
from quantbench.analysis import trial_frame
from quantbench.report import render
from quantbench.results import Results, load_results, write_table
from quantbench.runs import assemble, changes
from quantbench.spec import Scenario
from quantbench.stats import Interval, statistics
from quantbench.system import entry
from quantbench.units import METRICS, MetricSpec, metrics
from quantbench.units.quantities import percent
from tests.harness import fake
from tests.harness.conftest import install

PUBLISHED = sorted(
    path.parent for path in (Path(__file__).parents[2] / "results" / "reference").glob("*/trials.parquet")
)  # fmt: skip
SHORT = ("quickstart", "gnn")
"""Published runs that are assembled in a second; those whose scores are no means take minutes."""
CORRECTED = ("cpu_s_per_inference", "latency_p90_ms", "latency_p99_ms", "worst_class_drop")
"""What is computed otherwise since these runs were published."""
FILE = """
models: [fake]
backends: [fakery]
methods:
  - fp32
  - static-int8
  - fp32: {training: finetune, seeds: [0, 1]}
  - static-int8: {training: qat, seeds: [0, 1]}
batch_sizes: [1, 16]
offline: true
precision: {name: test, generations: 2, max_generations: 2, rounds: 8, warmup_s: 0.01, burst_ms: 1.0, memory_processes: 2}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A run whose cache is gone."""
    patch = pytest.MonkeyPatch()
    folder = install(
        patch, tmp_path_factory.mktemp("assemble"), backends={"fakery": fake.BACKEND},
        models={"fake": fake.MODEL}, tasks={"fake-task": fake.TASK},
    )  # fmt: skip
    (folder / "test.yaml").write_text(FILE)
    found = run(folder / "test.yaml", results=folder / "results")
    shutil.rmtree(folder / "cache")
    patch.undo()
    return found


@pytest.fixture
def copy(finished: Results, tmp_path: Path) -> Path:
    shutil.copytree(finished.folder, tmp_path / "run")
    return tmp_path / "run"


def test_nothing_changes_where_the_code_is_the_same(finished, copy):
    again = assemble(copy)

    assert changes(finished, again) == []
    key = ["trial", "scenario", "metric", "batch_size", "reference"]
    one, other = (r.measurements.sort_values(key).reset_index(drop=True) for r in (finished, again))
    pd.testing.assert_frame_equal(one, other)
    assert again.references == finished.references


def test_a_corrected_statistic_reaches_a_finished_run(finished, copy, monkeypatch):
    monkeypatch.setattr(statistics, "wilson", lambda right, n: Interval(right / n, 0.0, 1.0))

    again = assemble(copy)

    told = changes(finished, again)
    assert any("fp32/cpu-1 agreement" in line for line in told)
    rows = again.measurements.query("metric == 'quality'")
    assert (rows["low"] == 0).all()
    assert not any("latency_ms" in line for line in told)


def test_a_verdict_follows_the_margin_of_the_run(finished, copy):
    path = copy / "run.json"
    path.write_text(path.read_text().replace('"quality_margin": 0.01', '"quality_margin": 0.9'))

    rows = assemble(copy).measurements.query("metric == 'quality_drop'")

    assert set(rows["verdict"]) == {"keeps"}


def lost_its_interval(line: str) -> bool:
    """Whether a change says that a value stayed and its interval went, and what was judged by that.

    >>> lost_its_interval("t speedup: 0.04 [0.03, 0.05] (slower) became 0.04 (slower)")
    True
    """
    before, _, now = line.partition(": ")[2].partition(" became ")
    value = re.sub(r" \[.*?\]", "", before)
    return value != before and now in (value, re.sub(r"\(.*\)", "(undecided)", value))


@pytest.mark.parametrize(
    "folder",
    [pytest.param(f, marks=() if f.name in SHORT else pytest.mark.long) for f in PUBLISHED],
    ids=lambda path: path.name,
)
def test_published_runs_have_the_same_numbers_when_computed_again(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.html"))
    before = load_results(folder)

    after = assemble(tmp_path / "run")

    # what older runs did not have yet may come anew; no other number and no verdict becomes another,
    # but what was timed in one generation has no interval any more
    corrected = tuple(f" {metric}: " for metric in CORRECTED)
    told = [line for line in changes(before, after) if ": new, " not in line]
    told = [line for line in told if not any(metric in line for metric in corrected)]
    assert [line for line in told if not lost_its_interval(line)] == []
    once = after.measurements["reason"].fillna("").str.startswith("about")
    assert sum(map(lost_its_interval, told)) <= once.sum()
    assert after.references == before.references
    assert len(after.measurements) >= len(before.measurements)


def test_calls_are_timed_end_to_end_in_rounds_of_their_own(finished):
    samples = finished.samples
    whole = samples[samples["scenario"] == "end-to-end"]

    # one for seven rounds of inference calls; every contender has its turn, in an order of its own
    timed = set(samples.query("scenario == 'single-stream'")["trial"]) - {"calibration-loop"}
    at_one = whole[whole["batch_size"] == 1]
    for _, own in at_one.groupby(["generation", "round"]):
        assert set(own["trial"]) == timed
        assert sorted(set(own["position"])) == list(range(len(timed)))
    assert set(whole["round"]) == {0}
    assert set(whole["generation"]) == {0, 1}
    # offline there is none, and nothing else is made of these samples
    assert set(whole["batch_size"]) == {1, 16}
    ends = finished.measurements.query("metric == 'end_to_end_ms'")
    assert set(ends["scenario"]) == {"single-stream", "multi-stream"}
    assert ends["reference"].isna().all()


def test_processor_time_of_whole_bursts_is_told_as_such(finished, copy):
    """Readings as runs once had them: all calls of a burst, the dropped ones and binding included."""
    readings = pq.read_table(copy / "readings.parquet").to_pandas()
    older = {"timed_cpu_ns": "cpu_ns", "timed_wall_ns": "wall_ns", "timed_calls": "calls"}
    readings["reading"] = readings["reading"].replace(older)
    known = readings.astype(object).where(readings.notna(), None)
    write_table(copy, "readings", known.to_dict("records"))

    again = assemble(copy)

    at = "trial == 'fake/fakery/fp32/cpu-1' and scenario == 'single-stream'"
    before, after = (
        run.measurements.query(at).set_index("metric").loc["cpu_s_per_inference"]
        for run in (finished, again)
    )
    bursts = finished.samples.query(at).groupby(["generation", "round"]).size()
    dropped = 3 * int((bursts > 1).sum())
    assert after["n"] == before["n"] + dropped
    # 1e-12: one multiplication and one division
    assert after["value"] == pytest.approx(before["value"] * before["n"] / after["n"], rel=1e-12)
    assert after["reason"].startswith("whole bursts")


def older(run: Path) -> None:
    """A run as version 5 left it: its workers did not record which samples they were given."""
    (run / "calibration.parquet").unlink()
    for state in (run / "state" / "build").glob("*.json"):
        told = json.loads(state.read_text())
        told["record"].pop("calibration", None)
        state.write_text(json.dumps(told))


def test_an_older_run_is_told_its_calibration_samples_where_the_data_remain(
    finished, copy, tmp_path, monkeypatch
):
    keys = {
        json.loads(path.read_text())["inputs"]["data"]
        for path in (copy / "state" / "build").glob("*.json")
    }
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    older(copy)

    assert len(assemble(copy).calibration) == 0  # nobody knows how many there were to choose from

    for key in keys:
        folder = entry("data", key)
        folder.mkdir(parents=True)
        (folder / "sizes.json").write_text('{"calibration": 32, "test": 300}')
    again = assemble(copy).calibration
    assert len(again) == len(finished.calibration) > 0
    for one, other in zip(again.itertuples(), finished.calibration.itertuples(), strict=True):
        assert (one.seed, list(one.samples)) == (other.seed, list(other.samples))
        assert list(one.trials) == list(other.trials)


def test_confidence_is_judged_and_shown_where_it_is_stored(finished, copy):
    page = render(finished)
    predictions = copy / "predictions.parquet"
    table = pq.read_table(predictions)
    for name in ("confidence", "brier"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.nulls(len(table), pa.float32()))
    pq.write_table(table, predictions)

    older = assemble(copy)

    assert "As often right as sure?" in page
    assert "float reference" in page
    metrics = {"ece", "ece_by_chance", "brier", "brier_rise"}
    assert metrics <= set(finished.measurements["metric"])
    assert not metrics & set(older.measurements["metric"])
    assert "As often right as sure?" not in render(older)


def test_a_metric_is_one_entry(finished: Results, copy: Path, monkeypatch):
    """Assembled, a column of the trial table, shown and explained in the report."""
    confident = MetricSpec(
        "both_right", "fraction", "share of samples that both have right", (Scenario.SCORE,),
        write=percent, column="both_right", title="Both right",
        of=lambda own, full, near: float(np.mean((own.outcome == 1) & (full.outcome == 1))),
    )  # fmt: skip
    known = {**METRICS, confident.name: confident}
    for module in (
        "quantbench.units.metrics", "quantbench.runs.assembly.quality", "quantbench.report.page",
    ):  # fmt: skip
        # a package may have a function of the module's name
        monkeypatch.setattr(importlib.import_module(module), "METRICS", known)
    monkeypatch.setitem(trial_frame.__globals__["METRICS"], "both_right", Scenario.SCORE)

    found = assemble(copy)

    own = found.predictions.query("trial == 'fake/fakery/static-int8/cpu-1'")["outcome"].to_numpy()
    full = found.predictions.query("trial == 'fake/fakery/fp32/cpu-1'")["outcome"].to_numpy()
    row = trial_frame(found).set_index("trial").loc["fake/fakery/static-int8/cpu-1"]
    assert row["both_right"] == pytest.approx(float((own * full).mean()))
    page = render(found)
    assert "Both right" in page
    assert percent(row["both_right"]) in page
    assert metrics.METRICS is known


# --- every number again, by other code -----------------------------------------------------------

Z = stats.norm.ppf(0.975)


class Raw:
    """The raw tables of a run, and one trial of them."""

    def __init__(self, results: Results, row: dict[str, object]) -> None:
        self.results, self.row = results, row
        self.trial = str(row["trial"])
        self.full = str(row["reference"]) if row["reference"] else "fake/fakery/fp32/cpu-1"

    def answers(self, trial: str = "") -> pd.DataFrame:
        frame = self.results.predictions
        return frame[frame["trial"] == (trial or self.trial)].sort_values("sample")

    def near(self) -> pd.DataFrame:
        return self.results.fidelity[self.results.fidelity["trial"] == self.trial]

    def held(self, kind: str, role: str | None = None) -> pd.DataFrame:
        frame = self.results.artifacts
        frame = frame[(frame["trial"] == self.trial) & (frame["kind"] == kind)]
        return frame if role is None else frame[frame["role"] == role]

    def read(self, reading: str, scenario: str | None = None) -> np.ndarray:
        frame = self.results.readings
        frame = frame[(frame["trial"] == self.trial) & (frame["reading"] == reading)]
        frame = frame[frame["scenario"] == (scenario or self.row["scenario"])]
        if self.row["scenario"] in ("single-stream", "multi-stream", "offline"):
            frame = frame[frame["batch_size"] == self.row["batch_size"]]
        return frame["value"].to_numpy()

    def files(self) -> list[Path]:
        key = self.results.trials.set_index("trial").at[self.trial, "artifact"]
        folder = self.results.folder / "artifacts" / str(key)
        return [p for p in folder.iterdir() if p.name not in ("manifest.json", "record.json")]

    def timed(self, trial: str = "", scenario: str = "") -> pd.DataFrame:
        """Samples of a trial; of a comparison's own scenario, or of the end-to-end rounds."""
        frame = self.results.samples
        scenario = scenario or str(self.row["scenario"])
        frame = frame[(frame["trial"] == (trial or self.trial)) & (frame["scenario"] == scenario)]
        if scenario != "offline":
            frame = frame[frame["batch_size"] == self.row["batch_size"]]
        return frame

    def rounds(self, trial: str = "", scenario: str = "") -> dict[int, dict[int, float]]:
        """Generation -> round -> ln of the burst's median ns of one sample."""
        frame = self.timed(trial, scenario)
        found: dict[int, dict[int, float]] = {}
        for (generation, number), own in frame.groupby(["generation", "round"]):
            each = own["nanoseconds"] / own["calls"] / own["batch_size"]
            found.setdefault(int(generation), {})[int(number)] = math.log(float(np.median(each)))
        return found

    def ratios(self, over: str, under: str) -> list[np.ndarray]:
        one, other = self.rounds(over), self.rounds(under)
        return [
            np.array([one[g][r] - other[g][r] for r in sorted(one[g].keys() & other[g].keys())])
            for g in sorted(one.keys() & other.keys())
        ]

    def drop(self) -> np.ndarray:
        return self.answers(self.full)["outcome"].to_numpy() - self.answers()["outcome"].to_numpy()


def share(right: float, n: int) -> tuple[float, float, float]:
    """Wilson's interval, as its inventor writes it."""
    p = right / n
    root = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    ends = ((p + Z * Z / (2 * n) + sign * root) / (1 + Z * Z / n) for sign in (-1, 1))
    low, high = ends
    return p, min(p, low), max(p, high)


def hull(generations: list[np.ndarray]) -> tuple[float, float, float]:
    """Median of rounds; the hull of Student's interval between generations and ranks within."""
    rounds = np.concatenate(generations)
    n, middle = len(rounds), float(np.median(rounds))
    sure = [k for k in range(1, n) if 2 * sum(math.comb(n, i) for i in range(k)) / 2**n <= 0.05]
    centre, mad = np.median(rounds), np.median(abs(rounds - np.median(rounds)))
    tame = np.clip(rounds, centre - 3 * 1.4826 * mad, centre + 3 * 1.4826 * mad)
    tame = tame - tame.mean()
    r = 0.0 if mad == 0 else float(tame[1:] @ tame[:-1] / (tame @ tame) + 1 / n)
    wide = math.sqrt((1 + min(max(r, 0), 0.9)) / (1 - min(max(r, 0), 0.9)))
    ordered = sorted(rounds)
    lows = [middle - wide * (middle - ordered[j - 1]) for j in sure[-1:]]
    highs = [middle + wide * (ordered[n - j] - middle) for j in sure[-1:]]
    medians = np.array([np.median(g) for g in generations])
    if len(medians) > 1:
        mean, half = stats.t.interval(0.95, len(medians) - 1, medians.mean(), stats.sem(medians))
        lows.append(mean)
        highs.append(half)
    return middle, min(middle, *lows), max(middle, *highs)


def exp(ends: tuple[float, float, float], factor: float = 1.0) -> tuple[float, ...]:
    return tuple(factor * math.exp(x) for x in ends)


def paired(raw: Raw) -> tuple[float, float, float]:
    """Bonett and Price's interval: the table of pairs with one added to each cell that differs."""
    drop = raw.drop()
    n, lost, won = len(drop), (drop > 0).sum(), (drop < 0).sum()
    p12, p21 = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = Z * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    return drop.mean(), min(drop.mean(), p12 - p21 - half), max(drop.mean(), p12 - p21 + half)


def bound(raw: Raw) -> float:
    drop = raw.drop()
    n, lost, won = len(drop), (drop > 0).sum(), (drop < 0).sum()
    p12, p21 = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    one = stats.norm.ppf(0.95) * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    return p12 - p21 + one


def mid_p(raw: Raw) -> float:
    drop = raw.drop()
    lost, won = int((drop > 0).sum()), int((drop < 0).sum())
    if lost + won == 0:
        return 1.0
    few = min(lost, won)
    both = stats.binom(lost + won, 0.5)
    return min(1.0, 2 * (both.cdf(few) - both.pmf(few) / 2))


def kept(raw: Raw) -> tuple[float, float, float]:
    score = raw.answers(raw.full)["outcome"].mean()
    return 1 - raw.drop().mean() / score, 1 - bound(raw) / score, math.nan


def exact_share(k: int, n: int, outside: float) -> tuple[float, float]:
    """Clopper and Pearson's ends: where as many, and as few, are just too improbable."""
    test = stats.binomtest(k, n).proportion_ci(1 - outside, method="exact")
    return float(test.low), float(test.high)


def binned(answers: pd.DataFrame) -> float:
    """Calibration error, bin by bin."""
    sure = answers["confidence"].astype(float).to_numpy()
    right = (answers["prediction"] == answers["label"]).to_numpy()
    error = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    return float(error)


def by_chance(answers: pd.DataFrame) -> float:
    """The same of answers that are right as often as they are sure."""
    rng, sure = np.random.default_rng(0), answers["confidence"].astype(float)
    drawn = []
    for _ in range(1000):
        right = rng.random(len(sure)) < sure.to_numpy()
        drawn.append(binned(answers.assign(prediction=np.where(right, answers["label"], -1))))
    return float(np.quantile(drawn, 0.95))


def mean(values: np.ndarray | pd.Series) -> tuple[float, float, float]:
    half = Z * stats.sem(values)
    return np.mean(values), np.mean(values) - half, np.mean(values) + half


def worst_class(raw: Raw) -> tuple[float, float, float]:
    """Of the class that loses most; the ends hold for all classes that are judged together."""
    labels, drop = raw.answers()["label"].to_numpy(), raw.drop()
    judged = [own for k in np.unique(labels) if len(own := drop[labels == k]) >= statistics.CLASS_SAMPLES]  # fmt: skip
    own = max(judged, key=lambda one: one.mean())
    n, lost, won = len(own), int((own > 0).sum()), int((own < 0).sum())
    (a, b), (c, d) = (exact_share(k, n, 0.05 / len(judged)) for k in (lost, won))
    p, q = lost / n, won / n
    r = -math.sqrt(p * q / ((1 - p) * (1 - q)))  # correlation of two cells of a multinomial

    def far(x: float, y: float) -> float:
        return math.sqrt(x**2 + y**2 - 2 * r * x * y)

    return p - q, p - q - far(p - a, d - q), p - q + far(b - p, q - c)


def seeds(raw: Raw, minus: bool) -> np.ndarray:
    """Outcomes [seeds, n] of a method's trials, or what they lose against their controls."""
    base, control = (name.rpartition("/seed")[0] if name else "" for name in (raw.trial, raw.full))
    rows = []
    for seed in (0, 1):
        own = raw.answers(f"{base}/seed{seed}")["outcome"].to_numpy()
        if minus:
            own = raw.answers(f"{control}/seed{seed}")["outcome"].to_numpy() - own
        rows.append(own)
    return np.array(rows)


def over_seeds(values: np.ndarray, one_sided: bool = False) -> tuple[float, ...] | float:
    k = len(values)
    within = stats.sem(values.mean(axis=0))
    between = stats.sem(values.mean(axis=1))
    level = 0.95 if one_sided else 0.975
    half = math.sqrt((stats.norm.ppf(level) * within) ** 2 + (stats.t.ppf(level, k - 1) * between) ** 2)  # fmt: skip
    mean = values.mean()
    return mean + half if one_sided else (mean, mean - half, mean + half)


def fraction(raw: Raw, kind: str, weight: str | None) -> float:
    nodes = raw.held(kind, "multiply")
    size = nodes[weight].astype(float) if weight else pd.Series(1.0, nodes.index)
    return float(size[nodes["integer"].astype(bool)].sum() / size.sum())


def asked(raw: Raw) -> float:
    method = raw.results.trials.set_index("trial").loc[raw.trial, "weights"]
    return float(method != "float32")


def median(values: np.ndarray) -> tuple[float, float, float]:
    several = len(values) > 1
    return (
        float(np.sort(values)[[(len(values) - 1) // 2, len(values) // 2]].mean()),
        min(values) if several else math.nan,
        max(values) if several else math.nan,
    )


def whole(raw: Raw) -> float:
    seconds, warm, busy = (raw.read(f"generation_{n}") for n in ("seconds", "warm_s", "burst_s"))
    return float((seconds.sum() - warm.sum() - busy.sum()) / seconds.sum())


def latency(raw: Raw, batch: float, scenario: str = "") -> tuple[float, ...]:
    values = raw.rounds(scenario=scenario).values()
    return exp(hull([np.array(list(r.values())) for r in values]), batch / 1e6)


def throughput(raw: Raw) -> tuple[float, ...]:
    value, low, high = latency(raw, 1)
    return 1e3 / value, 1e3 / high, 1e3 / low


def processor(raw: Raw) -> float:
    """Of the calls that the counter was read around, and of no others: those whose times are stored."""
    assert raw.read("timed_calls").sum() == raw.timed()["calls"].sum()
    assert raw.read("timed_wall_ns").sum() == raw.timed()["nanoseconds"].sum()
    return float(raw.read("timed_cpu_ns").sum() / raw.timed()["calls"].sum())


def tail(raw: Raw, share: float) -> tuple[float, float, float]:
    """The middle of the generations' own percentiles; two of them bound nothing."""
    found = []
    for _, own in raw.timed().groupby("generation"):
        ms = sorted(own["nanoseconds"] / 1e6)
        found.append(next(t for k, t in enumerate(ms, 1) if k >= share * len(ms) - 1e-9))
    assert len(found) == 2
    return sum(found) / 2, math.nan, math.nan


Found = float | tuple[float, ...]
MEMORY = ("imports", "load", "run")
SHARES = ("pss", "pss_anon", "pss_file", "private_dirty")
BY_METRIC: dict[str, Callable[[Raw], Found]] = {
    "size_bytes": lambda r: sum(p.stat().st_size for p in r.files()),
    "size_gzip_bytes": lambda r: sum(len(gzip.compress(p.read_bytes(), 9, mtime=0)) for p in r.files()),
    "weight_bytes": lambda r: r.held("tensor", "weight")["bytes"].sum(),
    **{
        f"weight_bytes_{dtype}": lambda r, dtype=dtype: r.held("tensor", "weight").query(
            "dtype == @dtype"
        )["bytes"].sum()
        for dtype in ("float32", "int8")
    },
    "compression": lambda r: sum(
        p.stat().st_size for p in Raw(r.results, {**r.row, "trial": "fake/fakery/fp32/cpu-1"}).files()
    ) / sum(p.stat().st_size for p in r.files()),
    **{f"requested_{what}_fraction": asked for what in ("nodes", "weights", "macs")},
    "serialized_nodes_fraction": lambda r: fraction(r, "node", None),
    "serialized_weights_fraction": lambda r: fraction(r, "node", "weights"),
    "serialized_macs_fraction": lambda r: fraction(r, "node", "macs"),
    "executed_nodes_fraction": lambda r: fraction(r, "executed", None),
    "executed_weights_fraction": lambda r: fraction(r, "executed", "weights"),
    "integer_macs_fraction": lambda r: fraction(r, "executed", "macs"),
    "activation_bytes": lambda r: 80,  # the fake's input of 64 bytes and output of 16, both alive
    "quality": lambda r: share(r.answers()["outcome"].sum(), len(r.answers())),
    "fake_quantized_quality": lambda r: share(
        r.answers(f"{r.trial}@simulated")["outcome"].sum(), len(r.answers())
    ),
    "ties": lambda r: r.answers()["tied"].sum(),
    "quality_over_tie_rules": lambda r: (
        r.answers()["outcome"].mean(), r.answers()["worst"].mean(), r.answers()["best"].mean()
    ),
    "agreement": lambda r: share(
        (r.answers()["prediction"].to_numpy() == r.answers(r.full)["prediction"].to_numpy()).sum(),
        len(r.answers()),
    ),
    "flips": lambda r: share((r.drop() != 0).sum(), len(r.drop())),
    "sqnr_db": lambda r: math.inf
    if r.near()["noise"].sum() == 0
    else 10 * math.log10(r.near()["signal"].astype(float).sum() / r.near()["noise"].astype(float).sum()),
    "cosine": lambda r: r.near()["product"].astype(float).sum()
    / math.sqrt(r.near()["square"].astype(float).sum() * r.near()["reference_square"].astype(float).sum()),
    "kl_divergence": lambda r: r.near()["kl"].astype(float).mean(),
    "ece": lambda r: binned(r.answers()),
    "ece_by_chance": lambda r: by_chance(r.answers()),
    "brier": lambda r: mean(r.answers()["brier"].astype(float)),
    "brier_rise": lambda r: mean(
        r.answers()["brier"].astype(float).to_numpy() - r.answers(r.full)["brier"].astype(float).to_numpy()
    ),
    "quality_drop": paired, "quality_drop_bound": bound, "quality_p": mid_p, "quality_kept": kept,
    "control_drop": paired, "control_drop_bound": bound, "control_p": mid_p, "control_kept": kept,
    "worst_class_drop": worst_class,
    "seeds_quality": lambda r: over_seeds(seeds(r, minus=False)),
    "seeds_control_drop": lambda r: over_seeds(seeds(r, minus=True)),
    "seeds_control_drop_bound": lambda r: over_seeds(seeds(r, minus=True), one_sided=True),
    "latency_ms": lambda r: latency(r, float(r.row["batch_size"])),
    "throughput_per_s": throughput,
    "speedup": lambda r: exp(hull(r.ratios(r.full, r.trial))),
    "aa_control": lambda r: exp(hull(r.ratios(r.trial, f"{r.trial}@control"))),
    "clock_overhead": whole,
    "latency_p90_ms": lambda r: tail(r, 0.90),
    "latency_p99_ms": lambda r: tail(r, 0.99),
    "end_to_end_ms": lambda r: latency(r, float(r.row["batch_size"]), "end-to-end"),
    "cpu_s_per_inference": lambda r: processor(r) / float(r.row["batch_size"]) / 1e9,
    "cpu_share": lambda r: processor(r) * r.timed()["calls"].sum() / r.timed()["nanoseconds"].sum(),
    "load_ms": lambda r: median(r.read("load_ms")),
    "first_inference_ms": lambda r: median(r.read("first_inference_ms")),
    **{
        name: lambda r, name=name: median(r.read(name, "start"))
        for name in (
            "model_rss_bytes", "runtime_rss_bytes", "load_peak_rss_bytes", "run_peak_rss_bytes",
            *(f"{point}_{part}_bytes" for point in MEMORY for part in SHARES),
        )
    },
}  # fmt: skip


def peak(raw: Raw) -> Found:
    """One name in three scenarios: of starting processes, of the one that scored, of the timed ones."""
    if raw.row["scenario"] == "memory":
        return median(raw.read("peak_rss_bytes", "start"))
    values = raw.read("peak_rss_bytes")
    return float(np.median(values))


def test_every_stored_number_follows_from_the_raw_tables_by_other_code(finished):
    rows = finished.measurements.astype(object).where(finished.measurements.notna(), None)
    known = {**BY_METRIC, "peak_rss_bytes": peak}
    numbers = 0
    for row in rows.to_dict("records"):
        if row["value"] is None:
            assert row["reason"], row  # null with a reason
            continue
        assert row["metric"] in known, f"nothing computes {row['metric']} again"
        found = known[row["metric"]](Raw(finished, row))
        ends = ("value", "low", "high")[: len(found) if isinstance(found, tuple) else 1]
        for name, computed in zip(
            ends, found if isinstance(found, tuple) else (found,), strict=True
        ):
            stored = math.nan if row[name] is None else row[name]
            told = (
                f"{row['trial']} {row['scenario']} {row['metric']} {name}: {stored}, not {computed}"
            )
            assert math.isnan(computed) == math.isnan(stored), told
            if not math.isnan(stored):
                # 1e-9: sums in another order; other roots of the same equations
                assert math.isclose(computed, stored, rel_tol=1e-9, abs_tol=1e-12), told
            numbers += not math.isnan(stored)
    assert numbers > 500
