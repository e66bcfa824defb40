"""Dots: drawings of one mark per trial, per class of a trial, or per shift of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from quantbench.report.drawing.marks import mark_keys, markers, palette
from quantbench.report.drawing.panels import keys_above, side_by_side
from quantbench.report.drawing.style import INK, MUTED, NARROW, SERIES, fit
from quantbench.report.drawing.svg import Picture, picture
from quantbench.stats import CLASS_SAMPLES
from quantbench.units import decibels, one_line, percent

LOSSLESS_DB = 100.0
"""A float model's rounding; there is nothing to see in it."""
MOST_CLASSES = 20
"""Classes in one figure: of more, those that lose most."""
SIGNIFICANT = 0.05


def overview(
    frame: pd.DataFrame,
    colors: Mapping[str, str],
    shapes: Mapping[str, str],
    title: str,
    *,
    name: str,
) -> Picture:
    """Answers that differ from the float model's by SQNR, a mark per trial.

    Parameters
    ----------
    frame : DataFrame
        Rows of `quantbench.analysis.trial_table.trial_frame` with ``agreement`` and ``sqnr_db``.
    name : str
        Unique in the page: prefix of the SVG's ids.
    """

    def draw(width: float) -> Figure:
        narrow = width == NARROW
        figure = Figure(figsize=(width, 3.4 if narrow else 3.1), dpi=72, layout="constrained")
        axes = figure.subplots()
        draw_overview(axes, frame, colors, shapes)
        backends, methods = mark_keys(frame, colors, shapes)
        figure.legend(
            handles=[*backends, *methods], loc="outside upper left", ncols=3 if narrow else 7, handletextpad=0.1,
            columnspacing=1.2,
        )  # fmt: skip
        return figure

    labels = {
        f"dot-{i}": Markup("<g><title>{}</title>").format(
            f"{one_line(f'{b} {m}', 80)}: {decibels(s)}, differs on {percent(1 - a)}"
        )
        for i, (b, m, s, a) in enumerate(
            frame[["backend", "label", "sqnr_db", "agreement"]].itertuples(index=False)
        )
    }
    return picture(draw, title, name, labels)


def draw_overview(
    axes: Axes, frame: pd.DataFrame, colors: Mapping[str, str], shapes: Mapping[str, str]
) -> None:
    """Draw what `overview` shows, without its keys."""
    for i, (backend, method, x, y) in enumerate(
        frame[["backend", "method", "sqnr_db", "agreement"]].itertuples(index=False)
    ):
        sns.scatterplot(
            x=[x], y=[1 - y], ax=axes, color=colors[backend], marker=shapes[method], s=42,
            linewidth=0, legend=False, clip_on=False,
        )  # fmt: skip
        axes.collections[-1].set_gid(f"dot-{i}")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g} %"))
    axes.set_xlabel("SQNR of the outputs, dB (more is better)")
    axes.set_ylabel("answers that differ from float")


def classes(drops: pd.DataFrame, title: str, *, name: str) -> Picture:
    """The loss of each class with its interval, a colour per trial; filled where it is significant.

    Parameters
    ----------
    drops : DataFrame
        Of `quantbench.report.sections.fidelity.class_drops`.
    """

    def draw(width: float) -> Figure:
        count = min(MOST_CLASSES, drops["label"].nunique())
        trials = drops["trial"].nunique()
        height = 1.1 + 0.18 * trials + count * (0.14 + 0.09 * trials)
        figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
        axes = figure.subplots()
        draw_classes(axes, drops)
        figure.legend(
            handles=class_keys(drops, 250 if width == NARROW else 400), loc="outside upper left",
            ncols=1 if width == NARROW else 2,
        )  # fmt: skip
        return figure

    return picture(draw, title, name)


def draw_classes(axes: Axes, drops: pd.DataFrame) -> None:
    """Draw what `classes` shows, without its keys."""
    worst = drops.groupby("label")["drop"].max().sort_values(ascending=False, kind="stable")
    labels = sorted(worst.index[:MOST_CLASSES])
    trials = list(dict.fromkeys(drops["trial"]))
    for number, trial in enumerate(trials):
        aside = (number - (len(trials) - 1) / 2) * 0.7 / len(trials)
        own = drops[(drops["trial"] == trial) & drops["label"].isin(labels)].dropna(subset=["drop"])
        places = [labels.index(label) + aside for label in own["label"]]
        color = SERIES[number % len(SERIES)]
        axes.hlines(
            places, 100 * own["low"], 100 * own["high"], color=color, linewidth=1.1, alpha=0.6
        )
        sure = (own["p"] < SIGNIFICANT).to_numpy()
        for those, filled in ((sure, True), (~sure, False)):
            if those.any():
                sns.scatterplot(
                    x=100 * own["drop"][those], y=pd.Series(places, own.index)[those], ax=axes,
                    color=color if filled else "none", edgecolor=color, linewidth=1.2, s=26,
                    legend=False, zorder=3,
                )  # fmt: skip
    axes.axvline(0, color=MUTED, linewidth=0.8)
    counts = drops.drop_duplicates("label").set_index("label")["n"]
    names = [
        f"{label}  (n {counts[label]}{'' if counts[label] >= CLASS_SAMPLES else ': too few'})"
        for label in labels
    ]
    axes.set_yticks(range(len(labels)), names)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel("accuracy lost in the class, percentage points (less is better)")
    axes.set_ylabel("class")


def class_keys(drops: pd.DataFrame, room: float = 400) -> list[Line2D]:
    """Keys of the trials' colours, and of filled marks."""
    names = drops.drop_duplicates("trial")["name"]
    keys = [
        Line2D(
            [], [], linestyle="", marker="o", color=SERIES[i % len(SERIES)], label=fit(name, room)
        )
        for i, name in enumerate(names)
    ]
    hollow = {"markerfacecolor": "none", "color": INK}
    return [*keys, Line2D([], [], linestyle="", marker="o", label="may be chance", **hollow)]


def drift(frame: pd.DataFrame, lines: Sequence[str], *, y: str, name: str) -> Picture:
    """A quantity under each shift of the inputs, a panel per backend, a dot per method.

    Parameters
    ----------
    frame : DataFrame
        Columns ``backend``, ``line`` (the method, and whether it was calibrated again), ``shift``
        and ``y``, in the order in which shifts are shown.
    lines : sequence of str
        All lines of the page, so that each has the same colour in every figure.
    y : str
        ``quality`` (0..1), or ``SQNR`` (dB, against the float model under the same shift).
    """
    title = {
        "quality": "Quality under shifted inputs",
        "SQNR": "What quantization adds: SQNR against the float model under the same shift",
    }[y]
    return picture(lambda width: _drift(frame, lines, y, width), title, name)


def _drift(frame: pd.DataFrame, lines: Sequence[str], y: str, width: float) -> Figure:
    shifts = list(dict.fromkeys(frame["shift"]))
    shown, every, marks = set(frame["line"]), palette(lines), markers(lines)
    colors = {line: color for line, color in every.items() if line in shown}
    figure, panels = side_by_side(list(dict.fromkeys(frame["backend"])), width, 2.6, sharey=True)
    for backend, axes in panels.items():
        here = frame[frame["backend"] == backend]
        for place, line in enumerate(colors):
            # side by side, so that none hides another
            aside = (place - (len(colors) - 1) / 2) * 0.6 / len(colors)
            own = here[here["line"] == line]
            sns.scatterplot(
                x=[shifts.index(shift) + aside for shift in own["shift"]], y=own[y],
                color=colors[line], marker=marks[line], ax=axes, s=34, linewidth=0, legend=False,
            )  # fmt: skip
        axes.set_xlim(-0.5, len(shifts) - 0.5)
        axes.set_xticks(
            range(len(shifts)), [fit(one_line(s), 110) for s in shifts], rotation=30, ha="right"
        )
        axes.set_xlabel("")
        axes.set_ylabel("quality" if y == "quality" else f"{y}, dB")
        if y == "quality":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    keys_above(figure, colors, marks)
    return figure
