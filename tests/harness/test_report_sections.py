"""Sections of the report: heat maps, distributions, ranges and fidelity hold the right numbers."""

from __future__ import annotations

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from quantbench.analysis import trial_frame, trial_rows
from quantbench.report import render, write_figures
from quantbench.report import sections as report_sections
from quantbench.report.drawing.grids import RATIOS, Cell, rising
from quantbench.report.page import Page, summarise
from quantbench.report.sections import confusion, fidelity, heatmaps, section, weight_ranges
from quantbench.report.sections.distributions import CONTROL, drifted, interesting, rounds
from quantbench.results import Results
from quantbench.stats.statistics import class_drops, wilson
from tests.harness.sample_results import (
    GENERATIONS,
    OLD_MACHINE,
    ROUNDS,
    SAMPLES,
    TYPICAL,
    Invented,
    sample_results,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return sample_results(tmp_path_factory.mktemp("run"), TYPICAL + OLD_MACHINE, detailed=True)


@pytest.fixture(scope="module")
def page(results: Results) -> Page:
    return summarise(results)


def test_every_empty_cell_of_a_heat_map_has_the_number_of_its_reason(results: Results) -> None:
    trials = trial_rows(results)
    _, reasons = heatmaps.support(trials, 0.01)
    said: dict[str, str] = {}

    for target in ("cpu-1", "cpu-avx2"):
        here = [row for row in trials if row.target == target]
        grid = heatmaps.heatmap(here, reasons, "speedup", model="digits")
        statuses = {(row.label, row.backend): row for row in here}
        for label, row in zip(grid.rows, grid.cells, strict=True):
            for backend, cell in zip(grid.columns, row, strict=True):
                trial = statuses.get((label, backend))
                if trial is None:
                    assert cell == Cell("·")
                elif trial.status != "ok":
                    assert np.isnan(cell.level)
                    number = int(re.sub(r"\D", "", cell.text))
                    said[trial.trial] = reasons[number - 1]
                    assert trial.reason in reasons[number - 1]
                else:
                    assert not np.isnan(cell.level)

    assert len(said) == sum(t.status != "ok" for t in TYPICAL + OLD_MACHINE)


def test_a_heat_map_colours_by_how_many_times() -> None:
    assert [rising(x, RATIOS) for x in (0.1, 0.3, 0.6, 0.9, 1.0, 1.1, 1.5, 3.0, 9.0)] == list(
        range(9)
    )


def test_several_models_are_columns_and_methods_too_many_are_counted(tmp_path: Path) -> None:
    trials = [
        Invented("pytorch", "fp32", 1.0, axes={"samples": n} if n else {}, model=f"m{m}")
        for m in range(3)
        for n in range(180)
    ]
    rows = trial_rows(sample_results(tmp_path, trials))
    _, reasons = heatmaps.support(rows, 0.01)

    found = heatmaps.heatmaps(rows, reasons)

    assert [p.name.rpartition("-")[2] for p in found.pictures] == list(heatmaps.METRICS)
    assert found.left_out == f"{180 - heatmaps.MOST_CELLS // 3} more methods"


def test_agreement_is_what_counting_by_hand_gives(results: Results) -> None:
    frame = trial_frame(results)
    here = frame[frame["target"] == "cpu-1"]
    answered, given, reference = fidelity.with_answers(results, here)
    rows = fidelity.same_method(answered, given)["static-int8"]

    found = fidelity.matrix(rows, given, reference)

    # pytorch loses 5 and wins 3, tflite 4 and 4, onnxruntime 4 and 2; the first ones of each kind
    different = {
        ("float", "pytorch"): 8, ("float", "tflite"): 8, ("float", "onnxruntime"): 6,
        ("pytorch", "tflite"): 2, ("pytorch", "onnxruntime"): 2, ("tflite", "onnxruntime"): 2,
    }  # fmt: skip
    assert {pair: shared.n - shared.same for pair, shared in found.items() if shared} == different
    (shared,) = [s for pair, s in found.items() if pair == ("pytorch", "tflite") and s]
    assert shared.share == wilson(SAMPLES - 2, SAMPLES)


def test_a_pair_is_shown_with_its_count_and_interval(page: Page) -> None:
    (pair,) = [
        p for p in page.section("fidelity")[0].pairs
        if (p.label, p.one, p.other) == ("static-int8", "pytorch", "tflite")
    ]  # fmt: skip

    assert pair.same == "99.8 %"
    assert pair.ends == "99.2 to 99.9 %"
    assert pair.different == f"2 of {SAMPLES}"


def test_answers_that_are_all_alike_are_said_and_not_drawn(page: Page) -> None:
    assert page.section("fidelity")[0].alike == ("fp32", "fp16")
    assert not {p.label for p in page.section("fidelity")[0].pairs} & {"fp32", "fp16"}


def test_a_class_with_few_samples_is_not_judged() -> None:
    labels = np.repeat([0.0, 1.0], [60, 20])
    right, wrong = np.ones(80), np.zeros(80)

    (only,) = class_drops(right, wrong, labels)

    assert (only.label, only.drop.interval.value, only.classes) == (0, 1.0, 1)


def test_losses_by_class_add_up_to_the_loss(results: Results) -> None:
    trial = TYPICAL[-1]
    frame = trial_frame(results)
    _, given, reference = fidelity.with_answers(results, frame[frame["target"] == "cpu-1"])

    found = fidelity.class_drops(given, reference, {trial.id: "it"})

    lost = (found["drop"] * found["n"]).sum()
    assert round(lost) == trial.lost - trial.won
    assert set(found["label"]) == set(range(10))


def counted() -> pd.DataFrame:
    """Two classes of four samples each, and a third that is only answered."""
    return pd.DataFrame(
        {
            "label": [0, 0, 0, 0, 1, 1, 1, 1],
            "float": [0, 0, 0, 1, 1, 1, 1, 0],
            "int8": [0, 1, 2, 0, 1, 1, 0, 0],
        },
        dtype=float,
    )


def test_confusions_are_what_counting_by_hand_gives() -> None:
    found = confusion.differences(counted(), "float", "int8")

    assert found.lost == {(0, 1): 1, (0, 2): 1, (1, 0): 1}
    assert found.won == 1  # the fourth sample
    assert found.sizes == {0: 4, 1: 4}


def test_precision_and_recall_are_what_counting_by_hand_gives() -> None:
    zero, one, two = confusion.class_rates(counted(), "float", "int8")

    assert (zero.label, zero.n, zero.recall, zero.precision) == (
        0,
        4,
        (3 / 4, 2 / 4),
        (3 / 4, 2 / 4),
    )
    assert (one.recall, one.precision) == ((3 / 4, 2 / 4), (3 / 4, 2 / 3))
    assert two.n == 0
    assert np.isnan(two.precision[0])  # float never calls it
    assert two.precision[1] == 0.0


def test_a_matrix_of_confusions_keeps_the_largest_cells_of_many_classes() -> None:
    lost = {(label, label + 1): 1 + label for label in range(40)}

    grid = confusion.matrix("it", confusion.Differences(lost, 3, dict.fromkeys(range(41), 100)))

    assert grid.title == f"it: {sum(lost.values())} lost, 3 won"
    assert grid.rows == tuple(f"class {label}" for label in range(28, 40))
    assert grid.columns == tuple(map(str, range(29, 41)))
    assert [cell.text for cell in grid.cells[0]] == ["29", *"·" * 11]


def test_the_section_counts_what_a_trial_lost_and_won(page: Page) -> None:
    shown = page.section("confusion")[0]

    names = [name for name, _ in shown.rates]
    assert names[0] == "tflite static-int8"  # what is recommended
    assert "onnxruntime static-int8+granularity=per-tensor" in names
    # all wrong answers are the next class: 19 lost by the worst, over ten classes
    rows = dict(shown.rates)["onnxruntime static-int8+granularity=per-tensor"]
    assert len(rows) == confusion.MOST_ROWS
    assert shown.left_out == ""
    assert shown.calibration == ()  # the run holds no confidences


def test_the_interesting_trials_begin_with_the_reference_and_its_control(results: Results) -> None:
    frame = trial_frame(results)
    here = frame[frame["target"] == "cpu-1"]

    found = interesting(here, "digits/tflite/static-int8/cpu-1", most=4)

    assert found[:3] == [
        TYPICAL[0].id, TYPICAL[0].id + CONTROL, "digits/tflite/static-int8/cpu-1",
    ]  # fmt: skip
    assert len(found) == 4


def test_rounds_are_in_the_order_of_time_and_around_their_median(results: Results) -> None:
    frame = trial_frame(results)

    times = rounds(results, frame[frame["target"] == "cpu-1"], [TYPICAL[0].id])

    assert list(times["place"]) == list(range(GENERATIONS * ROUNDS))
    slow = times[times["place"] % ROUNDS == 1]
    assert (slow["off"] > 0.1).all()
    assert times["off"].median() == 0
    assert times["ms"].median() == pytest.approx(0.982, rel=0.02)


def test_drift_is_the_last_third_against_the_first() -> None:
    assert drifted(np.array([1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 1.1, 1.1, 1.1])) == pytest.approx(0.1)


def test_weights_that_a_batch_norm_was_folded_into_are_not_drawn(results: Results) -> None:
    seen, held = weight_ranges.layers(results, "digits")
    assert list(seen) == ["conv"]
    assert {len(scale) for scale in held["scale"]} == {2}

    results.artifacts["fused"] = [
        ["BatchNormalization"] if kind == "node" else None for kind in results.artifacts["kind"]
    ]
    results.artifacts.loc[results.artifacts["kind"] == "node", "layer"] = "conv"
    folded, _ = weight_ranges.layers(results, "digits")

    assert folded == {}


def test_channels_share_the_levels_of_the_widest(results: Results) -> None:
    found = weight_ranges.channel_levels(weight_ranges.stored(results, "digits"))

    assert sorted(found["levels"]) == [128, 256]


def test_sections_without_anything_to_show_are_absent(tmp_path: Path) -> None:
    bare = summarise(sample_results(tmp_path, TYPICAL))

    assert bare.section("distributions") is None
    assert bare.section("ranges") is None
    fidelity = bare.section("fidelity")
    assert fidelity is None or fidelity[0].agreement is None


@pytest.mark.long
@pytest.mark.pictures
def test_figures_are_written_as_files_that_can_be_opened(tmp_path: Path) -> None:
    small = sample_results(tmp_path / "run", (TYPICAL[0], TYPICAL[6], TYPICAL[10]), detailed=True)

    written = write_figures(small, tmp_path / "slides")

    assert sorted(written) == sorted((tmp_path / "slides").iterdir())
    names = {path.stem for path in written if path.suffix == ".svg"}
    assert {path.stem for path in written if path.suffix == ".png"} == names
    assert {
        "tradeoff-digits-on-cpu-1",
        "heatmap",
        "weights-digits",
        "agreement-digits-on-cpu-1",
    } <= names
    for path in written:
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            assert ElementTree.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own file
            assert "var(" not in text
        else:
            image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
            assert image.getpixel((0, 0)) == (255, 255, 255)
            assert len(image.getcolors(1 << 24) or []) > 10


OWN = """
from quantbench.report.drawing.lines import throughput
from quantbench.report.sections.section import Section
SECTION = Section(
    "own", "A section of one's own", "Own", 55,
    lambda seen: (throughput(seen.frame, "all of it", name="own-0"),) if len(seen.frame) else (),
    intro="What <it> shows.",
)
"""


def test_a_new_section_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "own_section.py").write_text(OWN)
    monkeypatch.setattr(report_sections, "__path__", [*report_sections.__path__, str(tmp_path)])
    section.sections.cache_clear()
    try:
        page = render(sample_results(tmp_path / "run", TYPICAL))
    finally:
        section.sections.cache_clear()

    assert '<a href="#own">Own</a>' in page
    assert '<h2 id="own-h">A section of one&#39;s own</h2>' in page
    assert "What &lt;it&gt; shows." in page
    assert "all of it" in page


def test_sections_stand_in_an_order_under_anchors_of_their_own():
    known = section.sections()

    assert len(known) >= 9
    assert len({one.id for one in known}) == len({one.place for one in known}) == len(known)
