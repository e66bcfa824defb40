"""Lines: a quantity by a numeric axis, a line per backend or method."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from quantbench.report.drawing.marks import markers, palette
from quantbench.report.drawing.panels import keys_above, side_by_side
from quantbench.report.drawing.style import fit, short_count
from quantbench.report.drawing.svg import Picture, picture
from quantbench.units import one_line


def sweep(
    frame: pd.DataFrame, colors: Mapping[str, str], *, x: str, y: str, unit: str, name: str
) -> Picture:
    """One quantity by a numeric axis, a line per backend through the means, every trial a dot.

    Parameters
    ----------
    frame : DataFrame
        Columns ``backend``, ``x`` and ``y``.
    x, y : str
        The columns, in words that label the axes.
    """
    title = f"{y} by {x}, a line per backend"
    return picture(lambda width: _sweep(frame, colors, x, y, unit, width), title, name)


def throughput(frame: pd.DataFrame, place: str, *, name: str) -> Picture:
    """Samples per second by batch size, a panel per backend, a line per method.

    Parameters
    ----------
    frame : DataFrame
        Columns ``backend``, ``label``, ``batch_size`` and ``throughput_per_s`` with its ends.
    """
    title = f"Samples per second by batch size: {one_line(place)}"
    return picture(lambda width: _throughput(frame, width), title, name)


def _sweep(
    frame: pd.DataFrame, colors: Mapping[str, str], x: str, y: str, unit: str, width: float
) -> Figure:
    figure = Figure(figsize=(width, 3.0), dpi=72, layout="constrained")
    axes = figure.subplots()
    sns.lineplot(
        data=frame, x=x, y=y, hue="backend", palette=dict(colors), ax=axes, linewidth=1.5,
        errorbar=None, legend=False,
    )  # fmt: skip
    sns.scatterplot(
        data=frame, x=x, y=y, hue="backend", palette=dict(colors), ax=axes, s=26, alpha=0.7,
        linewidth=0, legend=False,
    )  # fmt: skip
    values = sorted(frame[x].unique())
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_xlabel(x)
    axes.set_ylabel(f"{y}, {unit}" if unit else y)
    _line_keys(axes, {name: colors[name] for name in dict.fromkeys(frame["backend"])})
    return figure


def _throughput(frame: pd.DataFrame, width: float) -> Figure:
    labels = list(dict.fromkeys(frame["label"]))
    colors, marks = palette(labels), markers(labels)
    figure, panels = side_by_side(list(dict.fromkeys(frame["backend"])), width, 2.6, sharey=True)
    sizes = sorted(frame["batch_size"].unique())
    for backend, axes in panels.items():
        here = frame[frame["backend"] == backend]
        sns.lineplot(
            data=here, x="batch_size", y="throughput_per_s", hue="label", palette=colors,
            style="label", markers=marks, dashes=False, ax=axes, linewidth=1.5, legend=False,
            markeredgewidth=0, errorbar=None,
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("batch size")
        axes.set_ylabel("samples per second")
    keys_above(figure, colors, marks)
    return figure


def _line_keys(axes: Axes, colors: Mapping[str, str]) -> None:
    """Names of lines in their colours, in the corner with the most room."""
    keys = [
        Line2D([], [], color=color, label=fit(one_line(name), 200), linewidth=2)
        for name, color in colors.items()
    ]
    axes.legend(handles=keys, loc="best", handlelength=1.2)
