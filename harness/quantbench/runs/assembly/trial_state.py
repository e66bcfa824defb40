"""View: a trial with what the store knows of it, and the rows that tables are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quantbench.backend_api import Operation
from quantbench.experiment import Cell, float_form
from quantbench.results import spread
from quantbench.runs.store import Store
from quantbench.stats import Interval
from quantbench.system import entry

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """A cell with what the store knows about it; empty mappings where a phase did not happen."""

    cell: Cell
    store: Store
    built: Mapping[str, Any]
    scored: Mapping[str, Any]

    @classmethod
    def of(cls, cell: Cell, store: Store) -> View:
        """What the store holds of a cell."""
        name = cell.trial.id
        return cls(cell, store, store.get("build", name) or {}, store.get("score", name) or {})

    @property
    def id(self) -> str:
        """The name of the trial."""
        return self.cell.trial.id

    @property
    def has_outputs(self) -> bool:
        """Whether it was scored."""
        return "score" in self.scored

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        """Its outputs on the test split, by name."""
        return self.store.outputs.read(entry("scores", self.scored["score"]))

    def operations(self) -> tuple[Operation, ...]:
        """What its runtime executed."""
        return tuple(Operation.from_json(op) for op in self.scored["summary"]["operations"])

    def parity(self, store: Store) -> Mapping[str, Any]:
        """What was judged of the float form that the trial starts from; empty where nothing was."""
        if self.cell.refusal:
            return {}
        judged = (store.get("parity", self.cell.trial.model) or {}).get("forms", {})
        found: Mapping[str, Any] = judged.get(float_form(self.cell), {})
        return found


def bounds(interval: Interval) -> Row:
    """Value, low and high of a row; an unbounded end is null."""
    ends = {"low": interval.low, "high": interval.high}
    return {
        "value": interval.value,
        **{key: end if math.isfinite(end) else None for key, end in ends.items()},
    }


def complete(row: Row) -> Row:
    """A measurement row with every column; a value that is not a number becomes null."""
    empty = dict.fromkeys(("value", "low", "high", "unit", "n", "reference", "verdict", "reason"))
    found: Row = {"batch_size": None, **empty, **row}
    return {**found, "spread": spread(found)}
