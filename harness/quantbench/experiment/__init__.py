"""Experiment: the YAML file, what it names, and the trials that it expands to."""

from quantbench.experiment.expand import Experiment, describe, matches
from quantbench.experiment.plan import Cell, estimate_seconds, float_form, parity_cell, resolve
from quantbench.experiment.reader import declared_targets
from quantbench.experiment.user_model import OUTPUTS, contents

__all__ = [
    "OUTPUTS",
    "Cell",
    "Experiment",
    "contents",
    "declared_targets",
    "describe",
    "estimate_seconds",
    "float_form",
    "matches",
    "parity_cell",
    "resolve",
]
