"""Executed work: where a trial multiplies more, or less, than the run's reference, and which operators do.

Two forms of one function need not do the same work: a shortcut that takes every other pixel is a
``Slice`` in ONNX and a 1x1 convolution in Keras.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from quantbench.analysis.trial_table import MeasuredTrial, trial_rows
from quantbench.results import ArtifactRow, Results, rows
from quantbench.units import one_line

SAME = 0.001
"""Work that differs by less than this share is the same work."""
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-accumulates of one inference as they were executed, a trial's and its reference's.

    Parameters
    ----------
    reference : str
        Backend and label of the reference.
    operators : tuple of ArtifactRow
        Those that whichever does more executes beyond the other; empty where the record does not show
        which they are.
    """

    macs: int
    reference_macs: int
    reference: str
    operators: tuple[ArtifactRow, ...] = ()

    @property
    def share(self) -> float:
        """What the trial does more, as a share of what the reference does; below 0 for less."""
        return self.macs / self.reference_macs - 1

    @property
    def sentence(self) -> str:
        """How the work differs."""
        counts = f"{millions(self.macs)} multiplications an inference, {self.reference} {millions(self.reference_macs)}"
        said = f"It executes {counts} ({_signed(self.share)})"
        if not self.operators:
            return f"{said}; the record does not show by which operators."
        kinds = _kinds(self.operators)
        names = [one_line(entry.name, 60) for entry in self.operators[:MOST_NAMED]]
        rest = len(self.operators) - len(names)
        named = ", ".join(names) + (f" and {rest} more" if rest else "")
        who = "it has" if self.share > 0 else "the reference has"
        return f"{said}: {who} {kinds} beyond the other ({named})."

    @property
    def short(self) -> str:
        """The same in small print."""
        who = "more here" if self.share > 0 else "more there"
        because = f": {_kinds(self.operators)} {who}" if self.operators else ""
        return f"{_signed(self.share)} MACs against the reference{because}"


def _signed(share: float) -> str:
    return f"{100 * share:+.2f} %".replace("-", "−")


def _kinds(operators: Sequence[ArtifactRow]) -> str:
    counts = Counter(one_line(entry.operator, 40) for entry in operators)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def other_work(results: Results, trials: Sequence[MeasuredTrial] | None = None) -> dict[str, Work]:
    """Of each trial whose executed multiply-accumulates differ from its reference's by `SAME` or more.

    Parameters
    ----------
    trials : sequence of MeasuredTrial, optional
        All of the run, where they are known.
    """
    trials = trial_rows(results) if trials is None else trials
    labels = {one.trial: one_line(f"{one.backend} {one.label}") for one in trials}
    executed = results.artifacts[results.artifacts["kind"] == "executed"]
    by_trial = {str(name): rows(ArtifactRow, group) for name, group in executed.groupby("trial")}
    return {
        one.trial: work
        for one in trials
        if one.reference in by_trial and one.trial in by_trial
        if (work := compared(by_trial[one.trial], by_trial[one.reference], labels[one.reference]))
    }


def compared(
    own: Sequence[ArtifactRow], reference: Sequence[ArtifactRow], name: str
) -> Work | None:
    """The work of a trial beside its reference's, called ``name``; None where it is the same work."""
    macs, others = (sum(entry.macs or 0 for entry in side) for side in (own, reference))
    if not others or abs(macs - others) < SAME * others:
        return None
    return Work(macs, others, name, _surplus(own, reference))


def _surplus(
    own: Sequence[ArtifactRow], reference: Sequence[ArtifactRow]
) -> tuple[ArtifactRow, ...]:
    """The operators of one that the other has not, where all else has its equal in size.

    Operators have other names in each framework; what they multiply is the same. Where both sides
    have some that the other has not, the graphs are cut differently; where one has more of a size
    that it has elsewhere too, nothing tells them apart.
    """
    sizes, others = (
        Counter(entry.macs for entry in side if entry.macs) for side in (own, reference)
    )
    more, fewer = sizes - others, others - sizes
    if bool(more) == bool(fewer):
        return ()
    side, surplus = (own, more) if more else (reference, fewer)
    found = tuple(entry for entry in side if entry.macs in surplus)
    return found if len(found) == surplus.total() else ()


def millions(macs: int) -> str:
    """Multiply-accumulates in short, with digits enough to tell a thousandth.

    >>> millions(40_813_184), millions(1_278_592)
    ('40.81 M', '1.279 M')
    """
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if macs >= scale:
            return f"{macs / scale:#.4g} {unit}"
    return str(macs)
