"""`quantbench advise`, several runs as one, and the short form for a pull request."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quantbench.analysis import recommend
from quantbench.cli.app import app
from quantbench.report import render
from quantbench.report.markdown import brief, escaped
from quantbench.results import Results, parts
from quantbench.results.merge import merge
from tests.harness.sample_results import OLD_MACHINE, TYPICAL, Invented, sample_results
from tests.harness.test_report import HOSTILE, Page, hostile_results


def advise(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["advise", *map(str, words)], env={"COLUMNS": "80"})
    return found.exit_code, found.output


def test_advise_says_what_to_ship_and_what_it_costs_in_80_columns(tmp_path: Path) -> None:
    sample_results(tmp_path / "run", TYPICAL)

    code, text = advise(tmp_path / "run")

    said = " ".join(text.split())
    assert code == 0
    assert "digits on cpu-1: Ship tflite static-int8" in said
    assert "4.52× faster 4.52×" in said
    assert "11.7× (11.5 to 11.8×) against pytorch fp32, the reference" in said
    assert "Resolution: 897 test samples can show a limit of" in said
    assert "at most 0.58 pp (one-sided 95 %), allowed 1 pp" in said
    assert "onnxruntime static-int8 (105 kB)" in said  # the tie
    assert "loses 1.56 points, more than the 1 point allowed" in said
    assert "Pareto set of latency and quality" in said
    prose = [line for line in text.splitlines() if not line.startswith("export:")]
    assert max(map(len, prose)) <= 80


def test_advise_as_json_holds_the_choice_its_intervals_and_the_pareto_set(tmp_path: Path) -> None:
    results = sample_results(tmp_path / "run", TYPICAL)

    code, text = advise(tmp_path / "run", "--max-drop", "0.5pp", "--json")

    (choice,) = json.loads(text)["choices"]
    (wanted,) = recommend(results, limits_of("0.5pp"))
    assert code == 0
    assert choice["trial"] == wanted.trial
    assert (choice["seed"], choice["seeds"], choice["judged"]) == (0, None, 13)
    assert choice["resolution"]["samples"] == 897
    assert choice["resolution"]["needed"] > 897
    assert [row["trial"] for row in choice["pareto"]] == list(wanted.front)
    assert choice["quality_drop"]["low"] <= choice["quality_drop"]["value"]
    assert choice["quality_drop_bound"]["value"] <= 0.005
    assert shlex.split(choice["export"])[3] == wanted.trial


def limits_of(drop: str):
    from quantbench.analysis import Constraints, parse_drop

    return Constraints(parse_drop(drop))


def test_advise_exits_with_1_where_nothing_qualifies_and_says_why(tmp_path: Path) -> None:
    sample_results(tmp_path / "run", TYPICAL)

    code, text = advise(tmp_path / "run", "--max-size", "1kB")

    assert code == 1
    assert "Nothing to ship" in text
    assert "more than the 1 kB allowed" in " ".join(text.split())


def test_two_runs_of_one_place_are_told_apart_and_keep_their_own_reference(tmp_path: Path) -> None:
    one, two = (
        sample_results(tmp_path / name, [Invented("pytorch", "fp32", ms), fast], run={"run": name})
        for name, ms, fast in (
            ("laptop", 1.0, Invented("tflite", "static-int8", 0.1)),
            ("board", 8.0, Invented("tflite", "static-int8", 2.0)),
        )
    )

    both = merge([one, two])
    text = Page(render(both)).text

    assert [c.target for c in recommend(both)] == ["cpu-1 (run laptop)", "cpu-1 (run board)"]
    assert both.trials["trial"].is_unique
    assert "10.0× faster" in text
    assert "4.00× faster" in text
    assert f"quantbench export {tmp_path / 'board'} digits/tflite/static-int8/cpu-1 -o" in text
    assert [part.name for part in parts(both)] == ["laptop", "board"]
    assert [(one.model, one.target, one.comparison, one.trial) for one in both.references] == [
        ("digits", f"cpu-1 (run {name})", "batch1", f"digits/pytorch/fp32/cpu-1 (run {name})")
        for name in ("laptop", "board")
    ]


def test_runs_of_different_places_keep_their_names(tmp_path: Path) -> None:
    one = sample_results(tmp_path / "one", TYPICAL)
    two = sample_results(tmp_path / "two", [Invented("pytorch", "fp32", 1.0, model="other")])

    both = merge([one, two])

    assert set(both.trials["trial"]) == {*one.trials["trial"], *two.trials["trial"]}
    assert merge([one]) is one


def test_the_report_command_merges_runs_and_links_the_files_of_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        sample_results(tmp_path / name, TYPICAL[:2], run={"run": name})
    runner = CliRunner()

    both = runner.invoke(app, ["report", str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "both.html")])  # fmt: skip
    own = runner.invoke(app, ["report", str(tmp_path / "one")])

    assert (both.exit_code, own.exit_code) == (0, 0)
    page = (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert 'href="trials.parquet"' in page
    assert 'href="trials.parquet"' not in (tmp_path / "both.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def comment(tmp_path_factory: pytest.TempPathFactory) -> str:
    results: Results = sample_results(tmp_path_factory.mktemp("c") / "run", TYPICAL + OLD_MACHINE)
    return brief(results, report="site/report.html")


def test_the_comment_has_verdict_front_warnings_failures_and_where_the_report_is(
    comment: str,
) -> None:
    assert (
        "**digits on cpu-1.** Ship tflite static-int8: 4.52× faster than tflite fp32 (in the same "
        "runtime), 2.85× faster than onnxruntime fp32 (the fastest float of any framework), 11.7× "
        "faster than pytorch fp32 (the reference), 3.67× smaller"
    ) in comment
    assert "| Pareto set | latency |" in comment
    assert "> This is a virtual machine" in comment
    assert "crashed: process ended by signal 4" in comment
    assert "Full report: site/report.html" in comment


def test_nothing_hostile_is_markup_in_the_comment(tmp_path: Path) -> None:
    text = brief(hostile_results(tmp_path / "run"))

    prose = re.sub(r"^(`{3,})sh\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"<[^>]*>", prose)) <= {"<sub>", "</sub>"}
    tables = [line for line in prose.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {8}
    assert HOSTILE[0] not in prose


def test_a_name_is_shown_as_it_is_and_nobody_is_mentioned() -> None:
    assert escaped("[x](https://e.org) @all `y`") == "\\[x\\](https&#58;//e.org) &#64;all \\`y\\`"
