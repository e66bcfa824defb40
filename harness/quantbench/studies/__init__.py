"""Studies: many small questions to long-lived workers: sensitivity, mixed precision, capability."""

from quantbench.studies.capability import Matrix, changed_versions, compare
from quantbench.studies.depth import MODE as DEPTH
from quantbench.studies.guide import Check
from quantbench.studies.mixed_precision import Budget, Tuning, tune
from quantbench.studies.sensitivity import MODES, Diagnosis, diagnose, requests

__all__ = [
    "DEPTH",
    "MODES",
    "Budget",
    "Check",
    "Diagnosis",
    "Matrix",
    "Tuning",
    "changed_versions",
    "compare",
    "diagnose",
    "requests",
    "tune",
]
