"""Factors: dots on a logarithmic axis, each joined to the reference, for values that differ by much.

Such an axis has no zero, so that the length of a bar says nothing. That of a line from the reference
does: lines of one length are one factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from quantbench.report.drawing.style import GRID, INK, MUTED
from quantbench.units import Formatter

MUCH = 20.0
"""Values that differ by this factor: the shortest of their bars would all but vanish."""
LETTER = 5.8
"""SVG units that a letter of a tick's label takes at most."""
TALL = 24
"""Rows of a drawing that is labelled at the top too."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A row of the drawing: its value, the arms of its interval, and what is written beside it.

    A value that is not above 0 has no place on the axis: it is written and not drawn.
    """

    value: float
    arms: list[list[float]] | None
    color: str
    text: str
    bold: bool = False
    reference: bool = False

    @property
    def drawn(self) -> bool:
        """Whether it has a place on the axis."""
        return self.value > 0

    @property
    def ends(self) -> tuple[float, ...]:
        """The value and the ends of its interval, of those that have a place on the axis."""
        (below,), (above,) = self.arms or [[0.0], [0.0]]
        return tuple(x for x in (self.value - below, self.value, self.value + above) if x > 0)


def differ_much(values: Sequence[float]) -> bool:
    """Whether those of ``values`` that are above 0 differ `MUCH`.

    >>> differ_much([1.0, 19.0]), differ_much([1.0, 0.0, 21.0]), differ_much([math.nan])
    (False, True, False)
    """
    known = [x for x in values if x > 0]
    return bool(known) and max(known) >= MUCH * min(known)


def draw_factors(
    axes: Axes, dots: Sequence[Dot], write: Formatter, room: float, width: float
) -> None:
    """A row per dot, the first on top; their texts stand in a column of their own on the right.

    Parameters
    ----------
    dots : sequence of Dot
        At least one of them is drawn.
    write : callable
        A value as the axis is labelled with it.
    room : float
        How many times longer the axis is for the texts.
    width : float
        SVG units that the axis takes at least.
    """
    ends = [end for dot in dots for end in dot.ends]
    low, high = min(ends) / 1.25, max(ends) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, low * (high / low) ** room)
    reference = next((dot.value for dot in dots if dot.reference and dot.drawn), None)
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=1, linestyle=(0, (3, 2)), zorder=1)
    for y, dot in enumerate(dots):
        axes.plot([low, high], [y, y], color=GRID, linewidth=0.6, zorder=0.5)
        if dot.drawn:
            _draw(axes, y, dot, reference)
        axes.annotate(
            dot.text, (high, y), (4, 0), textcoords="offset points", va="center", fontsize=8.5,
            color=INK, fontweight="bold" if dot.bold else "normal",
        ).set_in_layout(False)  # fmt: skip
    axes.minorticks_off()
    ticks = ticks_between(low, high, write, width / room)
    axes.set_xticks(ticks, [write(x) for x in ticks])
    axes.tick_params(axis="x", length=0, labeltop=len(dots) > TALL)
    axes.grid(visible=False, axis="y")


def _draw(axes: Axes, y: int, dot: Dot, reference: float | None) -> None:
    if reference is not None and not dot.reference:
        axes.plot(
            [reference, dot.value], [y, y], color=dot.color, linewidth=2.5, alpha=0.35, zorder=2
        )
    if dot.arms:
        # behind the dot, where one that is narrower would look like a letter
        axes.errorbar(
            [dot.value], [y], xerr=dot.arms, fmt="none", color=INK, elinewidth=1.2, zorder=2.2
        )
    axes.plot(
        [dot.value], [y], marker="D" if dot.reference else "o", markersize=6, color=dot.color,
        markeredgewidth=0, linestyle="", zorder=2.5, clip_on=False,
    )  # fmt: skip


def ticks_between(low: float, high: float, write: Formatter, width: float) -> list[float]:
    """Round values between the ends of a logarithmic axis, as many as have room for their labels.

    Parameters
    ----------
    width : float
        SVG units from ``low`` to ``high``.

    >>> [ticks_between(0.5, 40, "{:g}".format, width) for width in (100, 40, 20)]
    [[1.0, 3.0, 10.0, 30.0], [1.0, 10.0], [1.0]]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    unit = width / math.log10(high / low)

    def fits(ticks: Sequence[float]) -> bool:
        halves = [LETTER * (len(write(x)) + 1) / 2 for x in ticks]
        return all(
            unit * math.log10(b / a) >= left + right
            for a, b, left, right in zip(ticks, ticks[1:], halves, halves[1:], strict=False)
        )

    halves, tens = (
        [x for d in decades for lead in leads if low <= (x := lead * 10.0**d) <= high]
        for leads in ((1, 3), (1,))
    )
    fewer = (tens[::step] for step in range(1, len(tens) + 1))
    return next((ticks for ticks in (halves, *fewer) if fits(ticks)), [])
