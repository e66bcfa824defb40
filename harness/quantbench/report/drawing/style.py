"""Style: the colours, fonts and sizes of every figure, and how much text fits where."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

# light values; the style sheet holds the dark ones under the same names
SERIES = ("#0067a5", "#c44601", "#00805c", "#8a4fbe", "#8f6a00", "#b3306b")
INK, MUTED, GRID, ALERT = "#1b1f24", "#59636e", "#d5dae0", "#b42318"
# from worse to better, for cells that hold a number: ink is readable on each, and orange and blue
# are told apart by readers who cannot tell red from green
SCALE = (
    "#e8833a", "#f2a668", "#f8c79b", "#fce4cd", "#eef0f2", "#dbeafa", "#b5d3f2", "#86b8e8", "#559bdb",
)  # fmt: skip
LEVEL = len(SCALE) // 2
"""Index of the colour of what is neither better nor worse."""
VARIABLES: Mapping[str, str] = {
    **{color: f"--series-{i + 1}" for i, color in enumerate(SERIES)},
    **{color: f"--worse-{LEVEL - i}" for i, color in enumerate(SCALE[:LEVEL])},
    SCALE[LEVEL]: "--level",
    **{color: f"--better-{i + 1}" for i, color in enumerate(SCALE[LEVEL + 1 :])},
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    ALERT: "--alert",
}
WIDE, NARROW = 8.8, 3.9  # inches; 72 SVG units each
STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "both",
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.facecolor": "none",
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.color": GRID,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}
PAPER: Mapping[str, Any] = {
    "figure.facecolor": "white", "savefig.facecolor": "white", "svg.hashsalt": "quantbench",
}  # fmt: skip
"""What differs where there is no page behind a figure."""


@contextmanager
def styled(**more: Any) -> Iterator[None]:
    """Draw in the page's style, with ``more`` settings of matplotlib."""
    with mpl.rc_context({**STYLE, **more}), warnings.catch_warnings():
        # the font only decides how much room a label gets; the browser draws it with its own
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # what seaborn 0.13 asks of matplotlib 3.11 for a box
        warnings.filterwarnings("ignore", message="vert: bool was deprecated")
        yield


def fit(text: str, width: float, points: float = 9.0) -> str:
    """``text`` cut to at most ``width`` SVG units in a font of ``points``."""
    font = FontProperties(size=points)
    for length in range(min(len(text), 60), 0, -1):
        shown = text if length == len(text) else f"{text[:length].rstrip()}…"
        # never too long where no glyph is wider than an em
        if len(shown) * points <= width:
            return shown
        if text_to_path.get_text_width_height_descent(shown, font, False)[0] <= width:
            return shown
    return "…"


def short_count(number: float) -> str:
    """A power of ten in short."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.0f}{name}"
    return f"{number:.0f}"
