"""Assembly: the Parquet files of a run, computed from its stored state."""

from __future__ import annotations

from collections.abc import Sequence

from harness.assembly.contents import artifacts, histograms, sizes
from harness.assembly.quality import quality
from harness.assembly.start import start_up
from harness.assembly.times import energy, overall_reference, samples, timing
from harness.assembly.trials import Clocked, trial_row
from harness.assembly.view import View, complete
from harness.clock import load_generations
from harness.comparison import Comparison
from harness.experiment import Experiment
from harness.plan import Cell
from harness.results import read_json, write_table
from harness.store import Store


def write(
    experiment: Experiment, cells: Sequence[Cell], store: Store, compared: Sequence[Comparison]
) -> dict[str, str]:
    """Compute every table and write it atomically.

    Returns
    -------
    dict
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
    return {c.id: overall_reference(c, times[c.id], experiment.reference) for c in compared}
