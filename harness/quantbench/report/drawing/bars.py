"""Bars: the latency and the size of each trial."""

from __future__ import annotations

import math
from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quantbench.report.drawing.marks import arms, trial_name
from quantbench.report.drawing.style import INK, MUTED, NARROW, fit
from quantbench.report.drawing.svg import Picture, picture
from quantbench.units import number, ratio, size


def bars(
    frame: pd.DataFrame, colors: Mapping[str, str], *, chosen: str | None, name: str
) -> Picture:
    """Latency and size of each trial, fastest first.

    Parameters are those of `quantbench.report.drawing.tradeoff.tradeoff`; trials with a size but no
    latency come last.
    """
    title = "Latency and size of each trial, fastest first"
    return picture(lambda width: _bars(frame, colors, chosen, width), title, name)


def _bars(
    frame: pd.DataFrame, colors: Mapping[str, str], chosen: str | None, width: float
) -> Figure:
    narrow, count = width == NARROW, len(frame)
    ordered = frame.sort_values(["latency_ms", "size_bytes"], na_position="last")
    ordered = ordered.assign(key=[str(i) for i in range(count)])
    names = [
        fit(trial_name(backend, label), 135 if narrow else 200)
        for backend, label in zip(ordered["backend"], ordered["label"], strict=True)
    ]
    ends = ordered[["latency_ms", "latency_ms_low", "latency_ms_high"]].itertuples(index=False)
    times = ordered[["latency_ms", "speedup"]].itertuples(index=False)
    intervals = [arms(value, low, high) for value, low, high in ends]
    time_texts = [_latency_text(latency_ms, speedup) for latency_ms, speedup in times]
    size_texts = [_size_text(size_bytes) for size_bytes in ordered["size_bytes"]]
    bold = [trial == chosen for trial in ordered["trial"]]
    height = 0.75 + 0.27 * count
    with mpl.rc_context({"axes.spines.left": True, "axes.spines.bottom": False}):
        shape = (2, 1) if narrow else (1, 2)
        figure = Figure(figsize=(width, height * 2 if narrow else height), layout="constrained")
        figure.set_layout_engine("constrained", w_pad=0.1)
        panels = figure.subplots(*shape)
        hues = {key: colors[b] for key, b in zip(ordered["key"], ordered["backend"], strict=True)}
        for axes, metric, title, texts, errors in (
            (panels[0], "latency_ms", "latency, ms", time_texts, intervals),
            (panels[1], "size_bytes", "size", size_texts, [None] * count),
        ):
            sns.barplot(
                data=ordered, x=metric, y="key", hue="key", palette=hues, saturation=1, ax=axes,
                legend=False, errorbar=None, width=0.68,
            )  # fmt: skip
            start, scale = _bar_axis(axes, ordered[metric].dropna(), 1.62 if narrow else 1.5)
            for y, bar in enumerate(zip(ordered[metric], errors, texts, bold, strict=True)):
                _bar_text(axes, y, start, *bar)
            axes.set_xlabel("")
            axes.set_ylabel("")
            axes.set_title(f"{title} ({scale}less is better)", loc="left", color=MUTED)
            axes.tick_params(axis="y", length=0)
            axes.set_xticks([])
            axes.set_ylim(count - 0.4, -0.6)
            axes.set_yticks(range(count), names)
            for tick, own in zip(axes.get_yticklabels(), bold, strict=True):
                tick.set_fontweight("bold" if own else "normal")
        if not narrow:
            panels[1].set_yticks([])
    return figure


def _bar_axis(axes: Axes, values: pd.Series[float], room: float) -> tuple[float, str]:
    """Limit the axis, with ``room`` for texts; returns its left end and a word on its scale.

    Bars that differ more than 20-fold would all but vanish beside the longest: they get a
    logarithmic axis that says so.
    """
    positive = values[values > 0]
    if positive.empty or positive.max() < 20 * positive.min():
        axes.set_xlim(0, (float(values.max()) if len(values) else 1.0) * room or 1.0)
        return 0.0, ""
    left = float(positive.min()) / 2
    axes.set_xscale("log", nonpositive="clip")
    axes.set_xlim(left, left * (float(positive.max()) / left) ** room)
    axes.minorticks_off()
    return left, "log, "


def _bar_text(
    axes: Axes,
    y: int,
    start: float,
    value: float,
    error: list[list[float]] | None,
    text: str,
    bold: bool,
) -> None:
    """Write what a bar says behind its end, or its error bar's; at ``start`` where there is no bar."""
    end = start if math.isnan(value) else value
    if error is not None and not math.isnan(value):
        axes.errorbar([value], [y], xerr=error, fmt="none", color=INK, elinewidth=1, capsize=2)
        end += error[1][0]
    axes.annotate(
        text, (end, y), (5, 0), textcoords="offset points", va="center",
        fontsize=8.5, color=INK, fontweight="bold" if bold else "normal",
    ).set_in_layout(False)  # fmt: skip


def _latency_text(latency_ms: float, speedup: float) -> str:
    if math.isnan(latency_ms):
        return "not timed"
    text = number(latency_ms)
    return text if math.isnan(speedup) else f"{text}  ({ratio(speedup)})"


def _size_text(size_bytes: float) -> str:
    return "unknown" if math.isnan(size_bytes) else size(size_bytes)
