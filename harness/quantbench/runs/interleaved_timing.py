"""Interleaved timing: all artifacts of a comparison timed interleaved, in generations of fresh processes.

In a comparison the reference stands a second time, under another name (the A/A control). In a round every process is given one burst, in a new seeded order;
meanwhile this process sleeps in a blocking read and the others wait for their command.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from quantbench.errors import NotComparable
from quantbench.execution import TRIES, Ending, Job, Process
from quantbench.results import SAMPLES
from quantbench.runs.comparison import Comparison
from quantbench.spec import Precision, Scenario, Status
from quantbench.stats import Interval, Times, paired, paired_rounds, statistics
from quantbench.system import usable_cpus, write_atomically, write_json

CALIBRATION_LOOP = "calibration-loop"
TOO_SLOW = 10.0
ROUNDS_PER_END_TO_END = 7
"""For so many rounds of inference calls there is one of whole calls: at most a seventh more bursts."""
ANSWER_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor and wall nanoseconds of the same calls, and how many calls.

    ``timed``: of the timed calls alone. Else, as runs once stored it, of whole bursts: the calls that
    are dropped and the binding of inputs too, while ``calls`` counts the timed ones.
    """

    cpu_ns: int
    wall_ns: int
    calls: int
    timed: bool = True

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.cpu_ns + other.cpu_ns, self.wall_ns + other.wall_ns, self.calls + other.calls,
            self.timed and other.timed,
        )  # fmt: skip


@dataclass(frozen=True)
class Generation:
    """What one generation of processes observed.

    ``number`` is counted through all ``session``s. ``rows``: raw samples (`quantbench.results.schema.SAMPLES`), those of end-to-end rounds too;
    ``ready``: what each worker reported when warm; ``failures``: status and reason of those that
    ended early; ``cpu``: what each contender's calls spent; ``killed``: whether
    somebody else killed one of the processes; ``warm_s``: until all processes had started, loaded
    and warmed up; ``burst_s``: all bursts and calibration loops, as the workers measured them. What
    remains of ``seconds`` is the harness's own.
    """

    number: int
    rows: pa.Table
    ready: Mapping[str, Any]
    failures: Mapping[str, tuple[str, str]]
    cpu: Mapping[str, Spent]
    peak_rss_bytes: Mapping[str, int]
    seconds: float
    killed: bool = False
    warm_s: float = 0.0
    burst_s: float = 0.0
    session: int = 0

    @cached_property
    def bursts(self) -> pd.DataFrame:
        """Times of inference calls, as `quantbench.stats.paired_rounds.bursts`; converted once."""
        return paired_rounds.bursts(self.frame[~self._whole])

    @cached_property
    def whole_calls(self) -> pd.DataFrame:
        """The same of the end-to-end rounds."""
        return paired_rounds.bursts(self.frame[self._whole])

    @cached_property
    def frame(self) -> pd.DataFrame:
        """``rows``, converted once."""
        frame: pd.DataFrame = self.rows.to_pandas()
        return frame

    @property
    def _whole(self) -> pd.Series[bool]:
        return self.frame["scenario"].eq(Scenario.END_TO_END)


def run_generation(
    comparison: Comparison,
    names: Sequence[str],
    number: int,
    precision: Precision,
    seed: int,
    folder: Path,
    on_round: Callable[[int], None] = lambda number: None,
    session: int = 0,
) -> Generation:
    """Start a fresh process for each name, time all of them in rounds, and end them."""
    started = time.monotonic()
    place = [seed, zlib.crc32(comparison.id.encode()), number]
    rng = np.random.default_rng(place)
    log = _Log(comparison, number, session)
    peaks = {}
    with warm_workers(comparison, names, folder) as (workers, failures):
        warm = time.monotonic()
        for round_number in range(precision.rounds):
            on_round(round_number)
            _ask_all(workers, failures, rng, "burst", partial(log.add, round_number))
        # an order of its own, so that the rounds of inference calls are what they would be without
        rng = np.random.default_rng([*place, 1])
        for round_number in range(end_to_end_rounds(comparison, precision)):
            _ask_all(workers, failures, rng, "end-to-end", partial(log.add_whole, round_number))
        for name, worker in workers.items():
            if name not in failures:
                answer = worker.ask("quit")
                if isinstance(answer, dict):
                    peaks[name] = int(answer["peak_rss_bytes"])
    return Generation(
        number=number,
        rows=log.table(),
        session=session,
        ready={name: worker.ready for name, worker in workers.items() if worker.ready},
        failures={name: (e.status, e.reason) for name, e in failures.items()},
        cpu=log.cpu,
        peak_rss_bytes=peaks,
        seconds=time.monotonic() - started,
        warm_s=warm - started,
        burst_s=log.busy_ns / 1e9,
        killed=any(ending.killed for ending in failures.values()),
    )


def _ask_all(
    workers: Mapping[str, Worker],
    failures: dict[str, Ending],
    rng: np.random.Generator,
    command: str,
    keep: Callable[[str, int, Mapping[str, Any]], None],
) -> None:
    """A round: ask each worker that has not failed, in a new order; ``keep``: name, position, answer."""
    order = [name for name in rng.permutation(list(workers)) if name not in failures]
    for position, name in enumerate(order):
        answer = workers[name].ask(command)
        if isinstance(answer, Ending):
            failures[name] = answer
        else:
            keep(name, position, answer)


def end_to_end_rounds(comparison: Comparison, precision: Precision) -> int:
    """How many rounds of whole calls a generation has; none offline, where samples wait for a batch.

    None where a choice by the time of inference is confirmed.
    """
    if comparison.offline or comparison.confirms:
        return 0
    return max(1, precision.rounds // ROUNDS_PER_END_TO_END)


@contextlib.contextmanager
def warm_workers(
    comparison: Comparison, names: Sequence[str], folder: Path
) -> Iterator[tuple[dict[str, Worker], dict[str, Ending]]]:
    """A fresh warm process for each name, and how those ended that did not become warm."""
    jobs = {c.name: c.job for c in comparison.contenders if c.job is not None}
    workers: dict[str, Worker] = {}
    failures: dict[str, Ending] = {}
    try:
        _start(comparison, {name: jobs[name] for name in names}, workers, failures, folder)
        yield workers, failures
    finally:
        for worker in workers.values():
            worker.process.kill()


@dataclass(slots=True)
class _Log:
    """The raw samples of a generation, column by column."""

    comparison: Comparison
    generation: int
    session: int
    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: [] for name in ("trial", "scenario", "round", "position", "calls", "nanoseconds")
        }
    )
    cpu: dict[str, Spent] = field(default_factory=dict)
    busy_ns: int = 0

    def add(self, round_: int, name: str, position: int, answer: Mapping[str, Any]) -> None:
        """A burst of inference calls, and the calibration loop before it."""
        samples, scenario = answer["nanoseconds"], self.comparison.scenario
        self._extend(CALIBRATION_LOOP, scenario, round_, position, 1, [answer["calibration"]])
        self._extend(name, scenario, round_, position, answer["calls"], samples)
        self.busy_ns += answer["wall_ns"] + answer["calibration"]
        spent = Spent(answer["cpu_ns"], sum(samples), answer["calls"] * len(samples))
        self.cpu[name] = self.cpu[name] + spent if name in self.cpu else spent

    def add_whole(self, round_: int, name: str, position: int, answer: Mapping[str, Any]) -> None:
        """A burst of whole calls."""
        samples = answer["nanoseconds"]
        self._extend(name, Scenario.END_TO_END, round_, position, answer["calls"], samples)
        self.busy_ns += answer["wall_ns"]

    def _extend(
        self, name: str, scenario: str, round_: int, position: int, calls: int, ns: list[int]
    ) -> None:
        values = {
            "trial": name, "scenario": scenario, "round": round_, "position": position,
            "calls": calls,
        }  # fmt: skip
        for column, value in values.items():
            self.columns[column].extend([value] * len(ns))
        self.columns["nanoseconds"].extend(ns)

    def table(self) -> pa.Table:
        names, sizes = self.columns["trial"], self.comparison.batch_sizes
        columns = {
            **self.columns,
            "batch_size": [sizes.get(name, 1) for name in names],
            "session": [self.session] * len(names),
            "generation": [self.generation] * len(names),
        }
        return pa.table({f.name: pa.array(columns[f.name], f.type) for f in SAMPLES})


class Worker:
    """A warm session in its own process, asked for bursts over pipes."""

    def __init__(self, job: Job, folder: Path, *, stop: bool) -> None:
        self.process = Process(job, folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ready: dict[str, Any] = {}
        self._stop = stop

    def wait_ready(self) -> Ending | None:
        """Block until the worker is warm; how it ended instead, or None."""
        answer = self._answer(self.process.job.time_limit_s)
        if isinstance(answer, Ending):
            return answer
        self.ready = answer
        self._signal(signal.SIGSTOP)
        return None

    def ask(self, command: str, takes_s: float = 0.0) -> dict[str, Any] | Ending:
        """Send a command and sleep until the answer is there; ``takes_s`` is what it lasts anyway."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{command}\n".encode())
            self.process.stdin.flush()
        answer = self._answer(ANSWER_LIMIT_S + takes_s)
        if command != "quit":
            self._signal(signal.SIGSTOP)
        return answer

    def _signal(self, number: signal.Signals) -> None:
        # stopped only where idle thread pools may spin
        if self._stop and self.process.popen.poll() is None:
            os.kill(self.process.popen.pid, number)

    def _answer(self, limit_s: float) -> dict[str, Any] | Ending:
        poller = select.poll()
        poller.register(self.process.stdout, select.POLLIN | select.POLLHUP)
        if not poller.poll(limit_s * 1000):
            self.process.kill()
            return Ending(Status.TIMEOUT, f"no answer within {limit_s:g} s while timed", None, 0.0)
        line = self.process.stdout.readline()
        if not line:
            return self.process.ending()
        answer: dict[str, Any] = json.loads(line)
        return answer


def _start(
    comparison: Comparison,
    jobs: Mapping[str, Job],
    workers: dict[str, Worker],
    failures: dict[str, Ending],
    folder: Path,
) -> None:
    """Start the processes in pairs, each of a pair on its own core, until all are warm."""
    cpus, names = usable_cpus(), list(jobs)
    pinned, several = bool(comparison.target.affinity), comparison.target.threads > 1
    width = 1 if several else min(2, len(cpus))
    for first in range(0, len(names), width):
        group = names[first : first + width]
        for place, name in enumerate(group):
            # a worker moves to the target's CPUs once it is warm
            affinity = (cpus[place],) if pinned and not several else comparison.target.affinity
            job = jobs[name]
            workers[name] = Worker(
                Job(
                    f"{comparison.id}-{name}", job.function, job.arguments, job.environment,
                    affinity, job.time_limit_s, job.memory_mb,
                ),
                folder, stop=several,
            )  # fmt: skip
        for name in group:
            ending = workers[name].wait_ready()
            if ending is not None:
                failures[name] = ending


# --- storing and resuming ------------------------------------------------------------------------


def save_generation(folder: Path, generation: Generation) -> None:
    """Store a generation; the JSON file, written last, marks it complete."""
    stem = folder / f"generation-{generation.number:03d}"
    sink = pa.BufferOutputStream()
    pq.write_table(generation.rows, sink, compression="zstd")
    write_atomically(stem.with_suffix(".parquet"), sink.getvalue().to_pybytes())
    write_json(
        stem.with_suffix(".json"),
        {
            "number": generation.number,
            "session": generation.session,
            "ready": generation.ready,
            "failures": generation.failures,
            "spent": {name: asdict(spent) for name, spent in generation.cpu.items()},
            "peak_rss_bytes": generation.peak_rss_bytes,
            "seconds": generation.seconds,
            "killed": generation.killed,
            "warm_s": generation.warm_s,
            "burst_s": generation.burst_s,
        },
    )


def load_generations(folder: Path) -> list[Generation]:
    """The complete generations in ``folder``, in order."""
    paths = sorted(folder.glob("generation-*.json"))
    return [_load(path, path.stat().st_mtime_ns) for path in paths]


@lru_cache(maxsize=1024)
def _load(path: Path, changed_ns: int) -> Generation:
    """A stored generation; read once a run, for as long as its file stays the same."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data["failures"] = {name: tuple(value) for name, value in data["failures"].items()}
    before = data.pop("cpu", {})  # of a run that was begun by an older version
    data["cpu"] = {
        name: Spent(cpu, wall, calls, timed=False) for name, (cpu, wall, calls) in before.items()
    }
    data["cpu"] |= {name: Spent(**value) for name, value in data.pop("spent", {}).items()}
    return Generation(rows=pq.read_table(path.with_suffix(".parquet")), **data)


def resume(comparison: Comparison, folder: Path) -> list[Generation]:
    """The stored generations that timing continues from; those that are no use are removed.

    All up to one in which somebody killed a process; none if a contender was not among them, for
    what is compared is timed interleaved.
    """
    stored = load_generations(folder)
    usable = list(takewhile(lambda g: not g.killed, stored))
    if usable:
        first = usable[0].ready.keys() | usable[0].failures.keys()
        if not {c.name for c in comparison.contenders} <= first:
            usable = []
    for stale in folder.glob("generation-*"):
        if int(stale.stem[-3:]) >= len(usable):
            stale.unlink()
    return usable


def run_comparison(
    comparison: Comparison,
    precision: Precision,
    seed: int,
    folder: Path,
    scratch: Path,
    on_round: Callable[[int, int], None] = lambda generation, round_: None,
    session: int = 0,
) -> list[Generation]:
    """Time a session of a comparison until it is precise enough, continuing from stored generations.

    Raises
    ------
    NotComparable
        If the reference itself cannot be timed.
    """
    generations = resume(comparison, folder)
    tries = 0
    while why_stop(comparison, of_session(generations, session), precision) is None:
        _check_reference(comparison, generations)
        number = len(generations)
        names = still_in(comparison, generations)
        generation = run_generation(
            comparison, names, number, precision, seed, scratch,
            partial(on_round, number), session,
        )  # fmt: skip
        tries = tries + 1 if generation.killed else 0
        if 0 < tries < TRIES:
            continue  # somebody else killed a worker: the generation is timed again
        save_generation(folder, generation)
        generations.append(generation)
    _check_reference(comparison, generations)
    return generations


def of_session(generations: Sequence[Generation], session: int) -> list[Generation]:
    """Those of one session."""
    return [generation for generation in generations if generation.session == session]


def _check_reference(comparison: Comparison, generations: Sequence[Generation]) -> None:
    for generation in generations:
        if comparison.reference in generation.failures:
            status, reason = generation.failures[comparison.reference]
            raise NotComparable(
                f"the reference {comparison.reference} could not be timed ({status}: {reason})"
            )


def still_in(comparison: Comparison, generations: Sequence[Generation]) -> list[str]:
    """Names that go on: neither failed nor more than 10x slower than the reference."""
    gone = {name for g in generations for name in g.failures} | too_slow(comparison, generations)
    return [c.name for c in comparison.contenders if c.name not in gone]


def too_slow(comparison: Comparison, generations: Sequence[Generation]) -> set[str]:
    """Names that are more than 10x slower than the reference, and leave the timing for it."""
    ratios = log_ratios(comparison, generations) if generations else {}
    return {name for name, ratio in ratios.items() if ratio.value < -np.log(TOO_SLOW)}


def precise(log_ratio: Interval, width: float) -> bool:
    """Whether the interval of a ratio, given in logarithms, is as narrow as ``width`` of the ratio."""
    ratio = statistics.exp_interval(log_ratio)
    return ratio.high - ratio.low <= width * ratio.value


def why_stop(
    comparison: Comparison, generations: Sequence[Generation], precision: Precision
) -> str | None:
    """Which rule ends the timing of a session: ``width``, ``generations`` or ``time``; None to go on."""
    if len(generations) < precision.generations:
        return None
    staying = set(still_in(comparison, generations))
    ratios = log_ratios(comparison, generations)
    if all(precise(i, precision.width) for name, i in ratios.items() if name in staying):
        return "width"
    if len(generations) >= precision.max_generations:
        return "generations"
    spent = sum(g.seconds for g in generations)
    if spent >= precision.time_limit_s * len(comparison.contenders):
        return "time"
    return None


# --- from raw samples to estimates ---------------------------------------------------------------


def bursts(generations: Sequence[Generation]) -> pd.DataFrame:
    """As `quantbench.stats.paired_rounds.bursts`; ``generation`` is the place in the sequence."""
    return _together([g.bursts for g in generations])


def whole_calls(generations: Sequence[Generation]) -> pd.DataFrame:
    """`bursts` of the end-to-end rounds."""
    return _together([g.whole_calls for g in generations])


def _together(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    frames = [own.assign(generation=i) for i, own in enumerate(found)]
    return (
        pd.concat(frames, ignore_index=True)
        if frames
        else paired_rounds.bursts(SAMPLES.empty_table().to_pandas())
    )


def log_times(generations: Sequence[Generation]) -> Times:
    """Per name and generation: round -> ln of the burst's median nanoseconds of one sample."""
    return paired_rounds.log_times(bursts(generations))


def log_ratios(comparison: Comparison, generations: Sequence[Generation]) -> dict[str, Interval]:
    """Per name but the reference: the log speed-up against it, with its interval."""
    times = log_times(generations)
    ratios = {}
    for contender in comparison.contenders:
        pairs = paired(times, comparison.reference, contender.name)
        if contender.name != comparison.reference and pairs:
            ratios[contender.name] = statistics.rounds_interval(pairs)
    return ratios
