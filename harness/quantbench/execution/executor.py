"""Executor: runs a table of steps, each once all that it needs is there; cached results are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from quantbench.errors import QuantbenchError
from quantbench.execution.job import Ending, Job
from quantbench.execution.scheduler import run_jobs
from quantbench.execution.step import Step
from quantbench.spec import Status
from quantbench.system import entry, usable_cpus

_DONE = Ending(Status.OK, "", None, 0.0)


class Executor(Protocol):
    """Where jobs run."""

    def run(
        self,
        jobs: Iterable[Job],
        on_end: Callable[[Job, Ending], Iterable[Job]],
        on_start: Callable[[Job], None],
        on_news: Callable[[Job, str], None],
    ) -> None:
        """Run jobs, and those that ``on_end`` returns; ends when all have."""


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Workers on this machine, one per usable CPU; ``logs`` is the folder of what they print."""

    logs: Path

    def run(
        self,
        jobs: Iterable[Job],
        on_end: Callable[[Job, Ending], Iterable[Job]],
        on_start: Callable[[Job], None],
        on_news: Callable[[Job, str], None],
    ) -> None:
        """As `run_jobs`."""
        run_jobs(
            jobs, self.logs, on_end,
            slots=len(usable_cpus()), on_start=on_start, on_news=on_news,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Done:
    """How a step ended, and the folder of its result where it has one."""

    ending: Ending
    folder: Path | None = None
    contents: Mapping[str, Any] | None = None


class StepGraph:
    """A table of steps, and how far it is.

    A step whose needs did not all end well ends as the first of them that did not. Steps of the
    same key share one job.

    Parameters
    ----------
    steps
        In the order in which they start where nothing else decides.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.done: dict[str, Done] = {}
        self.steps = {step.name: step for step in steps}
        self._waiting = dict(self.steps)
        self._filling: dict[Path, list[tuple[Step, Mapping[str, Any]]]] = {}
        unknown = {need for step in self.steps.values() for need in step.needs} - set(self.steps)
        if unknown:
            raise ValueError(f"steps are needed that are not in the table: {sorted(unknown)}")

    def execute(
        self,
        executor: Executor,
        *,
        on_start: Callable[[Job], None] = lambda job: None,
        on_news: Callable[[Job, str], None] = lambda job, text: None,
    ) -> None:
        """Run every step; afterwards `done` has them all."""
        folders: dict[str, Path] = {}

        def start() -> list[Job]:
            jobs = self._ready()
            folders.update({job.name: Path(job.arguments["folder"]) for job in jobs})
            return jobs

        def ended(job: Job, ending: Ending) -> Iterable[Job]:
            folder = folders[job.name]
            for step, contents in self._filling.pop(folder):
                self._finish(step, ending, folder, contents)
            return start()

        executor.run(start(), ended, on_start, on_news)
        if self._waiting:
            raise ValueError(f"steps wait for each other: {sorted(self._waiting)}")

    def _ready(self) -> list[Job]:
        """Jobs of all steps that can start now; those that need none are finished on the way."""
        jobs: list[Job] = []
        moved = True
        while moved:
            moved = False
            for name, step in list(self._waiting.items()):
                if all(need in self.done for need in step.needs):
                    del self._waiting[name]
                    moved = True
                    jobs += self._start(step)
        return jobs

    def _start(self, step: Step) -> Sequence[Job]:
        endings = (self.done[need].ending for need in step.needs)
        failed = next((ending for ending in endings if ending.status != Status.OK), None)
        if failed is not None and not step.whatever:
            self._finish(step, failed)
            return ()
        if step.function is None:
            self._finish(step, _DONE)
            return ()
        try:
            contents = {name: self._content(need) for name, need in step.inputs.items()}
            folder = entry(step.kind, step.key(contents))
        except QuantbenchError as error:
            self._finish(step, Ending(Status.FAILED, str(error), None, 0.0, mendable=True))
            return ()
        if step.complete(folder):
            self._finish(step, _DONE, folder, contents)
            return ()
        others = self._filling.setdefault(folder, [])
        others.append((step, contents))
        if len(others) > 1:
            return ()
        given = {
            name: str(self.done[need].folder)
            for name, need in {**step.inputs, **step.beside}.items()
        }
        resources = step.resources
        return [
            Job(
                step.name, step.function, {**step.arguments, **given, "folder": str(folder)},
                resources.environment, (), resources.time_limit_s, resources.memory_mb,
            )
        ]  # fmt: skip

    def _content(self, name: str) -> Any:
        folder = self.done[name].folder
        assert folder is not None  # noqa: S101 - an input that ended well has a folder
        return self.steps[name].content(folder)

    def _finish(
        self,
        step: Step,
        ending: Ending,
        folder: Path | None = None,
        contents: Mapping[str, Any] | None = None,
    ) -> None:
        self.done[step.name] = Done(ending, folder, contents)
        self.done[step.name] = Done(step.settle(ending), folder, contents)
