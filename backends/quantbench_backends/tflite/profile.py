"""Profile: the time of each operator in LiteRT, those inside XNNPACK included."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from quantbench.backend_api import INPUT, Operation, TimedOperation, named, typical
from quantbench.errors import NotProfiled
from quantbench.spec import Array
from quantbench_backends.tflite.compiled_model import DELEGATED, Event, ProfiledModel

WARM_UP, FEWEST, MOST = 5, 5, 500
CONTROL_FLOW = ("WHILE", "IF", "CALL", "CALL_ONCE")
"""Their time is that of the operators in them, which are noted too."""
_CLOCK_NS = 1000  # durations are whole microseconds, rounded down
# what XNNPACK calls the operators of LiteRT; the beginning of its names, up to the layout and dtypes
_XNNPACK = {
    "Add": "ADD",
    "Average Pooling": "AVERAGE_POOL_2D",
    "Batch Matrix Multiply": "BATCH_MATMUL",
    "Constant Pad": "PAD",
    "Convolution": "CONV_2D",
    "Deconvolution": "TRANSPOSE_CONV",
    "Divide": "DIV",
    "Fully Connected": "FULLY_CONNECTED",
    "Max Pooling": "MAX_POOL_2D",
    "Mean": "MEAN",
    "Multiply": "MUL",
    "Sigmoid": "LOGISTIC",
    "Softmax": "SOFTMAX",
    "Static Reshape": "RESHAPE",
    "Subtract": "SUB",
    "Tanh": "TANH",
    "Transpose": "TRANSPOSE",
}
_MULTIPLYING = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL",
)  # fmt: skip


def profile(
    model: ProfiledModel,
    arrays: Sequence[Array],
    seconds: float,
    operations: Sequence[Operation],
    kernels: str,
) -> tuple[TimedOperation, ...]:
    """See `quantbench.backend_api.protocol.Profiler.profile`.

    Parameters
    ----------
    model : ProfiledModel
        Of the artifact on the target.
    operations : sequence of Operation
        What `Runtime.operations` says that the interpreter executes.
    kernels : str
        As `Operation.engine`, of what no delegate runs.

    Raises
    ------
    NotProfiled
        If the profiled model leaves other operators to XNNPACK than the interpreter that is timed.
    """
    model.bind(arrays)
    for _ in range(WARM_UP):
        model.run()
    calls: list[list[Event]] = []
    started = time.perf_counter()
    while len(calls) < FEWEST or (len(calls) < MOST and time.perf_counter() - started < seconds):
        calls.append([e for e in model.profiled() if e.tag not in CONTROL_FLOW])
    return checked(named(matched(timed(calls, kernels), operations), operations), operations)


def timed(calls: Sequence[Sequence[Event]], kernels: str) -> tuple[TimedOperation, ...]:
    """The operators of one inference, in their order, from the events of many.

    Both profilers round durations down to microseconds: half of one, the mean of what that takes
    away, is added to each.
    """
    durations = [
        [(replace(e, node=0, microseconds=0), 1000 * e.microseconds + _CLOCK_NS / 2) for e in call]
        for call in calls
    ]
    return tuple(
        TimedOperation(
            name="",
            kind=kind(event),
            engine="xnnpack" if event.type == DELEGATED else kernels,
            count=count,
            nanoseconds=nanoseconds,
            kernel=event.tag if event.type == DELEGATED else "",
        )
        for event, count, nanoseconds in typical(durations)
    )


def kind(event: Event) -> str:
    """The operator's type in LiteRT's words; in XNNPACK's where LiteRT has none.

    >>> kind(Event("Convolution (NHWC, QC8) DWConv", DELEGATED, 0, 0, 1))
    'DEPTHWISE_CONV_2D'
    """
    if event.type != DELEGATED:
        return event.tag
    begin = re.sub(r"\s*\(.*", "", event.tag)
    if begin == "Convolution" and "DWConv" in event.tag:
        return "DEPTHWISE_CONV_2D"
    return _XNNPACK.get(begin, begin)


def matched(
    shown: tuple[TimedOperation, ...], operations: Sequence[Operation]
) -> tuple[TimedOperation, ...]:
    """``shown`` with LiteRT's own type for what XNNPACK multiplies.

    XNNPACK computes a convolution of one pixel as a fully connected layer, and calls it one.
    """
    told = [o for o in operations if o.engine == "xnnpack" and o.kind in _MULTIPLYING]
    places = [
        place
        for place, one in enumerate(shown)
        if one.engine == "xnnpack" and one.kind in _MULTIPLYING
    ]
    pairs = list(zip(places, told, strict=False))
    if len(places) != len(told) or not all(_may_be(shown[p].kind, o.kind) for p, o in pairs):
        return shown
    found = list(shown)
    for place, operation in pairs:
        found[place] = replace(found[place], kind=operation.kind)
    return tuple(found)


def _may_be(shown: str, told: str) -> bool:
    return shown == told or (shown, told) == ("FULLY_CONNECTED", "CONV_2D")


def checked(
    found: tuple[TimedOperation, ...], operations: Sequence[Operation]
) -> tuple[TimedOperation, ...]:
    """``found``, which must leave to LiteRT's own kernels what the interpreter leaves to them."""
    own = Counter(one.kind for one in found if one.engine != "xnnpack")
    told = Counter(
        operation.kind
        for operation in operations
        if operation.engine != "xnnpack" and operation.role != INPUT
    )
    # a constant is dequantized when the file is loaded, and is in the record all the same
    more = own - told
    if operations and more:
        raise NotProfiled(
            f"the model that LiteRT profiles runs {', '.join(sorted(more))} in its own kernels, the "
            "one that is timed does not"
        )
    return found
