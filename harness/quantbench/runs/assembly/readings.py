"""Readings: what was read of processes, generation by generation, as a table of raw numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from quantbench.runs.assembly.trial_state import Row, View
from quantbench.runs.comparison import Comparison
from quantbench.runs.interleaved_timing import Generation
from quantbench.runs.states import Metered, Started
from quantbench.runs.store import Store
from quantbench.spec import Scenario

FAILURE = "failure"
"""The reading of a process that ended early; its ``text`` is status and reason."""
BETWEEN = ": "
GENERATION = ("seconds", "warm_s", "burst_s")
"""Of a whole generation, in the rows of the reference."""


def readings(
    views: Iterable[View],
    store: Store,
    compared: Sequence[Comparison],
    timed: Mapping[str, Sequence[Generation]],
) -> Iterator[Row]:
    """Rows of ``readings.parquet``: what was read, and from which process."""
    for view in views:
        yield from _started(view.id, store)
        if view.has_outputs:
            yield _row(view.id, Scenario.SCORE, None, 0, "peak_rss_bytes", view.score.summary["peak_rss_bytes"])  # fmt: skip
    for comparison in compared:
        for number, generation in enumerate(timed[comparison.id]):
            yield from _clocked(comparison, number, generation)
        yield from _energy(comparison, store)


def _row(
    trial: str, scenario: str, batch: int | None, process: int, reading: str,
    value: float | None = None, text: str | None = None,
) -> Row:  # fmt: skip
    return {
        "trial": trial, "scenario": scenario, "batch_size": batch, "session": 0, "process": process,
        "reading": reading, "value": None if value is None else float(value), "text": text,
    }  # fmt: skip


def _started(trial: str, store: Store) -> Iterator[Row]:
    state = store.get(Started, trial)
    if state is None:
        return
    for number, observed in enumerate(state.observed):
        for name, value in observed.items():
            yield _row(trial, Scenario.START, None, number, name, value)
    if not state.observed:
        told = f"{state.status}{BETWEEN}{state.reason}"
        yield _row(trial, Scenario.START, None, 0, FAILURE, text=told)


def _clocked(comparison: Comparison, number: int, generation: Generation) -> Iterator[Row]:
    scenario, sizes = comparison.scenario, comparison.batch_sizes
    for name in GENERATION:
        yield _row(
            comparison.reference, scenario, sizes[comparison.reference], number,
            f"generation_{name}", getattr(generation, name),
        )  # fmt: skip
    for name, spent in generation.cpu.items():
        for reading, value in zip(("cpu_ns", "wall_ns", "calls"), spent, strict=True):
            yield _row(name, scenario, sizes[name], number, reading, value)
    for name, peak in generation.peak_rss_bytes.items():
        yield _row(name, scenario, sizes[name], number, "peak_rss_bytes", peak)
    for name, (status, reason) in generation.failures.items():
        yield _row(name, scenario, sizes[name], number, FAILURE, text=f"{status}{BETWEEN}{reason}")


def _energy(comparison: Comparison, store: Store) -> Iterator[Row]:
    state = store.get(Metered, comparison.id)
    if state is None:
        return
    counts: dict[str, int] = {}
    for window in state.windows:
        name = window["name"]
        number = counts[name] = counts.get(name, -1) + 1
        for reading in ("joules", "seconds", "inferences", "idle_w"):
            yield _row(
                name, Scenario.ENERGY, comparison.batch_sizes[name], number, reading,
                window[reading],
            )  # fmt: skip
    for contender in comparison.contenders:
        if contender.name != comparison.control and contender.name not in counts:
            told = state.reason or "it ended in a window"
            yield _row(contender.name, Scenario.ENERGY, contender.batch_size, 0, FAILURE, text=told)
