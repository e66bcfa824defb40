"""Trade-off: the quality of trials against their latency, with the front and the allowed loss."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from quantbench.analysis import Choice
from quantbench.report.drawing.marks import arms, draw_keys, mark_keys, trial_name
from quantbench.report.drawing.style import ALERT, INK, NARROW, fit
from quantbench.report.drawing.svg import Picture, picture
from quantbench.report.drawing.tags import Tag, write_tags
from quantbench.units import milliseconds, number, one_line, percent, size

SMALLEST_AREA, LARGEST_AREA = 22.0, 320.0
"""Of a mark, in square points."""


def tradeoff(
    frame: pd.DataFrame,
    colors: Mapping[str, str],
    shapes: Mapping[str, str],
    *,
    max_drop: float,
    choice: Choice,
    name: str,
) -> Picture:
    """Quality against latency, with error bars, the Pareto front and the allowed loss.

    The area of a mark is the size of the file. Each mark names its row in ``frame`` as
    ``data-trial``, and the plot its frame and scale as ``data-plot``, so that the page's script can
    follow other limits.

    Parameters
    ----------
    frame : DataFrame
        Rows of `quantbench.analysis.trial_table.trial_frame` with latency and quality, of one comparison.
    choice : Choice
        The recommended trial, the front, and what is allowed.
    name : str
        Unique in the page: prefix of the SVG's ids.
    """
    title = "Quality against latency, one mark per trial"

    def draw(width: float) -> Figure:
        return _tradeoff(frame, colors, shapes, max_drop, choice, width)

    return picture(draw, title, name, _labels(frame, choice))


def draw_tradeoff(
    axes: Axes,
    frame: pd.DataFrame,
    colors: Mapping[str, str],
    shapes: Mapping[str, str],
    max_drop: float,
    choice: Choice,
    *,
    narrow: bool = False,
) -> pd.DataFrame:
    """Draw what `tradeoff` shows, without its keys; on a narrow figure fewer trials are named.

    Returns the rows with ``shown``, the quality where each mark is.
    """
    frame = _with_loss_arms(frame)
    share = bool((frame["quality_unit"] == "fraction").all())
    low, high = _quality_limits(frame, max_drop) if share else (None, None)
    if low is not None:
        axes.set_ylim(low, high)
    _allowed_loss(axes, frame, max_drop if share else None)
    shown = frame["quality"].clip(lower=low) if low is not None else frame["quality"]
    frame = frame.assign(shown=shown, area=_areas(frame["size_bytes"]))
    _front(axes, frame[frame["trial"].isin(choice.front)])
    # the largest first, so that none hides another
    ordered = frame.sort_values("area", ascending=False, kind="stable")
    for row in _rows(ordered):
        _mark(axes, row, colors[row.backend], shapes[row.method], low)
    _time_axis(axes, frame)
    if share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g} %"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_ylabel("quality")
    axes.set_xlabel("latency, ms (less is better)")
    _name_points(axes, frame, choice, narrow)
    return frame


def _labels(frame: pd.DataFrame, choice: Choice) -> dict[str, Markup]:
    """The opening of each mark's group, by its id: its trial, its state, and its title."""
    found = {}
    for row in _rows(frame):
        i = row.Index
        state = "" if row.trial in choice.allowed else " refused"
        title = (
            f"{one_line(trial_name(row.backend, row.label), 80)}: {milliseconds(row.latency_ms)}, "
            f"quality {_quality(row.quality, row.quality_unit)}"
            + ("" if math.isnan(row.size_bytes) else f", {size(row.size_bytes)}")
        )
        chosen = " chosen" if row.trial == choice.trial else ""
        found[f"mark-{i}"] = Markup('<g class="mark{}" data-trial="{}"><title>{}</title>').format(
            state + chosen, i, title
        )
        found[f"arms-{i}"] = Markup('<g class="arms{}" data-trial="{}">').format(state, i)
        found[f"name-{i}"] = Markup('<g class="tag" data-trial="{}">').format(i)
    found["front"] = Markup('<g class="front">')
    found["limit"] = Markup('<g class="limit">')
    return found


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows with a column by each of its attributes, and the place in the frame's index as ``Index``."""
    return iter(frame.itertuples())


def _quality(value: float, unit: str) -> str:
    return percent(value) if unit == "fraction" else number(value, 4)


def _tradeoff(
    frame: pd.DataFrame,
    colors: Mapping[str, str],
    shapes: Mapping[str, str],
    max_drop: float,
    choice: Choice,
    width: float,
) -> Figure:
    narrow = width == NARROW
    keys, columns = mark_keys(frame, colors, shapes), 3 if narrow else 6
    legend_height = 0.21 * sum(math.ceil(len(block) / columns) for block in keys)
    plot_height = 4.0 if narrow else 4.2
    figure = Figure(figsize=(width, plot_height + legend_height), dpi=72, layout="constrained")
    legend, axes = figure.subplots(2, 1, height_ratios=[legend_height, plot_height])
    draw_keys(legend, keys, columns)
    drawn = draw_tradeoff(axes, frame, colors, shapes, max_drop, choice, narrow=narrow)
    figure.set_gid(_plot(figure, axes, drawn))
    return figure


def _areas(sizes: pd.Series[float]) -> pd.Series[float]:
    """Areas in proportion to sizes; never too small to be hit, and the middle where it is unknown."""
    largest = float(sizes.max()) if sizes.notna().any() else 1.0
    areas = (LARGEST_AREA * sizes / largest).clip(lower=SMALLEST_AREA)
    return areas.fillna(SMALLEST_AREA)


def _plot(figure: Figure, axes: Axes, frame: pd.DataFrame) -> str:
    """The inside of the plot in units of the SVG, and where its qualities lie, as JSON."""
    figure.draw_without_rendering()
    inside, height = axes.get_window_extent(), float(figure.get_size_inches()[1]) * 72
    low, high = axes.get_ylim()
    reference = frame.loc[frame["is_reference"], "quality"]
    share = bool((frame["quality_unit"] == "fraction").all())
    return json.dumps(
        {
            "left": round(inside.x0, 2),
            "right": round(inside.x1, 2),
            "top": round(height - inside.y1, 2),
            "bottom": round(height - inside.y0, 2),
            "low": low,
            "high": high,
            "reference": float(reference.iloc[0]) if share and len(reference) else None,
            "at": {
                str(i): [round(float(x), 2), round(height - float(y), 2)]
                for i, (x, y) in zip(
                    frame.index,
                    axes.transData.transform(frame[["latency_ms", "shown"]].to_numpy()),
                    strict=True,
                )
            },
        }
    )


def _quality_limits(frame: pd.DataFrame, max_drop: float) -> tuple[float, float]:
    """Zoomed to what is worth shipping: what lost far more is drawn on the lower edge."""
    quality, top = frame["quality"], float(frame["quality"].max())
    near = quality[quality >= top - 6 * max_drop]
    ends = frame.loc[near.index, ["arm_low", "arm_high"]]
    low = min(float(near.min()), float(ends["arm_low"].min(skipna=True)), top - 1.6 * max_drop)
    low = max(low, top - 7 * max_drop)
    high = max(top, float(ends["arm_high"].max(skipna=True)))
    room = 0.09 * (high - low)
    return low - room, min(high + room, 1 + room)


def _with_loss_arms(frame: pd.DataFrame) -> pd.DataFrame:
    """The interval of the loss as ends of quality: paired with the reference, so its error cancels."""
    float_quality = frame["quality"] + frame["quality_drop"]
    return frame.assign(
        arm_low=(float_quality - frame["quality_drop_high"]).fillna(frame["quality"]),
        arm_high=(float_quality - frame["quality_drop_low"]).fillna(frame["quality"]),
    )


def _allowed_loss(axes: Axes, frame: pd.DataFrame, max_drop: float | None) -> None:
    reference = frame.loc[frame["is_reference"], "quality"]
    if max_drop is None or reference.empty:
        return
    level = float(reference.iloc[0]) - max_drop
    axes.axhspan(-10, level, color=ALERT, alpha=0.06, linewidth=0, gid="limit")
    axes.axhline(level, color=ALERT, linewidth=1, linestyle=(0, (4, 3)), gid="limit")
    axes.annotate(
        f"float − {100 * max_drop:g} pp", (1, level), (-4, -4), color=ALERT, fontsize=8.5,
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", va="top",
        gid="limit",
    )  # fmt: skip


def _front(axes: Axes, front: pd.DataFrame) -> None:
    front = front.sort_values("latency_ms")
    if len(front) > 1:
        axes.step(
            front["latency_ms"], front["quality"], where="post", color=INK, linewidth=1.1,
            alpha=0.55, linestyle=(0, (1, 1.6)), zorder=1.5, gid="front",
        )  # fmt: skip


def _mark(axes: Axes, row: Any, color: str, shape: str, low: float | None) -> None:
    """Draw the mark of one of `_rows` with its error bars; on the lower edge it says its quality."""
    x, y, clipped = row.latency_ms, row.shown, low is not None and row.quality < low
    bars = {
        "yerr": None if clipped else arms(row.quality, row.arm_low, row.arm_high),
        "xerr": arms(x, row.latency_ms_low, row.latency_ms_high),
    }
    *_, drawn = axes.errorbar(
        [x], [y], **bars, fmt="none", ecolor=color, elinewidth=1, alpha=0.45, zorder=2
    )  # fmt: skip
    for arm in drawn:
        arm.set_gid(f"arms-{row.Index}")
    points = pd.DataFrame({"x": [x], "y": [y]})
    sns.scatterplot(
        data=points, x="x", y="y", ax=axes, color=color, marker=shape, s=row.area,
        edgecolor="none", linewidth=0, zorder=3, clip_on=False, legend=False,
    )  # fmt: skip
    axes.collections[-1].set_gid(f"mark-{row.Index}")
    if clipped:
        axes.annotate(
            f"↓ {percent(row.quality)}", (x, y), (0, 6), color=color, fontsize=8.5,
            textcoords="offset points", ha="center", va="bottom",
        )  # fmt: skip


def _time_axis(axes: Axes, frame: pd.DataFrame) -> None:
    smallest, largest = float(frame["latency_ms"].min()), float(frame["latency_ms"].max())
    if smallest > 0 and largest / smallest > 4:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_locator(LogLocator(subs=()))
        axes.set_xlim(smallest / 1.35, largest * 1.35)
    else:
        room = 0.12 * (largest - smallest or largest)
        axes.set_xlim(smallest - room, largest + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _name_points(axes: Axes, frame: pd.DataFrame, choice: Choice, narrow: bool) -> None:
    """Name the choice, the reference and the front; each where no other name or mark is."""
    figure = axes.get_figure()
    if figure is None:
        return
    rows = list(_rows(frame))
    best = [row for row in rows if row.trial == choice.trial]
    rest = [row for row in rows if row.trial != choice.trial]
    references = [row for row in rest if row.is_reference]
    front = [row for row in rest if row.trial in choice.front and not row.is_reference]
    tags = [
        Tag(
            fit(trial_name(row.backend, row.label), 170, 8.5),
            at=(row.latency_ms, row.shown),
            gid=f"name-{row.Index}",
            bold=row.trial == choice.trial,
        )
        for row in best + references + ([] if narrow else front)
    ]
    figure.draw_without_rendering()
    dots = axes.transData.transform(frame[["latency_ms", "shown"]].to_numpy())
    # a mark of that area, in points, is so many units wide
    halves = [math.sqrt(area) / 2 + 1 for area in frame["area"]]
    marks = [(x - h, y - h, x + h, y + h) for (x, y), h in zip(dots, halves, strict=True)]
    write_tags(axes, tags, marks)
