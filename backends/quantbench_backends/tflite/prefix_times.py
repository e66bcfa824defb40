"""PrefixTimes: the time of each operator of a file, from running its graph up to each of them.

For files that LiteRT's profiler cannot load: those with state, whose variable tensors its compiled
models do not have. The interpreter that is timed runs each part of the graph, in turns; what a part
takes more than the one before it is its last operator's.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quantbench.backend_api import Operation, TimedOperation, midmean, named
from quantbench.errors import NotProfiled
from quantbench.spec import Array
from quantbench_backends.tflite.executed_operations import delegated
from quantbench_backends.tflite.flatbuffer import parse

MOST_OPERATORS = 40
WARM_UP, CALLS, FEWEST_ROUNDS, MOST_ROUNDS = 5, 10, 4, 50


def prefix_times(
    path: Path,
    opened: Callable[[bytes], Any],
    arrays: dict[int, Array],
    seconds: float,
    operations: Sequence[Operation],
    kernels: str,
    *,
    alone: bool,
) -> tuple[TimedOperation, ...]:
    """See `quantbench.backend_api.protocol.Profiler.profile`.

    Parameters
    ----------
    opened : callable
        An interpreter of a file's content, with the target's settings.
    arrays : mapping
        Inputs as the file stores them, by their places among its tensors.
    alone : bool
        Whether one thread computes: then a part's time is its processor time, if that is less.

    Raises
    ------
    NotProfiled
        If the graph has too many operators, or more than one subgraph.
    """
    model = parse(path.read_bytes())
    count = len(model.subgraphs[0].operators)
    if len(model.subgraphs) > 1 or count > MOST_OPERATORS:
        raise NotProfiled(
            "LiteRT's profiler cannot load a file with state, and this one has too many operators "
            f"({count}) to time its graph up to each of them"
        )
    parts = [_ready(opened(part(model, length)), arrays) for length in range(1, count + 1)]
    durations: list[list[float]] = [[] for _ in parts]
    started, rounds = time.perf_counter(), 0
    while rounds < FEWEST_ROUNDS or (
        rounds < MOST_ROUNDS and time.perf_counter() - started < seconds
    ):
        for place, interpreter in enumerate(parts):
            for _ in range(CALLS):
                before, busy = time.perf_counter_ns(), time.process_time_ns()
                interpreter.invoke()
                busy, wall = time.process_time_ns() - busy, time.perf_counter_ns() - before
                durations[place].append(min(wall, busy) if alone else wall)
        rounds += 1
    until = [0.0, *(midmean(one) for one in durations)]
    nodes = [n for n in parts[-1]._get_ops_details() if n["op_name"] != "DELEGATE"]
    taken = delegated(parts[-1]._get_ops_details())
    timed = [
        TimedOperation(
            name="",
            kind=str(node["op_name"]),
            engine="xnnpack" if node["index"] in taken else kernels,
            count=1,
            nanoseconds=max(0.0, until[place + 1] - until[place]),
        )
        for place, node in enumerate(nodes)
    ]
    return named(timed, operations)


def has_state(path: Path) -> bool:
    """Whether a file holds variable tensors: what a recurrent layer carries to the next call."""
    graphs = parse(path.read_bytes()).subgraphs
    return any(tensor.isVariable for graph in graphs for tensor in graph.tensors)


def part(model: Any, length: int) -> bytes:
    """The content of a file whose graph ends after its first ``length`` operators."""
    from flatbuffers import Builder

    cut = copy.copy(model)
    graph = copy.copy(model.subgraphs[0])
    graph.operators = graph.operators[:length]
    last = graph.operators[-1]
    graph.outputs = [index for index in last.outputs if index >= 0]
    cut.subgraphs = [graph]
    cut.signatureDefs = None
    cut.metadata = None
    builder = Builder(1024)
    builder.Finish(cut.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _ready(interpreter: Any, arrays: dict[int, Array]) -> Any:
    """Allocated for the inputs' shapes, filled and warm."""
    present = {int(t["index"]) for t in interpreter.get_input_details()}
    for index, array in arrays.items():
        if index in present:
            interpreter.resize_tensor_input(index, list(array.shape))
    interpreter.allocate_tensors()
    for index, array in arrays.items():
        if index in present:
            interpreter.set_tensor(index, array)
    interpreter.reset_all_variables()
    for _ in range(WARM_UP):
        interpreter.invoke()
    return interpreter
