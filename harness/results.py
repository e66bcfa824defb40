"""Results: the tidy Parquet files of a run, their schema, and how they are read.

The schema here is the contract other tools rely on (docs/results.md describes each column). Every
file carries ``SCHEMA_VERSION`` in its metadata; a reader refuses another version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import NotComparable
from harness.files import write_atomically
from harness.method import AXES, Method

SCHEMA_VERSION = 4

STATUSES = (
    "ok", "no-op", "simulated", "unsupported", "invalid", "failed", "timeout", "crashed", "out-of-memory",
)  # fmt: skip
FAILURES = ("invalid", "failed", "timeout", "crashed", "out-of-memory")
"""Statuses that make `quantbench run` exit with 1."""

_AXIS_TYPES: Mapping[type, pa.DataType] = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), tuple: pa.list_(pa.string()),
}  # fmt: skip
_EXAMPLE = Method("fp32")

TRIALS = pa.schema(
    [
        ("run", pa.string()),
        ("trial", pa.string()),
        ("experiment", pa.string()),
        ("model", pa.string()),
        ("task", pa.string()),
        ("backend", pa.string()),
        ("method", pa.string()),
        ("label", pa.string()),  # method with the axes that were overridden, for people
        *((axis, _AXIS_TYPES[type(getattr(_EXAMPLE, axis))]) for axis in AXES),
        ("target", pa.string()),
        ("device", pa.string()),
        ("threads", pa.int64()),
        ("isa", pa.string()),
        ("kernels", pa.string()),
        ("seed", pa.int64()),
        ("precision", pa.string()),
        ("machine", pa.string()),
        ("status", pa.string()),
        ("stage", pa.string()),  # build, score or clock: where the status was decided
        ("reason", pa.string()),
        ("artifact", pa.string()),  # content key in the cache
        ("sha256", pa.string()),
        (
            "parity_max_abs",
            pa.float64(),
        ),  # of this backend's fp32 against the model's reference form
        ("parity_samples", pa.int64()),
        ("trained_s", pa.float64()),
        ("converted_s", pa.float64()),  # of the float form, once for all methods that start from it
        ("observed_s", pa.float64()),  # of the histograms, once for all calibrators
        ("built_s", pa.float64()),
        ("scored_s", pa.float64()),
        ("effective", pa.string()),  # JSON: settings as the runtime reported them
        ("flags", pa.list_(pa.string())),  # e.g. not-steady, slower-than-10x, outputs-differ
        ("warnings", pa.list_(pa.string())),  # of the machine and of the target on it, as sentences
    ]
)
MEASUREMENTS = pa.schema(
    [
        ("trial", pa.string()),
        # artifact, score, seeds, memory, start, energy; single-stream, multi-stream, offline
        ("scenario", pa.string()),
        ("batch_size", pa.int64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("unit", pa.string()),
        ("n", pa.int64()),
        ("reference", pa.string()),  # the trial a ratio or difference is relative to
        ("verdict", pa.string()),
        ("reason", pa.string()),  # why value is null, or how it was limited
    ]
)
SAMPLES = pa.schema(
    [
        ("trial", pa.string()),
        ("scenario", pa.string()),
        ("batch_size", pa.int64()),
        ("generation", pa.int64()),
        ("round", pa.int64()),
        ("position", pa.int64()),
        ("calls", pa.int64()),
        ("nanoseconds", pa.int64()),
    ]
)
PREDICTIONS = pa.schema(
    [
        ("trial", pa.string()),
        ("sample", pa.int64()),
        ("label", pa.float64()),
        ("prediction", pa.float64()),
        ("outcome", pa.float64()),  # what the metric averages, per sample
    ]
)
ARTIFACTS = pa.schema(
    [
        ("trial", pa.string()),
        ("kind", pa.string()),  # tensor and node (from the file), executed (from the runtime)
        ("name", pa.string()),
        ("role", pa.string()),
        ("operator", pa.string()),  # of nodes and executed: its type in the framework's words
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("bytes", pa.int64()),
        ("bits", pa.int64()),
        ("levels", pa.int64()),  # values that it can take: 256, 255, 128...
        ("signed", pa.bool_()),
        ("symmetric", pa.bool_()),
        ("granularity", pa.string()),
        ("group_size", pa.int64()),
        ("scale", pa.list_(pa.float64())),
        ("zero_point", pa.list_(pa.int64())),
        ("low", pa.float64()),  # the range that the integers stand for
        ("high", pa.float64()),
        ("layer", pa.string()),
        ("scales", pa.string()),  # none, dynamic or static
        ("macs", pa.int64()),
        ("weights", pa.int64()),
        ("weight_dtype", pa.string()),
        ("integer", pa.bool_()),
        ("engine", pa.string()),
        ("fused", pa.list_(pa.string())),
        ("reason", pa.string()),  # why it is in float, where that is known
    ]
)
HISTOGRAMS = pa.schema(
    [
        ("trials", pa.list_(pa.string())),  # whose float form it is of
        ("role", pa.string()),  # activation or weight
        ("name", pa.string()),  # the backend's name of the activation; the layer of the weight
        ("start", pa.float64()),  # of the first bin
        ("width", pa.float64()),
        ("counts", pa.list_(pa.int64())),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        ("mean", pa.float64()),
        ("std", pa.float64()),
        ("count", pa.int64()),
    ]
)
TRAINING = pa.schema(
    [
        ("trial", pa.string()),
        ("epoch", pa.int64()),
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
    ]
)
SENSITIVITY = pa.schema(
    [
        ("model", pa.string()),
        ("backend", pa.string()),
        ("method", pa.string()),
        ("parts", pa.string()),
        # float, all; one layer quantized or kept; part and remedy of the worst layers
        ("mode", pa.string()),
        ("layer", pa.string()),
        ("change", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("samples", pa.int64()),
        ("quality", pa.float64()),
        ("quality_drop", pa.float64()),
        ("agreement", pa.float64()),
        ("sqnr_db", pa.float64()),
        ("mse", pa.float64()),
        ("cosine", pa.float64()),
        ("error_over_scale", pa.float64()),  # of the layer's output; 0.289 is ideal rounding
        ("saturation", pa.float64()),  # share of test values beyond the range
        ("unseen", pa.float64()),  # share of test values beyond all calibration values
        ("outlier_ratio", pa.float64()),  # largest value over the standard deviation
    ]
)
SCHEMAS: Mapping[str, pa.Schema] = {
    "trials": TRIALS,
    "measurements": MEASUREMENTS,
    "samples": SAMPLES,
    "predictions": PREDICTIONS,
    "artifacts": ARTIFACTS,
    "training": TRAINING,
    "histograms": HISTOGRAMS,
}


@dataclass(frozen=True, slots=True)
class Results:
    """A run as pandas frames, one per Parquet file, with its machine and its run description.

    They are ``trials``, ``measurements``, ``samples``, ``predictions``, ``artifacts``, ``training`` and
    ``histograms``.
    """

    folder: Path
    run: Mapping[str, Any]
    machine: Mapping[str, Any]
    trials: pd.DataFrame
    measurements: pd.DataFrame
    samples: pd.DataFrame
    predictions: pd.DataFrame
    artifacts: pd.DataFrame
    training: pd.DataFrame
    histograms: pd.DataFrame

    def __repr__(self) -> str:
        from harness.report.brief import short_text  # results are read where no report is made

        return short_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the recommendation, the counts and the Pareto front."""
        from harness.report.brief import notebook

        return notebook(self)


def write_table(folder: Path, name: str, rows: list[dict[str, Any]] | pa.Table) -> None:
    """Write ``folder/name.parquet`` under the schema of that name, atomically."""
    schema = {**SCHEMAS, "sensitivity": SENSITIVITY}[name].with_metadata(
        {"quantbench_schema": str(SCHEMA_VERSION)}
    )
    if isinstance(rows, pa.Table):
        table = rows.cast(SCHEMAS[name]).replace_schema_metadata(schema.metadata)
    else:
        table = pa.Table.from_pylist(rows, schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(folder / f"{name}.parquet", sink.getvalue().to_pybytes())


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """Read one Parquet file of a run.

    Raises
    ------
    NotComparable
        If the file is missing, unreadable or of another schema version.
    """
    path = folder / f"{name}.parquet"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise NotComparable(f"{path} cannot be read ({error}); is {folder} a run?") from error
    version = (table.schema.metadata or {}).get(b"quantbench_schema", b"none").decode()
    if version != str(SCHEMA_VERSION):
        raise NotComparable(
            f"{path} has schema version {version}, this quantbench reads {SCHEMA_VERSION}; "
            "run the experiment again, or use the quantbench that wrote it"
        )
    frame: pd.DataFrame = table.to_pandas()
    return frame


def load_results(path: str | Path) -> Results:
    """Read a run, or the newest run of an experiment's folder.

    Raises
    ------
    NotComparable
        If there is no finished run at ``path``, or it has another schema version.
    """
    folder = find_run(Path(path))
    return Results(
        folder=folder,
        run=read_json(folder / "run.json"),
        machine=read_json(folder / "machine.json"),
        **{name: read_table(folder, name) for name in SCHEMAS},
    )


def find_run(path: Path) -> Path:
    """The run at ``path``, or the newest run below it."""
    if (path / "trials.parquet").exists():
        return path
    runs = sorted(path.glob("*/trials.parquet"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise NotComparable(
            f"no run at {path}: expected a folder with trials.parquet; "
            "start one with: quantbench run EXPERIMENT.yaml"
        )
    return runs[-1].parent


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a run; raises `NotComparable` where it is not one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotComparable(f"{path} cannot be read ({error})") from error
    if not isinstance(data, dict):
        raise NotComparable(f"{path} is not a JSON object")
    return data
