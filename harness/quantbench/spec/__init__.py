"""Spec: the nouns of a benchmark: model, task, method, target, trial. NumPy only."""

from quantbench.spec.layer_patterns import computed, matching
from quantbench.spec.method import (
    AS_IS,
    AXES,
    LISTS,
    PRESETS,
    RECIPE,
    Method,
    check_axis,
    division_of,
    preset,
)
from quantbench.spec.model import Model
from quantbench.spec.naming import NAME, as_name
from quantbench.spec.precision import PRECISIONS, Precision
from quantbench.spec.published import Published
from quantbench.spec.shift import RECALIBRATED, Shift
from quantbench.spec.status import (
    FAILURES,
    RAN,
    TIMED,
    Division,
    Flag,
    Scenario,
    Spread,
    Stage,
    Status,
    Verdict,
)
from quantbench.spec.target import Target, presets, target_warnings
from quantbench.spec.task import CONFIRMATION, SPLITS, Data, Draw, Samples, Task
from quantbench.spec.tensor import (
    Array,
    Arrays,
    TensorSpec,
    check_inputs,
    decode,
    encode,
    open_arrays,
    read_arrays,
    relayout,
    save_arrays,
)
from quantbench.spec.trial import Limits, Trial

__all__ = [
    "AS_IS",
    "AXES",
    "CONFIRMATION",
    "FAILURES",
    "LISTS",
    "NAME",
    "PRECISIONS",
    "PRESETS",
    "RAN",
    "RECALIBRATED",
    "RECIPE",
    "SPLITS",
    "TIMED",
    "Array",
    "Arrays",
    "Data",
    "Division",
    "Draw",
    "Flag",
    "Limits",
    "Method",
    "Model",
    "Precision",
    "Published",
    "Samples",
    "Scenario",
    "Shift",
    "Spread",
    "Stage",
    "Status",
    "Target",
    "Task",
    "TensorSpec",
    "Trial",
    "Verdict",
    "as_name",
    "check_axis",
    "check_inputs",
    "computed",
    "decode",
    "division_of",
    "encode",
    "matching",
    "open_arrays",
    "preset",
    "presets",
    "read_arrays",
    "relayout",
    "save_arrays",
    "target_warnings",
]
