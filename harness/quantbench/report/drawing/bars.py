"""Bars: the latency and the size of each trial; dots on a logarithmic axis where bars would vanish."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantbench.report.drawing.factors import Dot, differ_much, draw_factors
from quantbench.report.drawing.marks import arms, trial_name
from quantbench.report.drawing.style import INK, MUTED, NARROW, fit
from quantbench.report.drawing.svg import Picture, picture
from quantbench.units import Formatter, number, ratio, size


def bars(
    frame: pd.DataFrame, colors: Mapping[str, str], *, chosen: str | None, name: str
) -> Picture:
    """Latency and size of each trial, fastest first.

    Parameters are those of `quantbench.report.drawing.tradeoff.tradeoff`; trials with a size but no
    latency come last.
    """
    title = "Latency and size of each trial, fastest first"
    return picture(lambda width: _bars(frame, colors, chosen, width), title, name)


@dataclass(frozen=True, slots=True)
class _Panel:
    """One of the two quantities: of each trial its value, the arms of its interval, and its text."""

    title: str
    values: list[float]
    arms: list[list[list[float]] | None]
    texts: list[str]
    write: Formatter


def _bars(
    frame: pd.DataFrame, colors: Mapping[str, str], chosen: str | None, width: float
) -> Figure:
    narrow, count = width == NARROW, len(frame)
    ordered = frame.sort_values(["latency_ms", "size_bytes"], na_position="last")
    names = [
        fit(trial_name(backend, label), 124 if narrow else 200)
        for backend, label in zip(ordered["backend"], ordered["label"], strict=True)
    ]
    hues = [colors[backend] for backend in ordered["backend"]]
    bold = [trial == chosen for trial in ordered["trial"]]
    references = [bool(known) for known in ordered["is_reference"]]
    height = 0.75 + 0.27 * count
    with mpl.rc_context({"axes.spines.left": True, "axes.spines.bottom": False}):
        shape = (2, 1) if narrow else (1, 2)
        figure = Figure(figsize=(width, height * 2 if narrow else height), layout="constrained")
        figure.set_layout_engine("constrained", w_pad=0.1)
        panels = figure.subplots(*shape)
        for axes, panel in zip(panels, _panels(ordered), strict=True):
            scale = "less is better"
            if differ_much(panel.values):
                rows = zip(
                    panel.values, panel.arms, hues, panel.texts, bold, references, strict=True
                )
                room, free = (2.4, 130.0) if narrow else (1.75, 195.0)
                draw_factors(axes, [Dot(*row) for row in rows], panel.write, room, free)
                scale = "log" if narrow else "log, less is better"
            else:
                _draw_bars(axes, panel, hues, bold, 1.62 if narrow else 1.5)
            axes.set_title(f"{panel.title} ({scale})", loc="left", color=MUTED)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(count - 0.4, -0.6)
            axes.set_yticks(range(count), names)
            for tick, own in zip(axes.get_yticklabels(), bold, strict=True):
                tick.set_fontweight("bold" if own else "normal")
        if not narrow:
            panels[1].set_yticks([])
    return figure


def _panels(ordered: pd.DataFrame) -> tuple[_Panel, _Panel]:
    ends = ordered[["latency_ms", "latency_ms_low", "latency_ms_high"]].itertuples(index=False)
    times = ordered[["latency_ms", "speedup", "is_reference"]].itertuples(index=False)
    latencies, sizes = (
        [float(x) for x in ordered[metric]] for metric in ("latency_ms", "size_bytes")
    )
    return (
        _Panel(
            "latency, ms", latencies, [arms(*known) for known in ends],
            [_latency_text(*known) for known in times], "{:g}".format,
        ),
        _Panel("size", sizes, [None] * len(sizes), [_size_text(x) for x in sizes], _round_size),
    )  # fmt: skip


def _draw_bars(
    axes: Axes, panel: _Panel, hues: Sequence[str], bold: Sequence[bool], room: float
) -> None:
    """A bar per trial from zero, with ``room`` for texts as a multiple of the longest."""
    keys = [str(i) for i in range(len(hues))]
    sns.barplot(
        x=panel.values, y=keys, hue=keys, palette=dict(zip(keys, hues, strict=True)), saturation=1,
        ax=axes, legend=False, errorbar=None, width=0.68,
    )  # fmt: skip
    longest = max((x for x in panel.values if x > 0), default=1.0)
    axes.set_xlim(0, longest * room)
    for y, bar in enumerate(zip(panel.values, panel.arms, panel.texts, bold, strict=True)):
        _bar_text(axes, y, *bar)
    axes.set_xlabel("")
    axes.set_ylabel("")
    axes.set_xticks([])


def _bar_text(
    axes: Axes, y: int, value: float, error: list[list[float]] | None, text: str, bold: bool
) -> None:
    """Write what a bar says behind its end, or its error bar's; at zero where there is no bar."""
    end = 0.0 if math.isnan(value) else value
    if error is not None and not math.isnan(value):
        axes.errorbar([value], [y], xerr=error, fmt="none", color=INK, elinewidth=1, capsize=2)
        end += error[1][0]
    axes.annotate(
        text, (end, y), (5, 0), textcoords="offset points", va="center",
        fontsize=8.5, color=INK, fontweight="bold" if bold else "normal",
    ).set_in_layout(False)  # fmt: skip


def _latency_text(latency_ms: float, speedup: float, is_reference: bool) -> str:
    if math.isnan(latency_ms):
        return "not timed"
    text = number(latency_ms)
    if is_reference:
        return f"{text}  (reference)"
    return text if math.isnan(speedup) else f"{text}  ({ratio(speedup)})"


def _size_text(size_bytes: float) -> str:
    return "unknown" if math.isnan(size_bytes) else size(size_bytes)


def _round_size(size_bytes: float) -> str:
    """A round size, without the zeros behind its point.

    >>> _round_size(1e6), _round_size(3e5)
    ('1 MB', '300 kB')
    """
    return re.sub(r"\.0+ ", " ", size(size_bytes))
