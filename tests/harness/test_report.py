"""The report as text: complete, escaped, self-contained."""

from __future__ import annotations

import dataclasses
import html
import math
import re
import shlex
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from quantbench.report import mlperf, render, write_report
from quantbench.report.drawing import style
from quantbench.report.markdown import brief
from quantbench.report.page import summarise
from quantbench.results import Results
from quantbench.results.schema import STATUSES
from quantbench.spec import TIMED
from quantbench.stats import Interval
from quantbench.units import one_line, points, ratio, size, span
from tests.harness.sample_results import OLD_MACHINE, TYPICAL, Invented, sample_results

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=1">',
    "</svg></style></textarea>'`${7*7}{{7*7}}{% raw %}",
    "$\\frac{a}{b}$ \N{RIGHT-TO-LEFT OVERRIDE}evil\nline\x07 שלום 漢字 🙂",
    "W" * 400,
)
CSS = (Path(style.__file__).parents[1] / "templates" / "report.css").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def hostile_results(folder: Path) -> Results:
    """A run with a hostile string wherever a user or a framework decides the text."""
    trials = [Invented("pytorch", "fp32", 1.0, model=HOSTILE[0], target=HOSTILE[1])]
    for i, name in enumerate(HOSTILE):
        trials += [
            Invented(name, "fp32", 0.9 - i / 10, model=HOSTILE[0], target=HOSTILE[1]),
            Invented("tflite", name, 0.2 + i, 9_000 + i, lost=40, integer=1.0,
                     model=HOSTILE[0], target=HOSTILE[1]),
            Invented(name, "static-int8", status="failed", reason=name, stage="build",
                     model=HOSTILE[0], target=HOSTILE[1]),
        ]  # fmt: skip
    texts = "\n".join(HOSTILE)
    return sample_results(
        folder, trials, experiment=HOSTILE[2],
        run={"command": texts, "experiment_text": texts, "created": HOSTILE[0], "precision": HOSTILE[1]},
        machine={"cpu": HOSTILE[0], "warnings": list(HOSTILE), "packages": {HOSTILE[0]: HOSTILE[1]}},
        detailed=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def typical(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run with 16 trials."""
    return render(sample_results(tmp_path_factory.mktemp("typical"), TYPICAL, detailed=True))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a run whose every text is hostile."""
    return render(hostile_results(tmp_path_factory.mktemp("hostile")))


@pytest.mark.pictures
def test_the_report_is_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    results = sample_results(tmp_path / "run", TYPICAL)

    first = write_report(results, tmp_path / "new" / "report.html")
    second = write_report(results, tmp_path / "again.html")

    assert first == tmp_path / "new" / "report.html"
    assert first.read_bytes() == second.read_bytes()
    assert [p.name for p in first.parent.iterdir()] == ["report.html"]


def test_the_verdict_names_what_to_ship_and_what_it_costs(typical: str) -> None:
    text = Page(typical).text

    assert "Ship tflite static-int8" in text
    assert "11.7× (11.5 to 11.8×) against pytorch fp32, the reference" in text
    assert "against tflite fp32, in the same runtime" in text
    assert "against onnxruntime fp32, the fastest float of any framework" in text
    assert "3.67× smaller than the reference's 371 kB" in text
    assert "98.1 to 99.5 % with 95 % confidence, 897 test samples" in text
    assert "at most 0.58 pp (one-sided 95 %), allowed 1 pp" in text
    assert "onnxruntime static-int8 (105 kB)" in text
    assert "loses 1.56 points, more than the 1 point allowed" in text


def test_the_export_command_names_run_and_trial(tmp_path: Path) -> None:
    results = sample_results(tmp_path / "a run", TYPICAL)

    page = Page(render(results))

    (command,) = [w for w in page.words if w.startswith("quantbench export")]
    assert shlex.split(command) == [
        "quantbench", "export", str(tmp_path / "a run"), "digits/tflite/static-int8/cpu-1",
        "-o", "digits-tflite-static-int8-cpu-1.tflite",
    ]  # fmt: skip


def test_the_export_command_is_relative_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    text = render(sample_results(tmp_path / "results" / "r", TYPICAL))

    assert "quantbench export results/r digits/tflite" in text


def test_a_float_winner_is_called_what_it_is(tmp_path: Path) -> None:
    slow = Invented("tflite", "static-int8", 3.0, 100_000)

    text = Page(render(sample_results(tmp_path, [Invented("pytorch", "fp32", 1.0), slow]))).text

    assert "Keep the float reference, pytorch fp32" in text


def test_every_trial_has_a_row_with_its_status_and_reason(tmp_path: Path) -> None:
    trials = [
        Invented("tflite", f"m{i}", status=status, reason=f"because of {status}", stage="build")
        for i, status in enumerate(STATUSES)
    ]

    page = render(sample_results(tmp_path, [Invented("pytorch", "fp32", 1.0), *trials]))

    table = page[page.index('id="trials-table"') :]
    support = page[page.index('id="support"') : page.index('id="trials"')]
    assert table[: table.index("</table>")].count("<tr") == 1 + 1 + len(STATUSES)
    for status in set(STATUSES) - {"ok"}:
        assert f"because of {status}" in table
        assert f"because of {status}" in support


def test_what_was_timed_in_one_generation_is_about_so_much(tmp_path: Path) -> None:
    first, *others = TYPICAL
    slow = dataclasses.replace(TYPICAL[6], latency_ms=12.0, width=math.nan)
    trials = (first, slow, *(trial for trial in others if trial.id != slow.id))

    page = summarise(sample_results(tmp_path, trials))

    row = next(row for row in page.rows if row.trial == slow.id)
    assert row.cells[0].text == "about 12.0 ms"
    assert row.cells[1].text == "about 0.082×"
    # no ends are shown, and no other value is about something
    assert not any(" to " in note for cell in row.cells[:2] for note in cell.notes)
    others_text = [cell.text for row in page.rows if row.trial != slow.id for cell in row.cells]
    assert not any("about" in text for text in others_text)


def test_a_cell_that_did_not_run_points_to_its_reason(tmp_path: Path) -> None:
    page = Page(render(sample_results(tmp_path, TYPICAL + OLD_MACHINE)))

    ids = [a["id"] for _, a in page.tags if "id" in a]
    targets = [
        (a.get("href") or a.get("xlink:href") or "") for tag, a in page.tags if tag in ("a", "use")
    ]
    assert [i for i, n in Counter(ids).items() if n > 1] == []
    assert {t.removeprefix("#") for t in targets} <= set(ids)
    # the reason two cells share is written once
    assert sum("LiteRT cannot be limited to AVX2" in w for w in page.words) == 1 + 2


def test_the_preview_setting_is_explained_and_only_there(typical: str, tmp_path: Path) -> None:
    standard = sample_results(tmp_path, TYPICAL[:1], run={"precision": "standard"})

    preview = Page(typical).text

    assert "5 generations of 7 rounds" in preview
    assert "Measure again with precision: standard" in preview
    assert "Measure again" not in Page(render(standard)).text


def test_machine_warnings_versions_noise_and_the_experiment_are_there(typical: str) -> None:
    text = Page(typical).text

    for wanted in (
        "neighbours may slow it without a trace",
        "Invented CPU 9000",
        "1.31.1",
        "ratio 1.001 (0.997 to 1.005)",
        "methods: [fp32, fp16, static-int8] # < 1 MB & fast",
        "quantbench run experiments/synthetic.yaml",
        "2 January 2026, 03:04 UTC",
    ):
        assert wanted in text


def test_hostile_text_stays_text(typical: str, hostile: str) -> None:
    page = Page(hostile)

    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(typical).tags}
    kinds = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert kinds == ["application/json", None]
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    for name in HOSTILE[:3]:
        assert one_line(name) in page.text
    # shown as written only where a file or a command is quoted
    quoted = re.sub(r"<pre.*?</pre>", "", hostile, flags=re.DOTALL)
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in quoted


def test_nothing_is_loaded_from_anywhere(typical: str) -> None:
    page = Page(typical)

    loads = [
        value
        for _, attrs in page.tags
        for key, value in attrs.items()
        if key in ("src", "href", "xlink:href", "action", "srcset", "data", "poster")
    ]
    assert [v for v in loads if not str(v).startswith(("#", "data:,"))] == []
    assert "url(" not in CSS
    assert "@import" not in CSS
    assert set(re.findall(r"https?://[^\"'\s<)]+", typical)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


@pytest.mark.parametrize(
    "trials", [[], TYPICAL[:1], [TYPICAL[10]]], ids=["none", "one", "no reference"]
)
def test_small_runs_have_a_report(tmp_path: Path, trials: list[Invented]) -> None:
    text = Page(render(sample_results(tmp_path, trials))).text

    assert "What to ship" in text
    assert "nan" not in text.lower().replace("machine", "").split()


def test_a_run_where_all_failed_says_so_and_why(tmp_path: Path) -> None:
    trials = [
        dataclasses.replace(t, latency_ms=None, status="failed", reason=f"error {i}")
        for i, t in enumerate(TYPICAL)
    ]

    text = Page(render(sample_results(tmp_path, trials))).text

    assert "Nothing to ship" in text
    assert "No trial was measured to the end" in text
    assert f"{len(TYPICAL)} failed" in text
    assert all(f"error {i}" in text for i in range(len(TYPICAL)))


def test_a_run_with_nothing_recorded_about_it_still_has_a_report(tmp_path: Path) -> None:
    results = sample_results(tmp_path, TYPICAL)

    text = Page(render(dataclasses.replace(results, run={}, machine={}))).text

    assert "Ship tflite static-int8" in text
    assert "not recorded" in text


def test_words_of_mlperf_stand_with_what_differs_and_who_verified_it(tmp_path: Path) -> None:
    trials = (
        Invented("pytorch", "fp32", 1.0),
        Invented("pytorch", "static-int8", 0.5),
        Invented("pytorch", "qat-int8", 0.5),
        Invented("tflite", "as-is", 0.4, per_s=900.0),
    )
    results = sample_results(tmp_path, trials)

    for text in (Page(render(results)).text, brief(results)):
        assert "Result not verified by MLCommons Association." in text
        assert "none may be compared with one" in text
        assert "848b9ab" in text  # the version of the rules
        assert "2 closed, 1 open, 1 of neither, as the file was ready-made" in text
        assert "trademarks of MLCommons Association" in text
    page = Page(render(results)).text
    assert "90th percentile" in page
    assert "at least 24,576 samples" in page
    assert "queries of 8 samples" not in page  # no batch of several was timed
    named = mlperf.footnote(results)
    assert named is not None
    assert [name for name, _ in named.differences] == ["single-stream", "offline"]


def test_every_timed_scenario_has_its_difference_told() -> None:
    assert set(mlperf.DIFFERENCES) == set(TIMED)


def test_a_run_in_which_nothing_was_timed_borrows_no_word(tmp_path: Path) -> None:
    results = sample_results(tmp_path, [Invented("pytorch", "fp32", None, status="failed")])

    assert mlperf.footnote(results) is None
    assert "MLCommons" not in brief(results)


@pytest.mark.pictures
def test_a_run_without_measurements_of_time_still_has_a_report(tmp_path: Path) -> None:
    results = sample_results(tmp_path, TYPICAL)
    rows = results.measurements
    untimed = dataclasses.replace(results, measurements=rows[rows["scenario"] == "artifact"])

    text = Page(render(untimed)).text

    assert "Nothing to ship" in text
    assert "not timed" in text


@pytest.mark.pictures
@pytest.mark.long
def test_200_trials_stay_under_3_megabytes(tmp_path: Path) -> None:
    trials = [
        dataclasses.replace(t, model=f"model{m}", target=target)
        for m in range(7)
        for target in ("cpu-1", "cpu-all")
        for t in TYPICAL
    ][:200]

    results = sample_results(tmp_path / "run", trials, detailed=True)
    path = write_report(results, tmp_path / "report.html")

    size = path.stat().st_size
    assert size < 3_000_000


def test_every_colour_of_the_figures_has_a_light_and_a_dark_value(typical: str) -> None:
    svg = "".join(re.findall(r"<svg.*?</svg>", typical, flags=re.DOTALL))
    literal = set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", svg)))
    light, dark = palettes()
    assert literal == set()
    assert set(style.VARIABLES.values()) <= set(light)
    assert set(style.VARIABLES.values()) <= set(dark)
    assert {light[name] for name in style.VARIABLES.values()} == set(style.VARIABLES)


def palettes() -> tuple[dict[str, str], dict[str, str]]:
    """The custom properties of the light and of the dark theme."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    pairs = [dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    return pairs[0], pairs[1]


def luminance(color: str) -> float:
    """Relative luminance as in WCAG 2.2."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_have_the_contrast_that_wcag_asks_for(theme: int) -> None:
    color = palettes()[theme]

    def contrast(a: str, b: str) -> float:
        x, y = sorted((luminance(color[a]), luminance(color[b])))
        return (y + 0.05) / (x + 0.05)

    grounds = ["--ground", "--raised"]
    text = [(t, g) for t in ("--ink", "--muted", "--link", "--good", "--bad") for g in grounds]
    tinted = ["--good-ground", "--bad-ground", "--calm-ground", "--warn-ground"]
    tinted += [name for name in color if name.startswith(("--worse", "--level", "--better"))]
    assert len(tinted) == 4 + len(style.SCALE)
    text += [("--ink", g) for g in tinted]
    text += [("--good", "--good-ground"), ("--good", "--warn-ground"), ("--bad", "--bad-ground"),
             ("--link", "--calm-ground"), ("--link", "--bad-ground"), ("--alert", "--ground")]  # fmt: skip
    marks = [(f"--series-{i + 1}", "--ground") for i in range(len(style.SERIES))]
    assert {pair: round(contrast(*pair), 2) for pair in text if contrast(*pair) < 4.5} == {}
    assert {pair: round(contrast(*pair), 2) for pair in marks if contrast(*pair) < 3} == {}


def test_marks_of_the_scatter_are_named(typical: str) -> None:
    titles = {html.unescape(t) for t in re.findall(r"<title>(.*?)</title>", typical)}
    assert "tflite static-int8: 0.0842 ms, quality 99.0 %, 101 kB" in titles


def test_quantities_read_well() -> None:
    assert points(-0.00001) == "0.00 pp"
    assert points(-0.0012) == "−0.12 pp"
    assert size(999) == "999 B"
    assert span(Interval(1.0, float("nan"), 2.0), points) == ""
    assert span(Interval(1.0, 0.0, float("inf")), size) == "interval unknown"


def test_a_setting_that_alone_differs_is_a_row_with_its_effects(tmp_path):
    results = sample_results(tmp_path, TYPICAL)

    found = {(c.where, c.setting, c.after): c for c in summarise(results).section("changes")}

    compiled = found["pytorch fp32", "route", "compiled"]
    assert compiled.speed == ratio(0.982 / 0.433)
    assert compiled.tone == "good"
    assert compiled.size == ratio(392_118 / 371_204)
    assert not any(setting == "name" for _, setting, _ in found)


def test_a_run_that_trained_nothing_says_nothing_of_training(tmp_path):
    page = summarise(sample_results(tmp_path, TYPICAL))

    assert page.section("training") is None
    assert 'id="training"' not in render(sample_results(tmp_path / "again", TYPICAL))
