"""Tags: the names of marks beside them, each where no other name or mark is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.text import Text

from quantbench.report.drawing.style import INK

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in units of the canvas."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A name for the mark ``at`` a point of the data; ``gid`` is the id of its group."""

    text: str
    at: tuple[float, float]
    gid: str
    bold: bool


def write_tags(axes: Axes, tags: Sequence[Tag], marks: Sequence[Box]) -> None:
    """Write each tag where no mark, text or earlier tag is; leave out what has no room.

    The figure must have been drawn, so that the places of all it shows are known.
    """
    taken = [*marks, *(_box(text) for text in axes.texts)]
    inside = axes.get_window_extent()
    for tag in tags:
        note = axes.annotate(
            tag.text, tag.at, (0, 8), textcoords="offset points", fontsize=8.5, color=INK,
            fontweight="bold" if tag.bold else "normal", zorder=4, gid=tag.gid,
        )  # fmt: skip
        for dx, dy, ha, va in _PLACES:
            note.set_position((dx, dy))
            note.set_horizontalalignment(ha)
            note.set_verticalalignment(va)
            ends = _box(note)
            within = (
                inside.x0 <= ends[0] and ends[2] <= inside.x1 + 8
                and inside.y0 <= ends[1] and ends[3] <= inside.y1
            )  # fmt: skip
            if within and not any(_overlap(ends, other) for other in taken):
                taken.append(ends)
                break
        else:
            note.remove()


_PLACES = [
    (dx, dy, ha, va)
    for distance in (8, 18, 30, 44)
    for dx, dy, ha, va in (
        (0, distance, "center", "bottom"),
        (0, -distance, "center", "top"),
        (distance, 0, "left", "center"),
        (-distance, 0, "right", "center"),
        (4, distance, "left", "bottom"),
        (4, -distance, "left", "top"),
        (-4, distance, "right", "bottom"),
        (-4, -distance, "right", "top"),
    )
]


def _box(text: Text) -> Box:
    box = text.get_window_extent()
    return box.x0, box.y0, box.x1, box.y1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
