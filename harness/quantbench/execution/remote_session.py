"""Remote: a session in a worker process of its own, used as if it were here.

What a runtime needs of its process (threads, instruction set, memory allocator) is set before the
process starts, and a runtime that crashes costs that process alone. Calls go over pipes: to time
them is `quantbench.steps.timed_burst`'s task, inside the worker.
"""

from __future__ import annotations

import select
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantbench.errors import BadInput, QuantbenchError
from quantbench.execution.channel import receive, send
from quantbench.execution.job import Job
from quantbench.execution.process import Process
from quantbench.spec import Array, Arrays, TensorSpec

ANSWER_LIMIT_S = 120.0


class RemoteSession:
    """A `quantbench.backend_api.protocol.Session` whose artifact is loaded in a worker.

    Parameters
    ----------
    job : Job
        Of `serve`.
    folder : Path
        For the worker's log.

    Raises
    ------
    QuantbenchError
        If the worker cannot load the artifact, or ends; says why.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self._process = Process(job, folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready, _ = self._answer(job.time_limit_s)
        self.inputs = tuple(TensorSpec.from_json(spec) for spec in ready["inputs"])
        self.outputs = tuple(TensorSpec.from_json(spec) for spec in ready["outputs"])
        self.effective: Mapping[str, str] = ready["effective"]

    def bind(self, inputs: Arrays) -> None:
        """Give the task's arrays to the session; raises `BadInput` where they do not fit."""
        self._ask("bind", inputs)

    def run(self) -> None:
        """One inference."""
        self._ask("run")

    def read(self) -> dict[str, Array]:
        """Outputs of the last run, float, in the task's layout."""
        return self._ask("read")

    def close(self) -> None:
        """End the worker."""
        self._process.kill()

    def _ask(self, command: str, arrays: Arrays | None = None) -> dict[str, Array]:
        try:
            send(self._process.stdin, {"command": command}, arrays or {})
        except (BrokenPipeError, ValueError):
            self._ended()
        return self._answer(ANSWER_LIMIT_S)[1]

    def _answer(self, limit_s: float) -> tuple[dict[str, Any], dict[str, Array]]:
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        if not poller.poll(limit_s * 1000):
            self._process.kill()
            raise QuantbenchError(f"{self._process.job.name}: no answer within {limit_s:g} s")
        answer = receive(self._process.stdout)
        if answer is None:
            self._ended()
        elif "refusal" in answer[0]:
            raise BadInput(answer[0]["refusal"])
        return answer  # type: ignore[return-value]  # _ended does not return

    def _ended(self) -> None:
        ending = self._process.ending()
        raise QuantbenchError(f"{self._process.job.name}: {ending.status}: {ending.reason}")
