"""Batches: throughput by batch size, for runs that timed several."""

from __future__ import annotations

import pandas as pd

from quantbench.analysis import batch_sizes, trial_frame
from quantbench.report.drawing.lines import throughput
from quantbench.report.drawing.svg import Picture
from quantbench.report.sections.section import Section
from quantbench.results import Results

MOST = 6
"""Trials of a backend that are drawn: those of the highest throughput."""


def batches(results: Results) -> tuple[Picture, ...]:
    """A picture per model and target; none where one batch size was timed."""
    sizes = batch_sizes(results)
    if len(sizes) < 2:
        return ()
    frames = [trial_frame(results, size) for size in sizes]
    frame = pd.concat(frames, ignore_index=True).dropna(subset=["throughput_per_s"])
    pictures: list[Picture] = []
    for (model, target), here in frame.groupby(["model", "target"], sort=False):
        best = here.groupby(["backend", "label"], sort=False)["throughput_per_s"].max()
        kept = best.sort_values(ascending=False).groupby("backend", sort=False).head(MOST).index
        drawn = here[pd.MultiIndex.from_frame(here[["backend", "label"]]).isin(kept)]
        name = f"batches-{len(pictures)}"
        pictures.append(throughput(drawn, f"{model} on {target}", name=name))
    return tuple(pictures)


SECTION = Section(
    "batches", "Batch sizes", "Batch sizes", 50, lambda seen: batches(seen.results),
    intro="How many samples a second each artifact computes when several come at once; at most "
    f"{MOST} methods of each backend, the fastest. Both axes are logarithmic: a line that stays level "
    "gains nothing from a larger batch.",
)  # fmt: skip
