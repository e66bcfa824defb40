"""Report: self-contained HTML files that say what to ship, or where quantization hurts, and why."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from quantbench.report import glossary
from quantbench.results import Results
from quantbench.spec import Status
from quantbench.system import is_plain, read_json, stored_as, write_atomically

if TYPE_CHECKING:
    from quantbench.studies import Diagnosis


def write_report(results: Results, path: Path) -> Path:
    """Write the report of a run; returns ``path``. The file needs no network and no other file."""
    write_atomically(path, render(results, path))
    return path


def render(results: Results, path: Path | None = None) -> str:
    """The report as HTML text; the same text for the same results.

    ``path``: where it will be written; it links the Parquet files of a run that lies beside it.
    """
    from quantbench.report.page import summarise
    from quantbench.report.sections.interactive_choice import as_script

    script = _source("report.js")
    page = summarise(results, page=path)
    return _page(
        "template.html.j2",
        page=page,
        data=Markup(as_script(page.choosing)) if page.cards else "",  # noqa: S704 - escaped there
        glossary=glossary,
        # our own file, not data: the only text that is not escaped
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Write the figures of a run's report to ``folder`` as SVG and PNG; returns their paths."""
    from quantbench.report.drawing import slides
    from quantbench.report.page import summarise

    return slides.write(summarise(results), folder)


def write_diagnosis(found: Diagnosis) -> Path:
    """Write the page of a diagnosis into its folder, and node data of each backend; the page's path."""
    from quantbench.report.node_data import node_data
    from quantbench.report.sections.diagnosis import COLUMNS, DEPTH_COLUMNS, summarise

    machine = read_json(found.folder / "machine.json")
    page = summarise(found, str(machine.get("cpu") or "not recorded"))
    path = found.folder / "diagnosis.html"
    text = _page("diagnosis.html.j2", page=page, columns=COLUMNS, depth_columns=DEPTH_COLUMNS)
    write_atomically(path, text)
    for backend in found.sensitivity["backend"].unique():
        known = [row for row in found.depth(str(backend)) if row.status == Status.OK]
        if known:
            name = str(backend) if is_plain(str(backend)) else stored_as(str(backend))
            write_atomically(found.folder / f"node-data-{name}.json", node_data(known))
    return path


def _page(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    style = Markup(_source("report.css"))  # noqa: S704 - our own file, not data
    return environment.get_template(template).render(style=style, **values)


def _breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after its ``+`` and ``=``."""
    return Markup(re.sub(r"([+=])", r"\1<wbr>", str(escape(name))))  # noqa: S704


def _source(name: str) -> str:
    return (
        resources.files("quantbench.report").joinpath("templates", name).read_text(encoding="utf-8")
    )
