"""Rounds: raw samples as times of bursts, and two artifacts' times paired by the round they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quantbench.stats.statistics import FloatArray, Rounds


@dataclass(frozen=True, slots=True)
class Times(Mapping[str, list[dict[int, float]]]):
    """Per name and generation: round -> ln of the burst's median nanoseconds of one sample.

    ``sessions``: that of each generation.
    """

    rounds: Mapping[str, list[dict[int, float]]]
    sessions: Sequence[int]

    def __getitem__(self, name: str) -> list[dict[int, float]]:
        return self.rounds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rounds)

    def __len__(self) -> int:
        return len(self.rounds)

    def of(self, name: str) -> Rounds:
        """The times of one name."""
        own = zip(self.get(name, []), self.sessions, strict=False)
        known = [(np.array(list(rounds.values())), session) for rounds, session in own if rounds]
        return Rounds(tuple(values for values, _ in known), tuple(at for _, at in known))


def bursts(samples: pd.DataFrame) -> pd.DataFrame:
    """A row per burst, in order of time: ``session generation round position trial``, and ``ns``.

    Parameters
    ----------
    samples : DataFrame
        `quantbench.results.schema.SAMPLES` of one comparison.

    ``ns`` is the median of the burst's samples, in nanoseconds per sample of a batch.
    """
    ns = samples["nanoseconds"] / samples["calls"] / samples["batch_size"]
    by = ["session", "generation", "round", "position", "trial"]
    return samples.assign(ns=ns).groupby(by)["ns"].median().reset_index()


def log_times(found: pd.DataFrame) -> Times:
    """The times of `bursts`, by name."""
    times: dict[str, list[dict[int, float]]] = {}
    count = int(found["generation"].max()) + 1 if len(found) else 0
    sessions = dict(zip(found["generation"], found["session"], strict=True))
    columns = (found[c] for c in ("trial", "generation", "round"))
    for name, generation, round_, value in zip(*columns, np.log(found["ns"]), strict=True):
        rows = times.setdefault(str(name), [{} for _ in range(count)])
        rows[int(generation)][int(round_)] = float(value)
    return Times(times, tuple(int(sessions.get(number, 0)) for number in range(count)))


def paired(times: Times, reference: str, name: str) -> Rounds:
    """``ln(reference / name)`` of the rounds that both have."""
    pairs: list[FloatArray] = []
    sessions = []
    both = zip(times.get(name, []), times.get(reference, []), times.sessions, strict=False)
    for own, theirs, session in both:
        shared = sorted(own.keys() & theirs.keys())
        if shared:
            pairs.append(np.array([theirs[r] - own[r] for r in shared]))
            sessions.append(session)
    return Rounds(tuple(pairs), tuple(sessions))
