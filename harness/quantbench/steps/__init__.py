"""Steps: functions that run in workers: prepare data, build, score, start, time. NumPy only."""

from quantbench.steps.build import (
    HISTOGRAMS,
    RECORD,
    artifact_key,
    data_key,
    form_key,
    observation_key,
    training_key,
    weights_digest,
    weights_key,
)
from quantbench.steps.prepare_data import calibration_data, read_labels, read_split
from quantbench.steps.score import SUMMARY, run_all

__all__ = [
    "HISTOGRAMS",
    "RECORD",
    "SUMMARY",
    "artifact_key",
    "calibration_data",
    "data_key",
    "form_key",
    "observation_key",
    "read_labels",
    "read_split",
    "run_all",
    "training_key",
    "weights_digest",
    "weights_key",
]
