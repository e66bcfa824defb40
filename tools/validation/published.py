"""Published: how far the published runs agree where they share trials; ``python -m tools.validation.published``.

Computed from ``results/reference`` each time; docs/validation.md quotes it by `tools.figures`. Cells are
what two runs on the same machine (`fingerprint` of machine.json) both have by name: a trial, its reference, a
scenario and a batch size. Nothing is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from quantbench.results import Measurement, Results, load_results, rows
from quantbench.stats import bursts, log_times, paired
from quantbench.stats.statistics import FloatArray

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
CLOSE = 0.03
"""Two speed-ups agree within this, as a share of the smaller one's time."""
PROCESSES = 0.01
"""What two processes of one file are said to differ by."""

Cell = tuple[str, str, str, int | None]
"""Trial, reference, scenario and batch size."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What two runs measured of one cell, in the unit of the metric."""

    cell: Cell
    runs: tuple[str, str]
    values: tuple[float, float]

    @property
    def apart(self) -> float:
        """By what share the larger is above the smaller."""
        return max(self.values) / min(self.values) - 1


@dataclass(frozen=True, slots=True)
class Session:
    """How far speed-ups over one reference move between runs.

    ``sd``: standard deviation of their logarithms within cells, pooled over cells: the square root of
    all squared distances from a cell's mean, over the number of values less that of cells.
    """

    reference: str
    sd: float
    cells: int
    values: int
    runs: int


@cache
def published() -> tuple[Results, ...]:
    """The runs of ``results/reference``, read once."""
    return tuple(load_results(path.parent) for path in sorted(REFERENCE.glob("*/run.json")))


def pairs(runs: Sequence[Results], metric: str) -> list[Pair]:
    """Every cell that two runs on one machine share, once for each two runs."""
    known = [(run, _values(run, metric)) for run in runs]
    return [
        Pair(cell, (one.folder.name, other.folder.name), (first[cell], second[cell]))
        for (one, first), (other, second) in combinations(known, 2)
        if _same_machine(one, other)
        for cell in first
        if cell in second
    ]


def sessions(runs: Sequence[Results]) -> list[Session]:
    """The spread between runs of speed-ups over each reference; the most widely shared first."""
    found: dict[tuple[str, str], dict[Cell, list[tuple[str, float]]]] = {}
    for run in runs:
        for cell, value in _values(run, "speedup").items():
            own = found.setdefault((str(run.machine.get("fingerprint")), cell[1]), {})
            own.setdefault(cell, []).append((run.folder.name, math.log(value)))
    told = [_session(reference, cells.values()) for (_, reference), cells in found.items()]
    return sorted((one for one in told if one is not None), key=lambda one: -one.values)


def _session(reference: str, cells: Iterable[Sequence[tuple[str, float]]]) -> Session | None:
    """None where no cell was measured by two runs."""
    shared = [cell for cell in cells if len(cell) > 1]
    if not shared:
        return None
    logs = [np.array([value for _, value in cell]) for cell in shared]
    squares = sum(float(((log - log.mean()) ** 2).sum()) for log in logs)
    values = sum(map(len, logs))
    names = {name for cell in shared for name, _ in cell}
    return Session(
        reference, math.sqrt(squares / (values - len(shared))), len(shared), values, len(names)
    )


def processes(runs: Sequence[Results]) -> list[float]:
    """Of each generation of every comparison, by what share its two processes of one file differ.

    The reference and its A/A control, timed in the same rounds: the median of the rounds' ratios.
    """
    return [
        math.expm1(abs(float(np.median(rounds))))
        for run in runs
        for row in rows(Measurement, run.measurements)
        if row.metric == "aa_control"
        for rounds in _twice(run.samples, row)
    ]


def _twice(samples: pd.DataFrame, control: Measurement) -> Iterator[FloatArray]:
    """Per generation, ln(reference / control) of the rounds of an A/A control."""
    names = (control.trial, f"{control.trial}@control")
    here = (samples["scenario"] == control.scenario) & samples["trial"].isin(names)
    own = samples[here & (samples["batch_size"] == control.batch_size)]
    for _, session in own.groupby("session"):
        yield from paired(log_times(bursts(session)), *names)


def _values(run: Results, metric: str) -> Mapping[Cell, float]:
    return {
        (row.trial, row.reference, row.scenario, row.batch_size): row.value
        for row in rows(Measurement, run.measurements)
        if row.metric == metric and row.known
    }


def _same_machine(one: Results, other: Results) -> bool:
    return bool(one.machine.get("fingerprint") == other.machine.get("fingerprint"))


def speedups_text(runs: Sequence[Results]) -> str:
    """How many speed-ups of two runs agree, and how far apart speed-ups and milliseconds are."""
    ratios, times = pairs(runs, "speedup"), pairs(runs, "latency_ms")
    close = sum(pair.apart <= CLOSE for pair in ratios)
    cells = len({pair.cell for pair in ratios})
    names = {name for pair in ratios for name in pair.runs}
    dates = sorted(str(run.run.get("created"))[:10] for run in runs if run.folder.name in names)
    return (
        f"{len(names)} runs, from {dates[0]} to {dates[-1]}. {close} of {len(ratios)} speed-ups ({close / len(ratios):.0%}) agree within "
        f"{CLOSE * 100:.0f} %: {cells} cells that at least two runs have, once for each two runs. "
        f"Furthest apart: {furthest(ratios)}. Of {len(times)} such pairs of milliseconds: {furthest(times)}.\n"
    )


def furthest(found: Sequence[Pair]) -> str:
    """The pair that is furthest apart, with what each run has."""
    worst = max(found, key=lambda pair: pair.apart)
    trial, reference, *_ = worst.cell
    over = f" over `{reference}`" if reference else ""
    one, other = (
        f"{value:.4g} in {run}" for value, run in zip(worst.values, worst.runs, strict=True)
    )
    return f"`{trial}`{over} by {worst.apart:.1%} ({one}, {other})"


def sessions_text(runs: Sequence[Results]) -> str:
    """A table of how far speed-ups over each reference move between runs."""
    lines = [
        "| speed-ups over | between runs, SD | cells | values | runs |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.reference} | {one.sd:.1%} | {one.cells} | {one.values} | {one.runs} |"
        for one in sessions(runs)
    ]
    return "\n".join(lines) + "\n"


def processes_text(runs: Sequence[Results]) -> str:
    """How far two processes of one file are apart."""
    found = processes(runs)
    more = sum(value > PROCESSES for value in found)
    return (
        f"In {more} of {len(found)} generations two processes of one file, timed in the same rounds, "
        f"differ by more than {PROCESSES * 100:.0f} %; at most by {max(found):.1%}.\n"
    )


TEXTS: Mapping[str, Callable[[Sequence[Results]], str]] = {
    "speedups": speedups_text,
    "sessions": sessions_text,
    "processes": processes_text,
}
"""What docs/validation.md quotes, by the name of its block."""


if __name__ == "__main__":
    found = published()
    print("\n".join(write(found) for write in TEXTS.values()), end="")
