"""Sessions: how often the interval of a speed-up holds the truth, by what its session differs by; simulated.

A run times five generations of seven rounds in each of its sessions. What differs between generations,
between rounds (correlated by 0.3) and between sessions is drawn anew for each of many runs; the truth is 0
in the logarithm of the ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from quantbench.stats import Rounds, rounds_interval

RUNS = 4000
GENERATIONS, ROUNDS = 5, 7
BETWEEN, WITHIN, RHO = 0.007, 0.01, 0.3
SESSIONS = (1, 2, 3, 5)
FLOOR, AT, UP_TO = 0.92, 3, 0.027
"""The figure to reach: so much at so many sessions, for normal session effects up to this SD."""

Effect = Callable[[np.random.Generator, int], np.ndarray[Any, Any]]
"""Of one session: what is added to each round, [generations, rounds]."""


def normal(sd: float) -> Effect:
    """A shift of its own for each session."""
    return lambda rng, session: np.full((GENERATIONS, ROUNDS), rng.normal(0, sd))


def layouts(rng: np.random.Generator, session: int) -> np.ndarray[Any, Any]:
    """Files lie in memory in one of two ways for a whole session, 3 % apart."""
    return np.full((GENERATIONS, ROUNDS), rng.choice([-0.015, 0.015]))


def drift(rng: np.random.Generator, session: int) -> np.ndarray[Any, Any]:
    """The ratio moves by 2 % over each session, up or down."""
    way = rng.choice([-1, 1])
    ramp: np.ndarray[Any, Any] = way * np.linspace(-0.01, 0.01, GENERATIONS * ROUNDS)
    return ramp.reshape(GENERATIONS, ROUNDS)


def states(rng: np.random.Generator, session: int) -> np.ndarray[Any, Any]:
    """One generation in five is timed in a state of the machine that shifts the ratio by 5 %."""
    held = rng.random(GENERATIONS) < 0.2
    return np.repeat(np.where(held, 0.05, 0.0)[:, None], ROUNDS, axis=1)


EFFECTS: Mapping[str, Effect] = {
    "nothing": normal(0.0),
    "session SD 1 %": normal(0.01),
    "session SD 2.7 %": normal(UP_TO),
    "two memory layouts, 3 % apart": layouts,
    "a drift of 2 % in each session": drift,
    "a state of 5 % in one generation of five": states,
}


def coverage(effect: Effect, sessions: int, runs: int = RUNS, seed: int = 0) -> float:
    """Share of simulated runs of so many sessions whose 95 % interval holds the truth."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        found = []
        for session in range(sessions):
            noise = rng.normal(0, WITHIN, (GENERATIONS, ROUNDS))
            for i in range(1, ROUNDS):
                noise[:, i] = RHO * noise[:, i - 1] + np.sqrt(1 - RHO**2) * noise[:, i]
            apart = rng.normal(0, BETWEEN, (GENERATIONS, 1))
            found += [*(noise + apart + effect(rng, session))]
        numbers = tuple(np.repeat(np.arange(sessions), GENERATIONS).tolist())
        held += not rounds_interval(Rounds(tuple(found), numbers)).excludes(0.0)
    return held / runs


def check() -> dict[str, Any]:
    """The coverage of every effect and number of sessions."""
    rows = [
        {"effect": name, **{str(n): coverage(effect, n) for n in SESSIONS}}
        for name, effect in EFFECTS.items()
    ]
    normal_ones = [row for row in rows if row["effect"].startswith(("nothing", "session SD"))]
    return {"reached": all(row[str(AT)] >= FLOOR for row in normal_ones), "rows": rows}
