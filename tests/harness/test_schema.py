"""The schema: a change raises its version, and what was written before is read as it was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from quantbench.errors import NotComparable
from quantbench.results import SCHEMA_VERSION, SCHEMAS, bring_up, load_results
from quantbench.results.schema import SENSITIVITY, SINCE_5, SINCE_6
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
KNOWN = {5: "a4a4fbc5c24c5f6b", 6: "aa965023f2357f1d"}
"""Version -> digest of every column's name and type."""


def digest() -> str:
    told = {name: str(schema) for name, schema in (*SCHEMAS.items(), ("sensitivity", SENSITIVITY))}
    return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()[:16]


def test_a_new_column_or_axis_raises_the_version():
    assert KNOWN[SCHEMA_VERSION] == digest(), "raise SCHEMA_VERSION and write its migration"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_published_tables_are_read_as_they_were_written(folder):
    for name in SCHEMAS:
        if name in (*SINCE_5, *SINCE_6) and not (folder / f"{name}.parquet").exists():
            continue
        written = pq.read_table(folder / f"{name}.parquet").to_pandas()
        read = read_table(folder, name)
        assert list(read.columns) == SCHEMAS[name].names
        # what was timed was timed in one session, which is said since version 6
        same = [
            column for column in written.columns if (name, column) != ("measurements", "spread")
        ]
        pd.testing.assert_frame_equal(read[same], written[same])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_of_published_runs_every_low_and_high_says_what_it_is(folder):
    found = load_results(folder)
    rows = found.measurements

    given = rows["low"].notna() | rows["high"].notna()
    assert rows.loc[given, "spread"].isin(list(Spread)).all()
    assert rows.loc[~given, "spread"].isna().all()
    assert (rows.loc[given & (rows["metric"] == "speedup"), "spread"] == Spread.SESSION).all()
    assert (rows.loc[given & (rows["metric"] == "load_ms"), "spread"] == Spread.RANGE).all()
    trials = set(found.trials["trial"])
    assert found.references
    assert all(one.trial in trials and one.comparison for one in found.references)


def of_version_5(folder: Path) -> None:
    """A run's tables as version 5 wrote them."""
    (folder / "calibration.parquet").unlink()
    for name in SCHEMAS.keys() - {"calibration"}:
        table = pq.read_table(folder / f"{name}.parquet")
        later = [c for c in ("division", "session") if c in table.column_names]
        older = table.drop_columns(later).replace_schema_metadata({"quantbench_schema": "5"})
        pq.write_table(older, folder / f"{name}.parquet")


AS_IT_WAS_MADE = (
    Invented("pytorch", "fp32", 1.0),
    Invented("pytorch", "static-int8", 0.5),
    Invented("pytorch", "qat-int8", 0.5),
    Invented("pytorch", "fp32", 1.1, axes={"training": "finetune"}),
    Invented("tflite", "as-is", 0.4),
)


def test_what_version_5_did_not_say_follows_from_what_it_is(tmp_path):
    now = sample_results(tmp_path, AS_IT_WAS_MADE, detailed=True)
    of_version_5(tmp_path)

    found = load_results(tmp_path)

    told = dict(zip(found.trials["label"], found.trials["division"].fillna(""), strict=True))
    assert told == {
        "fp32": "closed", "static-int8": "closed", "qat-int8": "open",
        "fp32+training=finetune": "open", "as-is": "",
    }  # fmt: skip
    assert len(found.samples) == len(now.samples) > 0
    assert set(found.samples["session"]) == {0}
    assert list(found.calibration.columns) == SCHEMAS["calibration"].names
    assert len(found.calibration) == 0


def test_older_tables_are_brought_up_and_say_the_same(tmp_path):
    sample_results(tmp_path, AS_IT_WAS_MADE, detailed=True)
    of_version_5(tmp_path)
    before = load_results(tmp_path)

    bring_up(tmp_path)

    after = load_results(tmp_path)
    for name in SCHEMAS.keys() - {"calibration"}:
        stored = pq.read_schema(tmp_path / f"{name}.parquet")
        assert stored.metadata[b"quantbench_schema"] == str(SCHEMA_VERSION).encode()
        assert stored.names == SCHEMAS[name].names
        pd.testing.assert_frame_equal(
            getattr(before, name), getattr(after, name), check_dtype=False
        )
    assert not (tmp_path / "calibration.parquet").exists()


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
