"""TimeDifference: where the time of an artifact's inference differs from its float twin's, by operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantbench.backend_api import CONVERSIONS, TimedOperation
from quantbench.results import ArtifactRow, OperatorProfile, ProfiledCall

OUTSIDE = "outside operators"
DEPTHWISE, CONVOLUTION, RECURRENT, PRODUCT, CONVERSION = (
    "depthwise convolution", "convolution", "recurrent layer", "product", "conversion",
)  # fmt: skip
MULTIPLYING = (DEPTHWISE, CONVOLUTION, RECURRENT, PRODUCT)
# the order decides: a depthwise convolution is a convolution too
_WORDS: Mapping[str, tuple[str, ...]] = {
    RECURRENT: ("lstm", "gru", "rnn"),
    DEPTHWISE: ("depthwise",),
    CONVOLUTION: ("conv",),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One operator of one of the two calls: what the profiler and the record say of it.

    ``nanoseconds`` are those of the call, after `ProfiledCall.scale`; ``row`` is the executed
    operation that it is, or None.
    """

    operation: TimedOperation
    nanoseconds: float
    row: ArtifactRow | None


@dataclass(frozen=True, slots=True)
class TypeDifference:
    """Operators that do the same in both: the time that each side spends in them, nanoseconds."""

    name: str
    own: tuple[Run, ...]
    full: tuple[Run, ...]
    own_ns: float
    full_ns: float

    @property
    def difference(self) -> float:
        """Nanoseconds that the artifact takes more."""
        return self.own_ns - self.full_ns

    @property
    def kinds(self) -> tuple[str, str]:
        """The operators' types, the artifact's and the float twin's, each with how many there are."""
        return _kinds(self.own), _kinds(self.full)

    @property
    def multiplies(self) -> bool:
        """Whether the model's multiplications are in it."""
        return self.name in MULTIPLYING


@dataclass(frozen=True, slots=True)
class TimeDifference:
    """The two calls, type by type, the largest differences first.

    ``macs``: multiply-accumulates of one inference of the artifact, as its record has them.
    """

    own_ns: float
    full_ns: float
    types: tuple[TypeDifference, ...]
    macs: int = 0

    @property
    def lost(self) -> float:
        """Nanoseconds of the types that take longer in the artifact: the time that makes it slower."""
        return sum(max(0.0, one.difference) for one in self.types)

    @property
    def gained(self) -> float:
        """Nanoseconds of the types that take less."""
        return sum(max(0.0, -one.difference) for one in self.types)

    def share(self, one: TypeDifference) -> float:
        """A type's share of what is lost, or, negative, of what is gained."""
        whole = self.lost if one.difference > 0 else self.gained
        return one.difference / whole if whole else 0.0


def time_difference(
    profile: OperatorProfile, own: Sequence[ArtifactRow], full: Sequence[ArtifactRow]
) -> TimeDifference:
    """The difference of a profile's two calls; ``own`` and ``full`` are their executed operations."""
    types = _types((*own, *full))
    sides = [
        _by_type(call, executed, types)
        for call, executed in ((profile.own, own), (profile.full, full))
    ]
    names = dict.fromkeys([*sides[0], *sides[1]])
    found = [
        TypeDifference(
            name,
            tuple(sides[0].get(name, ())),
            tuple(sides[1].get(name, ())),
            _spent(sides[0], name),
            _spent(sides[1], name),
        )
        for name in names
    ]
    found.append(TypeDifference(OUTSIDE, (), (), profile.own.outside, profile.full.outside))
    found.sort(key=lambda one: -abs(one.difference))
    return TimeDifference(
        profile.own.nanoseconds, profile.full.nanoseconds, tuple(found),
        sum(row.macs or 0 for row in own),
    )  # fmt: skip


def _types(executed: Iterable[ArtifactRow]) -> dict[str, str]:
    """What operators of a kind do, for those that the records know."""
    types: dict[str, str] = {}
    for row in executed:
        if row.macs:
            types[row.operator] = _multiplication(row.operator)
        elif row.role in CONVERSIONS:
            types.setdefault(row.operator, CONVERSION)
    return types


def _multiplication(kind: str) -> str:
    words = kind.lower()
    return next(
        (name for name, known in _WORDS.items() if any(word in words for word in known)), PRODUCT
    )


def _by_type(
    call: ProfiledCall, executed: Sequence[ArtifactRow], types: Mapping[str, str]
) -> dict[str, list[Run]]:
    rows = {row.name: row for row in executed}
    found: dict[str, list[Run]] = {}
    for one in call.operations:
        run = Run(one, one.nanoseconds * call.scale, rows.get(one.name))
        converts = one.kind.lower().startswith(("convert", "quantize", "dequantize"))
        name = types.get(one.kind, CONVERSION if converts else one.kind)
        found.setdefault(name, []).append(run)
    return found


def _spent(side: Mapping[str, Sequence[Run]], name: str) -> float:
    return sum(run.nanoseconds for run in side.get(name, ()))


def _kinds(runs: Sequence[Run]) -> str:
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.operation.kind] = counts.get(run.operation.kind, 0) + run.operation.count
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
