"""Report: one self-contained HTML file that says what to ship and how that was found out."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from harness.files import write_atomically
from harness.report import glossary
from harness.results import Results


def write_report(results: Results, path: Path) -> Path:
    """Write the report of a run; returns ``path``. The file needs no network and no other file."""
    write_atomically(path, render(results))
    return path


def render(results: Results) -> str:
    """The report as HTML text; the same text for the same results."""
    from harness.report.summary import summarise  # seaborn takes a second to import
    from harness.report.training import QUALITIES

    style, script = _source("report.css"), _source("report.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template("template.html.j2").render(
        page=summarise(results),
        qualities=QUALITIES,
        glossary=glossary,
        # our own files, not data: the only text that is not escaped
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after its ``+`` and ``=``."""
    return Markup(re.sub(r"([+=])", r"\1<wbr>", str(escape(name))))  # noqa: S704


def _source(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
