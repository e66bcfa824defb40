"""Worker: the subprocess that every phase of a trial runs in.

It calls one function with the job's arguments and writes what it returns, or why it failed, beside the job;
`quantbench.execution.process` starts it. It imports the standard library, and then only what the
function itself needs: NumPy and a runtime in the score and clock phases, as on a device.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from quantbench.errors import QuantbenchError
from quantbench.spec import Status
from quantbench.system import write_json

PARENT = "QUANTBENCH_PARENT"


def call(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job's function; the outcome as a JSON object, whatever happens short of a crash."""
    try:
        module, _, name = job["function"].partition(":")
        value = getattr(importlib.import_module(module), name)(**job["arguments"])
    except QuantbenchError as error:
        return {"status": Status.FAILED, "reason": str(error), "mendable": True}
    except MemoryError as error:
        return {"status": Status.OUT_OF_MEMORY, "reason": f"memory allocation failed: {error}"}
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip().splitlines() or [""])[0]
        return {"status": Status.FAILED, "reason": f"{type(error).__name__}: {first}"[:500]}
    return {"status": Status.OK, "reason": "", "value": value}


def main() -> None:
    """Do the job whose file is the first argument."""
    path = Path(sys.argv[1])
    job = json.loads(path.read_text(encoding="utf-8"))
    if job["affinity"]:
        os.sched_setaffinity(0, job["affinity"])
    outcome = call(job)
    write_json(path.with_suffix(".result"), outcome)
    sys.stdout.flush()
    sys.stderr.flush()
    # frameworks' destructors have crashed after the work was done
    os._exit(0)
