"""Assembly: the Parquet files of a run, computed from its stored state."""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.experiment import Cell, Experiment
from quantbench.results import Reference, write_table
from quantbench.runs.assembly.artifacts import artifacts, histograms, sizes
from quantbench.runs.assembly.latency import energy, overall_reference, samples, timing
from quantbench.runs.assembly.quality import quality
from quantbench.runs.assembly.startup import start_up
from quantbench.runs.assembly.trial_state import View, complete
from quantbench.runs.assembly.trials import Clocked, trial_row
from quantbench.runs.comparison import Comparison
from quantbench.runs.interleaved_timing import load_generations
from quantbench.runs.store import Store
from quantbench.system import read_json


def write(
    experiment: Experiment, cells: Sequence[Cell], store: Store, compared: Sequence[Comparison]
) -> list[Reference]:
    """Compute every table and write it atomically.

    Returns
    -------
    list of Reference
        Of each comparison, the trial that ratios are shown against.
    """
    machine = read_json(store.folder / "machine.json")
    timed = {c.id: load_generations(store.generations(c.id)) for c in compared}
    views = [View.of(cell, store) for cell in cells]
    clocked = Clocked.of(compared, timed)
    trials = [trial_row(view, experiment, store, machine, clocked) for view in views]
    times = {c.id: timing(c, timed[c.id], experiment) for c in compared}
    predictions, scores = quality(views, experiment, store)
    measurements = [
        *sizes(views, store),
        *scores,
        *start_up(views, store),
        *(row for rows in times.values() for row in rows),
        *(row for c in compared for row in energy(c, store)),
    ]
    write_table(store.folder, "trials", trials)
    write_table(store.folder, "measurements", [complete(row) for row in measurements])
    write_table(store.folder, "samples", samples(timed.values()))
    write_table(store.folder, "predictions", predictions)
    write_table(store.folder, "artifacts", artifacts(views))
    journals = [{"trial": v.id, **step} for v in views for step in v.built.get("journal", ())]
    write_table(store.folder, "training", journals)
    write_table(store.folder, "histograms", histograms(views, store))
    return [
        Reference(
            c.model, c.target.name, c.name,
            overall_reference(c, times[c.id], experiment.reference),
        )
        for c in compared
    ]  # fmt: skip
