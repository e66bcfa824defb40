"""Plots of a run: axes come back with labels and units, and say what to do where there is nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from quantbench.errors import BadInput
from quantbench.report import plot
from quantbench.results import Results
from tests.harness.sample_results import GENERATIONS, OLD_MACHINE, ROUNDS, TYPICAL, sample_results
from tests.harness.test_report import HOSTILE, hostile_results


@pytest.fixture(autouse=True)
def no_screen() -> Iterator[None]:
    """Draw in memory, and leave no figure behind."""
    with mpl.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return sample_results(tmp_path_factory.mktemp("run"), TYPICAL, detailed=True)


Draw = Callable[..., Axes]
DRAWINGS: dict[str, tuple[Draw, str, str]] = {
    "tradeoff": (plot.tradeoff, "latency, ms", "quality"),
    "heatmap": (plot.heatmap, "backend", "method"),
    "latencies": (plot.latencies, "off the trial's median", ""),
    "rounds": (plot.rounds, "round", "off the trial's median"),
    "agreement": (plot.agreement, "backend", "backend"),
    "classes": (plot.classes, "percentage points", "class"),
    "confusion": (plot.confusion, "called", "right in float"),
    "fidelity": (plot.fidelity, "dB", "differ from float"),
    "histograms": (plot.histograms, "weight", "weights in a bin"),
    "channels": (plot.channels, "levels", "layer"),
}


def test_every_public_drawing_is_tried_here() -> None:
    assert set(DRAWINGS) == set(plot.__all__)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_returns_its_axes_with_labels(results: Results, name: str) -> None:
    draw, across, up = DRAWINGS[name]

    axes = draw(results)

    assert isinstance(axes, Axes)
    assert across in axes.get_xlabel()
    assert up in axes.get_ylabel()
    assert "digits" in axes.get_title(loc="left")
    assert axes.has_data() or axes.texts


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_goes_to_the_axes_it_is_given(results: Results, name: str) -> None:
    _, own = plt.subplots()
    open_before = plt.get_fignums()

    axes = DRAWINGS[name][0](results, ax=own)

    assert axes is own
    assert plt.get_fignums() == open_before


def test_a_heat_map_has_the_numbers_and_the_marks_of_what_did_not_run(results: Results) -> None:
    axes = plot.heatmap(results, "speedup")

    texts = [text.get_text() for text in axes.texts]
    assert f"{0.982 / 0.0842:.1f}×" in texts
    assert "– 1" in texts  # fp16 of ONNX Runtime, the first reason
    assert "= 2" in texts  # the no-op


@pytest.mark.parametrize(
    ("metric", "words"), [("quality_drop", "points"), ("compression", "smaller")]
)
def test_a_heat_map_names_its_metric_and_unit(results: Results, metric: str, words: str) -> None:
    assert words in plot.heatmap(results, metric, backend="tflite").get_title(loc="left")


def test_rounds_are_one_dot_each(results: Results) -> None:
    reference = TYPICAL[0].id

    axes = plot.rounds(results, [reference])

    dots = sum(len(collection.get_offsets()) for collection in axes.collections)
    assert dots == GENERATIONS * ROUNDS


def test_classes_of_one_trial_are_its_alone(results: Results) -> None:
    axes = plot.classes(results, TYPICAL[-1].id)

    legend = axes.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["onnxruntime static-int8+granularity=per-tensor", "may be chance"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda r: plot.tradeoff(r, model="digit"), "no model 'digit'.*digits"),
        (lambda r: plot.tradeoff(r, target="cpu-2"), "no target 'cpu-2'.*cpu-1"),
        (lambda r: plot.heatmap(r, "speed"), "unknown metric 'speed'.*speedup"),
        (lambda r: plot.heatmap(r, backend="tflit"), "no backend 'tflit'.*tflite"),
        (lambda r: plot.agreement(r, "static-in8"), "no two backends.*static-int8"),
        (lambda r: plot.classes(r, "digits/pytorch"), "no trial 'digits/pytorch'"),
        (lambda r: plot.histograms(r, "convv"), "no layer 'convv'.*conv"),
        (lambda r: plot.histograms(r, role="weights"), "unknown role 'weights'.*weight"),
        (lambda r: plot.histograms(r, role="activation"), "no histogram of a activation"),
    ],
)
def test_a_mistake_is_one_line_that_names_what_there_is(
    results: Results, draw: Draw, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        draw(results)


def test_a_run_without_details_says_what_it_lacks(tmp_path) -> None:
    bare = sample_results(tmp_path, TYPICAL)

    for draw, message in (
        (plot.latencies, "no timed rounds"),
        (plot.histograms, "no histogram"),
        (plot.channels, "scale per channel"),
    ):
        with pytest.raises(BadInput, match=message):
            draw(bare)


def test_an_empty_run_has_nothing_to_draw(tmp_path) -> None:
    with pytest.raises(BadInput, match="no trial"):
        plot.tradeoff(sample_results(tmp_path, []))


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("name", sorted(set(DRAWINGS) - {"agreement"}))
def test_hostile_names_are_drawn(tmp_path, name: str) -> None:
    axes = DRAWINGS[name][0](hostile_results(tmp_path))

    axes.figure.canvas.draw()


def test_a_notebook_shows_the_choice_the_counts_and_the_front(results: Results) -> None:
    html = results._repr_html_()

    assert "ship tflite static-int8" in html
    assert "14 ok, 1 no-op, 1 unsupported" in html
    assert html.count("<tr>") == 1 + 3
    assert "11.7×" in html


def test_a_notebook_shows_hostile_names_as_text(tmp_path) -> None:
    html = hostile_results(tmp_path)._repr_html_()

    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html


def test_a_terminal_shows_three_short_lines(results: Results) -> None:
    lines = repr(results).splitlines()

    assert lines[0] == (
        "Run of synthetic: 16 trials (14 ok, 1 no-op, 1 unsupported); 1 model, 3 backends"
    )
    assert str(results.folder) in lines[1]
    assert "predictions 13,455" in lines[2]


def test_a_run_without_trials_is_shown_too(tmp_path) -> None:
    empty = sample_results(tmp_path, [])

    assert "0 trials" in repr(empty)
    assert "<table" not in empty._repr_html_()


def test_more_places_than_a_notebook_has_room_for_are_counted(tmp_path) -> None:
    trials = [dataclasses.replace(TYPICAL[0], model=f"model{m}") for m in range(12)]

    html = sample_results(tmp_path, trials)._repr_html_()

    assert "2 more models and targets" in html
    assert HOSTILE[0] not in html
    assert OLD_MACHINE[0].target not in html
