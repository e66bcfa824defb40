"""Gates: limits on what a candidate run may lose against its baseline, and what they find.

A gate is a metric, a direction and a limit: ``quality_drop > 0.5pp``, ``size_bytes > +1%``. It fails
where the whole interval of the change lies beyond the limit, so that the data show it; one whose
estimate alone lies beyond is reported as undecided, and fails only where the gate is strict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from quantbench.analysis.compare import (
    DECIBELS,
    MISSING,
    NOT_COMPARABLE,
    PERCENT,
    POINTS,
    QUANTITIES,
    STATUS,
    WORSE,
    Change,
)
from quantbench.errors import BadInput, did_you_mean
from quantbench.stats import Interval

DROP, LOST = "quality_drop", "missing"
"""Words of gates beside the metrics: quality lost against the baseline, and trials lost."""
WORDS = (DROP, LOST, *QUANTITIES)
SELECTORS = ("model", "backend", "method", "target")

_TEXT = re.compile(r"\s*(?P<metric>\w+)\s*(?P<side>[<>])\s*(?P<limit>\S+)\s*")
_LIMIT = re.compile(r"(?P<sign>[+-]?)(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>pp|%|dB)?")
_SCALES: Mapping[str, float] = {POINTS: 0.01, PERCENT: 0.01, DECIBELS: 1.0}
_EXAMPLES: Mapping[str, str] = {
    DROP: f"{DROP} > 0.5pp", LOST: f"{LOST} > 0", "sqnr_db": "sqnr_db < -3",
}  # fmt: skip
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit.

    Parameters
    ----------
    metric : str
        One of `WORDS`.
    above : bool
        Whether it fails above the limit (``>``) or below (``<``).
    limit : float
        Of the change, as in `quantbench.analysis.compare.Change`: 0.005 for half a point, 0.01 for 1 %.
    text : str
        As it was written.
    only : mapping
        Of `SELECTORS`, the values that a trial must have one of; empty for every trial.
    strict : bool
        Whether the estimate alone fails it, however wide its interval is.
    across_machines : bool
        Whether its file asks that times of different machines be compared too.
    """

    metric: str
    above: bool
    limit: float
    text: str
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    strict: bool = False
    across_machines: bool = False

    def concerns(self, change: Change) -> bool:
        """Whether the gate is about this change."""
        metric = {DROP: "quality", LOST: STATUS}.get(self.metric, self.metric)
        return change.metric == metric and all(
            change.traits[key] in values for key, values in self.only.items()
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What a gate says of one change: ``failed``, ``undecided`` or neither, and why in a sentence."""

    trial: str
    gate: Gate
    change: Change
    failed: bool
    undecided: bool
    sentence: str


def parse(text: str) -> Gate:
    """A gate from its text.

    Raises
    ------
    BadInput
        If the text is no gate, or its limit makes no sense for its metric.

    >>> gate = parse("size_bytes > +1%")
    >>> gate.metric, gate.above, gate.limit
    ('size_bytes', True, 0.01)
    """
    found = _TEXT.fullmatch(text)
    if not found:
        raise BadInput(
            f"'{text}' is no gate: write METRIC > LIMIT or METRIC < LIMIT, e.g. 'size_bytes > +1%'"
        )
    metric, above = found["metric"], found["side"] == ">"
    if metric not in WORDS:
        raise BadInput(
            f"gate '{text}': unknown metric '{metric}'.{did_you_mean(metric, WORDS)} "
            f"Known: {', '.join(WORDS)}"
        )
    limit = _LIMIT.fullmatch(found["limit"])
    wanted = f"gate '{text}': write it like '{_example(metric)}'"
    if not limit:
        raise BadInput(f"{wanted}; '{found['limit']}' is no limit")
    lost = metric in (DROP, LOST)
    if above != (lost or not QUANTITIES[metric].higher):
        raise BadInput(f"{wanted}; it gets worse when it {'falls' if above else 'rises'}")
    unit = POINTS if metric == DROP else "" if metric == LOST else QUANTITIES[metric].unit
    if (limit["unit"] or "") not in ({unit, ""} if unit == DECIBELS else {unit}):
        raise BadInput(f"{wanted}; its limit is {f'in {unit}' if unit else 'a number of trials'}")
    if not lost and not limit["sign"]:
        raise BadInput(f"{wanted}; its limit is a change against the baseline and has a sign")
    if metric == LOST and float(limit["number"]) != 0:
        raise BadInput(f"{wanted}; every trial that is lost is one too many")
    value = float(limit["sign"] + limit["number"]) * _SCALES.get(unit, 1.0)
    return Gate(metric, above, value, " ".join(text.split()))


def _example(metric: str) -> str:
    if metric in _EXAMPLES:
        return _EXAMPLES[metric]
    quantity = QUANTITIES[metric]
    size = "1pp" if quantity.unit == POINTS else "5%"
    return f"{metric} < -{size}" if quantity.higher else f"{metric} > +{size}"


DEFAULT: tuple[Gate, ...] = tuple(
    map(
        parse,
        (
            f"{LOST} > 0", f"{DROP} > 0.5pp", "agreement < -1pp", "integer_macs_fraction < -1pp",
            "size_bytes > +1%", "speedup < -5%",
        ),
    )
)  # fmt: skip
"""What is judged where nothing else is asked for."""


def read(path: Path) -> tuple[Gate, ...]:
    """The gates of a file.

    YAML with the keys ``fail_on`` (a list of gates), ``only`` (trials that they concern), ``strict``
    and ``across_machines``.

    Raises
    ------
    BadInput
        With one line ``file:line: problem`` for each problem found.
    """
    try:
        tree = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"gate file {path} cannot be read: {error}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = str(error.problem or error.context).splitlines()[0]
        raise BadInput(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {what}") from error
    except YAMLError as error:
        raise BadInput(f"{path}:1: not valid YAML: {str(error).splitlines()[0]}") from error
    found: list[Gate] = []
    problems = list(_problems(tree, found))
    if problems:
        raise BadInput("\n".join(f"{path}:{line}: {text}" for line, text in sorted(problems)))
    only = {key: _values(value) for key, value in (tree.get("only") or {}).items()}
    strict, across = (bool(tree.get(key, False)) for key in _SWITCHES)
    return tuple(replace(gate, only=only, strict=strict, across_machines=across) for gate in found)


_SWITCHES = ("strict", "across_machines")
_KEYS = ("fail_on", "only", *_SWITCHES)


def _problems(tree: Any, found: list[Gate]) -> Iterator[tuple[int, str]]:
    """What is wrong with a gate file, by line; gates that are right are added to ``found``."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("fail_on"), list):
        yield 1, "a gate file is a mapping with the key fail_on, a list of gates"
        return
    lines: Any = tree
    for key in tree:
        if key not in _KEYS:
            yield lines.lc.key(key)[0] + 1, f"unknown key '{key}'.{did_you_mean(key, _KEYS)}"
    gates: Any = tree["fail_on"]
    if not gates:
        yield lines.lc.key("fail_on")[0] + 1, "fail_on is empty: a gate file has at least one gate"
    for i, text in enumerate(gates):
        try:
            found.append(parse(str(text)))
        except BadInput as error:
            yield gates.lc.item(i)[0] + 1, str(error)
    for key in _SWITCHES:
        if key in tree and not isinstance(tree[key], bool):
            yield lines.lc.key(key)[0] + 1, f"{key} is true or false"
    selected: Any = tree.get("only") or {}
    if not isinstance(selected, Mapping):
        yield lines.lc.key("only")[0] + 1, f"only is a mapping of {', '.join(SELECTORS)} to names"
        return
    place: Any = selected
    for key in selected:
        if key not in SELECTORS:
            yield (
                place.lc.key(key)[0] + 1,
                f"only selects by {', '.join(SELECTORS)}, not by '{key}'.{did_you_mean(key, SELECTORS)}",
            )


def _values(value: Any) -> frozenset[str]:
    return frozenset(map(str, value if isinstance(value, list) else [value]))


def judge(changes: Iterable[Change], gates: Sequence[Gate]) -> tuple[Finding, ...]:
    """What every gate says of every change that it concerns.

    A metric that the baseline has and the candidate lacks fails its gates: what cannot be judged is
    not fine. One that only the candidate has does not. Of what is not comparable a gate says nothing;
    see `left_out`.
    """
    known = tuple(change for change in changes if change.verdict != NOT_COMPARABLE)
    return tuple(
        _found(gate, change) for gate in gates for change in known if gate.concerns(change)
    )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Changes that gates are about and do not judge: how many, for one reason, and which gates."""

    count: int
    reason: str
    gates: tuple[Gate, ...]

    @property
    def sentence(self) -> str:
        """In one line, the reason without its particulars."""
        changes = "change is" if self.count == 1 else "changes are"
        texts, reason = ", ".join(gate.text for gate in self.gates), self.reason.partition(" (")[0]
        return f"not judged by {texts}: {self.count} {changes} not comparable, {reason}"


def left_out(changes: Iterable[Change], gates: Sequence[Gate]) -> tuple[LeftOut, ...]:
    """What gates do not judge because it is not comparable, by reason."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        if change.verdict == NOT_COMPARABLE and any(g.concerns(change) for g in gates):
            found.setdefault(change.reason, []).append(change)
    return tuple(
        LeftOut(len(own), reason, tuple(g for g in gates if any(map(g.concerns, own))))
        for reason, own in found.items()
    )


def _found(gate: Gate, change: Change) -> Finding:
    failed = undecided = False
    if change.metric == STATUS:
        failed = change.verdict in (MISSING, WORSE)
        told = f"{change.verdict}: {change.reason}"
    elif change.change is None:
        failed, undecided = change.verdict == MISSING, change.verdict not in (MISSING, "new")
        told = f"{change.name} is {change.verdict}: {change.reason}"
    else:
        beyond, surely = _beyond(gate, change.change)
        failed = surely or (gate.strict and beyond)
        undecided = beyond and not failed
        told = f"{change.name} {shown(change)}"
        if undecided:
            told += "; the limit lies within its interval"
    return Finding(change.trial, gate, change, failed, undecided, told)


def _beyond(gate: Gate, change: Interval) -> tuple[bool, bool]:
    """Whether the estimate lies beyond the limit, and whether all of its interval does."""
    if gate.metric == DROP:
        change = Interval(-change.value, -change.high, -change.low)
    side = 1.0 if gate.above else -1.0
    near = change.low if gate.above else change.high
    beyond, surely = (side * (x - gate.limit) > _ROUNDING for x in (change.value, near))
    return beyond, surely


def shown(change: Change) -> str:
    """A change and its interval as people read them, in the unit of its gates.

    An interval of no width is not shown.
    """
    found = change.change
    if found is None:
        return change.verdict
    scale = 1 / _SCALES[change.unit]
    space = "" if change.unit == PERCENT else " "
    value, low, high = (f"{scale * x:+.2f}" for x in (found.value, found.low, found.high))
    if found.low == found.high:
        return f"{value}{space}{change.unit}"
    return f"{value}{space}{change.unit} [{low}, {high}]"
