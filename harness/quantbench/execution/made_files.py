"""Made files: files that are computed when they are first asked for, in a worker, cached by content."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from quantbench.errors import BadInput
from quantbench.execution.job import Ending, Job
from quantbench.execution.scheduler import run_jobs
from quantbench.spec import Status
from quantbench.system import (
    ENVIRONMENT,
    content_key,
    entry,
    filling,
    installed_packages,
    locate,
    locator,
    source_digest,
)

LIMIT_S = 3600.0
NAME = "made.txt"


def made(function: str) -> Path:
    """The file that a function makes: from the cache, or made now in a worker of its own.

    Parameters
    ----------
    function : str
        Locator of ``(folder: Path) -> Path``, which writes a file into the folder; it is made anew
        where its source or a package changes.

    Raises
    ------
    BadInput
        If it fails, with the reason.
    """
    folder = _folder(function)
    if not folder.exists():
        shown = function if len(function) < 100 else function.partition("(")[0]
        print(f"making {shown}: once, then it is cached", file=sys.stderr)
        with tempfile.TemporaryDirectory() as logs:
            ending = _run(function, folder, Path(logs))
        if ending.status != Status.OK:
            raise BadInput(ending.reason)
    return folder / (folder / NAME).read_text(encoding="utf-8")


def unmade(named: str) -> bool:
    """Whether asking for the file of a locator would first make it; nothing is made here."""
    before, called, function = named.partition(f"{locator(made)}(")
    return not before and bool(called) and not _folder(function.removesuffix(")")).exists()


def _folder(function: str) -> Path:
    source = source_digest(function.partition("(")[0])
    return entry(
        "made", content_key(function=function, source=source, packages=installed_packages())
    )


def _run(function: str, folder: Path, logs: Path) -> Ending:
    endings: list[Ending] = []

    def ended(job: Job, ending: Ending) -> list[Job]:
        endings.append(ending)
        return []

    arguments = {"function": function, "folder": str(folder)}
    job = Job(
        f"make {function}",
        make,
        arguments,
        ENVIRONMENT,
        (),
        LIMIT_S,
    )
    run_jobs([job], logs, ended, slots=1)
    return endings[0]


def make(*, function: str, folder: str) -> None:
    """Worker function: call the function and publish its file."""
    with filling(Path(folder)) as temporary:
        path = locate(function)(temporary)
        (temporary / NAME).write_text(path.relative_to(temporary).as_posix(), encoding="utf-8")
