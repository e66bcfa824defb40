"""Assembly: the Parquet files of a run: what was observed, as it was, and what follows from it.

`write` collects raw tables from the state of a run that has just ended; `derived` computes every
measurement that follows from raw tables, then and whenever a run is assembled again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from quantbench.experiment import Cell, Experiment
from quantbench.results import (
    SCHEMA_VERSION,
    Measurement,
    Reference,
    Results,
    bring_up,
    load_results,
    rows,
    write_table,
)
from quantbench.runs.assembly.artifacts import artifacts, histograms, sizes
from quantbench.runs.assembly.calibration import calibration, drawn_again
from quantbench.runs.assembly.latency import (
    confirmed,
    energy,
    overall_reference,
    recounted,
    samples,
    timed_of,
    timing,
)
from quantbench.runs.assembly.quality import judge, quality
from quantbench.runs.assembly.readings import readings
from quantbench.runs.assembly.startup import start_up
from quantbench.runs.assembly.trial_state import View, complete
from quantbench.runs.assembly.trials import Clocked, trial_row
from quantbench.runs.comparison import Comparison
from quantbench.runs.interleaved_timing import load_generations
from quantbench.runs.store import Store
from quantbench.spec import Scenario
from quantbench.system import read_json, write_json


def write(
    experiment: Experiment, cells: Sequence[Cell], store: Store, compared: Sequence[Comparison]
) -> dict[str, Any]:
    """Collect every table, compute what follows, and write all atomically.

    Returns
    -------
    dict
        What ``run.json`` has to say of it: ``reference`` of each comparison, and by what the
        outputs of each of ``models`` were judged.
    """
    machine = read_json(store.folder / "machine.json")
    timed = {c.id: load_generations(store.generations(c.id)) for c in compared}
    views = [View.of(cell, store) for cell in cells]
    clocked = Clocked.of(compared, timed)
    models, predictions, fidelity = judge(views, store)
    journals = [{"trial": v.id, **step} for v in views for step in v.built.journal]
    tables: Mapping[str, Any] = {
        "trials": [trial_row(view, experiment, store, machine, clocked) for view in views],
        "samples": samples(timed.values()),
        "predictions": predictions,
        "fidelity": fidelity,
        "readings": list(readings(views, store, compared, timed)),
        "artifacts": artifacts(views),
        "training": journals,
        "histograms": histograms(views, store),
        "calibration": calibration(views),
        # what was read once is a measurement as it stands
        "measurements": [complete(row, one_session=True) for row in sizes(views, store)],
    }
    for name, table in tables.items():
        write_table(store.folder, name, table)
    told = {"models": {name: asdict(judged) for name, judged in models.items()}}
    path = store.folder / "run.json"
    description = read_json(path) if path.exists() else {}
    found = load_results(store.folder, run={**description, **told, "reference": []})
    measured, references = derived(
        found, margin=experiment.quality_margin, selected=bool(experiment.reference)
    )
    write_table(store.folder, "measurements", measured)
    return {**told, "reference": [asdict(reference) for reference in references]}


def assemble(folder: Path) -> Results:
    """Compute the measurements of a finished run again from its raw tables, with the code of today.

    What a run of an older version has not stored is kept as it was measured; its tables are written
    under the schema of today, and which samples calibrated its artifacts where that can be told.
    Nothing is timed and no framework is needed. Returns the run as it is now.

    Raises
    ------
    NotComparable
        If there is no finished run.
    """
    before = load_results(folder)
    protocol = before.run.get("protocol") or {}
    measured, references = derived(
        before, margin=float(protocol.get("quality_margin", 0.01)), selected=_selects(before)
    )
    bring_up(folder)
    write_table(folder, "measurements", measured)
    if not len(before.calibration) and (again := drawn_again(before, Store(folder))):
        write_table(folder, "calibration", again)
    told = {"reference": [asdict(one) for one in references or before.references]}
    write_json(folder / "run.json", {**before.run, **told, "schema": SCHEMA_VERSION})
    return load_results(folder)


def changes(before: Results, after: Results) -> list[str]:
    """What is another number or another verdict after a run was assembled again, a line for each."""
    was = {_identity(row): row for row in rows(Measurement, before.measurements)}
    told = []
    for row in rows(Measurement, after.measurements):
        old, name = was.get(_identity(row)), f"{row.trial} {row.metric}"
        if old is None:
            told.append(f"{name}: new, {_shown(row)}")
        elif not _same(old, row):
            told.append(f"{name}: {_shown(old)} became {_shown(row)}")
    return told


def _same(one: Measurement, other: Measurement) -> bool:
    """Whether value, ends and verdict agree, to within the rounding of sums in another order."""
    pairs = ((one.value, other.value), (one.low, other.low), (one.high, other.high))
    # 1e-9: the same samples summed by another version of NumPy differ by less
    near = all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))
        for a, b in pairs
    )
    return near and one.verdict == other.verdict


def _shown(row: Measurement) -> str:
    value = f"{row.value:.6g}" if row.known else "nothing"
    if not (math.isnan(row.low) and math.isnan(row.high)):
        value += f" [{row.low:.6g}, {row.high:.6g}]"
    return f"{value} ({row.verdict})" if row.verdict else value


def _selects(results: Results) -> bool:
    """Whether the experiment of a run says which trial ratios are taken against."""
    read = YAML(typ="safe", pure=True).load(str(results.run.get("experiment_text") or ""))
    return bool(isinstance(read, dict) and read.get("reference"))


def derived(
    results: Results, *, margin: float, selected: bool
) -> tuple[list[Measurement], list[Reference]]:
    """Every measurement of a run: what follows from its raw tables, and what was read once.

    Parameters
    ----------
    margin : float
        Largest loss of quality that is kept, as a share of the float score.
    selected : bool
        Whether the experiment selects the reference; else it is the fastest in fp32.

    Returns
    -------
    tuple
        Rows of ``measurements``, and the reference of each comparison.
    """
    every = timed_of(results)
    timed = [one for one in every if not one.comparison.confirms]
    times = [(one, timing(one)) for one in timed]
    measured = [
        *quality(results, margin),
        *_scoring(results),
        *start_up(results),
        *(row for _, found in times for row in found),
        *(row for one in every if one.comparison.confirms for row in confirmed(one)),
        *energy(results),
    ]
    references = [
        Reference(
            one.comparison.model, one.comparison.target.name, one.comparison.name,
            overall_reference(one.comparison, found, selected=selected),
        )
        for one, found in times
    ]  # fmt: skip
    one = results.samples["session"].nunique() < 2
    found = [_with_ties(complete(row, one_session=one), results) for row in measured]
    return [*_kept(results, found), *found], references


def _with_ties(row: Measurement, results: Results) -> Measurement:
    """A drop of a run whose samples do not say what tied, with what was said of ties then."""
    if len(results.readings) or row.reason or not row.metric.endswith("_drop"):
        return row
    old = results.measurements
    same = (old["trial"] == row.trial) & (old["metric"] == row.metric)
    said = old.loc[same & (old["reference"] == row.reference), "reason"].dropna()
    return replace(row, reason=str(said.iloc[0])) if len(said) else row


def _scoring(results: Results) -> list[Measurement]:
    """Memory of the processes that scored."""
    read = results.readings
    own = read[(read["scenario"] == Scenario.SCORE) & (read["reading"] == "peak_rss_bytes")]
    return [
        Measurement(
            trial=str(trial), scenario=Scenario.SCORE, metric="peak_rss_bytes", unit="byte",
            value=float(value), n=1,
        )
        for trial, value in zip(own["trial"], own["value"], strict=True)
    ]  # fmt: skip


def _kept(results: Results, derived: Sequence[Measurement]) -> list[Measurement]:
    """Measurements that do not follow from the tables of this run.

    What an artifact weighs and holds is read once, and is its own raw number. Of a run whose
    readings are stored nothing else is kept; of an older one what cannot be computed.
    """
    old = results.measurements
    if len(results.readings):
        old = old[old["scenario"].isin((Scenario.ARTIFACT, Scenario.CALIBRATION))]
    made = {_identity(row) for row in derived}
    kept = [row for row in rows(Measurement, old) if _identity(row) not in made]
    return [recounted(row, results.samples) for row in kept]


def _identity(row: Measurement) -> tuple[str | int | None, ...]:
    """What a measurement is of; ratios stand once for each reference."""
    return (row.trial, row.scenario, row.metric, row.reference, row.batch_size)


__all__ = ["assemble", "changes", "derived", "write"]
