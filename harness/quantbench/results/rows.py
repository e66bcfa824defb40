"""Rows: the tables of a run as typed objects; here alone a row is read by the names of its columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

import pandas as pd

from quantbench.spec import AXES, LISTS
from quantbench.stats import Interval

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric of a trial, as `quantbench.results.schema.MEASUREMENTS` has it.

    A value, or an end of its interval, that is not known is not a number; a missing text is empty.
    """

    trial: str = ""
    scenario: str = ""
    batch_size: int | None = None
    metric: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    spread: str = ""
    unit: str = ""
    n: int | None = None
    reference: str = ""
    verdict: str = ""
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether it was measured."""
        return not math.isnan(self.value)

    @property
    def interval(self) -> Interval | None:
        """Value and ends; None where it was not measured."""
        return Interval(self.value, self.low, self.high) if self.known else None


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial, as `quantbench.results.schema.TRIALS` has it; ``axes`` are those of its method.

    Seconds that are not known are not a number; a missing text is empty.
    """

    trial: str
    model: str = ""
    task: str = ""
    backend: str = ""
    method: str = ""
    label: str = ""
    target: str = ""
    threads: int = 0
    isa: str = ""
    seed: int = 0
    division: str = ""
    machine: str = ""
    status: str = ""
    stage: str = ""
    reason: str = ""
    artifact: str = ""
    trained_s: float = math.nan
    converted_s: float = math.nan
    built_s: float = math.nan
    effective: str = ""
    flags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    axes: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def training(self) -> str:
        """``ptq``, ``qat`` or ``fine-tune``."""
        return str(self.axes["training"])

    @property
    def route(self) -> str:
        """The way to the artifact; empty for the backend's own."""
        return str(self.axes["route"] or "")


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """A tensor or node of a file, or an executed operation (`quantbench.results.schema.ARTIFACTS`)."""

    trial: str
    kind: str
    name: str
    role: str
    operator: str
    dtype: str
    shape: tuple[int, ...]
    bits: int | None
    levels: int | None
    signed: bool | None
    symmetric: bool | None
    granularity: str
    scale: tuple[float, ...]
    low: float
    high: float
    layer: str
    scales: str
    macs: int | None
    weight_dtype: str
    engine: str
    fused: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class HistogramRow:
    """Values of an activation or a weight (`quantbench.results.schema.HISTOGRAMS`)."""

    trials: tuple[str, ...]
    role: str
    name: str
    start: float
    width: float
    counts: tuple[int, ...]
    minimum: float
    maximum: float
    std: float


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """What one change of one layer does, as `quantbench.results.schema.SENSITIVITY` has it."""

    mode: str
    layer: str
    change: str
    model: str = ""
    backend: str = ""
    method: str = ""
    parts: str = ""
    status: str = ""
    reason: str = ""
    samples: int = 0
    quality: float = math.nan
    quality_drop: float = math.nan
    agreement: float = math.nan
    sqnr_db: float = math.nan
    mse: float = math.nan
    cosine: float = math.nan
    error_over_scale: float = math.nan
    saturation: float = math.nan
    unseen: float = math.nan
    outlier_ratio: float = math.nan


def rows(kind: type[Row], frame: pd.DataFrame) -> tuple[Row, ...]:
    """The rows of a table, or of a part of one, in order.

    Parameters
    ----------
    kind : type
        One of this module, or a dataclass of columns; ``axes`` are gathered from their columns.
    """
    columns = [
        _axes(frame) if name == "axes" else [read(value) for value in frame[name]]
        for name, read in _readers(cast(Any, kind))
    ]
    return tuple(kind(*values) for values in zip(*columns, strict=True))


def trial_row(frame: pd.DataFrame, name: str) -> TrialRow | None:
    """The row of ``trials`` of that name; None where there is none."""
    return next(iter(rows(TrialRow, frame[frame["trial"] == name])), None)


def as_columns(row: Any) -> dict[str, Any]:
    """A row as its table has it: a number that is not known, or a text that may be missing, is null."""
    values = ((one, getattr(row, one.name)) for one in fields(row))
    return {
        one.name: None if value != value or (value == "" and one.default == "") else value
        for one, value in values
    }


def _axes(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The axes of each trial's method; None where one is null."""
    columns = {
        axis: [_texts(v) if axis in LISTS else _plain(v) for v in frame[axis]]
        for axis in AXES
        if axis in frame
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


@cache
def _readers(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Each field with what makes its value of a table's."""
    hints = get_type_hints(kind)
    return tuple((one.name, _READ.get(hints[one.name], _optional)) for one in fields(kind))


def _null(value: Any) -> bool:
    """Whether a cell is empty: None, or not a number."""
    return value is None or value != value


def _text(value: Any) -> str:
    return "" if _null(value) else str(value)


def _number(value: Any) -> float:
    return math.nan if _null(value) else float(value)


def _plain(value: Any) -> Any:
    if _null(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _optional(value: Any) -> Any:
    """A whole number or a truth; None where it is null. A table with nulls holds whole numbers as floats."""
    found = _plain(value)
    return int(found) if isinstance(found, float) else found


def _texts(value: Any) -> tuple[str, ...]:
    return () if value is None or isinstance(value, float) else tuple(map(str, value))


def _numbers(value: Any) -> tuple[Any, ...]:
    if value is None or isinstance(value, float):
        return ()
    return tuple(value.tolist() if hasattr(value, "tolist") else value)


_READ: Mapping[Any, Any] = {
    str: _text,
    float: _number,
    tuple[str, ...]: _texts,
    tuple[int, ...]: _numbers,
    tuple[float, ...]: _numbers,
}
