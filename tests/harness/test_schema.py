"""The schema: a change raises its version, and what was written before is read as it was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from quantbench.errors import NotComparable
from quantbench.results import SCHEMA_VERSION, SCHEMAS, load_results
from quantbench.results.schema import SENSITIVITY, SINCE_5
from quantbench.results.tables import read_table
from quantbench.spec import Spread
from tests.harness.sample_results import Invented, sample_results

PUBLISHED = sorted(
    path.parent for path in (Path(__file__).parents[2] / "results" / "reference").glob("*/trials.parquet")
)  # fmt: skip
FOLDERS = [
    pytest.param(f, marks=() if f.name in ("quickstart", "gnn") else pytest.mark.long)
    for f in PUBLISHED
]
KNOWN = {6: "277d671ef8db991a"}
"""Version -> digest of every column's name and type."""


def digest() -> str:
    told = {name: str(schema) for name, schema in (*SCHEMAS.items(), ("sensitivity", SENSITIVITY))}
    return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()[:16]


def test_a_new_column_or_axis_raises_the_version():
    assert KNOWN[SCHEMA_VERSION] == digest(), "raise SCHEMA_VERSION and write its migration"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_published_tables_are_read_as_they_were_written(folder):
    for name in SCHEMAS:
        if name in SINCE_5 and not (folder / f"{name}.parquet").exists():
            continue
        written = pq.read_table(folder / f"{name}.parquet").to_pandas()
        read = read_table(folder, name)
        assert list(read.columns) == SCHEMAS[name].names
        pd.testing.assert_frame_equal(read[written.columns], written)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_of_published_runs_every_low_and_high_says_what_it_is(folder):
    found = load_results(folder)
    rows = found.measurements

    given = rows["low"].notna() | rows["high"].notna()
    assert rows.loc[given, "spread"].isin(list(Spread)).all()
    assert rows.loc[~given, "spread"].isna().all()
    assert (rows.loc[given & (rows["metric"] == "speedup"), "spread"] == Spread.CONFIDENCE).all()
    assert (rows.loc[given & (rows["metric"] == "load_ms"), "spread"] == Spread.RANGE).all()
    trials = set(found.trials["trial"])
    assert found.references
    assert all(one.trial in trials and one.comparison for one in found.references)


def test_a_run_that_lacks_a_column_is_refused_in_one_line(tmp_path):
    found = sample_results(tmp_path, [Invented("pytorch", "fp32", 1.0)])
    path = found.folder / "trials.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["seed"]), path)

    with pytest.raises(
        NotComparable, match="lacks the columns seed of its schema version"
    ) as error:
        load_results(found.folder)
    assert "\n" not in str(error.value)
