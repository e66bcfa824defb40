"""ProfiledModel: a .tflite file behind LiteRT's C interface, which alone tells the time of operators.

The Python interpreter can be given no profiler. The wheel's library has one, in a compiled model: the
same kernels and the same delegate, called another way. Structures and names are those of LiteRT 2.3
(litert/c/litert_profiler_event.h, litert_layout.h); the size of an event is checked before it is read.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from quantbench.errors import NotProfiled
from quantbench.spec import Array

OPERATOR, DELEGATED = 2, 8
"""Types of events: an operator of LiteRT's own kernels, and one inside a delegate."""
_CPU, _WRITE, _SIGNATURE = 1, 1, ctypes.c_size_t(0)
_UNTOUCHED = 0xA5


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("node", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (
        ("element", ctypes.c_int),
        ("rank", ctypes.c_uint8),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 64),  # more room than LiteRT writes to
    )


@dataclass(frozen=True, slots=True)
class Event:
    """One operator that ran: its name, whether a delegate's, its node, and whole microseconds."""

    tag: str
    type: int
    node: int
    subgraph: int
    microseconds: int


class ProfiledModel:
    """A compiled model with its profiler and buffers; a context, which frees them.

    Parameters
    ----------
    path : Path
        The file.
    kernels : str
        ``delegate``, ``builtin`` or ``reference``.
    threads : int
        As XNNPACK is told.
    shapes : sequence of tuple of int
        Of the inputs, in the order of ``indices``.
    indices : sequence of int
        The inputs' places among the file's tensors.

    Raises
    ------
    NotProfiled
        If this LiteRT has no profiler, or cannot compile the file.
    """

    def __init__(
        self,
        path: Path,
        kernels: str,
        threads: int,
        shapes: Sequence[tuple[int, ...]],
        indices: Sequence[int],
    ) -> None:
        self._library = _library()
        self._c = ctypes.CDLL(None)
        self._c.strdup.restype = ctypes.c_void_p
        self._freed: list[tuple[str, ctypes.c_void_p]] = []
        self._environment = self._made("Environment", ctypes.c_int(0), None)
        self._model = self._opened(path)
        options = self._made("Options")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU))
        self._option(options, "runtime_options_string", "enable_profiling = true\n")
        self._option(options, "xnnpack", f'num_threads = {threads}\nkernel_mode = "{kernels}"\n')
        self._compiled = self._made("CompiledModel", self._environment, self._model, options)
        self._profiler = self._handle("LiteRtCompiledModelGetProfiler", self._compiled)
        self._signature = self._handle("LiteRtGetModelSignature", self._model, _SIGNATURE)
        places = [self._index("Input", place) for place in range(self._count("Input"))]
        if sorted(places) != sorted(indices):
            raise NotProfiled(f"LiteRT's signature of {path} has other inputs than its interpreter")
        self._order = [places.index(index) for index in indices]
        by_place = dict(zip(self._order, shapes, strict=True))
        self._inputs = [self._input(place, by_place[place]) for place in range(len(places))]
        self._outputs = self._output_buffers()

    def __enter__(self) -> ProfiledModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free everything, the newest first."""
        for name, handle in reversed(self._freed):
            free = getattr(self._library, f"LiteRtDestroy{name}")
            free.restype = None
            free(handle)
        self._freed.clear()

    def bind(self, arrays: Sequence[Array]) -> None:
        """Copy arrays as the file stores them, in the order of ``indices``, into the inputs."""
        for place, array in zip(self._order, arrays, strict=True):
            address = ctypes.c_void_p()
            buffer, content = self._inputs[place], np.ascontiguousarray(array)
            self._call(
                "LiteRtLockTensorBuffer", buffer, ctypes.byref(address), ctypes.c_int(_WRITE)
            )
            ctypes.memmove(address, content.ctypes.data, content.nbytes)
            self._call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> None:
        """One inference."""
        self._call(
            "LiteRtRunCompiledModel", self._compiled, _SIGNATURE,
            ctypes.c_size_t(len(self._inputs)), _array(self._inputs),
            ctypes.c_size_t(len(self._outputs)), _array(self._outputs),
        )  # fmt: skip

    def profiled(self) -> list[Event]:
        """One inference, and the operators that it ran, in order."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self.run()
        self._call("LiteRtStopProfiler", self._profiler)
        number = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(number))
        count, size = number.value, ctypes.sizeof(_Event)
        room = ctypes.create_string_buffer(bytes([_UNTOUCHED]) * (4 * size * max(count, 1)))
        self._call("LiteRtGetProfilerEvents", self._profiler, number, room)
        written = len(room.raw.rstrip(bytes([_UNTOUCHED, 0])))
        if not (count - 1) * size < written <= count * size:
            raise NotProfiled("this version of LiteRT notes events in another form than 2.3")
        events = (_Event * count).from_buffer(room)
        return [
            Event(
                event.tag.decode(), event.type, int(event.node), int(event.subgraph),
                int(event.elapsed_us),
            )
            for event in events
            if event.type in (OPERATOR, DELEGATED)
        ]  # fmt: skip

    # --- handles ---

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name)
        function.restype = ctypes.c_int
        if status := function(*arguments):
            raise NotProfiled(f"LiteRT's profiler cannot run this file ({name}: status {status})")

    def _handle(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(handle))
        return handle

    def _made(self, kind: str, *arguments: Any) -> ctypes.c_void_p:
        handle = self._handle(f"LiteRtCreate{kind}", *arguments)
        self._freed.append((kind, handle))
        return handle

    def _opened(self, path: Path) -> ctypes.c_void_p:
        name = os.fsencode(path)
        model = self._handle("LiteRtCreateModelFromFile", self._environment, name)
        self._freed.append(("Model", model))
        return model

    def _option(self, options: ctypes.c_void_p, key: str, toml: str) -> None:
        payload = ctypes.c_void_p(self._c.strdup(toml.encode()))
        free = ctypes.cast(self._c.free, ctypes.c_void_p)
        option = self._handle("LiteRtCreateOpaqueOptions", key.encode(), payload, free)
        self._call("LiteRtAddOpaqueOptions", options, option)

    # --- tensors ---

    def _count(self, side: str) -> int:
        number = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", self._signature, ctypes.byref(number))
        return number.value

    def _tensor(self, side: str, place: int) -> ctypes.c_void_p:
        name = f"LiteRtGetSignature{side}TensorByIndex"
        return self._handle(name, self._signature, ctypes.c_size_t(place))

    def _index(self, side: str, place: int) -> int:
        index = ctypes.c_uint32()
        self._call("LiteRtGetTensorIndex", self._tensor(side, place), ctypes.byref(index))
        return index.value

    def _type(self, side: str, place: int) -> _TensorType:
        found = _TensorType()
        tensor = self._tensor(side, place)
        self._call("LiteRtGetRankedTensorType", tensor, ctypes.byref(found))
        return found

    def _input(self, place: int, shape: tuple[int, ...]) -> ctypes.c_void_p:
        kind = self._type("Input", place)
        kind.dimensions[: len(shape)] = shape
        lengths = (ctypes.c_int * len(shape))(*shape)
        self._call(
            "LiteRtCompiledModelResizeInputTensorNonStrict", self._compiled, _SIGNATURE,
            ctypes.c_size_t(place), lengths, ctypes.c_size_t(len(shape)),
        )  # fmt: skip
        return self._buffer("Input", place, kind)

    def _output_buffers(self) -> list[ctypes.c_void_p]:
        count = self._count("Output")
        layouts = (_TensorType * count)()  # larger than the layouts that are written
        self._call(
            "LiteRtGetCompiledModelOutputTensorLayouts", self._compiled, _SIGNATURE,
            ctypes.c_size_t(count), layouts, ctypes.c_bool(True),
        )  # fmt: skip
        buffers = []
        for place in range(count):
            kind = self._type("Output", place)
            for axis in range(kind.rank & 0x7F):
                kind.dimensions[axis] = max(1, kind.dimensions[axis])
            buffers.append(self._buffer("Output", place, kind))
        return buffers

    def _buffer(self, side: str, place: int, kind: _TensorType) -> ctypes.c_void_p:
        needs = self._handle(
            f"LiteRtGetCompiledModel{side}BufferRequirements", self._compiled, _SIGNATURE,
            ctypes.c_size_t(place),
        )  # fmt: skip
        return self._made_buffer(kind, needs)

    def _made_buffer(self, kind: _TensorType, needs: ctypes.c_void_p) -> ctypes.c_void_p:
        name = "LiteRtCreateManagedTensorBufferFromRequirements"
        buffer = self._handle(name, self._environment, ctypes.byref(kind), needs)
        self._freed.append(("TensorBuffer", buffer))
        return buffer


def _array(handles: Sequence[ctypes.c_void_p]) -> Any:
    return (ctypes.c_void_p * len(handles))(*(handle.value for handle in handles))


def _library() -> ctypes.CDLL:
    import ai_edge_litert

    path = Path(ai_edge_litert.__file__).parent / "libLiteRt.so"
    try:
        library = ctypes.CDLL(str(path))
        library.LiteRtGetProfilerEvents  # noqa: B018 - looked up, so that its absence shows here
    except (OSError, AttributeError) as error:
        raise NotProfiled(
            f"this ai-edge-litert has no library with a profiler ({error})"
        ) from error
    return library
