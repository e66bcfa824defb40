"""Gates: their grammar, their file, what they find; and the command that fails on them."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from quantbench.analysis import DEFAULT, Change, changes, gates, judge
from quantbench.analysis.compare import QUANTITIES
from quantbench.analysis.gates import parse, read
from quantbench.cli import checks
from quantbench.cli.app import app
from quantbench.errors import BadInput
from quantbench.stats import Interval
from tests.harness.sample_results import TYPICAL, Invented, sample_results

FLOAT = Invented("pytorch", "fp32", 1.0, 400_000)
INT8 = Invented("onnxruntime", "static-int8", 0.10, 110_000, lost=3, won=2, integer=1.0)
PORTABLE = Path(__file__).parents[2] / "experiments" / "gates" / "portable.yaml"

# --- grammar ---


@pytest.mark.parametrize(
    ("text", "metric", "above", "limit"),
    [
        ("quality_drop > 0.5pp", "quality_drop", True, 0.005),
        ("size_bytes > +1%", "size_bytes", True, 0.01),
        ("speedup < -5%", "speedup", False, -0.05),
        ("agreement<-1pp", "agreement", False, -0.01),
        ("sqnr_db < -3", "sqnr_db", False, -3.0),
        ("sqnr_db < -3dB", "sqnr_db", False, -3.0),
        ("latency_ms > +10%", "latency_ms", True, 0.10),
        ("integer_macs_fraction < -1pp", "integer_macs_fraction", False, -0.01),
        ("missing > 0", "missing", True, 0.0),
        (" size_bytes  >  -.5% ", "size_bytes", True, -0.005),
    ],
)
def test_a_gate_is_read(text, metric, above, limit):
    found = parse(text)

    assert (found.metric, found.above) == (metric, above)
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no gate"),
        ("size_bytes", "is no gate"),
        ("size_bytes >= +1%", "is no gate"),
        ("sizebytes > +1%", "Did you mean 'size_bytes'?"),
        ("size_bytes > 1%", "has a sign"),
        ("size_bytes > +1pp", "its limit is in %"),
        ("size_bytes > +1", "its limit is in %"),
        ("size_bytes < -1%", "gets worse when it rises"),
        ("speedup > +5%", "write it like 'speedup < -5%'; it gets worse when it falls"),
        ("quality_drop > 0.5%", "its limit is in pp"),
        ("quality_drop > 0.5", "write it like 'quality_drop > 0.5pp'"),
        ("missing > 3", "one too many"),
        ("missing > 0pp", "a number of trials"),
        ("speedup < -5% or size_bytes > +1%", "is no gate"),
        ("__import__('os').abort() > 1", "is no gate"),
        ("speedup < -1e9%", "is no limit"),
        ("speedup < -inf%", "is no limit"),
    ],
)
def test_what_is_no_gate_is_refused_with_what_to_write(text, problem):
    with pytest.raises(BadInput) as error:
        parse(text)

    assert problem in str(error.value)


spaces = st.sampled_from(["", " ", "  "])
numbers = st.decimals(0, 1000, places=2).map(str)


@settings(deadline=None)
@given(st.sampled_from(sorted(QUANTITIES)), st.sampled_from("+-"), numbers, spaces, spaces)
def test_every_metric_takes_a_signed_limit_in_its_unit(metric, sign, number, before, after):
    quantity = QUANTITIES[metric]
    side = "<" if quantity.higher else ">"

    found = parse(f"{metric}{before}{side}{after}{sign}{number}{quantity.unit}")

    scale = 1 if quantity.unit == "dB" else 100
    assert found.limit * scale == pytest.approx(float(sign + number))
    assert parse(found.text) == found


@settings(deadline=None)
@given(st.text(max_size=40))
def test_text_that_names_no_metric_is_refused_in_a_sentence(text):
    with pytest.raises(BadInput, match="gate"):
        parse(text)


# --- file ---


def written(folder: Path, text: str) -> Path:
    path = folder / "gates.yaml"
    path.write_text(text)
    return path


def test_a_gate_file_selects_trials_and_may_be_strict(tmp_path):
    path = written(
        tmp_path,
        "fail_on:\n  - size_bytes > +1%\nonly: {backend: [tflite, pytorch], method: static-int8}\n"
        "strict: true\n",
    )

    (gate,) = read(path)

    assert gate == replace(
        parse("size_bytes > +1%"), strict=True,
        only={"backend": frozenset({"tflite", "pytorch"}), "method": frozenset({"static-int8"})},
    )  # fmt: skip


def test_the_published_gate_file_is_valid():
    found = read(PORTABLE)

    assert {gate.metric for gate in found} == {
        "missing", "quality_drop", "agreement", "sqnr_db", "integer_macs_fraction", "size_bytes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- speedup < -5%\n", ":1: a gate file is a mapping with the key fail_on"),
        ("", ":1: a gate file is a mapping"),
        ("fail_on: []\n", ":1: fail_on is empty"),
        (
            "fail_on:\n  - speedup < -5%\n  - speed < -5%\n",
            ":3: gate 'speed < -5%': unknown metric",
        ),
        ("strict: true\nfailon: []\nfail_on: [missing > 0]\n", ":2: unknown key 'failon'. Did you"),
        ("fail_on: [missing > 0]\nonly: {backnd: tflite}\n", "Did you mean 'backend'?"),
        ("fail_on: [missing > 0]\nonly: tflite\n", ":2: only is a mapping"),
        ("fail_on: [missing > 0]\nstrict: 1\n", ":2: strict is true or false"),
        ("fail_on: [missing > 0]\nacross_machines: here\n", ":2: across_machines is true or false"),
        ("fail_on: [missing > 0\n", "not valid YAML"),
        ("fail_on: !!python/object/apply:os.abort []\n", ":1: "),
    ],
)
def test_a_mistake_in_a_gate_file_is_one_line_with_its_place(tmp_path, text, problem):
    with pytest.raises(BadInput) as error:
        read(written(tmp_path, text))

    assert problem in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'gates.yaml'}:")


def test_a_gate_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BadInput, match=r"absent\.yaml cannot be read"):
        read(tmp_path / "absent.yaml")


# --- findings ---


def speed(value: float, low: float, high: float) -> Change:
    return Change(
        "m/tflite/static-int8/cpu-1", "speedup", "single-stream", 1, 2.0, 2.0 * (1 + value),
        Interval(value, low, high), "%", "undecided", "", {"backend": "tflite", "model": "m"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "failed", "undecided"),
    [
        (speed(-0.10, -0.12, -0.08), True, False),
        (speed(-0.10, -0.16, -0.04), False, True),
        (speed(-0.04, -0.06, -0.02), False, False),
        (speed(0.30, 0.28, 0.32), False, False),
    ],
)
def test_a_gate_fails_where_the_whole_interval_is_beyond_its_limit(change, failed, undecided):
    (found,) = judge([change], [parse("speedup < -5%")])

    assert (found.failed, found.undecided) == (failed, undecided)


def test_a_strict_gate_fails_by_the_estimate():
    (found,) = judge([speed(-0.10, -0.16, -0.04)], [replace(parse("speedup < -5%"), strict=True)])

    assert (found.failed, found.undecided) == (True, False)


def test_a_gate_can_ask_for_a_gain():
    (found,) = judge([speed(0.02, 0.0, 0.04)], [parse("speedup < +5%")])

    assert found.failed


def test_a_gate_judges_only_the_trials_it_selects():
    change = speed(-0.5, -0.5, -0.5)
    gate = parse("speedup < -5%")

    assert judge([change], [replace(gate, only={"backend": frozenset({"pytorch"})})]) == ()
    assert judge([change], [replace(gate, only={"backend": frozenset({"tflite"})})])[0].failed


def test_a_change_of_exactly_the_limit_passes(tmp_path):
    after = replace(INT8, size_bytes=111_100)
    runs = (sample_results(tmp_path / n, [FLOAT, t]) for n, t in (("a", INT8), ("b", after)))

    assert not any(f.failed for f in judge(changes(*runs), [parse("size_bytes > +1%")]))


PLANTED = {
    "a worse file": ({"size_bytes": 112_000}, "size_bytes > +1%"),
    "a smaller accuracy": ({"lost": 60}, "quality_drop > 0.5pp"),
    "answers that differ from the float model's": ({"lost": 60, "won": 59}, "agreement < -1pp"),
    "a slower ratio": ({"latency_ms": 0.12}, "speedup < -5%"),
    "less coverage": ({"integer": 0.6}, "integer_macs_fraction < -1pp"),
    "a crash": ({"status": "crashed", "reason": "signal 4"}, "missing > 0"),
    "nothing quantized": ({"status": "no-op"}, "missing > 0"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_regression_is_caught_by_the_default_gates(tmp_path, kind):
    how, gate = PLANTED[kind]
    before = sample_results(tmp_path / "a", [FLOAT, INT8])
    after = sample_results(tmp_path / "b", [FLOAT, replace(INT8, **how)])

    failed = [f for f in judge(changes(before, after), DEFAULT) if f.failed]

    assert gate in {f.gate.text for f in failed}
    assert {f.trial for f in failed} == {INT8.id}


def test_a_missing_trial_is_caught_and_a_new_one_is_not(tmp_path):
    both, one = (
        sample_results(tmp_path / name, trials)
        for name, trials in (("a", [FLOAT, INT8]), ("b", [FLOAT]))
    )

    lost = [f for f in judge(changes(both, one), DEFAULT) if f.failed]
    gained = [f for f in judge(changes(one, both), DEFAULT) if f.failed]

    assert [(f.trial, f.gate.text) for f in lost] == [(INT8.id, "missing > 0")]
    assert gained == []


# --- the command and what it writes ---


def compare(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["compare", *map(str, arguments)], env={"COLUMNS": "80"})
    if isinstance(found.exception, BaseException) and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.output


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A baseline, and a candidate with a larger file."""
    larger = [
        replace(t, size_bytes=t.size_bytes * 1.05) if t is TYPICAL[-1] else t for t in TYPICAL
    ]
    for name, trials in (("a", TYPICAL), ("b", larger)):
        sample_results(tmp_path / name, trials)
    return tmp_path / "a", tmp_path / "b"


def test_a_run_passes_against_itself(runs):
    code, text = compare(runs[0], runs[0])

    assert code == 0
    assert f"passed: {len(TYPICAL)} trials, 6 gates" in text


def test_a_failed_gate_is_exit_code_1_with_what_failed_first(runs):
    code, text = compare(*runs)

    assert code == 1
    assert text.index("Failed") < text.index("size_bytes > +1%") < text.index("metrics of all")
    assert "+5.00%" in text


def test_gates_of_the_command_and_of_a_file_add_up(runs, tmp_path):
    loose = written(tmp_path, "fail_on: [size_bytes > +10%]\n")

    assert compare(*runs, "--gate", loose)[0] == 0
    assert compare(*runs, "--gate", loose, "--fail-on", "size_bytes > +4%")[0] == 1
    assert compare(*runs, "--fail-on", "size_bytes > +9%", "size_bytes > +4%")[0] == 1
    with pytest.raises(BadInput, match="Did you mean 'size_bytes'"):
        compare(*runs, "--fail-on", "size_byte > +4%")
    with pytest.raises(BadInput, match="'third' is no gate"):
        compare(*runs, "third")


def test_runs_without_a_common_trial_are_exit_code_3(runs, tmp_path):
    sample_results(tmp_path / "c", [replace(FLOAT, model="another")])

    found = subprocess.run(
        [Path(sys.executable).parent / "quantbench", "compare", runs[0], tmp_path / "c"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert found.returncode == 3
    assert found.stderr.startswith("error: ")
    assert "no trial in common" in found.stderr


def test_a_gate_that_judges_nothing_is_said(runs):
    code, text = compare(*runs, "--fail-on", "activation_bytes > +4%")

    assert code == 0
    assert "gate 'activation_bytes > +4%' found nothing to judge" in text


# --- on another machine ---

OTHER = {"cpu": "Another CPU with a name of some length @ 2.0 GHz", "fingerprint": "ba9876543210"}


@pytest.fixture
def apart(tmp_path: Path) -> tuple[Path, Path]:
    """A baseline, and a candidate of another machine on which int8 is half as fast."""
    sample_results(tmp_path / "a", [FLOAT, INT8], experiment="apart")
    slower = [FLOAT, replace(INT8, latency_ms=0.2)]
    sample_results(tmp_path / "b", slower, experiment="apart", machine=OTHER)
    return tmp_path / "a", tmp_path / "b"


def test_times_of_another_machine_are_shown_and_not_gated(apart):
    code, text = compare(*apart)

    assert code == 0
    assert "passed: 2 trials, 6 gates" in text
    assert max(map(len, text.splitlines())) <= 80
    shown = " ".join(text.split())
    assert (
        "Not comparable: timed on different machines (cpu Invented CPU 9000 @ 3.0 GHz and Another CPU "
        in shown
    )
    assert "onnxruntime/static-int8 speedup 10.0× 5.00×" in shown
    lines = [line.strip() for line in text.splitlines()]
    assert any(line.startswith("not judged by speedup < -5%: 1 change is not") for line in lines)
    assert (
        "not comparable, timed on different machines --retime times both runs' artifacts" in shown
    )
    assert "found nothing to judge" not in shown
    assert "3 not comparable" in shown


@pytest.mark.parametrize("how", ["the option", "the file"])
def test_times_of_another_machine_are_gated_where_somebody_asks(apart, tmp_path, how):
    asks = written(tmp_path, "fail_on: [speedup < -5%]\nacross_machines: true\n")
    asked = ["--across-machines"] if how == "the option" else ["--gate", asks]

    code, text = compare(*apart, *asked)

    assert code == 1
    assert "-50.00%" in text
    assert "ot comparable" not in text


def test_gates_that_nothing_is_comparable_for_are_exit_code_3(apart):
    code, text = compare(*apart, "--fail-on", "speedup < -5%", "latency_ms > +10%")

    assert code == 3
    assert "nothing could be judged: 2 trials, 2 gates" in text
    assert compare(*apart, "--fail-on", "speedup < -5%", "size_bytes > +1%")[0] == 0


def test_what_is_not_comparable_is_in_every_form(apart, tmp_path):
    _, text = compare(*apart, "--json", "-")
    found = json.loads(text)
    (told,) = found["not_judged"]
    (speedup,) = (c for c in found["changes"] if c["metric"] == "speedup")
    assert (told["count"], told["gates"]) == (1, ["speedup < -5%"])
    assert told["reason"] == speedup["reason"]
    assert (speedup["verdict"], speedup["change"]) == ("not comparable", None)
    # the invented latencies 1.0, 0.1 and 0.2 ms, divided
    assert (speedup["baseline"], speedup["candidate"]) == (pytest.approx(10), pytest.approx(5))

    _, text = compare(*apart, "--markdown", "-")
    assert "3 not comparable: timed on different machines (cpu Invented CPU 9000" in text
    assert f"| `{INT8.id}` | speedup | 10.0× | 5.00× |" in text
    assert "Gates: not judged by speedup &lt; -5%: 1 change is not comparable" in text

    compare(*apart, "--junit", tmp_path / "gates.xml")
    said = [case.findtext("system-out") or "" for case in junit(tmp_path).iter("testcase")]
    assert "not comparable: speedup: 10.0× and 5.00×, timed on different machines" in said[1]
    assert junit(tmp_path).get("failures") == "0"


def junit(folder: Path) -> ET.Element:
    return ET.parse(folder / "gates.xml").getroot()  # noqa: S314 - written by the test


HOSTILE = "digits<script>alert('x')</script>|`\"&\x07 [bold]\u202e"


def test_junit_has_a_case_per_trial_and_holds_hostile_names(tmp_path):
    named = replace(INT8, model=HOSTILE)
    for name, trial in (("a", named), ("b", replace(named, size_bytes=10**6))):
        sample_results(tmp_path / name, [replace(FLOAT, model=HOSTILE), trial])

    code, text = compare(tmp_path / "a", tmp_path / "b", "--junit", tmp_path / "gates.xml")

    suite = junit(tmp_path).find("testsuite")
    cases = suite.findall("testcase")
    assert code == 1
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    assert [case.find("failure") is not None for case in cases] == [False, True]
    assert cases[1].get("name") == named.id.replace("\x07", "\N{REPLACEMENT CHARACTER}")
    assert "size_bytes > +1%" in cases[1].find("failure").get("message")
    assert "\x07" not in text
    assert "\u202e" not in text


def test_what_the_baseline_did_not_run_either_is_skipped(runs, tmp_path):
    compare(*runs, "--junit", tmp_path / "gates.xml")

    skipped = junit(tmp_path).findall(".//skipped")
    assert len(skipped) == sum(t.status == "unsupported" for t in TYPICAL) > 0


def test_markdown_says_what_failed_and_hostile_names_stay_text(tmp_path):
    named = replace(INT8, model=HOSTILE)
    before = sample_results(tmp_path / "a", [replace(FLOAT, model=HOSTILE), named])
    after = sample_results(
        tmp_path / "b", [replace(FLOAT, model=HOSTILE), replace(named, size_bytes=10**6)]
    )

    text = checks.markdown(checks.Checks.of(before, after, DEFAULT))

    failed = next(line for line in text.splitlines() if "**failed**" in line)
    assert text.startswith("### ❌ quantbench: failed: 1 of 2 trials, 6 gates")
    assert failed.count("|") == 5
    assert failed.count("`") == 4
    assert "+809.09%" in failed


def test_markdown_and_json_are_shown_instead_of_the_table(runs):
    code, text = compare(*runs, "--markdown", "-")
    assert (code, text.startswith("### ❌")) == (1, True)

    code, text = compare(*runs, "--json", "-")
    found = json.loads(text)
    assert (code, found["failed"]) == (1, True)
    assert [f["trial"] for f in found["findings"] if f["failed"]] == [TYPICAL[-1].id]
    assert {"trial", "metric", "change", "low", "high", "verdict"} <= found["changes"][0].keys()


def test_the_table_fits_a_terminal(runs):
    _, text = compare(*runs)

    assert max(map(len, text.splitlines())) <= 80


def test_every_default_gate_says_what_it_is():
    assert [gate.text for gate in gates.DEFAULT] == [
        "missing > 0", "quality_drop > 0.5pp", "agreement < -1pp",
        "integer_macs_fraction < -1pp", "size_bytes > +1%", "speedup < -5%",
    ]  # fmt: skip
