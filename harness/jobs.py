"""Jobs: functions run in worker processes under limits of time and memory, several at once."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.files import stored_as
from harness.target import COMMON_ENVIRONMENT
from harness.training import PROGRESS
from harness.worker import PARENT

WATCH_S = 0.05
TRIES = 3  # of a job that somebody else killed
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Job:
    """A function call for a worker process.

    Parameters
    ----------
    name : str
        Unique within a run; names the job's files.
    work : str
        Locator of the function; ``arguments`` are its keywords, JSON only.
    environment : mapping
        Variables set before the worker starts, over `COMMON_ENVIRONMENT`.
    affinity : tuple of int
        CPUs to pin to; empty for none.
    time_limit_s, memory_mb : float
        Beyond these the worker is killed: ``timeout``, ``out-of-memory``.
    """

    name: str
    work: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    affinity: tuple[int, ...] = ()
    time_limit_s: float = 600.0
    memory_mb: float = 8000.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: ``ok`` with a value, or another status with a one-line reason.

    ``killed``: somebody else sent SIGKILL; the job may be tried again. ``mendable``: the reason
    says what the user can do about it.
    """

    status: str
    reason: str
    value: Any
    seconds: float
    killed: bool = False
    mendable: bool = False

    @property
    def again(self) -> bool:
        """Whether the same command should try it again: something else than the job was at fault."""
        return self.killed or self.mendable


class Process:
    """A worker that runs one job; killed with everything it started when closed."""

    def __init__(
        self, job: Job, folder: Path, *, stdin: int | None = None, stdout: int | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # for people to read; two names that read the same are still two files
        words = "".join(c if (c.isascii() and c.isalnum()) or c in "-_." else "_" for c in job.name)
        stem = f"{words[-120:]}-{stored_as(job.name)}"
        self.job = job
        self.path = folder / f"{stem}.json"
        self.log = folder / f"{stem}.log"
        self.result = self.path.with_suffix(".result")
        self.progress = self.path.with_suffix(".progress")
        for old in (self.result, self.progress):
            old.unlink(missing_ok=True)
        self.path.write_text(
            json.dumps(
                {
                    "work": job.work,
                    "arguments": dict(job.arguments),
                    "affinity": list(job.affinity),
                }
            ),
            encoding="utf-8",
        )
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "harness.worker", str(self.path)],
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=log if stdout is None else stdout,
                stderr=log,
                env={
                    **os.environ,
                    **COMMON_ENVIRONMENT,
                    **job.environment,
                    PARENT: str(os.getpid()),
                    PROGRESS: str(self.progress),
                },
                start_new_session=True,
            )
        self.started = time.monotonic()
        self._overrun = ""
        self._told = ""

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe to the worker; only where one was asked for."""
        assert self.popen.stdin is not None  # noqa: S101 - for the type checker
        return self.popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe from the worker; only where one was asked for."""
        assert self.popen.stdout is not None  # noqa: S101 - for the type checker
        return self.popen.stdout

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self.started

    def news(self) -> str:
        """What the worker tells of its progress, if it has told something new."""
        try:
            text = self.progress.read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""
        new, self._told = text != self._told, text
        return text if new else ""

    def watch(self) -> None:
        """Kill the worker if it is over a limit; the reason shows in `ending`."""
        if self.seconds > self.job.time_limit_s:
            self._overrun = "timeout"
        elif resident_mb(self.popen.pid) > self.job.memory_mb:
            self._overrun = "out-of-memory"
        else:
            return
        self.kill()

    def kill(self) -> None:
        """Kill the worker and the processes it started, and reap it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def ending(self) -> Ending:
        """How the job ended; call it after the process has."""
        code = self.popen.wait()
        seconds = self.seconds
        if self._overrun == "timeout":
            reason = f"took longer than its limit of {self.job.time_limit_s:g} s and was stopped"
            return Ending("timeout", reason, None, seconds)
        if self._overrun == "out-of-memory":
            reason = f"used more than its limit of {self.job.memory_mb:g} MB and was stopped"
            return Ending("out-of-memory", reason, None, seconds)
        if self.result.exists():
            try:
                outcome = json.loads(self.result.read_text(encoding="utf-8"))
            except ValueError:
                outcome = {"status": "failed", "reason": "the worker's result cannot be read"}
            return Ending(
                outcome["status"], outcome["reason"], outcome.get("value"), seconds,
                mendable=outcome.get("mendable", False),
            )  # fmt: skip
        reason = f"{_death(code)}{_last_words(self.log)}"
        return Ending("crashed", reason, None, seconds, killed=code == -signal.SIGKILL)


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (1e6 bytes); 0 once it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0.0
    return int(pages) * _PAGE / 1e6


def run_jobs(
    jobs: Iterable[Job],
    folder: Path,
    on_end: Callable[[Job, Ending], Iterable[Job]],
    *,
    slots: int,
    on_start: Callable[[Job], None] = lambda job: None,
    on_news: Callable[[Job, str], None] = lambda job, text: None,
) -> None:
    """Run jobs, ``slots`` at a time, in the order given.

    ``on_end`` is called for each in this process and may return further jobs, which go to the
    front of the queue; ``on_news`` with what workers tell of their progress. A job that somebody
    else killed is tried again, twice. No worker outlives this call, however it ends.
    """
    queue = deque(jobs)
    killed: Counter[str] = Counter()
    running: dict[int, Process] = {}
    poller = select.poll()
    try:
        while queue or running:
            while queue and len(running) < slots:
                job = queue.popleft()
                on_start(job)
                process = Process(job, folder)
                handle = os.pidfd_open(process.popen.pid)
                running[handle] = process
                poller.register(handle, select.POLLIN)
            ended = {handle for handle, _ in poller.poll(WATCH_S * 1000)}
            for handle, process in list(running.items()):
                if handle not in ended:
                    if text := process.news():
                        on_news(process.job, text)
                    process.watch()
                    if process.popen.returncode is None:
                        continue
                poller.unregister(handle)
                os.close(handle)
                del running[handle]
                ending = process.ending()
                process.kill()
                killed[process.job.name] += ending.killed
                if ending.killed and killed[process.job.name] < TRIES:
                    queue.appendleft(process.job)
                    continue
                queue.extendleft(reversed(list(on_end(process.job, ending))))
    finally:
        for handle, process in running.items():
            process.kill()
            os.close(handle)


def _death(code: int) -> str:
    if code >= 0:
        return f"the worker exited with code {code} before it had a result"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = "; the kernel may have run out of memory" if name == "SIGKILL" else ""
    return f"the worker was killed by signal {-code} ({name}){hint}"


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1].strip()[:200]}" if lines else ""
