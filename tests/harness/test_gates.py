"""Gates: their grammar, their file, and when they fail."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.gates import DEFAULT, judge, parse, read, told
from harness.regression import QUANTITIES, SAME, UNDECIDED, Change
from harness.statistics import Interval


def change(metric: str, low: float, value: float, high: float, trial: str = "t") -> Change:
    return Change(trial, metric, None, 0.0, value, Interval(value, low, high), UNDECIDED)


@pytest.mark.parametrize(
    ("text", "metric", "above", "limit"),
    [
        ("quality_drop > 0.5pp", "quality_drop", True, 0.005),
        ("size_bytes > +1%", "size_bytes", True, 0.01),
        ("speedup<-5%", "speedup", False, -0.05),
        ("sqnr_db < -3", "sqnr_db", False, -3.0),
        ("sqnr_db < -3 dB", "sqnr_db", False, -3.0),
        ("missing > 0", "missing", True, 0.0),
    ],
)
def test_a_gate_is_read(text: str, metric: str, above: bool, limit: float) -> None:
    gate = parse(text)

    assert (gate.metric, gate.above) == (metric, above)
    assert gate.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quality > 1pp", "no gate can be on 'quality'. Did you mean 'quality_drop'?"),
        ("speedup < -5", "speedup changes in %; write 'speedup < -5%'"),
        ("quality_drop > 1%", "quality_drop changes in pp; write 'quality_drop > 1pp'"),
        ("speedup <= -5%", "is no gate; write METRIC > LIMIT"),
        ("__import__('os') > 1%", "is no gate"),
    ],
)
def test_what_is_no_gate_is_said_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)

    assert says in str(caught.value)


@given(
    metric=st.sampled_from(sorted(set(QUANTITIES) - {"missing"})),
    above=st.booleans(),
    limit=st.decimals(-50, 50, places=2),
)
def test_what_is_written_is_what_is_read(metric: str, above: bool, limit: object) -> None:
    unit = QUANTITIES[metric].unit
    text = f"{metric} {'>' if above else '<'} {limit}{unit}"

    gate = parse(text)

    scale = 1 if unit == "dB" else 100
    assert gate.text == text
    assert gate.limit * scale == pytest.approx(float(str(limit)))


@given(value=st.floats(-0.5, 0.5), half=st.floats(0, 0.2), limit=st.decimals(-40, 40, places=1))
def test_only_a_change_that_is_wholly_beyond_the_limit_fails(
    value: float, half: float, limit: object
) -> None:
    moved = change("speedup", value - half, value, value + half)
    gate = parse(f"speedup < {limit}%")

    (finding,) = judge([moved], [gate])

    assert finding.failed == (value + half < gate.limit)


def test_a_strict_gate_fails_by_the_estimate(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("fail_on:\n  - speedup < -5%\nstrict: true\n")
    undecided = change("speedup", -0.2, -0.08, 0.01)

    (strict,) = judge([undecided], read(path))
    (usual,) = judge([undecided], [parse("speedup < -5%")])

    assert (strict.failed, usual.failed) == (True, False)


def test_a_file_narrows_its_gates_to_some_trials(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("fail_on: ['size_bytes > +1%']\nonly: ['*/tflite/*']\n")
    moved = [
        change("size_bytes", 0.5, 0.5, 0.5, f"m/{b}/fp32/cpu-1") for b in ("tflite", "pytorch")
    ]

    assert [f.trial for f in judge(moved, read(path))] == ["m/tflite/fp32/cpu-1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fail_on:\n  - speedup < -5%\n  - sped > 1%\n", ":3: no gate can be on 'sped'"),
        ("fail: []\n", "unknown key 'fail'. Did you mean 'fail_on'?"),
        ("fail_on: []\n", "fail_on: list should have at least 1 item"),
        ("only: [a]\n", "key 'fail_on' is missing"),
        ("- a\n", "it takes the keys fail_on, only, strict"),
        ("fail_on: [\n", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']\n", "takes the keys"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(text)

    with pytest.raises(BadInput) as caught:
        read(path)

    assert any(says in line for line in str(caught.value).splitlines())
    assert str(path) in str(caught.value)


def test_what_is_not_known_fails_nothing() -> None:
    unknown = Change("t", "speedup", 1, 1.0, 1.0, None, SAME, "its references differ: a and b")
    endless = change("sqnr_db", math.nan, math.nan, math.nan)

    assert not any(f.failed for f in judge([unknown, endless], [parse("speedup < -5%"), *DEFAULT]))


def test_a_change_is_told_in_its_unit_with_its_interval() -> None:
    assert told(change("speedup", -0.07, -0.06, -0.05)) == "-6.00 % [-7.00, -5.00]"
    assert told(change("quality_drop", 0.001, 0.002, 0.003)) == "+0.20 pp [0.10, 0.30]"
    assert told(change("sqnr_db", -3, -3, -3)) == "-3.00 dB"
