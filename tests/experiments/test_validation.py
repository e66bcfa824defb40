"""The checks of `make validate`, on invented runs: what they count, and what they would not pass."""

from __future__ import annotations

import pytest

from tests.harness.sample_results import Invented, sample_results
from tools.validation import __main__ as validation
from tools.validation import repeat

TRIALS = (
    Invented("pytorch", "fp32", 1.0),
    Invented("pytorch", "static-int8", 0.5),
    Invented("tflite", "static-int8", 0.25),
)


@pytest.mark.parametrize(("factor", "reached"), [(1.0, True), (1.02, True), (1.1, False)])
def test_speedups_of_two_runs_are_compared_cell_by_cell(tmp_path, factor, reached):
    first = sample_results(tmp_path / "a", TRIALS)
    changed = (*TRIALS[:2], Invented("tflite", "static-int8", 0.25 * factor))
    second = sample_results(tmp_path / "b", changed)

    found = repeat.check([first, second])

    assert found["cells"] == len(found["rows"]) > 0
    assert found["reached"] == reached


def test_a_check_that_there_is_not_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        validation.main(["aaa"])

    assert caught.value.code == 2
    assert "there are repeat, tools, aa, busy" in capsys.readouterr().err
