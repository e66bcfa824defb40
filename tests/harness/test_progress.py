"""Progress: plain lines where there is no terminal, a live line of 80 columns where there is."""

from __future__ import annotations

import io

from rich.console import Console

from quantbench.runs import Reporter


def test_elsewhere_than_on_a_terminal_each_finished_step_is_a_plain_line():
    said = io.StringIO()

    with Reporter(Console(file=said, width=80)) as report:
        report.phase("build", 2)
        report.step("not shown")
        report.done("digits/tflite/fp32/cpu-1: ok")
        report.done()

    lines = said.getvalue().splitlines()
    assert lines[0] == "build: 2 steps"
    assert lines[1].startswith("build 1/2 digits/tflite/fp32/cpu-1: ok (0 s, about 0 s left)")
    assert len(lines) == 2


def test_on_a_terminal_one_line_shows_phase_count_time_and_trial():
    said = io.StringIO()
    console = Console(file=said, width=80, force_terminal=True, color_system=None)

    with Reporter(console) as report:
        report.phase("clock", 4)
        report.step("digits/cpu-1/batch1 generation 1 round 1, with much more text than fits")
        report.done()

    shown = said.getvalue()
    for word in ("clock", "1/4", "0:00:00", "left", "digits/cpu-1"):
        assert word in shown


def test_more_steps_than_planned_never_show_more_than_the_total():
    said = io.StringIO()

    with Reporter(Console(file=said, width=80)) as report:
        report.phase("clock", 1)
        report.done("one")
        report.done("two")

    assert "clock 2/2 two" in said.getvalue()
