"""Session server: a worker that loads an artifact and runs it as asked over its pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantbench.backend_api import Artifact, Runtime
from quantbench.errors import BadInput
from quantbench.execution import receive, send
from quantbench.spec import Arrays, Target
from quantbench.system import locate


def serve(*, artifact: str, runtime: str, target: Mapping[str, Any], batch_size: int) -> None:
    """Worker function: load, say so, then ``bind``, ``run`` and ``read`` as asked."""
    # frameworks print to standard output; the answers need a pipe of their own
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    engine: Runtime = locate(runtime)()
    session = engine.load(Artifact.open(Path(artifact)), Target.from_json(target), batch_size)
    specs = {"inputs": session.inputs, "outputs": session.outputs}
    described = {key: [spec.to_json() for spec in known] for key, known in specs.items()}
    send(answers, {**described, "effective": dict(session.effective)}, {})
    while (question := receive(sys.stdin.buffer)) is not None:
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
            send(answers, {"refusal": str(error)}, {})
        else:
            send(answers, {}, outputs)
