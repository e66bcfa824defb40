"""Latencies and sizes as bars from zero, and as dots joined to the reference where bars would vanish."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from quantbench.analysis import trial_frame
from quantbench.report.drawing.bars import bars
from quantbench.report.drawing.marks import palette
from quantbench.report.drawing.style import NARROW, WIDE, styled
from tests.harness.sample_results import TYPICAL, Invented, sample_results

REFERENCE, FAST = TYPICAL[0], TYPICAL[14]
FAR = (REFERENCE, FAST, replace(TYPICAL[3], latency_ms=40.0))


def drawn(folder: Path, trials: Sequence[Invented], width: float = WIDE) -> Figure:
    frame = trial_frame(sample_results(folder, trials))
    colors = palette(list(frame["backend"]))
    with styled():
        figure = bars(frame, colors, chosen=FAST.id, name="bars").draw(width)
        figure.draw_without_rendering()
    return figure


def texts(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation)]


def test_a_line_goes_from_the_reference_to_each_dot(tmp_path):
    latency, _ = drawn(tmp_path, FAR).axes

    joined = [line.get_xdata() for line in latency.lines if line.get_linewidth() == 2.5]

    assert latency.get_xscale() == "log"
    assert [tuple(ends) for ends in joined] == [(0.982, FAST.latency_ms), (0.982, 40.0)]
    assert list(latency.patches) == []  # no bar


def test_the_reference_is_written_marked_and_drawn_through(tmp_path):
    latency, _ = drawn(tmp_path, FAR).axes

    marks = {
        line.get_marker(): line.get_xdata()[0]
        for line in latency.lines
        if line.get_marker() in "oD"
    }
    through = [line.get_xdata() for line in latency.lines if line.get_linestyle() == "--"]

    assert marks["D"] == 0.982
    assert [list(x) for x in through] == [[0.982, 0.982]]
    assert [t.get_text() for t in texts(latency)] == [
        "0.0839  (11.7×)", "0.982  (reference)", "40.0  (0.025×)",
    ]  # fmt: skip


def test_values_that_differ_little_are_bars_from_zero(tmp_path):
    latency, size = drawn(tmp_path, (REFERENCE, FAST)).axes

    for axes, longest in ((latency, 0.982), (size, 371_204)):
        assert axes.get_xscale() == "linear"
        assert axes.get_xlim()[0] == 0
        assert max(bar.get_width() for bar in axes.patches) == longest


def test_a_trial_that_was_not_timed_is_written_and_not_drawn(tmp_path):
    untimed = Invented("tflite", "fp16", status="failed", reason="it fell")
    frame = trial_frame(sample_results(tmp_path, (*FAR, untimed)))
    frame.loc[frame["trial"] == untimed.id, "size_bytes"] = 5_000.0
    with styled():
        figure = bars(frame, palette(list(frame["backend"])), chosen=None, name="b").draw(WIDE)
    latency, size = figure.axes

    assert [t.get_text() for t in texts(latency)][-1] == "not timed"
    assert sum(line.get_marker() in "oD" for line in latency.lines) == 3
    assert size.get_xscale() == "log"  # 5 kB against 371 kB


def test_without_a_reference_nothing_is_joined(tmp_path):
    frame = trial_frame(sample_results(tmp_path, FAR)).assign(is_reference=False)
    with styled():
        figure = bars(frame, palette(list(frame["backend"])), chosen=None, name="b").draw(WIDE)

    assert [line for line in figure.axes[0].lines if line.get_linewidth() == 2.5] == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_texts_of_sixty_trials_meet_neither_each_other_nor_a_dot_nor_the_edge(tmp_path, width):
    many = (REFERENCE, *(
        replace(FAST, latency_ms=0.002 * 1.2**i, size_bytes=9_000 * 1.1**i, axes={"samples": i + 1})
        for i in range(59)
    ))  # fmt: skip
    figure = drawn(tmp_path, many, width)

    right = figure.bbox.width
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in texts(axes)]
        dots = [
            axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0]))
            for line in axes.lines if line.get_marker() in "oD"
        ]  # fmt: skip
        labels = [tick.label1.get_window_extent() for tick in axes.xaxis.get_major_ticks()]
        assert len(boxes) == len(dots) == 60
        assert all(a.y0 >= b.y1 for a, b in itertools.pairwise(boxes))
        assert not any(box.padded(3).contains(*dot) for box in boxes for dot in dots)
        assert max(box.x1 for box in boxes) <= right
        assert len(labels) >= 2
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(labels))
