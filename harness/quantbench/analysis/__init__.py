"""Analysis: pure functions of a run's tables: one row per trial, ties, choices, causes, changes."""

from quantbench.analysis.compare import (
    BETTER,
    MISSING,
    NEW,
    NOT_COMPARABLE,
    SAME_AS,
    STATUS,
    UNDECIDED,
    VERDICTS,
    WORSE,
    Change,
    changes,
    common,
)
from quantbench.analysis.confirmation import confirmed, to_confirm
from quantbench.analysis.constraints import (
    LARGEST_DROP,
    OBJECTIVES,
    Constraints,
    parse_drop,
    parse_size,
    size_limit,
)
from quantbench.analysis.equivalence import smallest_claim
from quantbench.analysis.executed_work import Work, other_work
from quantbench.analysis.gains import Gain, gains_of, same_runtime
from quantbench.analysis.gates import DEFAULT, Finding, Gate, LeftOut, judge, left_out, shown
from quantbench.analysis.measured_causes import MeasuredCause
from quantbench.analysis.recommendation import (
    Choice,
    Judged,
    Standing,
    Standings,
    choose,
    pareto,
    recommend,
    refusal,
    standings,
    unbeaten,
)
from quantbench.analysis.remedies import Remedy, remedies
from quantbench.analysis.resolution import Resolution, resolution
from quantbench.analysis.retimed_changes import with_retimed
from quantbench.analysis.seeds import pooled
from quantbench.analysis.slowdown_causes import Explanation, baseline, causes, explain, facts
from quantbench.analysis.time_changes import TIMED_METRICS
from quantbench.analysis.time_differences import TimeDifference, TypeDifference
from quantbench.analysis.trial_table import (
    MeasuredTrial,
    Pool,
    batch_sizes,
    control,
    frame_of,
    trial_frame,
    trial_rows,
)

__all__ = [
    "BETTER",
    "DEFAULT",
    "LARGEST_DROP",
    "MISSING",
    "NEW",
    "NOT_COMPARABLE",
    "OBJECTIVES",
    "SAME_AS",
    "STATUS",
    "TIMED_METRICS",
    "UNDECIDED",
    "VERDICTS",
    "WORSE",
    "Change",
    "Choice",
    "Constraints",
    "Explanation",
    "Finding",
    "Gain",
    "Gate",
    "Judged",
    "LeftOut",
    "MeasuredCause",
    "MeasuredTrial",
    "Pool",
    "Remedy",
    "Resolution",
    "Standing",
    "Standings",
    "TimeDifference",
    "TypeDifference",
    "Work",
    "baseline",
    "batch_sizes",
    "causes",
    "changes",
    "choose",
    "common",
    "confirmed",
    "control",
    "explain",
    "facts",
    "frame_of",
    "gains_of",
    "judge",
    "left_out",
    "other_work",
    "pareto",
    "parse_drop",
    "parse_size",
    "pooled",
    "recommend",
    "refusal",
    "remedies",
    "resolution",
    "same_runtime",
    "shown",
    "size_limit",
    "smallest_claim",
    "standings",
    "to_confirm",
    "trial_frame",
    "trial_rows",
    "unbeaten",
    "with_retimed",
]
