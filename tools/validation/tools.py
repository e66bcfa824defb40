"""Tools: our median against what each runtime's own tool says of the same file, in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from quantbench.backend_api import backend
from quantbench.results import Results
from quantbench.runs import Store, log_times, run_generation
from quantbench.spec import PRECISIONS
from quantbench.system import COMMON_ENVIRONMENT, locate
from tools.validation.contenders import comparison, target

MOST = 0.03
TURNS = 9
TRIALS: Mapping[str, str] = {
    "litert-benchmark": "resnet20/tflite/fp32/cpu-1",
    "ONNX Runtime with I/O binding": "resnet20/onnxruntime/fp32/cpu-1",
    "torch.utils.benchmark": "resnet20/pytorch/fp32+route=traced/cpu-1",
}
BATCH_SIZES = (1, 32)

ONNX = """
import json, sys, time
import numpy as np, onnxruntime as ort
path, shape = sys.argv[1], json.loads(sys.argv[2])
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
binding = session.io_binding()
x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
binding.bind_cpu_input(session.get_inputs()[0].name, x)
for output in session.get_outputs():
    binding.bind_output(output.name)
def timed():
    before = time.perf_counter_ns()
    session.run_with_iobinding(binding)
    return time.perf_counter_ns() - before
end = time.perf_counter() + 0.5
while time.perf_counter() < end:
    timed()
times = [timed() for _ in range(max(20, int(0.5e9 / timed())))]
print(float(np.median(times)))
"""
TORCH = """
import json, sys
import torch
from torch.utils.benchmark import Timer
path, shape = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(1)
with torch.inference_mode():
    model = torch.jit.load(path)
    x = torch.randn(*shape)
    for _ in range(20):
        model(x)
    timer = Timer("model(x)", globals={"model": model, "x": x}, num_threads=1)
    print(timer.blocked_autorange(min_run_time=0.5).median * 1e9)
"""


@dataclass(frozen=True, slots=True)
class Beside:
    """A tool's time of a call beside ours, milliseconds; ``ratio``: ours over theirs."""

    tool: str
    batch_size: int
    ours_ms: float
    theirs_ms: float
    ratio: float


def check(run: Results, turns: int = TURNS) -> dict[str, Any]:
    """All artifacts by one generation of the protocol, then each by its tool; and so on in turn.

    ``turns`` of what is returned: tool, batch size, our nanoseconds and theirs, of each turn.
    """
    rows = []
    for batch_size in BATCH_SIZES:
        for turn in range(turns):
            ours = _ours(run, batch_size, turn)
            for tool, trial in TRIALS.items():
                rows.append([tool, batch_size, ours[tool], _theirs(run, tool, trial, batch_size)])
    found = told({"turns": rows})
    for one in found:
        print(
            f"{one.tool}, batch {one.batch_size}: {one.ours_ms:.4f} ms, theirs {one.theirs_ms:.4f} ms"
        )
    return {"turns": rows, "reached": all(abs(one.ratio - 1) <= MOST for one in found)}


def told(found: Mapping[str, Any]) -> list[Beside]:
    """What `check` found, tool by tool.

    The ratio is the median of the turns' ratios. Of a check that kept no turns (``rows``: the medians
    of either side alone) it is the ratio of those medians, which one slow turn moves more.
    """
    if "turns" not in found:
        return [Beside(tool, size, a, b, a / b) for tool, size, a, b, *_ in found["rows"]]
    known: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for tool, size, ours, theirs in found["turns"]:
        known.setdefault((tool, size), []).append((ours, theirs))
    return [
        Beside(
            tool, size, *(median(side) / 1e6 for side in zip(*pairs, strict=True)),
            median(ours / theirs for ours, theirs in pairs),
        )
        for (tool, size), pairs in known.items()
    ]  # fmt: skip


def _ours(run: Results, batch_size: int, turn: int) -> dict[str, float]:
    """Nanoseconds of a call by tool; interleaved, so that the core is as busy as in any comparison."""
    precision = PRECISIONS["standard"]
    compared = comparison(run, dict(TRIALS), precision, batch_size=batch_size)
    with tempfile.TemporaryDirectory() as folder:
        generation = run_generation(compared, list(TRIALS), turn, precision, turn, Path(folder))
    times = log_times([generation])
    medians = {tool: np.median(list(times[tool][0].values())) for tool in TRIALS}
    return {tool: batch_size * float(np.exp(median)) for tool, median in medians.items()}


def _theirs(run: Results, tool: str, trial: str, batch_size: int) -> float:
    """Median nanoseconds of one inference; litert-benchmark rounds them to 10,000."""
    row = run.trials.set_index("trial").loc[trial]
    folder = Store(run.folder).artifact(str(row["artifact"]))
    files = sorted(p for p in folder.iterdir() if p.suffix in (".tflite", ".onnx", ".pt"))
    return _COMMANDS[tool](files[0], batch_size, _environment(str(row["backend"])))


def _environment(name: str) -> dict[str, str]:
    runtime = locate(backend(name).runtime)()
    return dict(runtime.environment(target()))


def _litert(path: Path, batch_size: int, environment: dict[str, str]) -> float:
    program = Path(sys.executable).parent / "litert-benchmark"
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "result.json"
        _run(
            [sys.executable, str(program), f"--model={_with_batch(path, batch_size, Path(folder))}",
             "--num_threads=1", f"--num_runs={max(50, 2000 // batch_size)}",
             f"--warmup_runs={max(20, 500 // batch_size)}", f"--result_json={told}"], environment,
        )  # fmt: skip
        found = json.loads(told.read_text(encoding="utf-8"))
    return float(found["latency"]["median_ms"]) * 1e6


def _with_batch(path: Path, batch_size: int, folder: Path) -> Path:
    """The file with its free first axes fixed: litert-benchmark has no option for a batch."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    for tensor in model.subgraphs[0].tensors:
        signature = tensor.shapeSignature
        if signature is not None and len(signature) and signature[0] == -1:
            tensor.shape = np.array([batch_size, *tensor.shape[1:]], np.int32)
            tensor.shapeSignature = None
    fixed = folder / "fixed.tflite"
    flatbuffer_utils.write_model(model, str(fixed))
    return fixed


def _script(text: str) -> Callable[[Path, int, dict[str, str]], float]:
    def command(path: Path, batch_size: int, environment: dict[str, str]) -> float:
        shape = json.dumps([batch_size, 3, 32, 32])
        return float(_run([sys.executable, "-c", text, str(path), shape], environment).split()[-1])

    return command


def _run(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints, pinned like our own workers."""
    pinned = ["taskset", "-c", ",".join(map(str, target().affinity)), *command]
    done = subprocess.run(  # noqa: S603 - ours
        pinned,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **COMMON_ENVIRONMENT, **environment},
    )
    return done.stdout + done.stderr


_COMMANDS: Mapping[str, Callable[[Path, int, dict[str, str]], float]] = {
    "litert-benchmark": _litert,
    "ONNX Runtime with I/O binding": _script(ONNX),
    "torch.utils.benchmark": _script(TORCH),
}
