"""Losses: how the loss of a training fell."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from quantbench.report.drawing.panels import side_by_side
from quantbench.report.drawing.style import SERIES
from quantbench.report.drawing.svg import Picture, picture


def losses(steps: pd.DataFrame, *, name: str) -> Picture:
    """Training losses, one panel per method, one line per seed, averaged over a twentieth of it.

    Parameters
    ----------
    steps : DataFrame
        Columns ``method``, ``seed``, ``step`` and ``loss``.
    name : str
        Unique in the page: prefix of the SVG's ids.
    """
    title = "Training loss by step, one panel per method, one line per seed"
    return picture(lambda width: _losses(steps, width), title, name)


def _losses(steps: pd.DataFrame, width: float) -> Figure:
    methods = list(dict.fromkeys(steps["method"]))
    figure, panels = side_by_side(methods, width, 1.9, sharey=True, above=0.4)
    for method, axes in panels.items():
        here = steps[steps["method"] == method].sort_values(["seed", "step"])
        window = max(1, int(here["step"].max() + 1) // 20)
        smooth = here.assign(
            loss=here.groupby("seed")["loss"].transform(
                lambda x, n=window: x.rolling(n, min_periods=1).mean()
            )
        )
        seeds = sorted(here["seed"].unique())
        colors = {seed: SERIES[i % len(SERIES)] for i, seed in enumerate(seeds)}
        sns.lineplot(
            data=smooth, x="step", y="loss", hue="seed", palette=colors, ax=axes, linewidth=1.3,
            legend=False, errorbar=None,
        )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        for seed in seeds if len(seeds) > 1 else ():
            axes.annotate(
                f"seed {seed}", (1, 1 - 0.1 * seeds.index(seed)), (-2, -8), ha="right",
                xycoords="axes fraction", textcoords="offset points", color=colors[seed],
                fontsize=8.5,
            )  # fmt: skip
    return figure
