"""TimedOperation: one operator of an inference with the time it took, as the runtime's profiler says."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from quantbench.backend_api.artifact_record import Operation

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class TimedOperation:
    """One operator that a runtime executes in one inference of batch size 1, and its time.

    Parameters
    ----------
    name : str
        That of the `Operation` it is; empty where the profiler shows what the record does not.
    kind : str
        The operator's type, in the words of `Operation.kind` wherever they are known.
    engine : str
        As `Operation.engine`.
    count : int
        How often one inference runs it.
    nanoseconds : float
        Of one inference: all of its calls together, `midmean` over the calls that were profiled.
    kernel : str
        What the runtime's profiler calls it, where that says more than ``kind``.
    """

    name: str
    kind: str
    engine: str
    count: int
    nanoseconds: float
    kernel: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TimedOperation:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**data)


def named(
    timed: Sequence[TimedOperation], operations: Iterable[Operation]
) -> tuple[TimedOperation, ...]:
    """``timed`` with the names of the executed operations that they are.

    A profiler that shows types alone still shows them in the order of execution: where it has as
    many of a type and engine as the record, the first is the first.

    >>> conv = Operation("a", "conv", 1, "float32", "cpu")
    >>> named([TimedOperation("", "conv", "cpu", 1, 5.0)], [conv])[0].name
    'a'
    """
    waiting: dict[tuple[str, str], deque[str]] = defaultdict(deque)
    for operation in operations:
        waiting[operation.kind, operation.engine].append(operation.name)
    shown = Counter((one.kind, one.engine) for one in timed)
    matching = {key for key, count in shown.items() if count == len(waiting[key])}
    return tuple(
        replace(one, name=waiting[one.kind, one.engine].popleft())
        if (one.kind, one.engine) in matching
        else one
        for one in timed
    )


def midmean(durations: Sequence[float]) -> float:
    """Mean of the middle half: what preemption adds to a few calls is left out.

    A median would not do: profilers round to whole microseconds, as long as many operators take.

    >>> midmean([1, 2, 3, 1000])
    2.5
    """
    ordered = sorted(durations)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)


def typical(calls: Sequence[Sequence[tuple[Key, float]]]) -> list[tuple[Key, int, float]]:
    """What each operator of one inference takes, from those of many.

    Parameters
    ----------
    calls : sequence of calls
        Each the operators in the order in which they ran, with their nanoseconds.

    Returns
    -------
    list
        Operator, how often it runs, nanoseconds of one inference. One entry for each operator of a
        call where all calls have the same; else one of each kind, for loops go round by the data.

    >>> typical([[("conv", 5.0), ("conv", 1.0)]] * 4)
    [('conv', 1, 5.0), ('conv', 1, 1.0)]
    """
    orders = [[key for key, _ in call] for call in calls]
    if all(order == orders[0] for order in orders):
        durations = zip(*([ns for _, ns in call] for call in calls), strict=True)
        return [(key, 1, midmean(ns)) for key, ns in zip(orders[0], durations, strict=True)]
    by_kind: dict[Key, list[float]] = defaultdict(list)
    for key, ns in (entry for call in calls for entry in call):
        by_kind[key].append(ns)
    rates = {key: len(ns) / len(calls) for key, ns in by_kind.items()}
    return [
        (key, max(1, round(rates[key])), midmean(ns) * rates[key]) for key, ns in by_kind.items()
    ]
