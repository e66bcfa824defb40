"""Remote: a session in a worker process of its own, used as if it were here.

What a runtime needs of its process (threads, instruction set, memory allocator) is set before the
process starts, and a runtime that crashes costs that process alone. Calls go over pipes: to time
them is `harness.burst`'s task, inside the worker.
"""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from harness.errors import BadInput, QuantbenchError
from harness.jobs import Job, Process
from harness.protocol import Artifact
from harness.score import load_runtime
from harness.target import Target
from harness.tensors import Array, Arrays, TensorSpec

ANSWER_LIMIT_S = 120.0


class RemoteSession:
    """A `harness.protocol.Session` whose artifact is loaded in a worker.

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
            _send(self._process.stdin, {"command": command}, arrays or {})
        except (BrokenPipeError, ValueError):
            self._ended()
        return self._answer(ANSWER_LIMIT_S)[1]

    def _answer(self, limit_s: float) -> tuple[dict[str, Any], dict[str, Array]]:
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN | select.POLLHUP)
        if not poller.poll(limit_s * 1000):
            self._process.kill()
            raise QuantbenchError(f"{self._process.job.name}: no answer within {limit_s:g} s")
        answer = _receive(self._process.stdout)
        if answer is None:
            self._ended()
        elif "refusal" in answer[0]:
            raise BadInput(answer[0]["refusal"])
        return answer  # type: ignore[return-value]  # _ended does not return

    def _ended(self) -> None:
        ending = self._process.ending()
        raise QuantbenchError(f"{self._process.job.name}: {ending.status}: {ending.reason}")


def serve(*, artifact: str, runtime: str, target: Mapping[str, Any], batch_size: int) -> None:
    """Worker function: load, say so, then ``bind``, ``run`` and ``read`` as asked."""
    # frameworks print to standard output; the answers need a pipe of their own
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    session = load_runtime(runtime).load(
        Artifact.open(Path(artifact)), Target.from_json(target), batch_size
    )
    specs = {"inputs": session.inputs, "outputs": session.outputs}
    described = {key: [spec.to_json() for spec in known] for key, known in specs.items()}
    _send(answers, {**described, "effective": dict(session.effective)}, {})
    while (question := _receive(sys.stdin.buffer)) is not None:
        asked, arrays = question
        outputs: Arrays = {}
        try:
            if asked["command"] == "bind":
                session.bind(arrays)
            elif asked["command"] == "run":
                session.run()
            else:
                outputs = session.read()
        except BadInput as error:
            _send(answers, {"refusal": str(error)}, {})
        else:
            _send(answers, {}, outputs)


def _send(pipe: IO[bytes], header: Mapping[str, Any], arrays: Arrays) -> None:
    """A line of JSON that ends with the number of bytes of arrays after it."""
    content = io.BytesIO()
    if arrays:
        np.savez(content, allow_pickle=False, **dict(arrays))
    data = content.getvalue()
    pipe.write(json.dumps({**header, "bytes": len(data)}).encode() + b"\n" + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """What `_send` has sent; None where the other side is gone."""
    line = pipe.readline()
    if not line:
        return None
    header: dict[str, Any] = json.loads(line)
    data = pipe.read(header.pop("bytes"))
    return header, dict(np.load(io.BytesIO(data))) if data else {}
