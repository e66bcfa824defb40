"""Process: a worker that runs one job, watched and killed with all it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from quantbench.execution.job import Ending, Job
from quantbench.execution.worker import PARENT
from quantbench.spec import Status
from quantbench.system import COMMON_ENVIRONMENT, PROGRESS, locator, stored_as

_PAGE = os.sysconf("SC_PAGE_SIZE")


START = f"""
import ctypes, os, signal
PR_SET_PDEATHSIG = 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
    raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
if os.environ.get("{PARENT}", "") != str(os.getppid()):  # it died before the call above
    os._exit(1)
from quantbench.execution.worker import main
main()
"""
"""A worker asks the kernel to kill it, stopped or not, when its parent dies, and only then imports."""


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
                    "function": locator(job.function),
                    "arguments": dict(job.arguments),
                    "affinity": list(job.affinity),
                }
            ),
            encoding="utf-8",
        )
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-c", START, str(self.path)],
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
            self._overrun = Status.TIMEOUT
        elif resident_mb(self.popen.pid) > self.job.memory_mb:
            self._overrun = Status.OUT_OF_MEMORY
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
        if self._overrun == Status.TIMEOUT:
            reason = f"took longer than its limit of {self.job.time_limit_s:g} s and was stopped"
            return Ending(Status.TIMEOUT, reason, None, seconds)
        if self._overrun == Status.OUT_OF_MEMORY:
            reason = f"used more than its limit of {self.job.memory_mb:g} MB and was stopped"
            return Ending(Status.OUT_OF_MEMORY, reason, None, seconds)
        if self.result.exists():
            try:
                outcome = json.loads(self.result.read_text(encoding="utf-8"))
            except ValueError:
                outcome = {"status": Status.FAILED, "reason": "the worker's result cannot be read"}
            return Ending(
                outcome["status"], outcome["reason"], outcome.get("value"), seconds,
                mendable=outcome.get("mendable", False),
            )  # fmt: skip
        reason = f"{_death(code)}{_last_words(self.log)}"
        return Ending(Status.CRASHED, reason, None, seconds, killed=code == -signal.SIGKILL)


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB (1e6 bytes); 0 once it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0.0
    return int(pages) * _PAGE / 1e6


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
