"""The report in headless Chromium: quiet, offline, sortable, readable in every setting."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from quantbench.analysis import (
    OBJECTIVES,
    Constraints,
    MeasuredTrial,
    Standings,
    choose,
    parse_drop,
    parse_size,
    pooled,
    standings,
    trial_rows,
)
from quantbench.cli.app import app
from quantbench.report import verdict, write_report
from quantbench.report.sections import cards
from quantbench.results import Results
from tests.harness.sample_results import OLD_MACHINE, TYPICAL, Invented, sample_results
from tests.harness.test_report import HOSTILE, hostile_results

pytestmark = [pytest.mark.browser, pytest.mark.pictures]

SETTINGS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; skipped where there is none, but not in CI."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        message = "no Chromium found; get it with: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


class Visit:
    """A page with what it said and asked for while it was open."""

    def __init__(self, browser: Any, path: Path, **setting: Any) -> None:
        self.context = browser.new_context(**setting)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def column(self, index: int) -> list[str]:
        """The first line of each visible cell of a column, top to bottom."""
        # a table that is far away has no layout, and so no lines
        self.page.evaluate(
            "() => { document.querySelector('#trials-table').scrollIntoView();"
            " return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))); }"
        )
        texts: list[str] = self.page.eval_on_selector_all(
            f"#trials-table tbody tr:not([hidden]) > :nth-child({index})",
            "cells => cells.map(c => c.innerText.split('\\n')[0].trim())",
        )
        return texts


def pictures(otherwise: Path) -> Path:
    """Where screenshots go, for a person to look at: QUANTBENCH_SCREENSHOTS, or the test's folder."""
    folder = Path(os.environ.get("QUANTBENCH_SCREENSHOTS") or otherwise)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typical")
    results = sample_results(
        folder / "run", TYPICAL + OLD_MACHINE, batch_sizes=(1, 8), detailed=True
    )
    return write_report(results, folder / "report.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    return write_report(hostile_results(folder / "run"), folder / "report.html")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", ["report", pytest.param("hostile", marks=pytest.mark.long)])
def test_it_is_quiet_offline_and_fits_the_screen(
    browser: Any, kind: str, setting: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(kind)

    with Visit(browser, path, **SETTINGS[setting]) as visit:
        shot = visit.page.screenshot(
            path=pictures(tmp_path) / f"{kind}-{setting}.png", full_page=True
        )
        width = visit.page.evaluate("document.documentElement.scrollWidth")

    assert visit.said == []
    assert visit.asked == [path.as_uri()]
    assert width <= SETTINGS[setting]["viewport"]["width"]
    assert len(Image.open(io.BytesIO(shot)).convert("RGB").getcolors(1 << 24) or []) > 100


def test_dark_is_dark_and_light_is_light(browser: Any, report: Path) -> None:
    corner = {}
    for setting in ("light", "dark"):
        with Visit(browser, report, **SETTINGS[setting]) as visit:
            image = Image.open(io.BytesIO(visit.page.screenshot())).convert("L")
            corner[setting] = image.getpixel((5, image.height - 5))

    assert corner["light"] > 230
    assert corner["dark"] < 40


def test_a_click_on_a_heading_sorts_and_a_second_reverses(browser: Any, report: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"]) as visit:
        button = visit.page.get_by_role("button", name="Latency, batch 1")
        button.click()
        up = visit.column(4)
        state = visit.page.eval_on_selector("th[aria-sort]", "th => th.ariaSort")
        button.click()
        down = visit.column(4)

    times = [float(text.split()[0]) for text in up if text != "–"]
    assert len(times) > 10
    assert times == sorted(times)
    assert [float(text.split()[0]) for text in down if text != "–"] == sorted(times, reverse=True)
    assert state == "ascending"
    # what was not measured is last in both directions
    missing = len(up) - len(times)
    assert missing > 0
    assert up[-missing:] == down[-missing:] == ["–"] * missing


def test_sorting_works_from_the_keyboard(browser: Any, report: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"]) as visit:
        before = visit.column(1)
        visit.page.get_by_role("button", name="Trial").focus()
        visit.page.keyboard.press("Enter")
        after = visit.column(1)

    assert after != before
    assert sorted(after) == sorted(before)


def test_the_filter_keeps_the_rows_that_have_all_words(browser: Any, report: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"]) as visit:
        visit.page.get_by_label("Show only").fill("tflite unsupported")
        names = visit.column(1)
        shown = visit.page.inner_text("#shown")

    assert names == ["tflite fp32", "tflite static-int8"]
    assert shown == f"2 of {len(TYPICAL + OLD_MACHINE)} trials"


@pytest.mark.long
def test_hostile_names_are_shown_as_text(browser: Any, hostile: Path) -> None:
    with Visit(browser, hostile, **SETTINGS["light"]) as visit:
        text = visit.page.inner_text("body")
        title = visit.page.title()
        images = visit.page.locator("img").count()

    assert HOSTILE[0] in text
    assert HOSTILE[1] in text
    assert HOSTILE[2] in text
    assert title.startswith("</svg></style></textarea>")
    assert images == 0


def test_without_scripts_everything_is_there_but_sorting(browser: Any, report: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"], java_script_enabled=False) as visit:
        rows = visit.page.locator("#trials-table tbody tr").count()
        figures = visit.page.locator("figure svg:visible").count()
        text = report.read_text(encoding="utf-8")
        buttons = visit.page.locator("button:visible, input:visible").count()

    assert rows == len(TYPICAL + OLD_MACHINE)
    assert figures == re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL).count("figure-wide")
    assert figures > 10
    assert buttons == 0


@pytest.mark.long
def test_print_shows_the_whole_table(browser: Any, report: Path, tmp_path: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"]) as visit:
        visit.page.emulate_media(media="print")
        visit.page.set_viewport_size({"width": 1032, "height": 703})  # A4 less its margins
        table = visit.page.eval_on_selector("#trials-table", "table => table.scrollWidth")
        visit.page.set_viewport_size({"width": 703, "height": 1032})
        widths = visit.page.eval_on_selector_all(
            "main > section:not(#trials)", "sections => sections.map(s => s.scrollWidth)"
        )
        controls = visit.page.locator("nav:visible, input:visible, .command button:visible")
        shown = controls.count()
        visit.page.screenshot(path=pictures(tmp_path) / "print.png", full_page=True)
        visit.page.pdf(path=pictures(tmp_path) / "print.pdf", prefer_css_page_size=True)

    # the table has its own pages, on their side
    assert table <= 1032
    assert max(widths) <= 703
    assert shown == 0


# --- the form chooses as `advise` does --------------------------------------------------------------

FITTED = tuple(
    dataclasses.replace(trial, energy_j=0.001 * (1 + i % 5), per_s=1e4 / (1 + i % 4) if i % 3 else None)
    for i, trial in enumerate(TYPICAL)
)  # fmt: skip
TIED = (
    Invented("tflite", "static-int8", 0.0727, 99_000, lost=6, won=2, integer=1.0, model="tied"),
    Invented("pytorch", "fp32", 0.9, 371_204, model="tied"),
    Invented("onnxruntime", "static-int8", 0.0725, 120_000, lost=2, won=1, integer=1.0, model="tied"),
    Invented("onnxruntime", "static-int8", 0.0725, 120_000, lost=2, won=2, integer=1.0, model="tied",
             axes={"granularity": "per-tensor"}),
    Invented("tflite", "fp16", 0.0731, 80_000, lost=9, won=4, model="tied"),
    Invented("tflite", "fp32", 0.0729, 310_000, model="tied", flags=("outputs-differ-at-batch-8",)),
)  # fmt: skip
SEEDED = (
    Invented("pytorch", "fp32", 0.9, 371_204, model="seeded"),
    *(
        Invented(backend, method, ms, bytes_, lost=lost, won=2, integer=1.0, model="seeded", seed=seed,
                 status="crashed" if (backend, seed) == ("onnxruntime", 2) else "ok",
                 flags=("outputs-differ-at-batch-8",) if (method, seed) == ("fp16", 1) else ())
        for backend, method, ms, bytes_, losses in (
            ("tflite", "static-int8", 0.0725, 99_100, (2, 5, 3)),
            ("tflite", "dynamic-int8", 0.0727, 99_000, (9, 2, 9, 3)),
            ("onnxruntime", "static-int8", 0.0600, 120_000, (12, 9, 3)),
            ("tflite", "fp16", 0.0729, 80_000, (2, 2, 4)),
        )
        for seed, lost in enumerate(losses)
    ),
)  # fmt: skip
ASK = """
asked => {
  const form = document.getElementById("limits");
  return asked.map(fields => {
    for (const [name, value] of Object.entries(fields)) form.elements[name].value = value;
    form.dispatchEvent(new Event("input"));
    const text = (card, selector) => card.querySelector(selector)?.textContent.trim() ?? "";
    const cards = [...document.querySelectorAll(".card:not([hidden])")].map(card => ({
      headline: text(card, ".headline"), why: text(card, ".why"),
      ties: card.querySelector(".ties").hidden ? "" : text(card, ".ties span"),
      passed: card.querySelector(".passed").hidden ? []
        : [...card.querySelectorAll(".passed li")].map(item => item.textContent),
      command: card.querySelector(".export").hidden ? "" : text(card, ".export code"),
      facts: [...card.querySelectorAll(".tiles dd")].map(dd => dd.textContent.replaceAll("\\n", "")),
    }));
    const rows = [...document.querySelectorAll("#trials-table tbody tr")];
    const states = Object.fromEntries(rows.map(row => [row.dataset.number, text(row, ".state")]));
    return {cards, states, command: text(document, "#as-command"), rule: text(document, "#rule"),
            sentence: text(document, "#sentence")};
  });
}
"""


def grid() -> Iterator[dict[str, str]]:
    """Settings of the form, those that exclude everything included."""
    for drop in ("0", "0.5", "1", "2.5", "20"):
        for size in ("", "0.09", "0.1", "0.2"):
            for objective in OBJECTIVES:
                for batch in ("", "1", "8"):
                    yield {"drop": drop, "size": size, "objective": objective, "batch": batch}


@pytest.fixture(scope="module")
def chooser(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    folder = tmp_path_factory.mktemp("chooser")
    results = sample_results(
        folder / "run", FITTED + OLD_MACHINE + TIED + SEEDED, batch_sizes=(1, 8)
    )
    return results, write_report(results, folder / "report.html")


class Expected:
    """One place by one objective, as Python has it; the facts of a trial are worked out once."""

    def __init__(self, results: Results, place: Standings, limits: Constraints) -> None:
        trials = pooled(trial_rows(results, limits.batch_size))
        here = [t for t in trials if (t.model, t.target) == (place.model, place.target)]
        self.place, self.results = place, results
        self.rows = {row.trial: row for row in here}
        self.known = functools.cache(
            lambda trial: verdict.facts(results, self.rows[trial], here, limits, place.batch_size)
        )

    def facts(self, row: MeasuredTrial, limits: Constraints) -> list[verdict.Fact]:
        *others, _ = self.known(row.trial)
        return [*others, verdict.loss_fact(self.results, row, limits)]


def test_the_form_chooses_exactly_as_advise_does(
    browser: Any, chooser: tuple[Results, Path]
) -> None:
    results, path = chooser
    asked = list(grid())
    with Visit(browser, path, **SETTINGS["light"]) as visit:
        answers = visit.page.evaluate(ASK, asked)
        assert visit.said == []

    numbers = {str(trial): str(i) for i, trial in enumerate(results.trials["trial"])}
    seen, known = set(), {}
    for fields, answer in zip(asked, answers, strict=True):
        limits = Constraints(
            parse_drop(f"{fields['drop']}pp"),
            parse_size(f"{fields['size']}MB") if fields["size"] else None,
            fields["objective"],
            int(fields["batch"]) if fields["batch"] else None,
        )
        key = (limits.objective, limits.batch_size)
        if key not in known:
            known[key] = [Expected(results, place, limits) for place in standings(results, *key)]
        assert answer["rule"] == verdict.rule(limits)
        for expected, card in zip(known[key], answer["cards"], strict=True):
            choice, rows = choose(expected.place, limits), expected.rows
            row = rows.get(str(choice.trial))
            assert card["headline"] == verdict.headline(row), fields
            assert card["why"].lower() == f"{choice.reason}.".lower(), fields
            assert card["ties"] == ", ".join(verdict.with_size(rows[t]) for t in choice.ties), (
                fields
            )
            passed = [f"{verdict.name(rows[p.trial])}: {p.reason}." for p in choice.passed_over]
            more = [f"and {len(passed) - 6} more"] if len(passed) > 6 else []
            assert card["passed"] == passed[:6] + more, fields
            facts = expected.facts(row, limits) if row else []
            assert card["facts"] == [f.value + "".join(f.lines) for f in facts], fields
            assert shlex.split(card["command"])[3:4] == ([choice.trial] if choice.trial else [])
            for trial, state in cards.states(expected.place, choice, rows, limits).items():
                assert answer["states"][numbers[trial]] == state, (fields, trial)
            seen.add((limits.objective, choice.trial, choice.ties))
    # the grid decides something: many different choices, some by a tie, some of none
    assert len(seen) > 30
    assert any(trial is None for _, trial, _ in seen)
    assert any(ties for _, _, ties in seen)
    assert sum("/seed" in str(trial) for _, trial, _ in seen) > 3


def test_the_command_beside_the_form_is_the_same_question(
    browser: Any, chooser: tuple[Results, Path]
) -> None:
    _, path = chooser
    fields = {"drop": "1.5", "size": "0.2", "objective": "size", "batch": "8", "model": "tied",
              "target": "cpu-1"}  # fmt: skip
    with Visit(browser, path, **SETTINGS["light"]) as visit:
        (answer,) = visit.page.evaluate(ASK, [fields])

    words = shlex.split(answer["command"])
    assert words[:2] == ["quantbench", "advise"]
    found = CliRunner().invoke(app, [*words[1:], "--json"])
    (choice,) = json.loads(found.output)["choices"]
    (card,) = answer["cards"]
    assert choice["model"] == "tied"
    assert choice["trial"] is not None
    assert shlex.split(card["command"])[3] == choice["trial"]
    assert answer["sentence"].startswith(card["headline"])


def test_a_limit_moves_the_front_and_dims_what_is_not_allowed(
    browser: Any, chooser: tuple[Results, Path]
) -> None:
    _, path = chooser
    front = "#tradeoff figure[data-place='0'] .figure-wide .front path"
    faint = "#tradeoff figure[data-place='0'] .figure-wide .mark.refused"
    with Visit(browser, path, **SETTINGS["light"]) as visit:
        before = visit.page.get_attribute(front, "d")
        dimmed = visit.page.locator(faint).count()
        visit.page.get_by_label("Largest loss of quality").fill("5")
        after = visit.page.get_attribute(front, "d")
        fewer = visit.page.locator(faint).count()
        visit.page.get_by_role("button", name="Reset").click()
        visit.page.wait_for_function("document.querySelector('#limits [name=drop]').value === '1'")
        again = visit.page.get_attribute(front, "d")

    assert after != before
    assert fewer < dimmed
    assert again == before


def test_a_wrong_limit_is_said_and_changes_nothing(browser: Any, report: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"]) as visit:
        before = visit.page.inner_text("#sentence")
        visit.page.get_by_label("Largest size").fill("-3")
        said = visit.page.inner_text("#problem")
        after = visit.page.inner_text("#sentence")

    assert said.startswith("The largest size")
    assert after == before


def test_marks_are_reached_by_keyboard_and_name_their_trial(browser: Any, report: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"]) as visit:
        stops = visit.page.locator("#tradeoff .mark[tabindex='0']:visible")
        count = stops.count()
        stops.first.focus()
        first = visit.page.inner_text(".tip")
        visit.page.keyboard.press("ArrowRight")
        second = visit.page.inner_text(".tip")
        visit.page.keyboard.press("Escape")
        gone = visit.page.locator(".tip").is_hidden()

    assert count == 2  # one a figure
    assert first.startswith("onnxruntime static-int8")
    assert "loses too much" in first
    assert second != first
    assert gone


def test_a_heading_says_how_its_column_was_measured(browser: Any, report: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"]) as visit:
        visit.page.get_by_role("button", name="Agreement").focus()
        said = visit.page.inner_text(".tip")

    assert "share of test samples answered as the reference does" in said


def test_selects_filter_by_backend_method_status_and_choice(browser: Any, report: Path) -> None:
    with Visit(browser, report, **SETTINGS["light"]) as visit:
        visit.page.get_by_role("combobox", name="Backend").select_option("tflite")
        visit.page.get_by_role("combobox", name="Status").select_option("ok")
        both = visit.column(1)
        visit.page.get_by_role("combobox", name="Choice").select_option("recommended")
        chosen = visit.column(1)
        visit.page.get_by_label("Largest loss of quality").fill("5")
        follows = visit.column(1)

    assert both == [f"tflite {m}" for m in ("fp32", "fp16", "dynamic-int8", "static-int8")]
    assert chosen == ["tflite static-int8"]
    assert follows == []  # another backend's is recommended now


def test_the_csv_holds_the_shown_rows_and_no_formula(
    browser: Any, hostile: Path, tmp_path: Path
) -> None:
    with Visit(browser, hostile, **SETTINGS["light"]) as visit:
        visit.page.get_by_role("combobox", name="Status").select_option("ok")
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name="Download CSV").click()
        download.value.save_as(tmp_path / "trials.csv")
        asked = visit.asked

    text = (tmp_path / "trials.csv").read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 11
    assert {row["status"] for row in rows} == {"ok"}
    assert float(rows[0]["Latency (ms)"]) == 1.0
    assert any(HOSTILE[0] in row["trial"] for row in rows)
    cells = [cell for row in rows for cell in row.values()]
    assert not [c for c in cells if c[:1] in "=+-@" and c and not is_number(c)]
    assert [url for url in asked if not url.startswith(("file:", "blob:"))] == []


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.long
def test_hostile_names_stay_text_in_what_the_script_writes(browser: Any, hostile: Path) -> None:
    with Visit(browser, hostile, **SETTINGS["light"]) as visit:
        visit.page.get_by_label("Largest loss of quality").fill("50")
        visit.page.locator("#limits [name=objective]").select_option("size")
        card = visit.page.inner_text(".card")
        command = visit.page.inner_text("#as-command")
        visit.page.locator(".mark:visible").first.focus()
        tip = visit.page.inner_text(".tip")
        said = visit.said
        elements = visit.page.locator(".card img, .card script, .tip *:not(b):not(span)").count()

    assert said == []
    assert elements == 0
    assert "tflite <script>" in card
    assert command.startswith("quantbench advise")
    assert tip


# --- many trials, no trial, and people who do not see -----------------------------------------------


@pytest.mark.long
def test_2000_trials_are_a_page_that_a_browser_can_hold(browser: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trials = [
        dataclasses.replace(
            TYPICAL[i % len(TYPICAL)], model=f"model{i // 200}", axes={"percentile": 90 + i % 200 / 100},
            latency_ms=None if TYPICAL[i % len(TYPICAL)].latency_ms is None else float(rng.lognormal()),
        )
        for i in range(2000)
    ]  # fmt: skip
    path = write_report(sample_results(tmp_path / "run", trials), tmp_path / "report.html")

    with Visit(browser, path, **SETTINGS["light"]) as visit:
        elements = visit.page.evaluate("document.querySelectorAll('*').length")
        visit.page.get_by_label("Largest loss of quality").fill("2")
        rows = visit.page.locator("#trials-table tbody tr").count()
        assert visit.said == []

    assert rows == 2000
    # what a page weighs decides how fast it opens, on any machine: 5.6 MB and 103,000 elements now
    assert path.stat().st_size < 8e6
    assert elements < 150_000


@pytest.mark.parametrize("kind", ["none", "one", "all-failed"])
@pytest.mark.long
def test_small_and_failed_runs_are_quiet(browser: Any, kind: str, tmp_path: Path) -> None:
    failed = [
        dataclasses.replace(t, latency_ms=None, status="failed", reason="broken") for t in TYPICAL
    ]
    trials = {"none": [], "one": TYPICAL[:1], "all-failed": failed}[kind]
    path = write_report(sample_results(tmp_path / "run", trials), tmp_path / "report.html")

    with Visit(browser, path, **SETTINGS["light"]) as visit:
        text = visit.page.inner_text("#verdict")
        assert visit.said == []

    said = {"none": "no trial", "one": "Keep the float reference", "all-failed": "Nothing to ship"}
    assert said[kind] in text


@pytest.mark.parametrize(
    "setting",
    [pytest.param(s, marks=() if s == "phone" else pytest.mark.long) for s in SETTINGS],
)
@pytest.mark.parametrize("kind", ["report", pytest.param("hostile", marks=pytest.mark.long)])
def test_axe_finds_nothing_to_object_to(
    browser: Any, kind: str, setting: str, request: pytest.FixtureRequest
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    path: Path = request.getfixturevalue(kind)
    with Visit(browser, path, bypass_csp=True, **SETTINGS[setting]) as visit:
        found = Axe().run(visit.page).response["violations"]

    assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found] == []
