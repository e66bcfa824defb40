"""Plot: figures of a run for notebooks and slides, as the report draws them; each returns its axes.

>>> from quantbench import load_results, plot  # doctest: +SKIP
>>> axes = plot.tradeoff(load_results("results/quickstart"))  # doctest: +SKIP
>>> axes.figure.savefig("tradeoff.png")  # doctest: +SKIP

Every function takes ``ax``, the axes to draw on; without it a figure is made. ``model`` and ``target``
are the first of the run where they are not given. Seaborn is imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

from quantbench.analysis import (
    LARGEST_DROP,
    Choice,
    Constraints,
    pooled,
    recommend,
    trial_frame,
    trial_rows,
)
from quantbench.errors import BadInput, did_you_mean
from quantbench.results import HistogramRow, Results, TrialRow, rows
from quantbench.units import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "agreement", "channels", "classes", "confusion", "fidelity", "heatmap", "histograms", "latencies", "rounds",
    "tradeoff",
]  # fmt: skip


def tradeoff(
    results: Results,
    model: str | None = None,
    target: str | None = None,
    ax: Axes | None = None,
    *,
    max_drop: float = LARGEST_DROP,
) -> Axes:
    """Quality against latency, a mark per trial, with the Pareto front and the allowed loss.

    Of trials that differ by seed alone, the median by loss is drawn.

    Raises
    ------
    BadInput
        For an unknown model or target, and where no trial was timed and scored.
    """
    from quantbench.report.drawing.marks import mark_keys
    from quantbench.report.drawing.tradeoff import draw_tradeoff

    frame, choice = _place(results, model, target, max_drop)
    candidates = [row.trial for row in pooled(trial_rows(results)) if row.is_candidate]
    timed = frame[frame["trial"].isin(candidates)].dropna(subset=["latency_ms", "quality"])
    if timed.empty:
        raise BadInput(f"no trial of {choice.model} on {choice.target} was timed and scored")
    colors, shapes = _looks(frame)
    with _drawing(ax, 8.0, 4.2) as axes:
        draw_tradeoff(axes, timed, colors, shapes, max_drop, choice)
        backends, methods = mark_keys(timed, colors, shapes)
        _keys(axes, [*backends, *methods])
        axes.set_title(_where(choice), loc="left")
    return axes


def heatmap(
    results: Results,
    metric: str = "speedup",
    backend: str | None = None,
    target: str | None = None,
    ax: Axes | None = None,
    *,
    model: str | None = None,
) -> Axes:
    """Methods by models of one ``backend``; without it, methods by backends of one ``model``.

    Parameters
    ----------
    metric : str
        ``speedup``, ``quality_drop`` (percentage points) or ``compression``. A cell that was not
        measured holds the mark of its status and the number of its reason in the report.

    Raises
    ------
    BadInput
        For an unknown metric, backend, model or target.
    """
    from quantbench.report.drawing import grids
    from quantbench.report.sections import heatmaps

    _, choice = _place(results, model, target)
    trials = trial_rows(results)
    _, reasons = heatmaps.support(trials, LARGEST_DROP)
    shown = [row for row in trials if row.target == choice.target]
    if backend is not None:
        _known("backend", backend, (row.backend for row in shown))
        shown = [row for row in shown if row.backend == backend]
    else:
        shown = [row for row in shown if row.model == choice.model]
    grid = heatmaps.heatmap(shown, reasons, metric, backend=backend, model=choice.model)
    size = 3.8 + 0.8 * len(grid.columns), 1.2 + 0.25 * len(grid.rows)
    with _drawing(ax, *size) as axes:
        grids.draw_grid(axes, grid)
        axes.set_ylabel("method")
        axes.set_xlabel("backend" if backend is None else "model")
        words = heatmaps.METRICS[metric].words
        unit = ", percentage points" if metric == "quality_drop" else ""
        where = choice.model if backend is None else backend
        axes.set_title(f"{words}{unit}: {one_line(f'{where} on {choice.target}', 60)}", loc="left")
    return axes


def latencies(
    results: Results,
    trials: Sequence[str] | None = None,
    model: str | None = None,
    target: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A violin per trial of the latencies of its rounds, around its median.

    Parameters
    ----------
    trials : sequence of str, optional
        Names of trials of one comparison; by default the reference, its A/A control, the
        recommended trial, the Pareto front and the fastest others.
    """
    from quantbench.report.drawing import traces

    times, where = _rounds(results, trials, model, target, 12)
    with _drawing(ax, 8.0, 0.8 + 0.36 * times["trial"].nunique()) as axes:
        traces.draw_latencies(axes, times)
        axes.set_title(f"latency of each round: {where}", loc="left")
    return axes


def rounds(
    results: Results,
    trials: Sequence[str] | None = None,
    model: str | None = None,
    target: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The latency of each round in the order of time: drift and noise; generations are marked.

    Parameters
    ----------
    trials : sequence of str, optional
        By default the reference, its A/A control and the recommended trial.
    """
    from quantbench.report.drawing import traces
    from quantbench.report.drawing.marks import palette

    times, where = _rounds(results, trials, model, target, 3)
    colors = palette(times["trial"])
    with _drawing(ax, 8.0, 2.8) as axes:
        traces.draw_rounds(axes, times, colors=colors)
        axes.set_ylabel("latency, off the trial's median")
        _line_keys(
            axes,
            {str(times.loc[times["trial"] == t, "name"].iloc[0]): c for t, c in colors.items()},
        )
        axes.set_title(f"latency over the rounds: {where}", loc="left")
    return axes


def agreement(
    results: Results,
    method: str = "static-int8",
    model: str | None = None,
    target: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How often every two backends give the same answer with one method, in per cent.

    Parameters
    ----------
    method : str
        A method with its axes, as trials are labelled: ``static-int8+granularity=per-tensor``.

    Raises
    ------
    BadInput
        Where fewer than two backends have answers of that method that are classes.
    """
    from quantbench.report.drawing import grids
    from quantbench.report.sections import fidelity as kept

    frame, choice = _place(results, model, target)
    answered, given, reference = kept.with_answers(results, frame)
    groups = kept.same_method(answered, given)
    if method not in groups:
        known = ", ".join(groups) or "none"
        raise BadInput(
            f"no two backends have answers of '{method}' on {_where(choice)}; methods that have: "
            f"{known}.{did_you_mean(method, groups)}"
        )
    shares = kept.matrix(groups[method], given, reference)
    names = tuple(dict.fromkeys(name for pair in shares for name in pair))
    with _drawing(ax, 2.0 + 0.9 * len(names), 1.2 + 0.4 * len(names)) as axes:
        grids.draw_grid(axes, kept.grid(method, shares, names))
        axes.set_xlabel("backend")
        axes.set_ylabel("backend")
        n = max(found.n for found in shares.values() if found)
        axes.set_title(f"same answers, %, {n:,} samples: {method}, {_where(choice)}", loc="left")
    return axes


def classes(
    results: Results, trials: str | Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """What each class loses against the float model, in percentage points with its interval.

    Parameters
    ----------
    trials : str or sequence of str, optional
        Of one model and target; by default the recommended trial of the first, and those that lose
        most. A filled mark is significant after Holm's correction over the classes.

    Raises
    ------
    BadInput
        For an unknown trial, and where no class has samples enough.
    """
    from quantbench.report.drawing import dots
    from quantbench.report.sections import fidelity as kept

    wanted = [trials] if isinstance(trials, str) else list(trials or ())
    frame, choice = _place_of(results, wanted, None, None)
    answered, given, reference = kept.with_answers(results, frame)
    chosen = answered[answered["trial"].isin(wanted)] if wanted else answered
    names = kept.of_interest(chosen, choice.trial, reference)
    drops = kept.class_drops(given, reference, names)
    if drops.empty:
        raise BadInput(f"no class of {_where(choice)} has test samples enough to judge its loss")
    with _drawing(ax, 8.0, 1.2 + 0.35 * drops["label"].nunique()) as axes:
        dots.draw_classes(axes, drops)
        _keys(axes, dots.class_keys(drops))
        axes.set_title(f"loss by class: {_where(choice)}", loc="left")
    return axes


def confusion(results: Results, trial: str | None = None, ax: Axes | None = None) -> Axes:
    """What float gets right and a trial calls by another name: samples by class and answer.

    Parameters
    ----------
    trial : str, optional
        By default, of the recommended trial and those that lose most, the first that loses a sample.

    Raises
    ------
    BadInput
        For an unknown trial, and where no sample is lost.
    """
    from quantbench.report.drawing import grids
    from quantbench.report.sections import confusion as confused
    from quantbench.report.sections import fidelity as kept

    frame, choice = _place_of(results, [trial] if trial else [], None, None)
    answered, given, reference = kept.with_answers(results, frame)
    full = str(reference)
    wanted = answered[answered["trial"] == trial] if trial else answered
    between = (
        (name, confused.differences(given, full, one))
        for one, name in kept.of_interest(wanted, choice.trial, reference).items()
        if one in given.columns and full in given.columns
    )
    name, found = next(((name, one) for name, one in between if one.lost), ("", None))
    if found is None:
        raise BadInput(
            f"{trial or 'no trial'} of {_where(choice)} has answers that are wrong and float's right"
        )
    grid = confused.matrix(name, found)
    with _drawing(ax, 2.6 + 0.5 * len(grid.columns), 1.4 + 0.3 * len(grid.rows)) as axes:
        grids.draw_grid(axes, grid)
        axes.set_xlabel("called")
        axes.set_ylabel("class, right in float")
        axes.set_title(f"{one_line(grid.title, 80)}; {_where(choice)}", loc="left")
    return axes


def fidelity(
    results: Results, model: str | None = None, target: str | None = None, ax: Axes | None = None
) -> Axes:
    """Answers that differ from the float model's, by SQNR; a mark per trial.

    Raises
    ------
    BadInput
        Where answers are no classes, or all are the float model's to the last digits.
    """
    from quantbench.report.drawing import dots
    from quantbench.report.drawing.marks import mark_keys

    frame, choice = _place(results, model, target)
    lossy = frame[frame["sqnr_db"] < dots.LOSSLESS_DB].dropna(subset=["agreement"])
    if lossy.empty:
        raise BadInput(f"no trial of {_where(choice)} has classes that differ from float's")
    colors, shapes = _looks(frame)
    with _drawing(ax, 8.0, 3.2) as axes:
        dots.draw_overview(axes, lossy, colors, shapes)
        backends, methods = mark_keys(lossy, colors, shapes)
        _keys(axes, [*backends, *methods])
        axes.set_title(_where(choice), loc="left")
    return axes


def histograms(
    results: Results,
    layer: str | None = None,
    model: str | None = None,
    ax: Axes | None = None,
    *,
    role: str = "weight",
    backend: str | None = None,
) -> Axes:
    """The values of a layer, and above them the ranges that files chose for it.

    Parameters
    ----------
    layer : str, optional
        By default that whose largest weight is furthest from the others; of activations, that
        whose ranges differ most.
    role : str
        ``weight``, with the ranges of the model's files; or ``activation`` of ``backend`` (the first
        by default), with the range of each calibrator that was injected.

    Raises
    ------
    BadInput
        For another role, and where the run holds no such histogram with ranges.
    """
    from quantbench.report.drawing.marks import palette
    from quantbench.report.drawing.ranges import draw_histogram
    from quantbench.report.sections import calibrator_ranges, weight_ranges

    if role not in ("weight", "activation"):
        raise BadInput(f"unknown role '{role}'.{did_you_mean(role, ('weight', 'activation'))}")
    _, choice = _place(results, model, None)
    seen: Mapping[str, HistogramRow | calibrator_ranges.Bins]
    if role == "weight":
        seen, held = weight_ranges.layers(results, choice.model)
    else:
        seen, held = calibrator_ranges.layers(results, choice.model, backend)
    if not seen:
        raise BadInput(f"the run holds no histogram of a {role} of {choice.model} with its range")
    name = layer if layer is not None else next(iter(seen))
    _known("layer", name, seen)
    lines = held[held["layer"] == name]
    with _drawing(ax, 8.0, 3.0) as axes:
        bins, colors = seen[name], palette(lines["line"])
        draw_histogram(axes, bins.start, bins.width, bins.counts, lines, colors)
        axes.set_xlabel(role)
        axes.set_ylabel(f"{role}s in a bin")
        _line_keys(axes, colors)
        axes.set_title(one_line(f"{name} of {choice.model}", 60), loc="left")
    return axes


def channels(results: Results, model: str | None = None, ax: Axes | None = None) -> Axes:
    """How many of 256 levels one scale per tensor would leave the channels of each layer.

    Raises
    ------
    BadInput
        Where no file of the model has a scale per channel.
    """
    from quantbench.report.sections import weight_ranges

    _, choice = _place(results, model, None)
    found = weight_ranges.channel_levels(weight_ranges.stored(results, choice.model))
    if found.empty:
        raise BadInput(f"no file of {choice.model} has a scale per channel")
    with _drawing(ax, 8.0, 0.9 + 0.21 * found["layer"].nunique()) as axes:
        weight_ranges.draw_channels(axes, found, 240)
        axes.set_ylabel("layer")
        axes.set_title(
            f"channels under one scale per tensor: {one_line(choice.model, 60)}", loc="left"
        )
    return axes


# --- where to draw, and of what ------------------------------------------------------------------


@contextmanager
def _drawing(ax: Axes | None, width: float, height: float) -> Iterator[Axes]:
    """The given axes, or those of a new figure of so many inches, in the style of the report."""
    from matplotlib import pyplot as plt

    from quantbench.report.drawing.style import PAPER, styled

    with styled(**PAPER):
        if ax is None:
            _, ax = plt.subplots(figsize=(width, height), layout="constrained")
        yield ax


def _place(
    results: Results,
    model: str | None,
    target: str | None,
    max_drop: float = LARGEST_DROP,
) -> tuple[pd.DataFrame, Choice]:
    """The trials of one model and target, and what is recommended there."""
    frame = trial_frame(results)
    if frame.empty:
        raise BadInput("the run holds no trial, so there is nothing to draw")
    if model is not None:
        _known("model", model, frame["model"])
    if target is not None:
        _known("target", target, frame["target"])
    for choice in recommend(results, Constraints(max_drop)):
        if model in (None, choice.model) and target in (None, choice.target):
            here = (frame["model"] == choice.model) & (frame["target"] == choice.target)
            return frame[here], choice
    raise BadInput(f"the run holds no trial of {model} on {target}")


def _place_of(
    results: Results, trials: Sequence[str], model: str | None, target: str | None
) -> tuple[pd.DataFrame, Choice]:
    """The place of the first of ``trials``, of which each must be known; else as `_place`."""
    from quantbench.report.sections.distributions import CONTROL

    known = {row.trial: row for row in rows(TrialRow, results.trials)}
    for trial in trials:
        _known("trial", trial.removesuffix(CONTROL), known)
    if trials:
        first = known[trials[0].removesuffix(CONTROL)]
        return _place(results, first.model, first.target)
    return _place(results, model, target)


def _rounds(
    results: Results,
    trials: Sequence[str] | None,
    model: str | None,
    target: str | None,
    most: int,
) -> tuple[pd.DataFrame, str]:
    """The rounds of the trials to draw, and where they were timed."""
    from quantbench.report.sections import distributions

    frame, choice = _place_of(results, list(trials or ()), model, target)
    wanted = list(trials or distributions.interesting(frame, choice.trial, most))
    times = distributions.rounds(results, frame, wanted)
    if times.empty:
        raise BadInput(f"the run holds no timed rounds of {_where(choice)}")
    return times, _where(choice)


def _known(kind: str, name: str, names: Any) -> None:
    known = dict.fromkeys(map(str, names))
    if name not in known:
        raise BadInput(f"no {kind} '{name}' in this run.{did_you_mean(name, known)}")


def _where(choice: Choice) -> str:
    return one_line(f"{choice.model} on {choice.target}", 60)


def _looks(frame: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """Colours of backends and marks of methods, as in the report."""
    from quantbench.report.drawing.marks import markers, palette

    return palette(list(frame["backend"])), markers(list(frame["method"]))


def _keys(axes: Axes, handles: Sequence[Any]) -> None:
    """Keys beside the axes, where they hide nothing."""
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def _line_keys(axes: Axes, colors: dict[str, str]) -> None:
    """Keys of lines below the axes, where long names have room."""
    from matplotlib.lines import Line2D

    from quantbench.report.drawing.style import fit

    axes.legend(
        handles=[
            Line2D([], [], color=color, label=fit(one_line(name), 240), linewidth=2)
            for name, color in colors.items()
        ],
        loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, borderaxespad=0,
    )  # fmt: skip
