"""Reporter: what a run is doing, as a live line on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

NEWS_S = 30.0


class Reporter:
    """Says which phase and trial is under way; a context manager.

    On a terminal: phase, bar, count, elapsed and remaining time, and the trial. Elsewhere: one
    plain line when a phase starts and one per finished step.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True, quiet=quiet, highlight=False)
        self._live: Progress | None = None
        self._told: dict[str, float] = {}
        self._phase, self._total, self._done, self._started = "", 0, 0, time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("[bold]{task.description:<6}"),
                BarColumn(bar_width=16),
                MofNCompleteColumn(),
                TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
                TextColumn("left"),
                TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
                TextColumn(
                    "{task.fields[step]}",
                    style="dim",
                    markup=False,
                    table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
                ),
                expand=True,
                console=self.console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def phase(self, name: str, total: int) -> None:
        """A new phase of ``total`` steps begins."""
        self._phase, self._total, self._done, self._started = name, total, 0, time.monotonic()
        if self._live is not None:
            for task in self._live.task_ids:
                self._live.remove_task(task)
            self._live.add_task(name, total=max(total, 1), step="")
        elif total:
            self.say(f"{name}: {total} steps")

    def step(self, text: str) -> None:
        """A step has begun."""
        if self._live is not None and self._live.task_ids:
            self._live.update(self._live.task_ids[-1], step=text)

    def news(self, name: str, text: str) -> None:
        """A long step tells how far it is; elsewhere than on a terminal every half minute."""
        if self._live is not None:
            self.step(f"{name}: {text}")
        elif time.monotonic() - self._told.get(name, -math.inf) > NEWS_S:
            self._told[name] = time.monotonic()
            self.say(f"{self._phase} {self._done}/{self._total} {name}: {text}")

    def done(self, text: str = "", steps: int = 1) -> None:
        """One or more steps are finished."""
        self._done += steps
        self._total = max(self._total, self._done)  # timing may go on for more generations
        if self._live is not None and self._live.task_ids:
            task = self._live.task_ids[-1]
            self._live.update(task, completed=self._done, total=max(self._total, 1))
        elif text:
            spent = time.monotonic() - self._started
            left = spent / max(self._done, 1) * max(self._total - self._done, 0)
            self.say(
                f"{self._phase} {self._done}/{self._total} {text} "
                f"({spent:.0f} s, about {left:.0f} s left)"
            )

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)
