"""Provenance: where the numbers of a page come from: run, machine, protocol, versions, command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from quantbench.report import verdict
from quantbench.results import SCHEMAS, Part, Results, parts
from quantbench.units import one_line, percent, size, text_of


@dataclass(frozen=True, slots=True)
class Provenance:
    """One run of a page.

    ``files``: names of its Parquet files and links to them, where the page lies beside them or where
    it is known how to get there.
    """

    name: str
    experiment: str
    machine: str
    date: str
    precision: str
    preview: str
    folder: str
    files: tuple[tuple[str, str], ...]
    machine_facts: tuple[tuple[str, str], ...]
    packages: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    protocol: tuple[tuple[str, str], ...]
    run_facts: tuple[tuple[str, str], ...]
    command: str
    experiment_text: str


def provenances(results: Results, page: Path | None) -> tuple[Provenance, ...]:
    """Each run of ``results``; ``page`` is where the report is written, where it is."""
    return tuple(
        Provenance(
            name=one_line(part.name),
            experiment=one_line(text_of(part.run.get("experiment")) or "experiment"),
            machine=one_line(text_of(part.machine.get("cpu")) or "machine not recorded"),
            date=_date(part.run.get("created")),
            precision=one_line(_precision(part.run)) or "not recorded",
            preview=_preview(part.run),
            folder=one_line(verdict.run_folder(part.folder)),
            files=_files(part.folder, page),
            machine_facts=_machine_facts(part.machine),
            packages=_pairs(part.machine.get("packages")),
            environment=_pairs(part.machine.get("environment")),
            protocol=_protocol(part.run),
            run_facts=_run_facts(part, results.trials[results.trials["trial"].isin(part.trials)]),
            command=text_of(part.run.get("command")),
            experiment_text=text_of(part.run.get("experiment_text")),
        )
        for part in parts(results)
    )


def _files(folder: Path, page: Path | None) -> tuple[tuple[str, str], ...]:
    """Links from the page to a run's Parquet files: relative, and only within the run's own folder."""
    if page is None or page.resolve().parent != folder.resolve():
        return ()
    return tuple(
        (f"{name}.parquet", f"{name}.parquet")
        for name in SCHEMAS
        if (folder / f"{name}.parquet").exists()
    )


def _precision(run: Mapping[str, Any]) -> str:
    value = run.get("precision")
    return text_of(value.get("name") if isinstance(value, Mapping) else value)


def _preview(run: Mapping[str, Any]) -> str:
    """What the preview setting means for a reader; empty for other settings."""
    if _precision(run) != "preview":
        return ""
    settings = run.get("protocol") or {}
    generations, rounds = settings.get("generations"), settings.get("rounds")
    shape = ""
    if generations and rounds:
        shape = f" ({generations} generations of {rounds} rounds, with a short warm-up)"
    return (
        f"A short measurement{shape}, made to see what deserves a closer look. The intervals hold, "
        "but they are wide, and small differences stay undecided; memory was read only once per "
        "artifact. Measure again with precision: standard before you publish a number."
    )


_PROTOCOL: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "generations": ("generations, at least", str),
    "max_generations": ("generations, at most", str),
    "rounds": ("rounds per generation", str),
    "width": ("wanted width of each interval", lambda x: percent(float(x))),
    "time_limit_s": ("time limit per artifact", lambda x: f"{x:g} s"),
    "warmup_s": ("shortest warm-up", lambda x: f"{x:g} s"),
    "burst_ms": ("one burst", lambda x: f"{x:g} ms of timed calls"),
    "memory_processes": ("processes per artifact for memory and start", str),
    "batch_sizes": ("batch sizes", lambda x: ", ".join(map(str, x))),
    "offline": ("each at its best batch size too", lambda x: "yes" if x else "no"),
    "quality_margin": ("margin of quality, of the float score", lambda x: percent(float(x))),
    "valid_sqnr_db": ("invalid below an SQNR of", lambda x: f"{x:g} dB"),
    "limit_build_s": ("time limit of a build", lambda x: f"{x:g} s"),
    "limit_score_s": ("time limit of a scoring", lambda x: f"{x:g} s"),
    "limit_start_s": ("time limit of a start", lambda x: f"{x:g} s"),
    "limit_memory_mb": ("memory limit of a trial", lambda x: f"{x:g} MB"),
}


def _protocol(run: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for key, value in (run.get("protocol") or {}).items():
        name, write = _PROTOCOL.get(key, (str(key).replace("_", " "), text_of))
        if key != "name":
            pairs.append((one_line(name), one_line(write(value))))
    return tuple(pairs)


def _machine_facts(machine: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    memory = machine.get("memory_bytes")
    facts = {
        "CPU": machine.get("cpu"),
        "physical cores": machine.get("cores"),
        "instruction sets": ", ".join(map(str, listed(machine.get("isa")))),
        "memory": size(float(memory)) if isinstance(memory, int | float) else None,
        "kernel": machine.get("kernel"),
        "frequency governor": machine.get("governor"),
        "virtualisation": machine.get("virtualization"),
        "Python": machine.get("python"),
        "source commit": machine.get("git_commit"),
        "fingerprint": machine.get("fingerprint"),
    }
    return tuple((k, one_line(text_of(v)) or "not recorded") for k, v in facts.items())


def _run_facts(part: Part, frame: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    seeds = sorted({int(s) for s in frame["seed"].dropna()})
    facts = [
        ("run", text_of(part.run.get("run"))),
        ("made by quantbench", text_of(part.run.get("quantbench"))),
        ("seed of the run", text_of(part.run.get("seed"))),
        ("seeds of the trials", ", ".join(map(str, seeds))),
        *(
            (f"reference of {one.model} on {one.target}, {one.comparison}", one.trial)
            for one in part.references
        ),
    ]
    return tuple((one_line(k), one_line(v) or "not recorded") for k, v in facts)


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    items = value.items() if isinstance(value, Mapping) else ()
    return tuple((one_line(str(k)), one_line(text_of(v))) for k, v in items)


def _date(created: Any) -> str:
    try:
        when = datetime.fromisoformat(str(created))
    except ValueError:
        return one_line(text_of(created)) or "date not recorded"
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def listed(value: Any) -> list[Any]:
    """A list from JSON or a list column of Parquet; empty for null."""
    if value is None or isinstance(value, float | str):
        return []
    return list(value)
