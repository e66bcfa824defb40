"""Gates: what a change against a baseline may not exceed, read from a file or an option."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness.errors import BadInput, did_you_mean
from harness.regression import (
    COUNT,
    DECIBELS,
    INCOMPARABLE,
    NEW,
    PERCENT,
    POINTS,
    QUANTITIES,
    Change,
)

_TEXT = re.compile(r"\s*(\w+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*(pp|%|dB)?\s*")
_SCALE: Mapping[str, float] = {POINTS: 0.01, PERCENT: 0.01, DECIBELS: 1.0, COUNT: 1.0}


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit on the change of one metric against the baseline.

    Parameters
    ----------
    metric : str
        One of `harness.regression.QUANTITIES`.
    above : bool
        Whether changes above the limit fail, or those below it.
    limit : float
        Points and percent as a share of 1, dB as they are.
    text : str
        As it was written.
    only : tuple of str
        Patterns of trial names; empty for all.
    strict : bool
        A measured change fails as soon as its estimate is beyond the limit; otherwise only where its
        95 % interval is.
    """

    metric: str
    above: bool
    limit: float
    text: str
    only: tuple[str, ...] = ()
    strict: bool = False

    def applies(self, change: Change) -> bool:
        """Whether the gate is about this change."""
        return change.metric == self.metric and (
            not self.only or any(fnmatchcase(change.trial, pattern) for pattern in self.only)
        )

    def fails(self, change: Change) -> bool:
        """Whether the change is beyond the limit, as far as the data show."""
        if change.change is None or change.verdict == NEW:
            return False
        found = change.change
        end = found.value if self.strict else (found.low if self.above else found.high)
        if math.isnan(end):
            return False
        return end > self.limit if self.above else end < self.limit


@dataclass(frozen=True, slots=True)
class Finding:
    """A gate applied to a change; ``sentence`` says what it found."""

    change: Change
    gate: Gate
    failed: bool
    sentence: str

    @property
    def trial(self) -> str:
        """The trial it is about."""
        return self.change.trial


def parse(text: str) -> Gate:
    """A gate such as ``quality_drop > 0.5pp``, ``size_bytes > +1%`` or ``speedup < -5%``.

    The limit is of the change against the baseline: points (pp) of shares, percent of sizes, times and
    ratios, dB of ``sqnr_db``. ``quality_drop``: quality lost against the baseline's same trial.

    Raises
    ------
    BadInput
        Where it is not of that form; says which metric or unit is meant.
    """
    match = _TEXT.fullmatch(text)
    if not match:
        raise BadInput(
            f"'{text}' is no gate; write METRIC > LIMIT or METRIC < LIMIT, such as "
            "'quality_drop > 0.5pp', 'size_bytes > +1%' or 'speedup < -5%'"
        )
    metric, sign, limit, unit = match.groups()
    if metric not in QUANTITIES:
        raise BadInput(f"no gate can be on '{metric}'.{did_you_mean(metric, QUANTITIES)}")
    wanted = QUANTITIES[metric].unit
    if (unit or COUNT) != wanted and not (unit is None and wanted == DECIBELS):
        written = f"{metric} {sign} {limit}{wanted}"
        raise BadInput(f"'{text}': {metric} changes in {wanted or 'trials'}; write '{written}'")
    return Gate(metric, sign == ">", float(limit) * _SCALE[wanted], " ".join(text.split()))


DEFAULT: tuple[Gate, ...] = tuple(
    map(
        parse,
        (
            "missing > 0",
            "quality_drop > 0.5pp",
            "agreement < -1pp",
            "size_bytes > +1%",
            "integer_macs_fraction < -1pp",
            "speedup < -5%",
        ),
    )
)
"""What `quantbench compare` fails on where no gate is given."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    fail_on: list[str] = Field(min_length=1)
    only: list[str] = []
    strict: bool = False


def read(path: Path) -> tuple[Gate, ...]:
    """The gates of a YAML file: ``fail_on`` (texts), ``only`` (patterns of trials), ``strict``.

    Raises
    ------
    BadInput
        With file and line for each mistake.
    """
    try:
        tree = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the gate file {path} cannot be read: {error}") from error
    except YAMLError as error:
        raise BadInput(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from error
    try:
        file = _File.model_validate(_plain(tree))
    except ValidationError as error:
        raise BadInput("\n".join(_said(path, problem) for problem in error.errors())) from error
    found, problems = [], []
    for i, text in enumerate(file.fail_on):
        try:
            found.append(replace(parse(text), only=tuple(file.only), strict=file.strict))
        except BadInput as error:
            problems.append(f"{path}:{tree['fail_on'].lc.item(i)[0] + 1}: {error}")
    if problems:
        raise BadInput("\n".join(problems))
    return tuple(found)


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    return bool(tree) if isinstance(tree, bool) else (str(tree) if isinstance(tree, str) else tree)


def _said(path: Path, problem: Any) -> str:
    keys = tuple(_File.model_fields)
    where = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key '{where[0]}'.{did_you_mean(where[0], keys)}"
    if problem["type"] == "missing":
        return f"{path}: key '{where[0]}' is missing; list what to fail on, such as 'speedup < -5%'"
    name = ".".join(where) or "the file"
    return f"{path}: {name}: {problem['msg'].lower()}; it takes the keys {', '.join(keys)}"


def judge(changes: Iterable[Change], gates: Sequence[Gate]) -> tuple[Finding, ...]:
    """Every gate on every change that it is about, in the order of the changes."""
    return tuple(
        Finding(change, gate, gate.fails(change), _sentence(change, gate))
        for change in changes
        for gate in gates
        if gate.applies(change) and change.verdict != NEW
    )


def _sentence(change: Change, gate: Gate) -> str:
    if change.metric == "missing":
        return f"missing: {change.reason}"
    if change.verdict == INCOMPARABLE or change.change is None:
        return f"{change.metric}: {change.reason}"
    at = f" at batch {change.batch_size}" if change.batch_size else ""
    return f"{change.metric}{at} {told(change)} (gate: {gate.text})"


def told(change: Change) -> str:
    """A change in words: ``+1.20 % [0.90, 1.50]``, the interval where it has one.

    >>> from harness.statistics import Interval
    >>> told(Change("t", "size_bytes", None, 100, 120, Interval(0.2, 0.2, 0.2), "worse"))
    '+20.00 %'
    """
    if change.change is None:
        return change.reason
    scale = 1 / _SCALE[change.unit]
    value, low, high = (
        scale * end for end in (change.change.value, change.change.low, change.change.high)
    )
    unit = f" {change.unit}" if change.unit else ""
    ends = "" if low == high or math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{value:+.2f}{unit}{ends}"
