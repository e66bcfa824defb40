"""Tails: bounds of percentiles from one half of the generations of published runs, held against the other.

    python -m tools.validation.tails

Reads `results/reference`; nothing is timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import stats

from quantbench.results import load_results
from quantbench.runs.interleaved_timing import CALIBRATION_LOOP
from quantbench.stats import statistics
from quantbench.stats.statistics import FloatArray

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def cases() -> Iterator[list[FloatArray]]:
    """Per trial and batch size the single calls of each generation, in order of time."""
    for path in sorted(REFERENCE.glob("*/samples.parquet")):
        samples = load_results(path.parent).samples
        samples = samples[samples["trial"] != CALIBRATION_LOOP]
        for _, own in samples.groupby(["trial", "scenario", "batch_size"]):
            if (own["calls"] == 1).all() and own["generation"].nunique() > 1:
                yield [
                    calls.to_numpy(np.float64)
                    for _, calls in own.groupby("generation")["nanoseconds"]
                ]


def percentile(calls: FloatArray, share: float) -> float:
    """Of n calls the ceil(share n)-th in order."""
    return float(np.quantile(calls, share, method="inverted_cdf"))


def independent(calls: FloatArray, share: float) -> float | None:
    """LoadGen's bound, with 99 % confidence if calls were independent; None of too few."""
    rank = int(stats.binom.ppf(0.01, len(calls), 1 - share))
    return float(np.sort(calls)[-rank]) if rank > 0 else None


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the generations against the other.

    ``independent``, ``processes``: whether the bound was too low, by the rule for independent calls and by
    that for processes; ``chance``: how often the latter is for so few processes; ``claims``: whether
    they are enough for a bound to be stated.
    """

    independent: bool
    processes: bool
    chance: float
    claims: bool


def halves(generations: list[FloatArray], share: float) -> Iterator[Half]:
    """Both halves in time, where calls are enough for both rules."""
    middle = len(generations) // 2
    first, second = generations[:middle], generations[middle:]
    for own, others in ((first, second), (second, first)):
        bound = independent(np.concatenate(own), share)
        if bound is None or min(map(len, generations)) < round(1 / (1 - share)):
            continue
        sure = statistics.bounding_rank(len(own))
        rank = max(sure, 1)
        shown = float(np.median([percentile(g, share) for g in others]))
        yield Half(
            percentile(np.concatenate(others), share) > bound,
            shown > np.sort([percentile(g, share) for g in own])[-rank],
            by_chance(len(own), len(others), rank),
            sure > 0,
        )


def main() -> None:
    """Print how often a bound from one half was below what the other half shows."""
    known = list(cases())
    for share in (0.90, 0.99):
        found = [half for generations in known for half in halves(generations, share)]
        for claims, words in ((False, "2 or 3 generations"), (True, "10 generations")):
            own = [half for half in found if half.claims == claims]
            rates = (
                np.mean([getattr(half, name) for half in own])
                for name in ("independent", "processes", "chance")
            )
            before, after, chance = (f"{rate:.0%}" for rate in rates)
            print(
                f"p{100 * share:.0f} from {words}, {len(own)} halves: too low in {before} by the rule for "
                f"independent calls, in {after} by that for processes ({chance} if all are alike)"
            )


@cache
def by_chance(own: int, others: int, rank: int, draws: int = 4000) -> float:
    """How often the median of ``others`` processes is above the bound of ``own``, all alike."""
    rng = np.random.default_rng(0)
    values = rng.random((draws, own + others))
    bound = np.sort(values[:, :own], axis=1)[:, -rank]
    return float(np.mean(np.median(values[:, own:], axis=1) > bound))


if __name__ == "__main__":
    main()
