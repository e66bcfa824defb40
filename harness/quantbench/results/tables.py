"""Tables: the tidy Parquet files of a run, their schema, and how they are read.

The schema here is the contract other tools rely on (docs/results.md describes each column). Every
file carries ``SCHEMA_VERSION`` in its metadata; a reader refuses another version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from quantbench.errors import NotComparable
from quantbench.results.migration import migrated, migrated_run
from quantbench.results.rows import as_columns
from quantbench.results.schema import SCHEMA_VERSION, SCHEMAS, SENSITIVITY, SINCE_5, SINCE_6
from quantbench.system import read_json, write_atomically
from quantbench.units import one_line, text_of


@dataclass(frozen=True, slots=True)
class Reference:
    """The trial that ratios of a comparison are shown against.

    ``comparison``: its last word, ``batch8`` or ``offline``.
    """

    model: str
    target: str
    comparison: str
    trial: str


@dataclass(frozen=True, slots=True)
class Results:
    """A run as pandas frames, one per Parquet file, with its machine and its run description.

    They are ``trials``, ``measurements``, ``samples``, ``predictions``, ``fidelity``, ``readings``,
    ``artifacts``, ``training``, ``histograms`` and ``calibration``.
    """

    folder: Path
    run: Mapping[str, Any]
    machine: Mapping[str, Any]
    trials: pd.DataFrame
    measurements: pd.DataFrame
    samples: pd.DataFrame
    predictions: pd.DataFrame
    fidelity: pd.DataFrame
    readings: pd.DataFrame
    artifacts: pd.DataFrame
    training: pd.DataFrame
    histograms: pd.DataFrame
    calibration: pd.DataFrame

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of each comparison, the trial that reports show ratios against."""
        return references_of(self.run)

    @property
    def name(self) -> str:
        """The experiment's name, fit to be shown."""
        return one_line(text_of(self.run.get("experiment")) or "an experiment", 80)

    @property
    def counts(self) -> str:
        """How many trials there are, and how many of each status: ``2 trials (1 ok, 1 failed)``."""
        found = self.trials["status"].value_counts()
        total = f"{len(self.trials)} trial{'s' * (len(self.trials) != 1)}"
        each = ", ".join(f"{n} {status}" for status, n in found.items())
        return f"{total} ({each})" if each else total

    def __repr__(self) -> str:
        models, backends = (self.trials[name].nunique() for name in ("model", "backend"))
        rows = ", ".join(f"{name} {len(getattr(self, name)):,}" for name in SCHEMAS)
        return (
            f"Run of {self.name}: {self.counts}; "
            f"{models} model{'s' * (models != 1)}, {backends} backend{'s' * (backends != 1)}\n"
            f"  in {self.folder}\n"
            f"  rows: {rows}"
        )

    def _repr_html_(self) -> str | None:
        """What a notebook shows, where something that is imported can show it; else the text."""
        return SHOWN_AS_HTML[-1](self) if SHOWN_AS_HTML else None


def references_of(run: Mapping[str, Any]) -> tuple[Reference, ...]:
    """The references that a run's description names."""
    return tuple(Reference(**told) for told in run.get("reference") or ())


SHOWN_AS_HTML: list[Callable[[Results], str]] = []
"""How a notebook shows a run: what is above this package adds itself (`quantbench.report.notebook`)."""


def write_table(folder: Path, name: str, rows: Sequence[Any] | pa.Table) -> None:
    """Write ``folder/name.parquet`` under the schema of that name, atomically.

    ``rows``: mappings of columns, or objects of `quantbench.results.rows`.
    """
    schema = {**SCHEMAS, "sensitivity": SENSITIVITY}[name].with_metadata(
        {"quantbench_schema": str(SCHEMA_VERSION)}
    )
    if isinstance(rows, pa.Table):
        table = rows.cast(SCHEMAS[name]).replace_schema_metadata(schema.metadata)
    else:
        plain = [row if isinstance(row, Mapping) else as_columns(row) for row in rows]
        table = pa.Table.from_pylist(plain, schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(folder / f"{name}.parquet", sink.getvalue().to_pybytes())


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """Read one Parquet file of a run.

    Raises
    ------
    NotComparable
        If the file is missing, unreadable, or of a version that no migration reads.
    """
    path = folder / f"{name}.parquet"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise NotComparable(f"{path} cannot be read ({error}); is {folder} a run?") from error
    frame = migrated(name, table.to_pandas(), _version(table.schema), str(path))
    wanted = {**SCHEMAS, "sensitivity": SENSITIVITY}[name].names
    if missing := [column for column in wanted if column not in frame]:
        raise NotComparable(
            f"{path} lacks the columns {', '.join(missing)} of its schema version; "
            "run the experiment again"
        )
    return frame


def bring_up(folder: Path) -> None:
    """Write what tables of older versions hold under the schema of today, as it is read."""
    for name, schema in SCHEMAS.items():
        path = folder / f"{name}.parquet"
        if path.exists() and _version(pq.read_schema(path)) != str(SCHEMA_VERSION):
            frame = read_table(folder, name)
            write_table(folder, name, pa.Table.from_pandas(frame, schema, preserve_index=False))


def _version(schema: pa.Schema) -> str:
    version: str = (schema.metadata or {}).get(b"quantbench_schema", b"none").decode()
    return version


def load_results(path: str | Path, *, run: Mapping[str, Any] | None = None) -> Results:
    """Read a run, or the newest run of an experiment's folder.

    ``run``: its description, where it is not written yet.

    Raises
    ------
    NotComparable
        If there is no finished run at ``path``, or it has another schema version.
    """
    folder = find_run(Path(path))
    return Results(
        folder=folder,
        run=migrated_run(read_json(folder / "run.json") if run is None else run),
        machine=read_json(folder / "machine.json"),
        **{name: _read(folder, name) for name in SCHEMAS},
    )


def _read(folder: Path, name: str) -> pd.DataFrame:
    """A table; empty where the version that wrote the run had none of that name."""
    if name in (*SINCE_5, *SINCE_6) and not (folder / f"{name}.parquet").exists():
        empty: pd.DataFrame = SCHEMAS[name].empty_table().to_pandas()
        return empty
    return read_table(folder, name)


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
