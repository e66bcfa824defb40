"""Traces: drawings of a trial's rounds, as their distribution and over time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from quantbench.report.drawing.style import GRID, INK, MUTED, NARROW, SERIES, fit
from quantbench.report.drawing.svg import Picture, picture
from quantbench.units import milliseconds, number, one_line

COLORS: Mapping[str, str] = {"reference": SERIES[1], "control": SERIES[4], "trial": SERIES[0]}
"""By the role of a trial in its comparison."""
_SHOWN = (0.005, 0.97)
"""Quantiles of all rounds that are within the axis; what is beyond is a mark at its edge."""
_LEAST = 0.01
"""The axis reaches at least so far to both sides of the median."""


def latencies(times: pd.DataFrame, title: str, *, name: str) -> Picture:
    """A violin per trial of its rounds' latencies around their median, and every round in it.

    Parameters
    ----------
    times : DataFrame
        Of `quantbench.report.sections.distributions.rounds`.
    name : str
        Unique in the page: prefix of the SVG's ids.
    """

    def draw(width: float) -> Figure:
        count = times["trial"].nunique()
        figure = Figure(figsize=(width, 0.75 + 0.36 * count), dpi=72, layout="constrained")
        draw_latencies(figure.subplots(), times, room=110 if width == NARROW else 230)
        return figure

    return picture(draw, title, name)


def drifts(times: pd.DataFrame, title: str, *, name: str) -> Picture:
    """A panel per trial: its rounds in the order of time, the control with its reference.

    A narrow figure has the first six.
    """

    def draw(width: float) -> Figure:
        narrow = width == NARROW
        panels = _panels(times)[: 6 if narrow else None]
        columns = 1 if narrow else 3
        lines = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(width, 0.3 + 1.45 * lines), dpi=72, layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flatten()
        limits = _limits(times)
        for axes, (title, trials) in zip(grid, panels, strict=False):
            draw_rounds(axes, times[times["trial"].isin(trials)], limits=limits)
            axes.set_title(fit(title, 72 * width / columns - 55), loc="left", color=INK)
        for axes in grid[len(panels) :]:
            axes.remove()
        for place, axes in enumerate(grid[: len(panels)]):
            axes.set_ylabel("" if place % columns else "off its median")
            below = place + columns < len(panels)
            axes.set_xlabel("" if below else "round")
            axes.tick_params(axis="x", labelbottom=not below)
        return figure

    return picture(draw, title, name)


def draw_latencies(axes: Axes, times: pd.DataFrame, *, room: float = 230) -> None:
    """Draw what `latencies` shows; ``room`` for a trial's name, points."""
    low, high = _limits(times)
    shown = times.assign(off=times["off"].clip(low, high))
    trials = list(dict.fromkeys(times["trial"]))
    first = times.drop_duplicates("trial").set_index("trial")
    hues = {trial: COLORS[first.loc[trial, "role"]] for trial in trials}
    sns.violinplot(
        data=shown, x="off", y="trial", order=trials, hue="trial", palette=hues, ax=axes, cut=0,
        inner=None, linewidth=0, density_norm="width", width=0.85, alpha=0.3, legend=False,
        gridsize=48, orient="h", saturation=1,
    )  # fmt: skip
    for place, trial in enumerate(trials):
        own = shown[shown["trial"] == trial]
        # a burst's height in its violin is its generation's
        aside = 0.5 * (own["generation"] / max(1, own["generation"].max()) - 0.5)
        beyond = own["off"] != times.loc[own.index, "off"]
        for those, marker in ((~beyond, "o"), (beyond, "d")):
            sns.scatterplot(
                x=own.loc[those, "off"], y=place + aside[those], ax=axes, color=hues[trial], s=9,
                marker=marker, linewidth=0, legend=False, alpha=0.9, clip_on=False,
            )  # fmt: skip
    names = []
    for trial in trials:
        time = milliseconds(float(first.loc[trial, "median_ms"]))
        names.append(f"{fit(one_line(first.loc[trial, 'name']), room)}\n{time}")
    axes.set_yticks(range(len(trials)), names, fontsize=8.5)
    axes.set_ylim(len(trials) - 0.5, -0.5)
    axes.set_xlim(1.03 * low, 1.03 * high)
    axes.xaxis.set_major_formatter(FuncFormatter(_signed))
    axes.xaxis.set_major_locator(MaxNLocator(5 if room < 150 else 8, steps=[1, 2, 5, 10]))
    axes.set_xlabel("latency of a round, off the trial's median")
    axes.set_ylabel("")


def draw_rounds(
    axes: Axes,
    times: pd.DataFrame,
    *,
    limits: tuple[float, float] | None = None,
    colors: Mapping[str, str] | None = None,
) -> None:
    """Draw rounds in the order of time, generations marked, a line per trial.

    Parameters
    ----------
    limits : (float, float), optional
        Of the axis, as shares of the median; what lies beyond is a mark at its edge.
    colors : mapping, optional
        Of each trial; of its role by default.
    """
    low, high = limits or _limits(times)
    for edge in times.groupby("generation")["place"].min().iloc[1:]:
        axes.axvline(edge - 0.5, color=GRID, linewidth=0.8, linestyle=(0, (3, 2)), zorder=0.5)
    for trial in dict.fromkeys(times["trial"]):
        own = times[times["trial"] == trial]
        color = colors[trial] if colors else COLORS[own["role"].iloc[0]]
        shown = own["off"].clip(low, high)
        beyond = shown != own["off"]
        for _, part in own.assign(off=shown).groupby("generation"):
            sns.lineplot(
                data=part, x="place", y="off", ax=axes, color=color, linewidth=0.8, alpha=0.5,
                errorbar=None, legend=False,
            )  # fmt: skip
        for those, marker in ((~beyond, "o"), (beyond, "d")):
            sns.scatterplot(
                x=own.loc[those, "place"], y=shown[those], ax=axes, color=color, s=9, marker=marker,
                linewidth=0, legend=False, clip_on=False, zorder=3,
            )  # fmt: skip
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.set_ylim(1.05 * low, 1.05 * high)
    axes.yaxis.set_major_formatter(FuncFormatter(_signed))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("round")
    axes.set_ylabel("off its median")


def _panels(times: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """The title and the trials of each panel: the control is drawn with its reference."""
    found: list[tuple[str, list[str]]] = []
    for row in times.drop_duplicates("trial").itertuples():
        if row.role == "control" and found:
            title, trials = found[-1]
            found[-1] = (f"{title}, twice", [*trials, str(row.trial)])
        else:
            found.append((one_line(str(row.name)), [str(row.trial)]))
    return found


def _limits(times: pd.DataFrame) -> tuple[float, float]:
    """The ends of an axis that holds most rounds; slow ones are further off than fast ones."""
    low, high = (float(times["off"].quantile(share)) for share in _SHOWN)
    return min(-_LEAST, 1.3 * low), max(_LEAST, 1.2 * high)


def _signed(share: float, _: int) -> str:
    if abs(share) < 1e-9:
        return "0"
    text = (
        f"{number(100 * abs(share), 2).rstrip('0').rstrip('.')} %"
        if abs(share) < 0.1
        else f"{100 * abs(share):.0f} %"
    )
    return f"+{text}" if share > 0 else f"−{text}"
