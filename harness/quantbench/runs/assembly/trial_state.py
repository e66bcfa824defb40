"""Trial state: a trial with what the store knows of it, and the rows that tables are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quantbench.backend_api import Operation
from quantbench.experiment import Cell, float_form
from quantbench.results import Measurement
from quantbench.runs.states import Built, Compared, Form, Scored
from quantbench.runs.store import Store
from quantbench.spec import TIMED, Spread, Status
from quantbench.stats import Interval
from quantbench.system import entry
from quantbench.units import spread_of

Row = dict[str, Any]
"""A row of ``trials`` or ``artifacts``, to be written."""


@dataclass(frozen=True, slots=True)
class View:
    """A cell with what the store knows about it."""

    cell: Cell
    store: Store
    built: Built
    scored: Scored | None

    @classmethod
    def of(cls, cell: Cell, store: Store) -> View:
        """What the store holds of a cell."""
        name = cell.trial.id
        built = store.get(Built, name) or Built(Status.FAILED, "it was not built")
        return cls(cell, store, built, store.get(Scored, name))

    @property
    def id(self) -> str:
        """The name of the trial."""
        return self.cell.trial.id

    @property
    def has_outputs(self) -> bool:
        """Whether it was scored."""
        return self.scored is not None and bool(self.scored.score)

    @property
    def score(self) -> Scored:
        """Its score; only where it `has_outputs`."""
        assert self.scored is not None  # noqa: S101 - asked for where there are outputs
        return self.scored

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        """Its outputs on the test split, by name."""
        return self.store.outputs.read(entry("scores", self.score.score))

    def operations(self) -> tuple[Operation, ...]:
        """What its runtime executed."""
        return tuple(Operation.from_json(op) for op in self.score.summary["operations"])

    def parity(self) -> Form | None:
        """What was judged of the float form that the trial starts from; None where nothing was."""
        if self.cell.refusal:
            return None
        compared = self.store.get(Compared, self.cell.trial.model)
        return None if compared is None else compared.forms.get(float_form(self.cell))


def bounds(interval: Interval) -> dict[str, Any]:
    """Value, low and high of a measurement; an unbounded end is not known."""
    low, high = (x if math.isfinite(x) else math.nan for x in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high}


def complete(row: Measurement, *, one_session: bool) -> Measurement:
    """A measurement with what its ends mean; of what was timed, whether they know one session."""
    if math.isnan(row.low) and math.isnan(row.high):
        return replace(row, spread="")
    meaning = spread_of(row.metric, row.scenario)
    if one_session and row.scenario in TIMED and meaning == Spread.CONFIDENCE:
        meaning = Spread.SESSION
    return replace(row, spread=str(meaning or ""))
