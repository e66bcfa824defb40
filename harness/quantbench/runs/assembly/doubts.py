"""Doubts: what makes a comparison's times doubtful. It raises flags and rejects nothing.

The median of paired ratios tolerates bad rounds; a reader should know of them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from quantbench.runs.comparison import Comparison
from quantbench.runs.interleaved_timing import CALIBRATION_LOOP, Generation, bursts
from quantbench.spec import Flag
from quantbench.stats.statistics import FloatArray

DRIFT_RHO = 0.5
"""Rank correlation of the reference's times with the order of rounds."""
WARMING = 1.03
"""The reference's times in the last third of the rounds over those in the first."""
SLOW, SLOW_SHARE = 1.10, 0.30
"""Calibration loop over its fastest tenth, and the share of rounds that may be slower."""
ORDER, ORDER_P = 0.01, 0.01
"""Effect on the ratio of being timed before or after the reference, and its p-value."""
MORE_THREADS = 0.7
"""CPU seconds per second, beyond the threads of the target."""
_FEWEST_ROUNDS = 10


def flags(comparison: Comparison, generations: Sequence[Generation]) -> dict[str, set[str]]:
    """Flags of each contender; those of the machine stand at all of them.

    ``drift`` and ``warming``: the reference became slower or faster meanwhile. ``noisy-machine``:
    something else held the processor. ``order-effect``: the ratio depends on who was first.
    ``more-threads``: more threads computed than the target has.
    """
    if not generations:
        return {}
    times = bursts(generations)
    common = _machine(times, comparison.reference)
    found = {c.name: set(common) for c in comparison.contenders}
    for name, known in found.items():
        if _depends_on_order(times, comparison.reference, name):
            known.add(Flag.ORDER_EFFECT)
        if _cpu_share(generations, name) > comparison.target.threads + MORE_THREADS:
            known.add(Flag.MORE_THREADS)
    return found


def _machine(seen: pd.DataFrame, reference: str) -> set[str]:
    found: set[str] = set()
    times = seen.loc[seen["trial"] == reference, "ns"].to_numpy()
    if len(times) >= _FEWEST_ROUNDS and times.std() > 0:
        rho = float(stats.spearmanr(np.arange(len(times)), times).statistic)
        if abs(rho) > DRIFT_RHO:
            found.add(Flag.DRIFT)
        third = len(times) // 3
        if np.median(times[-third:]) > WARMING * np.median(times[:third]):
            found.add(Flag.WARMING)
    loops = seen[seen["trial"] == CALIBRATION_LOOP]
    if len(loops) >= _FEWEST_ROUNDS:
        usual = loops["ns"].quantile(0.1)
        worst = loops.groupby(["generation", "round"])["ns"].max() / usual
        if (worst > SLOW).mean() > SLOW_SHARE:
            found.add(Flag.NOISY_MACHINE)
    return found


def _depends_on_order(seen: pd.DataFrame, reference: str, name: str) -> bool:
    """Whether the ratios of rounds that began with the reference differ from the others."""
    if name == reference:
        return False
    own, full = (
        seen[seen["trial"] == trial].set_index(["generation", "round"])
        for trial in (name, reference)
    )
    rounds = own.index.intersection(full.index)
    own, full = own.loc[rounds], full.loc[rounds]
    ratio = np.log(full["ns"].to_numpy() / own["ns"].to_numpy())
    after = own["position"].to_numpy() > full["position"].to_numpy()
    first, second = ratio[~after], ratio[after]
    if min(len(first), len(second)) < _FEWEST_ROUNDS // 2:
        return False
    effect = abs(float(np.median(first) - np.median(second)))
    return effect > ORDER and _differ(first, second) < ORDER_P


def _differ(first: FloatArray, second: FloatArray) -> float:
    """p-value of Mann and Whitney's test: these rounds are not pairs."""
    return float(stats.mannwhitneyu(first, second).pvalue)


def _cpu_share(generations: Sequence[Generation], name: str) -> float:
    """CPU seconds per second of the same calls of a contender."""
    spent = [g.cpu[name] for g in generations if name in g.cpu]
    wall = sum(s.wall_ns for s in spent)
    return sum(s.cpu_ns for s in spent) / wall if wall else 0.0
