"""Store: the state of one run on disk, from which it continues after any interruption.

Each finished step is one JSON file, written whole; a step without its file is done again. The
Parquet files are assembled from these.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from quantbench.errors import BadInput
from quantbench.runs.outputs import Outputs
from quantbench.runs.states import State
from quantbench.spec import Status
from quantbench.system import stored_as, write_json

S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of one run: ``state/<phase>/<digest of the trial's id>.json``, ``logs/``."""

    folder: Path
    outputs: Outputs = field(default_factory=Outputs, repr=False, compare=False)
    _known: dict[Path, State] = field(default_factory=dict, repr=False, compare=False)

    @property
    def logs(self) -> Path:
        """Jobs, their results and what workers printed."""
        return self.folder / "logs"

    def path(self, phase: str, name: str) -> Path:
        """Where a step's state is kept."""
        return self.folder / "state" / phase / f"{stored_as(name)}.json"

    def get(self, kind: type[S], name: str) -> S | None:
        """The state of a finished step, or None; read once: the run is `locked`."""
        path = self.path(kind.PHASE, name)
        if path not in self._known:
            try:
                told = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return None
            told.pop("name", None)
            told["status"] = Status(told["status"])
            self._known[path] = kind(**told)
        found = self._known[path]
        assert isinstance(found, kind)  # noqa: S101 - a phase has one kind of state
        return found

    def done(self, kind: type[S], name: str) -> S | None:
        """The state of a step, or None where it has to be done, or done again."""
        state = self.get(kind, name)
        return None if state is None or state.again else state

    def unfinished(self) -> bool:
        """Whether the same command should try some step again."""
        states = (
            json.loads(path.read_text(encoding="utf-8"))
            for path in (self.folder / "state").rglob("*.json")
        )
        return any(state.get("again") or state.get("killed") for state in states)

    def put(self, name: str, state: State) -> None:
        """Record a finished step."""
        path = self.path(state.PHASE, name)
        write_json(path, {"name": name, **asdict(state)})
        self._known[path] = state

    def artifact(self, key: str) -> Path:
        """Where the run keeps an artifact, whatever happens to the cache."""
        return self.folder / "artifacts" / key

    def generations(self, comparison: str) -> Path:
        """The folder of a comparison's generations."""
        return self.path("clock", comparison).with_suffix("")


def open_run(results: Path, experiment: str, key: str, *, fresh: bool) -> Store:
    """The newest run of the same content ``key`` to continue, or a new one.

    Raises
    ------
    BadInput
        If the results folder is not writable.
    """
    parent = results / experiment
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if not os.access(parent, os.W_OK):
            raise PermissionError(13, "Permission denied")
        same = sorted(parent.glob(f"*-{key[:8]}"))
        if same and not fresh:
            return Store(same[-1])
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        folder = parent / f"{stamp}-{key[:8]}"
        while folder.exists():
            folder = folder.with_name(f"{stamp}x-{key[:8]}")
        (folder / "state").mkdir(parents=True)
    except OSError as error:
        raise BadInput(
            f"cannot write results to {parent} ({error.strerror}); "
            "choose another folder with --results"
        ) from error
    return Store(folder)


@contextlib.contextmanager
def locked(store: Store, *, wait: bool = False) -> Iterator[None]:
    """Hold the run; the kernel lets go of it when this process ends, however it does.

    ``wait`` for another process that holds it, instead of the error.

    Raises
    ------
    BadInput
        If another process is working on the same run.
    """
    with (store.folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise BadInput(
                f"another quantbench is working on {store.folder}; wait for it or stop it"
            ) from error
        yield
