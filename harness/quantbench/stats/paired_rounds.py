"""Rounds: raw samples as times of bursts, and two artifacts' times paired by the round they share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from quantbench.stats.statistics import FloatArray

Times = Mapping[str, list[dict[int, float]]]
"""Per name and generation: round -> ln of the burst's median nanoseconds of one sample."""


def bursts(samples: pd.DataFrame) -> pd.DataFrame:
    """A row per burst, in order of time: ``generation round position trial``, and ``ns``.

    Parameters
    ----------
    samples : DataFrame
        `quantbench.results.schema.SAMPLES` of one comparison.

    ``ns`` is the median of the burst's samples, in nanoseconds per sample of a batch.
    """
    ns = samples["nanoseconds"] / samples["calls"] / samples["batch_size"]
    by = ["generation", "round", "position", "trial"]
    return samples.assign(ns=ns).groupby(by)["ns"].median().reset_index()


def log_times(found: pd.DataFrame) -> Times:
    """The times of `bursts`, by name."""
    times: dict[str, list[dict[int, float]]] = {}
    count = int(found["generation"].max()) + 1 if len(found) else 0
    columns = (found[c] for c in ("trial", "generation", "round"))
    for name, generation, round_, value in zip(*columns, np.log(found["ns"]), strict=True):
        rows = times.setdefault(str(name), [{} for _ in range(count)])
        rows[int(generation)][int(round_)] = float(value)
    return times


def paired(times: Times, reference: str, name: str) -> list[FloatArray]:
    """Per generation, ``ln(reference / name)`` of the rounds that both have."""
    pairs = []
    for own, theirs in zip(times.get(name, []), times.get(reference, []), strict=False):
        shared = sorted(own.keys() & theirs.keys())
        if shared:
            pairs.append(np.array([theirs[r] - own[r] for r in shared]))
    return pairs
