"""OperatorProfile: where the time of a trial's inference goes, beside its float twin's; a file of a run.

Kept only where it was asked for (``quantbench explain --profile``): ``profiles/<digest of the trial's
name>.json`` in the run's folder, beside the tables that every run has.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from quantbench.backend_api import TimedOperation
from quantbench.system import stored_as, write_json


@dataclass(frozen=True, slots=True)
class ProfiledCall:
    """One inference: how long it takes without a profiler, and the time of its operators.

    Parameters
    ----------
    nanoseconds : float
        Of a call that is not profiled.
    operations : tuple of TimedOperation
        As the runtime's profiler has them.
    """

    nanoseconds: float
    operations: tuple[TimedOperation, ...]

    @property
    def told(self) -> float:
        """Nanoseconds of all operators together, as profiled."""
        return sum(operation.nanoseconds for operation in self.operations)

    @property
    def scale(self) -> float:
        """What an operator's time is multiplied by, so that all together are no longer than the call.

        1 where they are not: then the rest of the call is no operator's. Below 1, noting operators took
        part of what was noted.
        """
        return min(1.0, self.nanoseconds / self.told) if self.told else 1.0

    def spent(self, of: Callable[[TimedOperation], bool] = lambda operation: True) -> float:
        """Nanoseconds of the call in the operators that ``of`` is true of."""
        return self.scale * sum(one.nanoseconds for one in self.operations if of(one))

    @property
    def outside(self) -> float:
        """Nanoseconds of the call in no operator."""
        return self.nanoseconds - self.spent()


@dataclass(frozen=True, slots=True)
class OperatorProfile:
    """A trial and its float twin, profiled in turns on the same target.

    Parameters
    ----------
    trial, reference : str
        Names of the two; the same where the trial is a float model itself.
    rounds : int
        How often each was profiled.
    own, full : ProfiledCall
        Of the trial, and of the float twin.
    ratios : tuple of float
        Of each round: the trial's call over the twin's, without a profiler.
    """

    trial: str
    reference: str
    rounds: int
    own: ProfiledCall
    full: ProfiledCall
    ratios: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OperatorProfile:
        """The inverse of `to_json`."""
        calls = {
            side: ProfiledCall(
                data[side]["nanoseconds"],
                tuple(TimedOperation.from_json(one) for one in data[side]["operations"]),
            )
            for side in ("own", "full")
        }
        return cls(**{**data, **calls, "ratios": tuple(data["ratios"])})


def typical_call(rounds: Sequence[Mapping[str, Any]]) -> ProfiledCall:
    """One call of several rounds' answers (`quantbench.steps.profile.serve`): medians.

    Operators go by their place among those of the same name, type, engine and kernel.
    """
    durations: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    first: dict[tuple[Any, ...], TimedOperation] = {}
    for answer in rounds:
        met: dict[tuple[Any, ...], int] = defaultdict(int)
        for one in map(TimedOperation.from_json, answer["operations"]):
            same = (one.name, one.kind, one.engine, one.kernel)
            key = (*same, met[same])
            met[same] += 1
            first.setdefault(key, one)
            durations[key].append(one.nanoseconds)
    operations = tuple(
        TimedOperation(
            one.name, one.kind, one.engine, one.count,
            median([*durations[key], *[0.0] * (len(rounds) - len(durations[key]))]), one.kernel,
        )
        for key, one in first.items()
    )  # fmt: skip
    return ProfiledCall(median(answer["call_ns"] for answer in rounds), operations)


def save_profile(folder: Path, profile: OperatorProfile) -> Path:
    """Keep a profile in a run's folder; where it lies."""
    path = _path(folder, profile.trial)
    path.parent.mkdir(exist_ok=True)
    write_json(path, profile.to_json())
    return path


def load_profile(folder: Path, trial: str) -> OperatorProfile | None:
    """The profile of a trial that a run keeps; None where it has none."""
    try:
        text = _path(folder, trial).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return OperatorProfile.from_json(json.loads(text))


def _path(folder: Path, trial: str) -> Path:
    return folder / "profiles" / f"{stored_as(trial)}.json"
