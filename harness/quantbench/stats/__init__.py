"""Statistics: intervals, tests and verdicts, paired rounds, quality per sample."""

from quantbench.stats import calibration_error
from quantbench.stats.paired_rounds import Times, bursts, log_times, paired
from quantbench.stats.quality_metrics import (
    FIDELITY,
    METRICS,
    PARITY_LIMIT,
    PARITY_SAMPLES,
    STATISTICS,
    UNITS,
    Fidelity,
    Outcome,
    Parity,
    answers,
    cosine,
    kl_divergence,
    metric_of,
    parity,
    sqnr_db,
)
from quantbench.stats.statistics import (
    CLASS_SAMPLES,
    Interval,
    PairedDrop,
    difference_interval,
    exp_interval,
    rounds_interval,
)

__all__ = [
    "CLASS_SAMPLES",
    "FIDELITY",
    "METRICS",
    "PARITY_LIMIT",
    "PARITY_SAMPLES",
    "STATISTICS",
    "UNITS",
    "Fidelity",
    "Interval",
    "Outcome",
    "PairedDrop",
    "Parity",
    "Times",
    "answers",
    "bursts",
    "calibration_error",
    "cosine",
    "difference_interval",
    "exp_interval",
    "kl_divergence",
    "log_times",
    "metric_of",
    "paired",
    "parity",
    "rounds_interval",
    "sqnr_db",
]
