"""Runs: an experiment is built, scored and timed; the state on disk becomes tables."""

from quantbench.runs.assembly import assemble, changes
from quantbench.runs.build_graph import BuildGraph
from quantbench.runs.comparison import Comparison, Contender
from quantbench.runs.exporting import export
from quantbench.runs.interleaved_timing import (
    Generation,
    log_times,
    run_comparison,
    run_generation,
    warm_workers,
)
from quantbench.runs.profiling import Rebuilt, profile, ratio, rebuilt, trials_of
from quantbench.runs.reporter import Reporter
from quantbench.runs.retiming import Retimed, other_versions, retime
from quantbench.runs.runner import exit_code, run, score
from quantbench.runs.states import Built, Scored
from quantbench.runs.store import Store, locked, open_run
from quantbench.runs.timing_plan import Timing
from quantbench.runs.trying import Tried, attempt, offered

__all__ = [
    "BuildGraph",
    "Built",
    "Comparison",
    "Contender",
    "Generation",
    "Rebuilt",
    "Reporter",
    "Retimed",
    "Scored",
    "Store",
    "Timing",
    "Tried",
    "assemble",
    "attempt",
    "changes",
    "exit_code",
    "export",
    "locked",
    "log_times",
    "offered",
    "open_run",
    "other_versions",
    "profile",
    "ratio",
    "rebuilt",
    "retime",
    "run",
    "run_comparison",
    "run_generation",
    "score",
    "trials_of",
    "warm_workers",
]
