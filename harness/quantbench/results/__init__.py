"""Results: the Parquet contract of a run: its schema, its tables, several runs as one."""

from quantbench.results.merge import Part, parts
from quantbench.results.migration import spread
from quantbench.results.operator_profiles import (
    OperatorProfile,
    ProfiledCall,
    load_profile,
    save_profile,
    typical_call,
)
from quantbench.results.rows import (
    ArtifactRow,
    HistogramRow,
    Measurement,
    SensitivityRow,
    TrialRow,
    rows,
    trial_row,
)
from quantbench.results.schema import (
    FIDELITY,
    PREDICTIONS,
    SAMPLES,
    SCHEMA_VERSION,
    SCHEMAS,
)
from quantbench.results.tables import (
    SHOWN_AS_HTML,
    Reference,
    Results,
    bring_up,
    find_run,
    load_results,
    read_table,
    write_table,
)

__all__ = [
    "FIDELITY",
    "PREDICTIONS",
    "SAMPLES",
    "SCHEMAS",
    "SCHEMA_VERSION",
    "SHOWN_AS_HTML",
    "ArtifactRow",
    "HistogramRow",
    "Measurement",
    "OperatorProfile",
    "Part",
    "ProfiledCall",
    "Reference",
    "Results",
    "SensitivityRow",
    "TrialRow",
    "bring_up",
    "find_run",
    "load_profile",
    "load_results",
    "parts",
    "read_table",
    "rows",
    "save_profile",
    "spread",
    "trial_row",
    "typical_call",
    "write_table",
]
