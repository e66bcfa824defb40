"""Latency: latency, throughput, tails, speed-ups and energy of what was timed interleaved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from quantbench.results import SAMPLES, Measurement, Results
from quantbench.runs.assembly.readings import (
    BETWEEN,
    FAILURE,
    GENERATION,
    TIMED_CALLS,
    WHOLE_BURSTS,
)
from quantbench.runs.assembly.trial_state import bounds
from quantbench.runs.comparison import CONTROL, Comparison, Contender
from quantbench.runs.energy import Window
from quantbench.runs.interleaved_timing import (
    TOO_SLOW,
    Generation,
    Spent,
    log_times,
    of_session,
    whole_calls,
    why_stop,
)
from quantbench.spec import TIMED, Precision, Scenario, Target, Verdict
from quantbench.stats import Interval, Times, paired, paired_rounds, statistics
from quantbench.stats.statistics import FloatArray
from quantbench.steps import timed_burst

ABOUT = "about: timed in one generation, and one process says nothing of the next"
WHOLE = "whole bursts: over all their calls, the dropped ones too; binding of inputs included"


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
    ends = samples[samples["scenario"] == Scenario.END_TO_END]
    samples = samples[samples["scenario"] != Scenario.END_TO_END]
    readings = readings[readings["scenario"].isin((*TIMED, Scenario.CONFIRMATION))]
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    columns = ["trial", "scenario", "batch_size"]
    seen = pd.concat([samples[columns], readings[columns]]).drop_duplicates()
    for name, scenario, batch in seen.itertuples(index=False, name=None):
        trial = name.removesuffix(CONTROL)
        if trial in trials.index:
            alone = scenario in (Scenario.OFFLINE, Scenario.CONFIRMATION)
            last = scenario if alone else f"batch{int(batch)}"
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
            confirms=last == Scenario.CONFIRMATION,
        )  # fmt: skip
        generations = _generations(comparison, samples, readings, ends)
        timed.append(Timed(comparison, generations, precision, bool(len(readings))))
    return timed


def _is_float(trials: pd.DataFrame, name: str) -> bool:
    own = name.removesuffix(CONTROL)
    return bool(trials.at[own, "method"] == "fp32" and trials.at[own, "training"] == "ptq")


def _generations(
    comparison: Comparison, samples: pd.DataFrame, readings: pd.DataFrame, ends: pd.DataFrame
) -> list[Generation]:
    """What each generation observed, put together from the tables; ``ends``: the end-to-end samples."""
    sizes = comparison.batch_sizes
    own = samples[(samples["scenario"] == comparison.scenario) & _of(samples, sizes)]
    if len(ends) and not (comparison.offline or comparison.confirms):
        own = pd.concat([own, ends[_of(ends, sizes)]])
    read = readings[(readings["scenario"] == comparison.scenario) & _of(readings, sizes)]
    found = []
    sessions = {
        **dict(zip(read["process"], read["session"], strict=True)),
        **dict(zip(own["generation"], own["session"], strict=True)),
    }
    for number, session in sorted(sessions.items()):
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
                session=int(session),
                rows=pa.Table.from_pandas(own[own["generation"] == number], SAMPLES, preserve_index=False),
                ready={},
                failures={n: _failure(t[FAILURE][1]) for n, t in told.items() if FAILURE in t},
                cpu={n: spent for n, t in told.items() if (spent := _spent(t)) is not None},
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


def _spent(told: Mapping[str, tuple[float, str | None]]) -> Spent | None:
    """What a contender's calls of a generation spent, from its readings; None where none were read."""
    for names, timed in ((TIMED_CALLS, True), (WHOLE_BURSTS, False)):
        if names[0] in told:
            cpu, wall, calls = (int(told[name][0]) for name in names)
            return Spent(cpu, wall, calls, timed)
    return None


def _failure(text: str) -> tuple[str, str]:
    status, _, reason = text.partition(BETWEEN)
    return status, reason


CONFIRMED: Mapping[str, str] = {"latency_ms": "confirmed_ms", "speedup": "confirmed_speedup"}
"""Metrics of what was timed again after it was chosen, by what they are there."""


def confirmed(timed: Timed) -> list[Measurement]:
    """Time and speed-ups of what was chosen, from rounds that took no part in the choice."""
    return [
        replace(row, metric=CONFIRMED[row.metric], verdict="")
        for row in timing(timed)
        if row.metric in CONFIRMED
    ]


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
    last = of_session(generations, max(g.session for g in generations))
    stopped = why_stop(comparison, last, timed.precision) or "interrupted"
    whole = paired_rounds.log_times(whole_calls(generations))
    rows: list[Measurement] = []
    for name in names:
        rows += _latency(base[name], generations, times, stopped)
        rows += _end_to_end(base[name], whole)
        rows += _processor(base[name], generations)
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
    for reference in dict.fromkeys([comparison.reference, *comparison.floats]):
        rows += _speedups(reference, base, times, noise)
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
    row: Measurement,
    generations: Sequence[Generation],
    times: Times,
    stopped: str,
) -> Iterator[Measurement]:
    """Median time and throughput."""
    name, batch_size = row.trial, row.batch_size or 1
    bursts = times.of(name)
    if not bursts:
        failed = [g.failures[name] for g in generations if name in g.failures]
        why = f"{failed[0][0]}: {failed[0][1]}" if failed else "not timed"
        yield replace(row, metric="latency_ms", unit="ms", reason=why)
        return
    sample_ns = _interval(bursts)
    ns = (sample_ns.value, sample_ns.low, sample_ns.high)
    ms = Interval(*(batch_size * x / 1e6 for x in ns))
    per_s = Interval(*(1e9 / x if x else math.inf for x in (ns[0], ns[2], ns[1])))
    count = sum(map(len, bursts))
    told = ABOUT if len(bursts) == 1 else ""
    peaks = [g.peak_rss_bytes[name] for g in generations if name in g.peak_rss_bytes]
    yield from (
        replace(row, metric="latency_ms", unit="ms", n=count, reason=told or f"stopped by {stopped}", **bounds(ms)),
        replace(row, metric="throughput_per_s", unit="1/s", n=count, reason=told, **bounds(per_s)),
    )  # fmt: skip
    if peaks:
        yield replace(row, metric="peak_rss_bytes", unit="byte", n=len(peaks), value=float(np.median(peaks)))  # fmt: skip


def _interval(generations: Sequence[FloatArray]) -> Interval:
    """The interval of ``exp`` of what rounds observed; unknown ends where they are of one generation.

    The rounds of one process do not say how processes differ: their interval holds the truth in far
    fewer than 95 % of cases (docs/measuring.md).
    """
    found = statistics.exp_interval(statistics.rounds_interval(generations))
    return Interval(found.value, math.nan, math.nan) if len(generations) == 1 else found


def _end_to_end(row: Measurement, times: Times) -> Iterator[Measurement]:
    """Time of a call with binding and reading, from rounds of its own."""
    rounds = times.of(row.trial)
    if rounds:
        found = _interval(rounds)
        ms = Interval(*((row.batch_size or 1) * x / 1e6 for x in (found.value, found.low, found.high)))  # fmt: skip
        told = ABOUT if len(rounds) == 1 else ""
        yield replace(row, metric="end_to_end_ms", unit="ms", n=sum(map(len, rounds)), reason=told, **bounds(ms))  # fmt: skip


def _processor(row: Measurement, generations: Sequence[Generation]) -> Iterator[Measurement]:
    """Processor time of a sample, and over wall time; of older runs what can be said of whole bursts."""
    known = [g for g in generations if row.trial in g.cpu]
    if not known:
        return
    spent = sum((g.cpu[row.trial] for g in known[1:]), known[0].cpu[row.trial])
    calls, reason = spent.calls, ""
    if not spent.timed:
        dropped = sum(_dropped(g.frame, row.trial) for g in known)
        calls, reason = calls + dropped, WHOLE
    if not calls:
        return
    seconds = spent.cpu_ns / calls / (row.batch_size or 1) / 1e9
    yield replace(row, metric="cpu_s_per_inference", unit="s", n=calls, value=seconds, reason=reason)  # fmt: skip
    if spent.wall_ns:
        yield replace(row, metric="cpu_share", unit="ratio", n=calls, value=spent.cpu_ns / spent.wall_ns, reason=reason)  # fmt: skip


def _dropped(samples: pd.DataFrame, trial: str) -> int:
    """How many calls were dropped at the beginning of a trial's bursts.

    A burst of one sample is a call longer than the burst, before which none was dropped
    (`quantbench.steps.timed_burst.plan`).
    """
    own = samples[(samples["trial"] == trial) & (samples["scenario"] != Scenario.END_TO_END)]
    sizes = own.groupby(["generation", "round"]).size()
    return timed_burst.DROPPED * int((sizes > 1).sum())


def recounted(row: Measurement, samples: pd.DataFrame) -> Measurement:
    """The processor time of a run without readings, over all the calls that it was read around.

    It was divided by the timed calls alone, while those that were dropped were in it.
    """
    if row.metric != "cpu_s_per_inference" or row.reason == WHOLE or not row.known or not row.n:
        return row
    own = samples[(samples["scenario"] == row.scenario) & (samples["batch_size"] == row.batch_size)]
    calls = row.n + _dropped(own, row.trial)
    return replace(row, value=row.value * row.n / calls, n=calls, reason=WHOLE)


def _calls(generations: Sequence[Generation]) -> dict[str, pd.DataFrame]:
    """The timed samples of each contender: ``generation``, ``calls`` and ``nanoseconds``."""
    frame = pd.concat([g.frame for g in generations])
    frame = frame.loc[frame["scenario"] != Scenario.END_TO_END]
    return {str(name): own for name, own in frame.groupby("trial")}


def _tails(row: Measurement, calls: pd.DataFrame | None) -> Iterator[Measurement]:
    """p90 and p99 of single calls in half of all processes, with a bound; null with the reason."""
    if calls is None:
        return
    seen = [own.to_numpy(np.float64) / 1e6 for _, own in calls.groupby("generation")["nanoseconds"]]
    fewest = min(map(len, seen))
    for percentile in (90, 99):
        told = replace(row, metric=f"latency_p{percentile}_ms", unit="ms", n=len(seen))
        needed = 100 // (100 - percentile)
        if (calls["calls"] > 1).any():
            yield replace(told, reason="its calls are too short to be timed one by one")
        elif fewest < needed:
            why = f"{fewest} calls in a generation; {needed} are needed"
            yield replace(told, reason=why)
        else:
            found = statistics.percentile_of_processes(seen, percentile / 100)
            high = found.high if found.rank else math.nan
            yield replace(told, value=found.value, high=high, reason=_sure(found, len(seen)))


def _sure(found: statistics.Tail, count: int) -> str:
    """How sure the bound of a percentile is, in words."""
    if not found.rank:
        return f"about: {count} generation{'s' if count > 1 else ''} bound nothing; 5 do"
    which = "largest" if found.rank == 1 else f"{found.rank}. largest"
    return (
        f"in half of all processes; at most, with {100 * found.confidence:.0f} % confidence: "
        f"the {which} of {count} generations"
    )


def _speedups(
    reference: str, base: Mapping[str, Measurement], times: Times, noise: float
) -> Iterator[Measurement]:
    """Speed-ups of every trial against one fp32 trial, from the same rounds, with verdicts."""
    pairs = {n: paired(times, reference, n) for n in base if n != reference}
    pairs = {name: rounds for name, rounds in pairs.items() if rounds}
    adjusted = statistics.holm([statistics.rounds_p_value(p) for p in pairs.values()])
    for (name, rounds), p in zip(pairs.items(), adjusted, strict=True):
        ratio = _interval(rounds)
        verdict, reason = statistics.latency_verdict(ratio, p, noise), ""
        if len(rounds) == 1:
            # so much slower that no spread between processes makes it another verdict
            verdict = Verdict.LEFT if ratio.value < 1 / TOO_SLOW else Verdict.UNDECIDED
            reason = ABOUT
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
