"""MeasuredCauses: what holds the time by which an artifact differs from its float twin, as profiled.

A cause is named only where its operators hold at least `HALF` of the time that is lost; what holds less
is listed. Nothing here knows a backend's or a method's name: causes look at operators, engines, dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from quantbench.analysis.time_differences import (
    CONVERSION,
    OUTSIDE,
    Run,
    TimeDifference,
    TypeDifference,
)

HALF = 0.5
"""Of the time that is lost: less makes no cause."""
FASTER = 0.98
"""A call of less than this share of the float twin's is a gain, and has no cause of slowness."""


@dataclass(frozen=True, slots=True)
class MeasuredCause:
    """A cause with the share of the lost time that its operators hold.

    ``layers``: those of the operators that hold it, where they are known.
    """

    name: str
    sentence: str
    share: float
    layers: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()


def other_kernels(d: TimeDifference) -> Iterator[MeasuredCause]:
    """Multiplications in other kernels than those that the float twin runs them in."""
    slow: list[Run] = []
    share = 0.0
    for one in _losing(d):
        engines = {run.operation.engine for run in one.full}
        elsewhere = [run for run in one.own if engines and run.operation.engine not in engines]
        if one.multiplies and elsewhere:
            slow += elsewhere
            share += d.share(one) * _spent(elsewhere) / one.own_ns
    if slow:
        part = sum(map(_macs, slow)) / d.macs if d.macs else 0.0
        yield MeasuredCause(
            "other-kernels",
            f"{_operators(slow)} run in {_engines(slow)} kernels, where the float model's run in "
            f"{_engines([run for one in _losing(d) if one.multiplies for run in one.full])}: "
            f"{part:.0%} of the multiplications.{_inside(slow)}",
            share, _layers(slow), _dtypes(slow),
        )  # fmt: skip


def slow_kernels(d: TimeDifference) -> Iterator[MeasuredCause]:
    """Multiplications that take longer than the float twin's, in kernels of the same engine."""
    for one in _losing(d):
        engines = {run.operation.engine for run in one.full}
        own = [run for run in one.own if not engines or run.operation.engine in engines]
        if not one.multiplies or not own:
            continue
        share = d.share(one) * _spent(own) / one.own_ns
        each = _cost_per_call(one)
        if each is not None:
            yield MeasuredCause(
                "cost-per-call",
                f"Each of {_operators(own)} takes {each / 1000:.1f} microseconds more than the float "
                "model's before it multiplies anything, however small it is.",
                share, _layers(own), _dtypes(own),
            )  # fmt: skip
            continue
        kinds = one.kinds
        yield MeasuredCause(
            "slow-kernels",
            f"{kinds[0]} in {', '.join(_dtypes(own)) or 'the artifact'} take {_ms(one.own_ns)}, where "
            f"{kinds[1] or 'nothing'} of the float model take{'s' if not kinds[1] else ''} "
            f"{_ms(one.full_ns)}: the kernels themselves are slower.{_inside(own)}",
            share, _layers(own), _dtypes(own),
        )  # fmt: skip


def conversions(d: TimeDifference) -> Iterator[MeasuredCause]:
    """Time in operators that quantize, dequantize or cast."""
    for one in _losing(d):
        if one.name == CONVERSION:
            yield MeasuredCause(
                "conversions",
                f"Conversions between types ({one.kinds[0]}) take {_ms(one.difference)} more than in "
                "the float model.",
                d.share(one),
            )


def added_operators(d: TimeDifference) -> Iterator[MeasuredCause]:
    """Operators that multiply nothing, and that the float twin has not, or not as many of."""
    added = [
        one
        for one in _losing(d)
        if not one.multiplies and one.name not in (CONVERSION, OUTSIDE) and _more(one)
    ]
    if added:
        yield MeasuredCause(
            "added-operators",
            f"{', '.join(one.kinds[0] for one in added)} are executed beside the multiplications, "
            f"where the float model has {', '.join(filter(None, (o.kinds[1] for o in added))) or 'none'}: "
            f"{_ms(sum(one.difference for one in added))} more.",
            sum(map(d.share, added)),
        )


def outside_operators(d: TimeDifference) -> Iterator[MeasuredCause]:
    """Time of the call that no operator has: how the graph is run, not what it computes."""
    for one in _losing(d):
        if one.name == OUTSIDE:
            yield MeasuredCause(
                "outside-operators",
                f"{_ms(one.own_ns)} of a call are in no operator, {_ms(one.full_ns)} of the float "
                "model's: how the graph is run takes longer, not what it computes.",
                d.share(one),
            )


CAUSES: tuple[Callable[[TimeDifference], Iterator[MeasuredCause]], ...] = (
    other_kernels, slow_kernels, conversions, added_operators, outside_operators,
)  # fmt: skip


def candidates(d: TimeDifference) -> tuple[MeasuredCause, ...]:
    """Everything that takes longer than in the float twin, the largest share of the lost time first."""
    found = [cause for find in CAUSES for cause in find(d)]
    return tuple(sorted(found, key=lambda cause: -cause.share))


def named_causes(d: TimeDifference) -> tuple[MeasuredCause, ...]:
    """The causes: those that hold half of the lost time, where the artifact is not faster."""
    if d.own_ns < FASTER * d.full_ns:
        return ()
    return tuple(cause for cause in candidates(d) if cause.share >= HALF)


def verdict(d: TimeDifference) -> str:
    """What the profile says where no cause is named: what holds the time, or where the gain is."""
    if d.own_ns < FASTER * d.full_ns:
        best = min(d.types, key=lambda one: one.difference)
        return (
            f"It is faster. {-d.share(best):.0%} of what it gains is in "
            f"{_type(best)}: {_ms(best.own_ns)} instead of {_ms(best.full_ns)}."
        )
    held = ", ".join(f"{_type(one)} {d.share(one):.0%}" for one in _losing(d)[:4])
    return (
        "No cause holds half of the time that differs, so that none is named. What takes longer: "
        f"{held or 'nothing'}."
    )


# --- words and sums ------------------------------------------------------------------------------


def _losing(d: TimeDifference) -> list[TypeDifference]:
    return [one for one in d.types if one.difference > 0]


def _more(one: TypeDifference) -> bool:
    own, full = (sum(run.operation.count for run in side) for side in (one.own, one.full))
    return own > full


def _spent(runs: Sequence[Run]) -> float:
    return sum(run.nanoseconds for run in runs)


def _macs(run: Run) -> int:
    return (run.row.macs or 0) if run.row else 0


def _inside(runs: Sequence[Run]) -> str:
    """What the profiler says of operators that call many others, in a sentence."""
    told = dict.fromkeys(
        run.operation.kernel for run in runs if run.operation.kernel.startswith("calls ")
    )
    return f" One {'; one '.join(told)} in turn." if told else ""


def _layers(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(r.row.layer for r in runs if r.row and r.row.layer))


def _dtypes(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.row.dtype for run in runs if run.row))


def _engines(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.operation.engine for run in runs))


def _operators(runs: Sequence[Run]) -> str:
    kinds = dict.fromkeys(run.operation.kind for run in runs)
    return f"{sum(run.operation.count for run in runs)} {'/'.join(kinds)}"


def _type(one: TypeDifference) -> str:
    return f"{one.name} ({one.kinds[0] or one.kinds[1]})" if one.name != OUTSIDE else one.name


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.3f} ms"


def _cost_per_call(one: TypeDifference) -> float | None:
    """Nanoseconds that each operator takes more than the float twin's at no multiplications at all.

    None where that is less than half of the type's difference, or too few are known to tell.
    """
    lines = [_line(side) for side in (one.own, one.full)]
    if lines[0] is None or lines[1] is None:
        return None
    each = lines[0] - max(0.0, lines[1])
    return each if each * len(one.own) >= HALF * one.difference else None


def _line(runs: Sequence[Run]) -> float | None:
    """Where the line of nanoseconds over multiply-accumulates begins, by Theil and Sen's estimator.

    Source: Sen, Journal of the American Statistical Association 63 (1968), 1379-1389.
    """
    points = [(_macs(run), run.nanoseconds) for run in runs if _macs(run)]
    slopes = [(t2 - t1) / (m2 - m1) for (m1, t1), (m2, t2) in combinations(points, 2) if m1 != m2]
    if len({macs for macs, _ in points}) < 4:
        return None
    slope = max(0.0, median(slopes))
    return median(t - slope * m for m, t in points)
