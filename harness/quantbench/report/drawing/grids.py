"""Grids: numbers in cells of a matrix, on the colours from worse to better; what is empty says why."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from quantbench.report.drawing.style import GRID, INK, MUTED, NARROW, SCALE, fit
from quantbench.report.drawing.svg import Picture, picture
from quantbench.units import one_line

EMPTY = math.nan
"""Level of a cell without a number."""
RATIOS = (0.25, 0.5, 0.8, 0.98, 1.02, 1.25, 2.0, 4.0)
"""Where the colour of a ratio changes: even steps of its logarithm, but for what is about 1."""
DROPS = (-0.02, -0.01, -0.005, -0.001, 0.001, 0.005, 0.01, 0.02)
"""Where the colour of a loss changes, as shares."""
_CELL = 0.23  # height, inches
_GAP = 0.16
_FONT = 8.0


@dataclass(frozen=True, slots=True)
class Cell:
    """A text on a colour: ``level`` is an index of `SCALE`, or `EMPTY`."""

    text: str
    level: float = EMPTY


@dataclass(frozen=True, slots=True)
class Grid:
    """A titled matrix: the names of its rows and columns, and its cells row by row."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]


def rising(value: float, edges: Sequence[float]) -> int:
    """The level of a value of which more is better.

    >>> [rising(x, RATIOS) for x in (0.1, 1.0, 17.0)]
    [0, 4, 8]
    """
    return bisect_right(edges, value)


def falling(value: float, edges: Sequence[float]) -> int:
    """The level of a value of which less is better."""
    return len(SCALE) - 1 - bisect_right(edges, value)


def grids(shown: Sequence[Grid], title: str, *, name: str) -> Picture:
    """Grids beside and below each other, those side by side with the same rows.

    Parameters
    ----------
    name : str
        Unique in the page: prefix of the SVG's ids.
    """
    return picture(lambda width: _arranged(shown, width), title, name)


def draw_grid(axes: Axes, grid: Grid, *, names: bool = True, room: float = 200) -> None:
    """Draw a grid: columns on top; the names of the rows only where ``names``.

    Parameters
    ----------
    room : float
        For the name of a row, points.
    """
    levels = pd.DataFrame([[cell.level for cell in row] for row in grid.cells], dtype=float)
    texts = [[cell.text for cell in row] for row in grid.cells]
    sns.heatmap(
        levels, annot=pd.DataFrame(texts).to_numpy(dtype=object), fmt="", cmap=ListedColormap(SCALE),
        vmin=-0.5, vmax=len(SCALE) - 0.5, cbar=False, ax=axes, linewidths=0.8, linecolor=GRID,
        annot_kws={"color": INK, "fontsize": _FONT},
    )  # fmt: skip
    for i, row in enumerate(grid.cells):
        for j, cell in enumerate(row):
            if math.isnan(cell.level):
                axes.text(
                    j + 0.5,
                    i + 0.5,
                    cell.text,
                    color=MUTED,
                    fontsize=_FONT,
                    ha="center",
                    va="center",
                )
    axes.grid(visible=False)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    across = axes.get_position().width * axes.get_figure(root=True).get_figwidth() * 72
    wide = across / len(grid.columns) - 3
    tilted = any(fit(name, wide, _FONT) != name for name in map(one_line, grid.columns))
    columns = [fit(one_line(name), 78 if tilted else wide, _FONT) for name in grid.columns]
    axes.set_xticks(
        [j + 0.5 for j in range(len(columns))], columns, fontsize=_FONT, color=MUTED,
        rotation=32 if tilted else 0, ha="left" if tilted else "center",
        rotation_mode="anchor" if tilted else "default",
    )  # fmt: skip
    axes.set_yticks([i + 0.5 for i in range(len(grid.rows))])
    rows = [fit(one_line(name), room, _FONT) for name in grid.rows] if names else []
    axes.set_yticklabels(rows or [""] * len(grid.rows), fontsize=_FONT, color=INK, rotation=0)
    axes.set_title(
        fit(one_line(grid.title), max(across, 120)),
        loc="left",
        color=INK,
        pad=8 if not tilted else 6,
    )


def _arranged(shown: Sequence[Grid], width: float) -> Figure:
    """Each row of grids has its own names at the left."""
    narrow = width == NARROW
    names = 1.35 if narrow else 2.1  # inches
    beside = width - names - 0.45
    smallest = 0.4 if narrow else 0.46
    most = max(1, int(beside / smallest))
    lines: list[list[Grid]] = []
    used = math.inf
    for grid in (part for whole in shown for part in _split(whole, most)):
        need = smallest * len(grid.columns) + _GAP
        fits = used + need <= beside + _GAP and lines and lines[-1][0].rows == grid.rows
        if fits and not narrow:
            lines[-1].append(grid)
            used += need
        else:
            lines.append([grid])
            used = need
    columns = max(sum(len(grid.columns) for grid in line) for line in lines)
    gaps = _GAP * (max(map(len, lines)) - 1)
    cell = min(0.95, (beside - gaps) / columns)
    head = [_head(line, cell) for line in lines]
    heights = [_CELL * len(line[0].rows) for line in lines]
    total = sum(head) + sum(heights) + 0.12 * len(lines)
    figure = Figure(figsize=(width, total), dpi=72)
    top = total
    for line, above, height in zip(lines, head, heights, strict=True):
        left = names
        for i, grid in enumerate(line):
            across = cell * len(grid.columns)
            box = (left / width, (top - above - height) / total, across / width, height / total)
            draw_grid(figure.add_axes(box), grid, names=i == 0, room=72 * names - 10)
            left += across + _GAP
        top -= above + height + 0.12
    return figure


def _head(line: Sequence[Grid], cell: float) -> float:
    """Inches for a line's titles and the names of its columns."""
    wide = 72 * cell - 3
    names = [one_line(name) for grid in line for name in grid.columns]
    return 0.85 if any(fit(name, wide, _FONT) != name for name in names) else 0.52


def _split(grid: Grid, most: int) -> list[Grid]:
    """Parts of a grid with at most so many columns."""
    return [
        replace(
            grid,
            columns=grid.columns[start : start + most],
            cells=tuple(row[start : start + most] for row in grid.cells),
        )
        for start in range(0, len(grid.columns), most)
    ]
