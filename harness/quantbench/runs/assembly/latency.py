"""Latency: latency, throughput, tails, speed-ups and energy of what was timed interleaved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from quantbench.results import SAMPLES, Measurement, Results
from quantbench.runs.assembly.readings import BETWEEN, FAILURE, GENERATION
from quantbench.runs.assembly.trial_state import bounds
from quantbench.runs.comparison import CONTROL, Comparison, Contender
from quantbench.runs.energy import Window
from quantbench.runs.interleaved_timing import Generation, log_times, still_in, why_stop
from quantbench.spec import TIMED, Precision, Scenario, Target, Verdict
from quantbench.stats import Interval, Times, paired, statistics
from quantbench.stats.statistics import FloatArray


def samples(timed: Iterable[Sequence[Generation]]) -> pa.Table:
    """Every timed sample of the run."""
    tables = [generation.rows.cast(SAMPLES) for run in timed for generation in run]
    return pa.concat_tables(tables) if tables else SAMPLES.empty_table()


@dataclass(frozen=True, slots=True)
class Timed:
    """A comparison with what its generations observed, as the tables have it.

    ``precision``: the rules by which it was stopped. ``complete``: whether what was read of the
    processes is stored; older runs have the samples alone.
    """

    comparison: Comparison
    generations: Sequence[Generation]
    precision: Precision
    complete: bool


def timed_of(results: Results) -> list[Timed]:
    """The comparisons of a run, from its samples and readings; in the order in which they were timed."""
    trials = results.trials.set_index("trial")
    precision = Precision.of_run(results.run)
    samples, readings = results.samples, results.readings
    readings = readings[readings["scenario"].isin(TIMED)]
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    columns = ["trial", "scenario", "batch_size"]
    seen = pd.concat([samples[columns], readings[columns]]).drop_duplicates()
    for name, scenario, batch in seen.itertuples(index=False, name=None):
        trial = name.removesuffix(CONTROL)
        if trial in trials.index:
            last = scenario if scenario == Scenario.OFFLINE else f"batch{int(batch)}"
            place = (str(trials.at[trial, "model"]), str(trials.at[trial, "target"]), last)
            found.setdefault(place, {})[name] = int(batch)
    timed = []
    for (model, target, last), names in found.items():
        control = next((name for name in names if name.endswith(CONTROL)), "")
        if not control:
            continue
        ordered = [*(n for n in trials.index if n in names), control]
        comparison = Comparison(
            model, Target(target),
            tuple(Contender(n, None, names[n], _is_float(trials, n)) for n in ordered),
            control.removesuffix(CONTROL), offline=last == Scenario.OFFLINE,
        )  # fmt: skip
        generations = _generations(comparison, samples, readings)
        timed.append(Timed(comparison, generations, precision, bool(len(readings))))
    return timed


def _is_float(trials: pd.DataFrame, name: str) -> bool:
    own = name.removesuffix(CONTROL)
    return bool(trials.at[own, "method"] == "fp32" and trials.at[own, "training"] == "ptq")


def _generations(
    comparison: Comparison, samples: pd.DataFrame, readings: pd.DataFrame
) -> list[Generation]:
    """What each generation observed, put together from the tables."""
    sizes = comparison.batch_sizes
    own = samples[(samples["scenario"] == comparison.scenario) & _of(samples, sizes)]
    read = readings[(readings["scenario"] == comparison.scenario) & _of(readings, sizes)]
    found = []
    for number in sorted({*own["generation"].unique(), *read["process"].unique()}):
        here = read[read["process"] == number]
        told = {
            name: dict(zip(each["reading"], zip(each["value"], each["text"], strict=True), strict=True))
            for name, each in here.groupby("trial", sort=False)
        }  # fmt: skip
        whole = {
            name: told.get(comparison.reference, {}).get(f"generation_{name}", (0.0, None))[0]
            for name in GENERATION
        }
        found.append(
            Generation(
                number=int(number),
                rows=pa.Table.from_pandas(own[own["generation"] == number], SAMPLES, preserve_index=False),
                ready={},
                failures={n: _failure(t[FAILURE][1]) for n, t in told.items() if FAILURE in t},
                cpu={
                    n: (int(t["cpu_ns"][0]), int(t["wall_ns"][0]), int(t["calls"][0]))
                    for n, t in told.items() if "cpu_ns" in t
                },
                peak_rss_bytes={
                    n: int(t["peak_rss_bytes"][0]) for n, t in told.items() if "peak_rss_bytes" in t
                },
                **whole,
            )
        )  # fmt: skip
    return found


def _of(table: pd.DataFrame, sizes: Mapping[str, int]) -> pd.Series[bool]:
    """Rows of these names at their batch sizes."""
    return table["trial"].map(sizes) == table["batch_size"]


def _failure(text: str) -> tuple[str, str]:
    status, _, reason = text.partition(BETWEEN)
    return status, reason


def timing(timed: Timed) -> list[Measurement]:
    """Latency, throughput, CPU time, the A/A control, and speed-ups against every fp32 trial."""
    comparison, generations = timed.comparison, timed.generations
    names = [c.name for c in comparison.contenders if c.name != comparison.control]
    base = {
        n: Measurement(trial=n, scenario=comparison.scenario, batch_size=comparison.batch_sizes[n])
        for n in names
    }
    if not generations:
        why = "nothing was timed: the reference failed"
        return [replace(base[n], metric="latency_ms", unit="ms", reason=why) for n in names]
    times, calls = log_times(generations), _calls(generations)
    stopped = why_stop(comparison, generations, timed.precision) or "interrupted"
    rows: list[Measurement] = []
    for name in names:
        rows += _latency(base[name], generations, times, stopped)
        rows += _tails(base[name], calls.get(name))
    noise = math.inf  # without a control nothing is claimed
    at_reference = base[comparison.reference]
    if control := paired(times, comparison.reference, comparison.control):
        ratio = statistics.exp_interval(statistics.rounds_interval(control))
        noise = ratio.half_width
        rows.append(
            replace(at_reference, metric="aa_control", unit="ratio", n=sum(map(len, control)), reference=comparison.reference, **bounds(ratio))
        )  # fmt: skip
    if timed.complete:
        own = sum(g.seconds - g.warm_s - g.burst_s for g in generations)
        rows.append(
            replace(at_reference, metric="clock_overhead", unit="fraction", n=len(generations), value=own / sum(g.seconds for g in generations))
        )  # fmt: skip
    staying = set(still_in(comparison, generations))
    for reference in dict.fromkeys([comparison.reference, *comparison.floats]):
        rows += _speedups(reference, base, times, noise, staying)
    return rows


def overall_reference(
    comparison: Comparison, rows: Sequence[Measurement], *, selected: bool
) -> str:
    """The trial that speed-ups are shown against: as the experiment selects, else the fastest fp32.

    ``rows``: those of `timing`.
    """
    if selected:
        return comparison.reference
    gains = {comparison.reference: 1.0}
    for row in rows:
        against = (row.metric, row.reference) == ("speedup", comparison.reference)
        if against and row.trial in comparison.floats:
            gains[row.trial] = row.value
    return max(gains, key=lambda name: gains[name])


def _latency(
    row: Measurement, generations: Sequence[Generation], times: Times, stopped: str
) -> Iterator[Measurement]:
    name, batch_size = row.trial, row.batch_size or 1
    bursts = [np.array(list(g.values())) for g in times.get(name, []) if g]
    if not bursts:
        failed = [g.failures[name] for g in generations if name in g.failures]
        why = f"{failed[0][0]}: {failed[0][1]}" if failed else "not timed"
        yield replace(row, metric="latency_ms", unit="ms", reason=why)
        return
    sample_ns = statistics.exp_interval(statistics.rounds_interval(bursts))
    ns = (sample_ns.value, sample_ns.low, sample_ns.high)
    ms = Interval(*(batch_size * x / 1e6 for x in ns))
    per_s = Interval(*(1e9 / x if x else math.inf for x in (ns[0], ns[2], ns[1])))
    count = sum(map(len, bursts))
    cpu = [g.cpu[name] for g in generations if name in g.cpu]
    calls = sum(c[2] for c in cpu)
    peaks = [g.peak_rss_bytes[name] for g in generations if name in g.peak_rss_bytes]
    yield from (
        replace(row, metric="latency_ms", unit="ms", n=count, reason=f"stopped by {stopped}", **bounds(ms)),
        replace(row, metric="throughput_per_s", unit="1/s", n=count, **bounds(per_s)),
    )  # fmt: skip
    if not calls:
        return
    yield replace(row, metric="cpu_s_per_inference", unit="s", n=calls, value=sum(c[0] for c in cpu) / calls / batch_size / 1e9, reason="whole bursts: binding of inputs included")  # fmt: skip
    yield replace(row, metric="peak_rss_bytes", unit="byte", n=len(peaks), value=float(np.median(peaks)) if peaks else math.nan)  # fmt: skip


def _calls(generations: Sequence[Generation]) -> dict[str, pd.DataFrame]:
    """The timed samples of each contender: ``calls`` and ``nanoseconds``."""
    rows = pa.concat_tables([g.rows for g in generations])
    frame = rows.select(["trial", "calls", "nanoseconds"]).to_pandas()
    return {str(name): own for name, own in frame.groupby("trial")}


def _tails(row: Measurement, calls: pd.DataFrame | None) -> Iterator[Measurement]:
    """p90 and p99 of single calls: an upper bound by LoadGen's rule, or null with the reason."""
    if calls is None:
        return
    count = len(calls)
    for percentile in (90, 99):
        told = replace(row, metric=f"latency_p{percentile}_ms", unit="ms", n=count)
        rank = statistics.early_stopping_rank(count, percentile / 100)
        if (calls["calls"] > 1).any():
            told = replace(told, reason="its calls are too short to be timed one by one")
        elif not rank:
            needed = statistics.early_stopping_samples(percentile / 100)
            told = replace(told, reason=f"{count} calls; {needed} are needed")
        else:
            slowest = float(calls["nanoseconds"].nlargest(rank).iloc[-1]) / 1e6
            why = f"at most, with 99 % confidence: the {rank}. slowest call"
            told = replace(told, value=slowest, reason=why)
        yield told


def _speedups(
    reference: str, base: Mapping[str, Measurement], times: Times, noise: float, staying: set[str]
) -> Iterator[Measurement]:
    """Speed-ups of every trial against one fp32 trial, from the same rounds, with verdicts."""
    pairs = {n: paired(times, reference, n) for n in base if n != reference}
    pairs = {name: rounds for name, rounds in pairs.items() if rounds}
    adjusted = statistics.holm([statistics.rounds_p_value(p) for p in pairs.values()])
    for (name, rounds), p in zip(pairs.items(), adjusted, strict=True):
        ratio = statistics.exp_interval(statistics.rounds_interval(rounds))
        verdict, reason = statistics.latency_verdict(ratio, p, noise), ""
        if name not in staying and len(rounds) == 1:
            verdict, reason = Verdict.LEFT, "left after one generation"
        elif verdict == Verdict.UNDECIDED:
            reason = _to_decide(rounds, noise)
        yield replace(base[name], metric="speedup", unit="ratio", n=sum(map(len, rounds)), reference=reference, verdict=verdict, reason=reason, **bounds(ratio))  # fmt: skip


def _to_decide(rounds: Sequence[FloatArray], noise: float) -> str:
    """What it would take to decide an undecided speed-up, in words."""
    more = statistics.generations_to_decide(rounds, noise)
    if more is None:
        return "more generations would not decide it: the difference is near the noise floor"
    return f"needs about {more} more generation{'' if more == 1 else 's'}"


def energy(results: Results) -> Iterator[Measurement]:
    """Joules per inference, with idle power and without; median of the windows, and their range."""
    readings = results.readings[results.readings["scenario"] == Scenario.ENERGY]
    for (name, _), own in readings.groupby(["trial", "batch_size"], sort=False):
        seen = {str(r): each["value"].to_numpy() for r, each in own.groupby("reading")}
        failed = own.loc[own["reading"] == FAILURE, "text"]
        measured: dict[str, list[float]] = {"energy_j": [], "energy_net_j": []}
        if "joules" in seen:
            columns = (seen[c] for c in ("joules", "seconds", "inferences", "idle_w"))
            for joules, seconds, inferences, idle_w in zip(*columns, strict=True):
                window = Window(str(name), joules, seconds, int(inferences), idle_w)
                measured["energy_j"].append(window.per_inference)
                measured["energy_net_j"].append(window.net)
        for metric, values in measured.items():
            row = Measurement(trial=str(name), scenario=Scenario.ENERGY, batch_size=int(own["batch_size"].iloc[0]), metric=metric, unit="J", n=len(values))  # fmt: skip
            if values:
                middle = float(np.median(values))
                row = replace(row, value=middle, low=min(values), high=max(values))
            else:
                row = replace(row, reason=str(failed.iloc[0]))
            yield row
