"""Canvas: the style of every figure, its panels and keys, and the way from matplotlib to the page.

Colours are written as ``var(--name)``, so that the page decides between light and dark; text stays
text. A file for slides is the same drawing with the light colours as they are.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from quantbench.system import write_atomically
from quantbench.units import one_line

# light values; the style sheet holds the dark ones under the same names
SERIES = ("#0067a5", "#c44601", "#00805c", "#8a4fbe", "#8f6a00", "#b3306b")
INK, MUTED, GRID, ALERT = "#1b1f24", "#59636e", "#d5dae0", "#b42318"
# from worse to better, for cells that hold a number: ink is readable on each, and orange and blue
# are told apart by readers who cannot tell red from green
SCALE = (
    "#e8833a", "#f2a668", "#f8c79b", "#fce4cd", "#eef0f2", "#dbeafa", "#b5d3f2", "#86b8e8", "#559bdb",
)  # fmt: skip
LEVEL = len(SCALE) // 2
"""Index of the colour of what is neither better nor worse."""
VARIABLES: Mapping[str, str] = {
    **{color: f"--series-{i + 1}" for i, color in enumerate(SERIES)},
    **{color: f"--worse-{LEVEL - i}" for i, color in enumerate(SCALE[:LEVEL])},
    SCALE[LEVEL]: "--level",
    **{color: f"--better-{i + 1}" for i, color in enumerate(SCALE[LEVEL + 1 :])},
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    ALERT: "--alert",
}
WIDE, NARROW = 8.8, 3.9  # inches; 72 SVG units each
STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "both",
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.facecolor": "none",
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.color": GRID,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}


@dataclass(frozen=True)
class Picture:
    """A figure in two widths, each drawn when it is first looked at.

    Parameters
    ----------
    title : str
        For readers who cannot see it.
    name : str
        Unique in the page.
    draw : callable
        Makes the figure, of a width in inches.
    labels : mapping
        What opens the groups of the drawing whose ids are the keys.
    """

    title: str
    name: str
    draw: Callable[[float], Figure] = field(repr=False, compare=False)
    labels: Mapping[str, Markup] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def wide(self) -> Markup:
        """As an SVG element for a wide page."""
        return drawn(self, WIDE, "wide")

    @cached_property
    def narrow(self) -> Markup:
        """As an SVG element for a phone."""
        return drawn(self, NARROW, "narrow")


def fit(text: str, width: float, points: float = 9.0) -> str:
    """``text`` cut to at most ``width`` SVG units in a font of ``points``."""
    font = FontProperties(size=points)
    for length in range(min(len(text), 60), 0, -1):
        shown = text if length == len(text) else f"{text[:length].rstrip()}…"
        # never too long where no glyph is wider than an em
        if len(shown) * points <= width:
            return shown
        if text_to_path.get_text_width_height_descent(shown, font, False)[0] <= width:
            return shown
    return "…"


def short_count(number: float) -> str:
    """A power of ten in short."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= unit:
            return f"{number / unit:.0f}{name}"
    return f"{number:.0f}"


def side_by_side(
    names: Sequence[str], width: float, height: float, *, sharey: bool, above: float = 0.6
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a titled panel for each name: side by side, or on a narrow page below."""
    columns = 1 if width == NARROW else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(width, above + height * rows), dpi=72, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flatten()
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(fit(one_line(name), 72 * width / columns - 20), loc="left", color=INK)
    for axes in panels[len(names) :]:
        axes.remove()
    return figure, dict(zip(names, panels, strict=False))


def keys_above(
    figure: Figure, colors: Mapping[str, str], marks: Mapping[str, str] | None = None
) -> None:
    """Names of lines, or of marks, in their colours, above all panels."""
    labels = [fit(one_line(name), 200) for name in colors]
    keys = [
        Line2D(
            [], [], color=color, label=label, linewidth=0 if marks else 2,
            marker=marks[name] if marks else None,
        )
        for label, (name, color) in zip(labels, colors.items(), strict=True)
    ]  # fmt: skip
    font = FontProperties(size=9)
    longest = max(text_to_path.get_text_width_height_descent(t, font, False)[0] for t in labels)
    columns = max(1, int(72 * figure.get_figwidth() / (longest + 35)))
    figure.legend(
        handles=keys, loc="outside upper left", ncols=min(columns, len(keys)), handlelength=1.2
    )


# --- from matplotlib to the page and to files ----------------------------------------------------


def picture(
    draw: Callable[[float], Figure],
    title: str,
    name: str,
    labels: Mapping[str, Markup] | None = None,
) -> Picture:
    """The drawing, not drawn yet; ``labels`` open the groups whose ids are their keys."""
    return Picture(title, name, draw, labels or {})


def drawn(shown: Picture, width: float, suffix: str) -> Markup:
    """A picture as an SVG element, ``width`` in inches."""
    with styled():
        return _svg(shown.draw(width), f"{shown.name}-{suffix}", shown.title, shown.labels)


@contextmanager
def styled(**more: Any) -> Iterator[None]:
    """Draw in the page's style, with ``more`` settings of matplotlib."""
    with mpl.rc_context({**STYLE, **more}), warnings.catch_warnings():
        # the font only decides how much room a label gets; the browser draws it with its own
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # what seaborn 0.13 asks of matplotlib 3.11 for a box
        warnings.filterwarnings("ignore", message="vert: bool was deprecated")
        yield


PAPER: Mapping[str, Any] = {
    "figure.facecolor": "white", "savefig.facecolor": "white", "svg.hashsalt": "quantbench",
}  # fmt: skip
"""What differs where there is no page behind a figure."""


def save(shown: Picture, folder: Path, stem: str) -> list[Path]:
    """Write a picture for slides, light and wide, to ``folder/stem.svg`` and ``.png``."""
    written = []
    with styled(**PAPER):
        figure = shown.draw(WIDE)
        for suffix, more in (
            ("svg", {"metadata": dict.fromkeys(("Date", "Creator"))}),
            ("png", {"dpi": 200}),
        ):
            sink = io.BytesIO()
            figure.savefig(sink, format=suffix, bbox_inches="tight", **more)
            written.append(folder / f"{stem}.{suffix}")
            write_atomically(written[-1], sink.getvalue())
    return written


def _svg(figure: Figure, name: str, title: str, labels: Mapping[str, Markup]) -> Markup:
    """The figure as an SVG element: ids unique in the page, colours as variables, no fixed size.

    The figure's own id, where it has one, is what its ``data-plot`` is to say.
    """
    plot, _ = figure.get_gid(), figure.set_gid(None)
    sink = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(sink, format="svg", metadata=metadata)
    text = sink.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = _shorter(_unique_ids(text, name, labels))
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    box = re.search(r'viewBox="([^"]*)"', text)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box.group(1) if box else ""}" role="img" aria-label="{escape(title)}" '
        f'stroke-linejoin="round" stroke-linecap="butt"{_data(plot)}>'
    )
    return Markup(head + text[text.index(">") + 1 :])  # noqa: S704 (matplotlib escapes text)


def _data(plot: str | None) -> str:
    return f' data-plot="{escape(plot)}"' if plot else ""


def _unique_ids(text: str, name: str, labels: Mapping[str, Markup]) -> str:
    """Drop ids that nothing refers to, prefix the others, and open the groups of ``labels``."""
    used = list(dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', text)))
    short = {own: f"{name}-{i}" for i, own in enumerate(used)}

    def rewrite(match: re.Match[str]) -> str:
        own = match.group(1)
        return f' id="{short[own]}"' if own in short else ""

    for own, label in labels.items():
        text = text.replace(f'<g id="{own}">', label)
    text = re.sub(r' id="([^"]+)"', rewrite, text)
    return re.sub(
        r'(href="#|url\(#)([^")]+)', lambda match: match.group(1) + short[match.group(2)], text
    )


_USE = r'<use xlink:href="[^"]+" x="[^"]+" y="[^"]+" style='


def _shorter(text: str) -> str:
    """The same drawing in fewer bytes: a hundredth of a unit is enough, one style serves its run."""
    text = re.sub(r"\n\s+", "\n", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag.group()), text)
    # the style sheet has the page's own font; no rotation, no paint and empty groups show nothing
    text = re.sub(r" font-family: [^;]+;| transform=\"rotate\(-?0 [^)]*\)\"", "", text)
    text = re.sub(r'<path d="[^"]*" style="fill: none"/>\n|<g/>\n', "", text)
    for _ in range(2):
        text = re.sub(r"<g>\n(<text [^>]*>[^<]*</text>)\n</g>", r"\1", text)
    return re.sub(
        rf'{_USE}"([^"]+)"/>(?:\s*{_USE}"\1"/>)+',
        lambda run: (
            f'<g style="{run.group(1)}">' + re.sub(r' style="[^"]+"/>', "/>", run.group()) + "</g>"
        ),
        text,
    )
