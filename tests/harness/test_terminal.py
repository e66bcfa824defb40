"""Terminal: a run in a few lines that fit 80 columns."""

from __future__ import annotations

import dataclasses
import io
import math

from rich.console import Console

from quantbench.cli.terminal import show
from tests.harness.sample_results import TYPICAL, sample_results


def shown(tmp_path, trials) -> str:
    said = io.StringIO()
    show(sample_results(tmp_path, trials), Console(file=said, width=80, color_system=None))
    return said.getvalue()


def test_model_and_target_are_said_once_where_all_trials_share_them(tmp_path):
    text = shown(tmp_path, TYPICAL)

    assert text.startswith("digits on cpu-1\n")
    assert "\npytorch/static-int8 " in text
    assert "digits/pytorch/static-int8/cpu-1" not in text


def test_trials_of_several_models_have_their_whole_names(tmp_path):
    other = (dataclasses.replace(trial, model="larger") for trial in TYPICAL)

    text = shown(tmp_path, (*TYPICAL, *other))

    assert "digits/pytorch/fp32/cpu-1" in text
    assert "larger/pytorch/fp32/cpu-1" in text


def test_what_has_no_interval_is_about_so_much(tmp_path):
    first, *others = TYPICAL
    slow = dataclasses.replace(TYPICAL[6], latency_ms=12.0, width=math.nan)

    text = shown(tmp_path, (first, slow, *(trial for trial in others if trial.id != slow.id)))

    line = next(line for line in text.splitlines() if line.startswith("pytorch/static-int8 "))
    assert "about 12.000" in line
    assert "about 0.0818" in line
    assert "nan" not in text
    assert text.count("about") == 2
