"""Sensitivity: what each layer costs, a dot per backend."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from quantbench.report.drawing.marks import markers
from quantbench.report.drawing.panels import keys_above
from quantbench.report.drawing.style import fit
from quantbench.report.drawing.svg import Picture, picture
from quantbench.units import one_line

MOST = 40
"""Layers in one figure."""


def sensitivity(frame: pd.DataFrame, colors: Mapping[str, str], *, name: str) -> Picture:
    """SQNR by layer, first layer on top, a dot per backend; of more layers only the worst `MOST`.

    Parameters
    ----------
    frame : DataFrame
        Columns ``layer``, ``backend`` and ``sqnr_db``, in the order of the model.
    """
    title = "SQNR by layer, a dot per backend"
    return picture(lambda width: _sensitivity(frame, colors, width), title, name)


def depth(frame: pd.DataFrame, colors: Mapping[str, str], *, name: str) -> Picture:
    """SQNR of each layer's output in the whole quantized model, first layer on top, a line per backend.

    Parameters
    ----------
    frame : DataFrame
        Columns ``layer``, ``backend`` and ``sqnr_db``, in the order of execution.
    """
    title = "SQNR of each layer's output in the whole model, a line per backend"
    return picture(lambda width: _depth(frame, colors, width), title, name)


def _depth(frame: pd.DataFrame, colors: Mapping[str, str], width: float) -> Figure:
    layers = list(dict.fromkeys(frame["layer"]))
    places = [layers.index(layer) for layer in frame["layer"]]
    figure = Figure(figsize=(width, 0.8 + 0.2 * len(layers)), dpi=72, layout="constrained")
    axes = figure.subplots()
    shapes = markers(list(colors))
    for backend, own in frame.assign(place=places).groupby("backend", sort=False):
        axes.plot(
            own["sqnr_db"], own["place"], color=colors[str(backend)], marker=shapes[str(backend)],
            markersize=5, linewidth=1.1,
        )  # fmt: skip
    room = 0.35 * 72 * width
    axes.set_yticks(range(len(layers)), [fit(one_line(layer), room) for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlabel("SQNR, dB")
    keys_above(figure, colors, shapes)
    return figure


def _sensitivity(frame: pd.DataFrame, colors: Mapping[str, str], width: float) -> Figure:
    worst = frame.groupby("layer")["sqnr_db"].min().nsmallest(MOST).index
    shown = frame[frame["layer"].isin(worst)]
    layers = list(dict.fromkeys(shown["layer"]))
    figure = Figure(figsize=(width, 0.8 + 0.2 * len(layers)), dpi=72, layout="constrained")
    axes = figure.subplots()
    names = {layer: fit(one_line(layer), 0.35 * 72 * width) for layer in layers}
    sns.scatterplot(
        data=shown.assign(place=[layers.index(layer) for layer in shown["layer"]]),
        x="sqnr_db", y="place", hue="backend", palette=dict(colors), style="backend",
        markers=markers(list(colors)), s=34, linewidth=0, ax=axes, legend=False,
    )  # fmt: skip
    axes.set_yticks(range(len(layers)), [names[layer] for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlabel("SQNR, dB")
    axes.set_ylabel("")
    keys_above(figure, colors, markers(list(colors)))
    return figure
