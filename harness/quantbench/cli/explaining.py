"""Explaining: a trial's speed in words and tables, and what a remedy did, as a terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from quantbench.analysis import Explanation, TimeDifference
from quantbench.results import OperatorProfile
from quantbench.runs import Tried
from quantbench.stats import Interval

SMALL = 0.01
"""Of both calls: types of operators that take less are one line together."""


def show(found: Explanation, profile: OperatorProfile | None, out: Console) -> None:
    """Print how the trial compares, where the time differs, and the causes that hold it."""
    out.print(f"{found.trial}: {found.summary}", markup=False, soft_wrap=True)
    if found.difference is None or profile is None:
        _possible(found, out)
        return
    out.print()
    out.print(_table(found.difference))
    out.print(_how(profile), markup=False, style="dim")
    for cause in found.causes:
        out.print(
            f"\n{cause.name}: {cause.share:.0%} of what takes longer", style="bold", markup=False
        )
        out.print(cause.sentence, markup=False)
    if found.verdict:
        out.print(f"\n{found.verdict}", markup=False)


def show_tried(tried: Sequence[Tried], out: Console) -> None:
    """Print what each remedy did."""
    out.print()
    if not tried:
        out.print("No remedy is known that can be built here.")
    for one in tried:
        if one.faster is None:
            out.print(f"{one.trial}: not timed: {one.reason}", markup=False, soft_wrap=True)
            continue
        word = "helped" if one.helped else "did not help"
        against = f", {_times(one.against_float)} the float model" if one.against_float else ""
        out.print(
            f"{one.trial}: {word}: {_times(one.faster)} the trial{against}",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _possible(found: Explanation, out: Console) -> None:
    if not found.possible:
        out.print("Nothing that was recorded speaks against its speed.")
        return
    out.print(
        "\nWhere its time goes was not profiled: --profile measures it. What was recorded that could "
        "explain it:"
    )
    for cause in found.possible:
        out.print(f"\n{cause.name} (could explain it)", style="bold", markup=False)
        out.print(cause.sentence, markup=False)


def _table(d: TimeDifference) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("what")
    table.add_column("here", overflow="fold")
    table.add_column("in the float model", overflow="fold")
    for title in ("ms", "float ms", "difference", "share"):
        table.add_column(title, justify="right", no_wrap=True)
    least = SMALL * max(d.own_ns, d.full_ns)
    shown = [t for t in d.types if max(t.own_ns, t.full_ns) >= least]
    for one in shown:
        table.add_row(
            one.name, *one.kinds, *(f"{ns / 1e6:.4f}" for ns in (one.own_ns, one.full_ns)),
            f"{one.difference / 1e6:+.4f}", f"{d.share(one):+.0%}",
        )  # fmt: skip
    rest = [t for t in d.types if t not in shown]
    if rest:
        own, full = sum(t.own_ns for t in rest), sum(t.full_ns for t in rest)
        table.add_row(
            f"{len(rest)} others", "", "", f"{own / 1e6:.4f}", f"{full / 1e6:.4f}",
            f"{(own - full) / 1e6:+.4f}", "",
        )  # fmt: skip
    table.add_row(
        "one call", "", "", f"{d.own_ns / 1e6:.4f}", f"{d.full_ns / 1e6:.4f}",
        f"{(d.own_ns - d.full_ns) / 1e6:+.4f}", "",
    )  # fmt: skip
    return table


def _how(profile: OperatorProfile) -> str:
    noted = [call.told / call.nanoseconds for call in (profile.own, profile.full)]
    return (
        f"{profile.rounds} rounds of both in turns, against {profile.reference}. A positive share is of "
        "what takes longer, a negative one of what takes less. The calls are timed without a profiler; "
        f"with it, operators add up to {noted[0]:.2f} and {noted[1]:.2f} of a call."
    )


def _times(ratio: Interval) -> str:
    return f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] as fast as"
