"""SVG: a picture of a page, and how the figure that matplotlib draws becomes its markup.

Colours are written as ``var(--name)``, so that the page decides between light and dark; text stays
text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from quantbench.report.drawing.style import NARROW, VARIABLES, WIDE, styled


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


_RUNS = (
    r'<use xlink:href="[^"]+" x="[^"]+" y="[^"]+" style="([^"]+)"/>',
    r'<path d="[^"]+"(?: clip-path="[^"]+")? style="([^"]+)"/>',
    r'<text style="([^"]+)"[^>]*>[^<]*</text>',
)
"""Elements that take their style from a group, where several of one style follow each other."""


def _shorter(text: str) -> str:
    """The same drawing in fewer bytes: a hundredth of a unit is enough, one style serves its run."""
    text = re.sub(r"\n\s+", "\n", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag.group()), text)
    # the style sheet has the page's own font; no rotation, no paint and empty groups show nothing
    text = re.sub(r" font-family: [^;]+;| transform=\"rotate\(-?0 [^)]*\)\"", "", text)
    text = re.sub(r'<path d="[^"]*" style="fill: none"/>\n|<g/>\n|<defs>\n</defs>\n', "", text)
    text = re.sub(r'(?<= d=")[^"]+', lambda path: _short_path(path.group()), text)
    text = re.sub(
        r'(?<= style=")[^"]+', lambda style: re.sub(r"([:;]) ", r"\1", style.group()), text
    )
    for _ in range(2):
        text = re.sub(r"<g>\n(<text [^>]*>[^<]*</text>)\n</g>", r"\1", text)
        text = re.sub(r"<g>\n</g>\n", "", text)
    for one in _RUNS:
        again = one.replace('([^"]+)', r"\1")
        text = re.sub(rf"{one}(?:\s*{again})+", _one_style, text)
    return text


def _one_style(run: re.Match[str]) -> str:
    """A run of elements in a group that has their style."""
    told = f' style="{run.group(1)}"'
    return f"<g{told}>{run.group().replace(told, '')}</g>"


def _short_path(path: str) -> str:
    r"""The same path without blanks that say nothing, its level and upright lines by their one end.

    >>> _short_path("M 1 2 \nL 3 2 \nL 3 4.5 \nL 1 4.5 \nz")
    'M1 2H3V4.5H1z'
    """
    written, last = [], ["", ""]
    for command, told in re.findall(r"([A-Za-z])([^A-Za-z]*)", path):
        numbers = told.split()
        short = command + " ".join(numbers)
        if command == "L" and numbers[1] == last[1]:
            short = f"H{numbers[0]}"
        elif command == "L" and numbers[0] == last[0]:
            short = f"V{numbers[1]}"
        written.append(short)
        last = numbers[-2:] or ["", ""]
    return "".join(written)
