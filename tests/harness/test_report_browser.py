"""The report in headless Chromium: quiet, offline, sortable, readable in every setting."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.report import write_report
from tests.harness.sample_results import OLD_MACHINE, TYPICAL, sample_results
from tests.harness.test_report import HOSTILE, hostile_results

pytestmark = pytest.mark.browser

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
        texts: list[str] = self.page.eval_on_selector_all(
            f"#trials-table tbody tr:not([hidden]) > :nth-child({index})",
            "cells => cells.map(c => c.innerText.split('\\n')[0].trim())",
        )
        return texts


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
@pytest.mark.parametrize("kind", ["report", "hostile"])
def test_it_is_quiet_offline_and_fits_the_screen(
    browser: Any, kind: str, setting: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(kind)

    with Visit(browser, path, **SETTINGS[setting]) as visit:
        shot = visit.page.screenshot(path=tmp_path / f"{kind}-{setting}.png", full_page=True)
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
        up = visit.column(3)
        state = visit.page.eval_on_selector("th[aria-sort]", "th => th.ariaSort")
        button.click()
        down = visit.column(3)

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
        visit.page.pdf(path=tmp_path / "print.pdf", prefer_css_page_size=True)

    # the table has its own pages, on their side
    assert table <= 1032
    assert max(widths) <= 703
    assert shown == 0
