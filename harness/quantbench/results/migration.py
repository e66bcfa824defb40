"""Migration: what an older quantbench wrote, as the schema of today has it.

A table is brought from its version to the next, until it is of today's. Values are kept as they were
measured; what a new column says of old rows follows from what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from quantbench.errors import NotComparable
from quantbench.results.schema import SCHEMA_VERSION
from quantbench.spec import TIMED, Spread, division_of
from quantbench.units import spread_of


def migrated(name: str, frame: pd.DataFrame, version: str, where: str) -> pd.DataFrame:
    """A table that was written under ``version``, under the schema of today.

    Raises
    ------
    NotComparable
        If no migration begins at ``version``; ``where`` says of what.
    """
    at = int(version) if version.isdigit() else -1
    if not (at == SCHEMA_VERSION or at in _STEPS):
        raise NotComparable(
            f"{where} has schema version {version}, this quantbench reads "
            f"{min(_STEPS)} to {SCHEMA_VERSION}; run the experiment again, or use the quantbench "
            "that wrote it"
        )
    for step in range(at, SCHEMA_VERSION):
        frame = _STEPS[step].get(name, _same)(frame)
    return frame


def migrated_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """``run.json`` of any version: references are objects, not keys that are put together."""
    found = run.get("reference")
    if not isinstance(found, Mapping):
        return dict(run)
    told = []
    for key, trial in found.items():
        model, target, *last = str(key).split("/")  # names had no slash
        told.append(
            {"model": model, "target": target, "comparison": "/".join(last), "trial": str(trial)}
        )
    return {**run, "reference": told}


def spread(row: Mapping[str, Any]) -> str | None:
    """What ``low`` and ``high`` of a measurement mean; None where it has neither."""
    if all(row[end] is None or row[end] != row[end] for end in ("low", "high")):
        return None
    return spread_of(str(row["metric"]), str(row["scenario"]))


def _same(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


def _spreads(frame: pd.DataFrame) -> pd.DataFrame:
    names = ("metric", "scenario", "low", "high")
    columns = zip(*(frame[name] for name in names), strict=True)
    told = pd.Series(
        [spread(dict(zip(names, row, strict=True))) for row in columns], frame.index, dtype=object
    )
    return _inserted(frame, "high", "spread", told)


def _tie_rules(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(tied=None, worst=float("nan"), best=float("nan"))


def _divisions(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether it was retrained follows from the method."""
    pairs = zip(frame["method"], frame["training"], strict=True)
    told = pd.Series([division_of(*pair) for pair in pairs], frame.index, dtype="str")
    return _inserted(frame, "seed", "division", told)


def _first_session(frame: pd.DataFrame) -> pd.DataFrame:
    """Every clock phase had one session."""
    return _inserted(frame, "batch_size", "session", pd.Series(0, frame.index, dtype="int64"))


def _inserted(frame: pd.DataFrame, after: str, name: str, values: Any) -> pd.DataFrame:
    frame = frame.copy()
    frame.insert(int(frame.columns.get_loc(after)) + 1, name, values)  # type: ignore[arg-type]
    return frame


def _this_session(frame: pd.DataFrame) -> pd.DataFrame:
    """What was timed was timed in one session, and its ends know of no other."""
    one = frame["scenario"].isin(TIMED) & (frame["spread"] == Spread.CONFIDENCE)
    return frame.assign(spread=frame["spread"].mask(one, str(Spread.SESSION)))


def _no_confidence(frame: pd.DataFrame) -> pd.DataFrame:
    none = pd.Series(float("nan"), frame.index, dtype="float32")
    return frame.assign(confidence=none, brier=none)


_STEPS: Mapping[int, Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    4: {"measurements": _spreads, "predictions": _tie_rules},
    5: {
        "predictions": _no_confidence,
        "trials": _divisions,
        "measurements": _this_session,
        "samples": _first_session,
        "readings": _first_session,
    },
}
"""Version -> table -> the way to the next version."""
