"""Panels: titled axes of one figure beside and below each other, and the keys above them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from quantbench.report.drawing.style import INK, NARROW, fit
from quantbench.units import one_line


def side_by_side(
    names: Sequence[str], width: float, height: float, *, sharey: bool, above: float = 0.6
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a titled panel for each name: side by side, or on a narrow page below."""
    columns = 1 if width == NARROW else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(width, above + height * rows), dpi=72, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flatten()
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(fit(one_line(name), 72 * width / columns - 20), loc="left", color=INK)
    for axes in panels[len(names) :]:
        axes.remove()
    return figure, dict(zip(names, panels, strict=False))


def keys_above(
    figure: Figure, colors: Mapping[str, str], marks: Mapping[str, str] | None = None
) -> None:
    """Names of lines, or of marks, in their colours, above all panels."""
    labels = [fit(one_line(name), 200) for name in colors]
    keys = [
        Line2D(
            [], [], color=color, label=label, linewidth=0 if marks else 2,
            marker=marks[name] if marks else None,
        )
        for label, (name, color) in zip(labels, colors.items(), strict=True)
    ]  # fmt: skip
    font = FontProperties(size=9)
    longest = max(text_to_path.get_text_width_height_descent(t, font, False)[0] for t in labels)
    columns = max(1, int(72 * figure.get_figwidth() / (longest + 35)))
    figure.legend(
        handles=keys, loc="outside upper left", ncols=min(columns, len(keys)), handlelength=1.2
    )
