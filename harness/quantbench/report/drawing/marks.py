"""Marks: the colour of a backend and the shape of a method, the same in every figure, and their keys."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from quantbench.report.drawing.style import MUTED, SERIES, fit
from quantbench.units import one_line

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p")


def palette(names: Iterable[str]) -> dict[str, str]:
    """A colour per name, in order of appearance."""
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(dict.fromkeys(names))}


def markers(methods: Sequence[str]) -> dict[str, str]:
    """A marker per method, in order of appearance."""
    return {name: _MARKERS[i % len(_MARKERS)] for i, name in enumerate(dict.fromkeys(methods))}


def mark_keys(
    frame: pd.DataFrame, colors: Mapping[str, str], shapes: Mapping[str, str]
) -> tuple[list[Line2D], list[Line2D]]:
    """Keys of the backends' colours and of the methods' marks that a frame has."""

    def key(name: str, color: str, shape: str) -> Line2D:
        return Line2D(
            [], [], marker=shape, color=color, label=fit(one_line(name), 80), linestyle="",
            markersize=6.5, markeredgewidth=0, markeredgecolor=color,
        )  # fmt: skip

    return (
        [key(b, colors[b], "o") for b in colors if (frame["backend"] == b).any()],
        [key(m, MUTED, shapes[m]) for m in shapes if (frame["method"] == m).any()],
    )


def draw_keys(axes: Axes, keys: Sequence[Sequence[Line2D]], columns: int) -> None:
    """Fill ``axes``, which shows nothing else, with one block of keys above the other."""
    axes.set_axis_off()
    rows = [math.ceil(len(block) / columns) for block in keys]
    for i, block in enumerate(keys):
        top = 1 - sum(rows[:i]) / sum(rows)
        legend = axes.legend(
            handles=block, loc="upper left", bbox_to_anchor=(0, top), ncols=columns,
            handletextpad=0.1, columnspacing=1.2, borderaxespad=0, borderpad=0,
        )  # fmt: skip
        legend.set_in_layout(False)
        axes.add_artist(legend)


def trial_name(backend: str, label: str) -> str:
    """Backend and method on one line."""
    return one_line(f"{backend} {label}", 200)


def arms(value: float, low: float, high: float) -> list[list[float]] | None:
    """The lengths of an error bar, as matplotlib takes them; None without an interval."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]
