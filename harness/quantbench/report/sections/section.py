"""Section: a part of the report that stands where a run has something for it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from quantbench.analysis import Choice, MeasuredTrial
from quantbench.results import Results


@dataclass(frozen=True, slots=True)
class Seen:
    """What a section is made from: a run, its trials, and what was chosen in each place.

    ``frame``: the same trials as a frame (`quantbench.analysis.trial_frame`), for what is drawn.
    """

    results: Results
    trials: Sequence[MeasuredTrial]
    frame: pd.DataFrame
    choices: Sequence[Choice]


@dataclass(frozen=True, slots=True)
class Section:
    """A section, as its module declares it by the name ``SECTION``.

    Parameters
    ----------
    id : str
        Its anchor in the page.
    title, short : str
        Its heading, and its name among the links at the top.
    place : int
        Sections stand in this order.
    data : callable
        What it shows, figures included; nothing (empty, None) where a run has nothing for it.
    template : str
        Shows ``section.found``; by default an introduction and a tuple of pictures.
    intro : callable or str
        The text of that introduction.
    """

    id: str
    title: str
    short: str
    place: int
    data: Callable[[Seen], Any]
    template: str = "pictures.html.j2"
    intro: Callable[[Seen], str] | str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A section of one page."""

    id: str
    title: str
    short: str
    template: str
    intro: str
    found: Any


@cache
def sections() -> tuple[Section, ...]:
    """Every section that a module of this package declares, in order."""
    package = importlib.import_module(__package__ or "")
    names = (info.name for info in pkgutil.iter_modules(package.__path__))
    modules = (importlib.import_module(f"{package.__name__}.{name}") for name in names)
    found = [module.SECTION for module in modules if hasattr(module, "SECTION")]
    return tuple(sorted(found, key=lambda section: section.place))


def shown(seen: Seen) -> Iterator[Shown]:
    """The sections for which a run has something."""
    for section in sections():
        found = section.data(seen)
        if found:
            intro = section.intro if isinstance(section.intro, str) else section.intro(seen)
            yield Shown(section.id, section.title, section.short, section.template, intro, found)
