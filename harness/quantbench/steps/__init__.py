"""Steps: functions that run in workers: prepare data, build, score, start, time. NumPy only."""

from quantbench.steps.build import (
    HISTOGRAMS,
    RECORD,
)
from quantbench.steps.prepare_data import (
    calibration_data,
    draw,
    read_labels,
    read_split,
    split_samples,
)
from quantbench.steps.score import SUMMARY, run_all

__all__ = [
    "HISTOGRAMS",
    "RECORD",
    "SUMMARY",
    "calibration_data",
    "draw",
    "read_labels",
    "read_split",
    "run_all",
    "split_samples",
]
