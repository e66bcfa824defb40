"""Scheduler: jobs in worker processes, several at once, in the order given."""

from __future__ import annotations

import os
import select
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path

from quantbench.execution.job import Ending, Job
from quantbench.execution.process import Process

WATCH_S = 0.05
TRIES = 3  # of a job that somebody else killed


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
