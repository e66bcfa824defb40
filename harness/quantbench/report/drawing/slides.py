"""Slides: the figures of a report as files, in light colours on white."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from quantbench.report.drawing.style import PAPER, WIDE, styled
from quantbench.report.drawing.svg import Picture
from quantbench.system import write_atomically


def write(page: Any, folder: Path) -> list[Path]:
    """Write every picture of a page as SVG and PNG; returns the paths, in the order of the page.

    A file is named by its section and the model and target that it shows.
    """
    written: list[Path] = []
    taken: set[str] = set()
    for shown, place in _pictures(page, ""):
        section = re.sub(r"-\d+(?=-|$)", "", shown.name)
        words = re.sub(r"[^\w.@=+-]+", "-", f"{section}-{place}", flags=re.ASCII).strip("-.")[:100]
        stem, number = words, 1
        while stem in taken:
            number += 1
            stem = f"{words}-{number}"
        taken.add(stem)
        written += _save(shown, folder, stem)
    return written


def _save(shown: Picture, folder: Path, stem: str) -> list[Path]:
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


def _pictures(value: Any, place: str) -> Iterator[tuple[Picture, str]]:
    """The pictures in a page and its parts, each with the place of the part that holds it."""
    if isinstance(value, Picture):
        yield value, place
    elif isinstance(value, tuple):
        for item in value:
            yield from _pictures(item, place)
    elif is_dataclass(value):
        own = getattr(value, "place", getattr(value, "model", place))
        for field in fields(value):
            yield from _pictures(getattr(value, field.name), str(own))
