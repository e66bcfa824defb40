"""Gains: a trial's speed-ups over float models, what quantization itself gives first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quantbench.analysis.float_twins import is_plain, twin
from quantbench.analysis.trial_table import MeasuredTrial, batch_sizes, trial_rows
from quantbench.errors import BadInput, did_you_mean
from quantbench.results import Measurement, Results, rows
from quantbench.spec import Scenario
from quantbench.stats import Interval


@dataclass(frozen=True, slots=True)
class Gain:
    """Speed-up of a trial over one float trial; ``versus`` says in words which one that is.

    ``own``: it is the float of the same runtime; ``like``: it runs in the same graph there, too.
    ``confirmed``: the speed-up as both were timed again after the trial was chosen, where they were.
    """

    reference: str
    versus: str
    speedup: Interval
    verdict: str
    own: bool = False
    like: bool = False
    confirmed: Interval | None = None

    @property
    def quoted(self) -> Interval:
        """The speed-up that may be quoted: the confirmed one, where there is one."""
        return self.confirmed or self.speedup


def gains_of(
    results: Results,
    trial: str,
    batch_size: int | None = None,
    trials: Sequence[MeasuredTrial] | None = None,
) -> list[Gain]:
    """Speed-ups of ``trial``: what quantization gives, then over the best that people could use in float.

    In this order, each float trial once, only speed-ups that were measured: its float in the same
    runtime (`quantbench.analysis.float_twins`), the fastest float of any framework, the reference.

    Parameters
    ----------
    batch_size : int, optional
        The smallest that was timed by default.
    trials : sequence of MeasuredTrial, optional
        Those of its model and target at that batch size, where they are known.
    """
    batch = batch_size if batch_size is not None else next(iter(batch_sizes(results)), None)
    by_name = {row.trial: row for row in trials or trial_rows(results, batch)}
    mine = by_name.get(trial)
    if mine is None:
        raise BadInput(f"no trial '{trial}'.{did_you_mean(trial, by_name)}")
    here = [t for t in by_name.values() if (t.model, t.target) == (mine.model, mine.target)]
    again = measured_speedups(results, batch, trial, "confirmed_speedup")
    found = _gains(mine, here, measured_speedups(results, batch, trial))
    return [
        replace(gain, confirmed=row.interval)
        if (row := again.get((trial, gain.reference)))
        else gain
        for gain in found
    ]


def same_runtime(
    results: Results, trials: Sequence[MeasuredTrial], batch_size: int | None
) -> dict[str, Gain]:
    """Of each trial its speed-up over its float in the same runtime, or the nearest that the run has."""
    speedups = measured_speedups(results, batch_size)
    places: dict[tuple[str, str], list[MeasuredTrial]] = {}
    for row in trials:
        places.setdefault((row.model, row.target), []).append(row)
    found = {}
    for here in places.values():
        for row in here:
            first = next(iter(_gains(row, here, speedups)), None)
            if first is not None and first.own:
                found[row.trial] = first
    return found


Speedups = Mapping[tuple[str, str], Measurement]
"""By trial and float trial."""


def measured_speedups(
    results: Results, batch_size: int | None, trial: str | None = None, metric: str = "speedup"
) -> Speedups:
    """The speed-ups at a batch size; of one trial where it is named."""
    measured = results.measurements
    measured = measured[measured["metric"] == metric]
    if trial is not None:
        measured = measured[measured["trial"] == trial]
    return {
        (row.trial, row.reference): row
        for row in rows(Measurement, measured)
        if row.batch_size == batch_size and row.scenario != Scenario.OFFLINE and row.known
    }


def _gains(mine: MeasuredTrial, here: Sequence[MeasuredTrial], speedups: Speedups) -> list[Gain]:
    """`gains_of` of one of ``here``, the trials of its model and target."""
    floats = [row for row in here if is_plain(row) and row.of("latency_ms").known]
    fastest = min(floats, key=lambda row: row.value("latency_ms"), default=None)
    reference = next((row for row in here if row.trial == mine.reference), None)
    wanted: dict[str, list[str]] = {}
    nearest = twin(mine, here)
    own = "" if is_plain(mine) else _add(wanted, nearest.trial, nearest.words)
    _add(wanted, fastest, "the fastest float of any framework")
    _add(wanted, reference, "the reference")
    return [
        Gain(
            name, ", ".join(versus), ends, known.verdict, name == own, name == own and nearest.same
        )
        for name, versus in wanted.items()
        if name != mine.trial
        and (known := speedups.get((mine.trial, name)))
        and (ends := known.interval)
    ]


def _add(wanted: dict[str, list[str]], row: MeasuredTrial | None, versus: str) -> str:
    """Name what a trial is, beside what else it is; its name, or nothing."""
    if row is None:
        return ""
    wanted.setdefault(row.trial, []).append(versus)
    return row.trial
