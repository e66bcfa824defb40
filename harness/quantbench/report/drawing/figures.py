"""Figures: functions of a frame that return a picture, each drawn by seaborn on a figure of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from quantbench.analysis import Choice
from quantbench.report.drawing.canvas import (
    ALERT,
    INK,
    MUTED,
    NARROW,
    SERIES,
    Picture,
    fit,
    keys_above,
    picture,
    short_count,
    side_by_side,
)
from quantbench.units import milliseconds, number, one_line, percent, ratio, size

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p")

MOST = 40
"""Layers in one figure."""


def palette(names: Iterable[str]) -> dict[str, str]:
    """A colour per name, in order of appearance."""
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(dict.fromkeys(names))}


def markers(methods: Sequence[str]) -> dict[str, str]:
    """A marker per method, in order of appearance."""
    return {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(dict.fromkeys(methods))}


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


def bars(
    frame: pd.DataFrame, colors: Mapping[str, str], *, chosen: str | None, name: str
) -> Picture:
    """Latency and size of each trial, fastest first.

    Parameters are those of `tradeoff`; trials with a size but no latency come last.
    """
    title = "Latency and size of each trial, fastest first"
    return picture(lambda width: _bars(frame, colors, chosen, width), title, name)


def losses(steps: pd.DataFrame, *, name: str) -> Picture:
    """Training losses, one panel per method, one line per seed, averaged over a twentieth of it.

    Parameters
    ----------
    steps : DataFrame
        Columns ``method``, ``seed``, ``step`` and ``loss``.
    name : str
        Unique in the page: prefix of the SVG's ids.
    """
    title = "Training loss by step, one panel per method, one line per seed"
    return picture(lambda width: _losses(steps, width), title, name)


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


def ranges(frame: pd.DataFrame, *, name: str) -> Picture:
    """How much of each activation the ranges of calibrators span: a panel per backend.

    Parameters
    ----------
    frame : DataFrame
        Columns ``backend``, ``calibrator``, ``place`` (0 is the first activation of the model) and
        ``share`` (of the span of all observed values).
    """
    title = "Share of the observed values' span that each calibrator keeps, by activation"
    return picture(lambda width: _ranges(frame, width), title, name)


def histograms(frame: pd.DataFrame, *, name: str) -> Picture:
    """One activation per backend: how often its values occur, and the range of each calibrator.

    Parameters
    ----------
    frame : DataFrame
        Columns ``backend``, ``layer``, ``calibrator``, ``low``, ``high``; ``start``, ``width`` and
        ``counts`` of the backend's histogram in each row.
    """
    title = "The activation whose ranges differ most: its values, and each calibrator's range"
    return picture(lambda width: _histograms(frame, width), title, name)


def sensitivity(frame: pd.DataFrame, colors: Mapping[str, str], *, name: str) -> Picture:
    """SQNR by layer, first layer on top, a dot per backend; of more layers only the worst `MOST`.

    Parameters
    ----------
    frame : DataFrame
        Columns ``layer``, ``backend`` and ``sqnr_db``, in the order of the model.
    """
    title = "SQNR by layer, a dot per backend"
    return picture(lambda width: _sensitivity(frame, colors, width), title, name)


def trial_name(row: Mapping[str, Any]) -> str:
    """Backend and method on one line."""
    return one_line(f"{row['backend']} {row['label']}", 200)


def _labels(frame: pd.DataFrame, choice: Choice) -> dict[str, Markup]:
    """The opening of each mark's group, by its id: its trial, its state, and its title."""
    found = {}
    for i, row in zip(frame.index, _rows(frame), strict=True):
        state = "" if row["trial"] in choice.allowed else " refused"
        title = (
            f"{one_line(trial_name(row), 80)}: {milliseconds(row['latency_ms'])}, "
            f"quality {_quality(row['quality'], row['quality_unit'])}"
            + ("" if math.isnan(row["size_bytes"]) else f", {size(row['size_bytes'])}")
        )
        chosen = " chosen" if row["trial"] == choice.trial else ""
        found[f"mark-{i}"] = Markup('<g class="mark{}" data-trial="{}"><title>{}</title>').format(
            state + chosen, i, title
        )
        found[f"arms-{i}"] = Markup('<g class="arms{}" data-trial="{}">').format(state, i)
        found[f"name-{i}"] = Markup('<g class="tag" data-trial="{}">').format(i)
    found["front"] = Markup('<g class="front">')
    found["limit"] = Markup('<g class="limit">')
    return found


def _losses(steps: pd.DataFrame, width: float) -> Figure:
    methods = list(dict.fromkeys(steps["method"]))
    figure, panels = side_by_side(methods, width, 1.9, sharey=True, above=0.4)
    for method, axes in panels.items():
        here = steps[steps["method"] == method].sort_values(["seed", "step"])
        window = max(1, int(here["step"].max() + 1) // 20)
        smooth = here.assign(
            loss=here.groupby("seed")["loss"].transform(
                lambda x, n=window: x.rolling(n, min_periods=1).mean()
            )
        )
        seeds = sorted(here["seed"].unique())
        colors = {seed: SERIES[i % len(SERIES)] for i, seed in enumerate(seeds)}
        sns.lineplot(
            data=smooth, x="step", y="loss", hue="seed", palette=colors, ax=axes, linewidth=1.3,
            legend=False, errorbar=None,
        )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        for seed in seeds if len(seeds) > 1 else ():
            axes.annotate(
                f"seed {seed}", (1, 1 - 0.1 * seeds.index(seed)), (-2, -8), ha="right",
                xycoords="axes fraction", textcoords="offset points", color=colors[seed],
                fontsize=8.5,
            )  # fmt: skip
    return figure


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


def _ranges(frame: pd.DataFrame, width: float) -> Figure:
    colors = palette(frame["calibrator"])
    figure, panels = side_by_side(list(dict.fromkeys(frame["backend"])), width, 2.4, sharey=True)
    for backend, axes in panels.items():
        here = frame[frame["backend"] == backend].sort_values("place")
        sns.lineplot(
            data=here, x="place", y="share", hue="calibrator", palette=colors, ax=axes,
            linewidth=1.4, errorbar=None, legend=False,
        )  # fmt: skip
        axes.set_xlabel("activation, from first to last")
        axes.set_ylabel("kept of the span")
        axes.set_ylim(0, 1.04 * max(1.0, float(frame["share"].max())))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    keys_above(figure, colors)
    return figure


def _histograms(frame: pd.DataFrame, width: float) -> Figure:
    colors = palette(frame["calibrator"])
    figure, panels = side_by_side(list(dict.fromkeys(frame["backend"])), width, 2.8, sharey=False)
    for backend, axes in panels.items():
        here = frame[frame["backend"] == backend].drop_duplicates("calibrator")
        one = next(_rows(here))
        draw_histogram(
            axes,
            one["start"],
            one["width"],
            one["counts"],
            here.rename(columns={"calibrator": "line"}),
            colors,
        )
        axes.set_title(
            fit(f"{one_line(backend)}: {one_line(here.iloc[0]['layer'])}", 72 * width / 1.2),
            loc="left", color=INK,
        )  # fmt: skip
    keys_above(figure, colors)
    return figure


def draw_histogram(
    axes: Axes,
    start: float,
    width: float,
    values: Sequence[float],
    ranges: pd.DataFrame,
    colors: Mapping[str, str],
) -> None:
    """Draw how often values occur, and above them ranges, each at a height of its own.

    Parameters
    ----------
    values : mapping
        ``start``, ``width`` and ``counts`` of the histogram.
    ranges : DataFrame
        Columns ``line`` (a key of ``colors``), ``low`` and ``high``.
    """
    counts = pd.Series(list(values), dtype=float)
    middles = start + width * (counts.index + 0.5)
    sns.histplot(
        x=middles, weights=counts, bins=min(len(counts), 96), ax=axes, color=MUTED,
        element="step", linewidth=0, alpha=0.35,
    )  # fmt: skip
    axes.set_yscale("log")
    for level, row in enumerate(_rows(ranges)):
        height = 0.94 - 0.09 * level
        axes.plot(
            [row["low"], row["high"]], [height, height], "|-", color=colors[row["line"]],
            transform=axes.get_xaxis_transform(), linewidth=2, markersize=8, markeredgewidth=2,
        )  # fmt: skip
    axes.set_xlabel("value")
    axes.set_ylabel("values in a bin")
    top = max(10.0, float(counts.max()))
    axes.set_ylim(0.5, top ** (1 / 0.45))  # room for the ranges
    every = 2 if top > 1000 else 1
    decades = [10.0**n for n in range(0, math.ceil(math.log10(top)) + 1, every)]
    axes.set_yticks(decades, [short_count(n) for n in decades])
    axes.yaxis.set_minor_formatter(NullFormatter())


def _sensitivity(frame: pd.DataFrame, colors: Mapping[str, str], width: float) -> Figure:
    worst = frame.groupby("layer")["sqnr_db"].min().nsmallest(MOST).index
    shown = frame[frame["layer"].isin(worst)]
    layers = list(dict.fromkeys(shown["layer"]))
    figure = Figure(figsize=(width, 0.8 + 0.2 * len(layers)), dpi=72, layout="constrained")
    axes = figure.subplots()
    names = {layer: fit(one_line(layer), 0.35 * 72 * width) for layer in layers}
    sns.scatterplot(
        data=shown.assign(place=[layers.index(layer) for layer in shown["layer"]]),
        x="sqnr_db", y="place", hue="backend", palette=dict(colors), style="backend",
        markers=markers(list(colors)), s=34, linewidth=0, ax=axes, legend=False,
    )  # fmt: skip
    axes.set_yticks(range(len(layers)), [names[layer] for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlabel("SQNR, dB")
    axes.set_ylabel("")
    keys_above(figure, colors, markers(list(colors)))
    return figure


def _line_keys(axes: Axes, colors: Mapping[str, str]) -> None:
    """Names of lines in their colours, in the corner with the most room."""
    keys = [
        Line2D([], [], color=color, label=fit(one_line(name), 200), linewidth=2)
        for name, color in colors.items()
    ]
    axes.legend(handles=keys, loc="best", handlelength=1.2)


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for record in frame.to_dict("records"):
        yield {str(key): value for key, value in record.items()}


def _quality(value: float, unit: str) -> str:
    return percent(value) if unit == "fraction" else number(value, 4)


# --- drawing -------------------------------------------------------------------------------------


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
    _legend(legend, keys, columns)
    drawn = draw_tradeoff(axes, frame, colors, shapes, max_drop, choice, narrow=narrow)
    figure.set_gid(_plot(figure, axes, drawn))
    return figure


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
    for i, row in zip(ordered.index, _rows(ordered), strict=True):
        _mark(axes, row, i, colors[row["backend"]], shapes[row["method"]], low)
    _time_axis(axes, frame)
    if share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g} %"))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_ylabel("quality")
    axes.set_xlabel("latency, ms (less is better)")
    _name_points(axes, frame, choice, narrow)
    return frame


SMALLEST_AREA, LARGEST_AREA = 22.0, 320.0
"""Of a mark, in square points."""


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


def _mark(
    axes: Axes, row: Mapping[str, Any], index: int, color: str, shape: str, low: float | None
) -> None:
    x, y, clipped = row["latency_ms"], row["shown"], low is not None and row["quality"] < low
    bars = {
        "yerr": None if clipped else _arms(row["quality"], row["arm_low"], row["arm_high"]),
        "xerr": _arms(x, row["latency_ms_low"], row["latency_ms_high"]),
    }
    *_, arms = axes.errorbar(
        [x], [y], **bars, fmt="none", ecolor=color, elinewidth=1, alpha=0.45, zorder=2
    )  # fmt: skip
    for arm in arms:
        arm.set_gid(f"arms-{index}")
    points = pd.DataFrame({"x": [x], "y": [y]})
    sns.scatterplot(
        data=points, x="x", y="y", ax=axes, color=color, marker=shape, s=row["area"],
        edgecolor="none", linewidth=0, zorder=3, clip_on=False, legend=False,
    )  # fmt: skip
    axes.collections[-1].set_gid(f"mark-{index}")
    if clipped:
        axes.annotate(
            f"↓ {percent(row['quality'])}", (x, y), (0, 6), color=color, fontsize=8.5,
            textcoords="offset points", ha="center", va="bottom",
        )  # fmt: skip


def _arms(value: float, low: float, high: float) -> list[list[float]] | None:
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


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
    frame, chosen = frame.assign(number=frame.index), choice.trial
    front = frame[frame["trial"].isin(choice.front)]
    named = [row for row in _rows(front) if row["trial"] != chosen and not row["is_reference"]]
    others = [row for row in _rows(frame) if row["is_reference"] and row["trial"] != chosen]
    best = [row for row in _rows(frame) if row["trial"] == chosen]
    figure = axes.get_figure()
    if figure is None:
        return
    figure.draw_without_rendering()
    dots = axes.transData.transform(frame[["latency_ms", "shown"]].to_numpy())
    # a mark of that area, in points, is so many units wide
    halves = [math.sqrt(area) / 2 + 1 for area in frame["area"]]
    taken = [(x - h, y - h, x + h, y + h) for (x, y), h in zip(dots, halves, strict=True)]
    taken += [_ends(text) for text in axes.texts]
    inside = axes.get_window_extent()
    for row in best + others + ([] if narrow else named):
        text = fit(trial_name(row), 170, 8.5)
        weight = "bold" if row["trial"] == chosen else "normal"
        note = axes.annotate(
            text, (row["latency_ms"], row["shown"]), (0, 8), textcoords="offset points",
            fontsize=8.5, color=INK, fontweight=weight, zorder=4, gid=f"name-{row['number']}",
        )  # fmt: skip
        for dx, dy, ha, va in _PLACES:
            note.set_position((dx, dy))
            note.set_horizontalalignment(ha)
            note.set_verticalalignment(va)
            ends = _ends(note)
            within = (
                inside.x0 <= ends[0] and ends[2] <= inside.x1 + 8
                and inside.y0 <= ends[1] and ends[3] <= inside.y1
            )  # fmt: skip
            if within and not any(_overlap(ends, other) for other in taken):
                taken.append(ends)
                break
        else:
            note.remove()


_PLACES = [
    (dx, dy, ha, va)
    for distance in (8, 18, 30, 44)
    for dx, dy, ha, va in (
        (0, distance, "center", "bottom"),
        (0, -distance, "center", "top"),
        (distance, 0, "left", "center"),
        (-distance, 0, "right", "center"),
        (4, distance, "left", "bottom"),
        (4, -distance, "left", "top"),
        (-4, distance, "right", "bottom"),
        (-4, -distance, "right", "top"),
    )
]


def _ends(text: Text) -> tuple[float, float, float, float]:
    box = text.get_window_extent()
    return box.x0, box.y0, box.x1, box.y1


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(axes: Axes, keys: Sequence[Sequence[Line2D]], columns: int) -> None:
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


def _bars(
    frame: pd.DataFrame, colors: Mapping[str, str], chosen: str | None, width: float
) -> Figure:
    narrow, count = width == NARROW, len(frame)
    ordered = frame.sort_values(["latency_ms", "size_bytes"], na_position="last")
    ordered = ordered.assign(key=[str(i) for i in range(count)])
    names = [fit(trial_name(row), 135 if narrow else 200) for row in _rows(ordered)]
    height = 0.75 + 0.27 * count
    with mpl.rc_context({"axes.spines.left": True, "axes.spines.bottom": False}):
        shape = (2, 1) if narrow else (1, 2)
        figure = Figure(figsize=(width, height * 2 if narrow else height), layout="constrained")
        figure.set_layout_engine("constrained", w_pad=0.1)
        panels = figure.subplots(*shape)
        hues = {key: colors[b] for key, b in zip(ordered["key"], ordered["backend"], strict=True)}
        for axes, metric, title, write in (
            (panels[0], "latency_ms", "latency, ms", _latency_text),
            (panels[1], "size_bytes", "size", _size_text),
        ):
            sns.barplot(
                data=ordered, x=metric, y="key", hue="key", palette=hues, saturation=1, ax=axes,
                legend=False, errorbar=None, width=0.68,
            )  # fmt: skip
            start, scale = _bar_axis(axes, ordered[metric].dropna(), 1.62 if narrow else 1.5)
            for y, row in enumerate(_rows(ordered)):
                _bar_text(axes, row, metric, y, write(row), row["trial"] == chosen, start)
            axes.set_xlabel("")
            axes.set_ylabel("")
            axes.set_title(f"{title} ({scale}less is better)", loc="left", color=MUTED)
            axes.tick_params(axis="y", length=0)
            axes.set_xticks([])
            axes.set_ylim(count - 0.4, -0.6)
            axes.set_yticks(range(count), names)
            for tick, trial in zip(axes.get_yticklabels(), ordered["trial"], strict=True):
                tick.set_fontweight("bold" if trial == chosen else "normal")
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
    axes: Axes, row: Mapping[str, Any], metric: str, y: int, text: str, bold: bool, start: float
) -> None:
    value = row[metric]
    end = start if math.isnan(value) else value
    arms = None
    if metric == "latency_ms" and not math.isnan(value):
        arms = _arms(value, row["latency_ms_low"], row["latency_ms_high"])
    if arms is not None:
        axes.errorbar([value], [y], xerr=arms, fmt="none", color=INK, elinewidth=1, capsize=2)
        end += arms[1][0]
    axes.annotate(
        text, (end, y), (5, 0), textcoords="offset points", va="center",
        fontsize=8.5, color=INK, fontweight="bold" if bold else "normal",
    ).set_in_layout(False)  # fmt: skip


def _latency_text(row: Mapping[str, Any]) -> str:
    if math.isnan(row["latency_ms"]):
        return "not timed"
    text = number(row["latency_ms"])
    return text if math.isnan(row["speedup"]) else f"{text}  ({ratio(row['speedup'])})"


def _size_text(row: Mapping[str, Any]) -> str:
    return "unknown" if math.isnan(row["size_bytes"]) else size(row["size_bytes"])
