"""Record: what a file holds, tensor by tensor and node by node, and what a runtime executes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from math import prod
from typing import Any

from quantbench.spec import Method

WEIGHT, BIAS, CONSTANT, ACTIVATION, INPUT, OUTPUT = (
    "weight", "bias", "constant", "activation", "input", "output",
)  # fmt: skip
"""Roles of a tensor. A constant is what is neither weight nor bias: scales, shapes, tables."""
MULTIPLY, QUANTIZE, DEQUANTIZE, REQUANTIZE, CAST, OTHER = (
    "multiply", "quantize", "dequantize", "requantize", "cast", "other",
)  # fmt: skip
"""Roles of a node. A cast goes from one float dtype to another."""
CONVERSIONS = (QUANTIZE, DEQUANTIZE, REQUANTIZE, CAST)


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One tensor of a file.

    Parameters
    ----------
    name : str
        The file's own name.
    role : str
        ``weight``, ``bias``, ``constant``, ``activation``, ``input`` or ``output``.
    dtype : str
        As stored: NumPy's name, or ``int4``, ``uint4``, ``bfloat16``, ``nf4``.
    shape : tuple of int
        -1 for a free length.
    bytes : int
        Payload of a constant, 0 for what is computed. A buffer that several tensors share is counted
        with the first.
    scale, zero_point : tuple
        Of integers: one, or one per channel or group. Empty for floats.
    qmin, qmax : int
        The smallest and largest integer that the quantizer gives, e.g. 0 and 127 for 7 bits in a
        byte; both 0 for floats.
    axis : int or None
        The channels' axis, where scales are per channel.
    group_size : int
        Elements that share a scale, where scales are per group.
    layer : str
        Canonical name of the layer that it belongs to (a weight, a bias) or is an output of.
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...] = ()
    bytes: int = 0
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    qmin: int = 0
    qmax: int = 0
    axis: int | None = None
    group_size: int = 0
    layer: str = ""

    @property
    def levels(self) -> int:
        """How many values it can take; 0 for floats."""
        return self.qmax - self.qmin + 1 if self.qmax > self.qmin else 0

    @property
    def bits(self) -> int:
        """Bits of a value: of the levels in use for integers, of the dtype for floats.

        >>> TensorRecord("x", "activation", "uint8", scale=(1.0,), qmin=0, qmax=127).bits
        7
        """
        return (self.levels - 1).bit_length() if self.levels else FLOAT_BITS.get(self.dtype, 0)

    @property
    def signed(self) -> bool | None:
        """Whether integers below 0 are among its values; None for floats."""
        return self.qmin < 0 if self.levels else None

    @property
    def symmetric(self) -> bool | None:
        """Whether every zero point is in the middle of the levels; None for floats.

        The middle of 0..255 is 128, that of -128..127 and of -127..127 is 0.
        """
        if not self.levels:
            return None
        middle = -(-(self.qmin + self.qmax) // 2)
        return all(point == middle for point in self.zero_point or (0,))

    @property
    def granularity(self) -> str:
        """``none``, ``per-tensor``, ``per-channel`` or ``group``."""
        if not self.levels:
            return "none"
        if self.group_size:
            return "group"
        return "per-tensor" if self.axis is None else "per-channel"

    @property
    def low(self) -> float | None:
        """The smallest real value that it can take, of all channels; None for floats."""
        return self._end(self.qmin, min)

    @property
    def high(self) -> float | None:
        """The largest real value that it can take, of all channels; None for floats."""
        return self._end(self.qmax, max)

    def _end(self, level: int, best: Any) -> float | None:
        if not self.levels or not self.scale:
            return None
        points = self.zero_point or (0,)
        points = points * len(self.scale) if len(points) == 1 else points
        return float(best((level - z) * s for s, z in zip(self.scale, points, strict=True)))

    @property
    def elements(self) -> int:
        """Number of values; 0 where a length is free."""
        return prod(self.shape) if min(self.shape, default=0) >= 0 else 0


FLOAT_BITS: Mapping[str, int] = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of a file's graph.

    Parameters
    ----------
    name, kind : str
        The node's name and the operator's type, in the framework's words.
    role : str
        ``multiply`` (it has multiply-accumulates), ``quantize``, ``dequantize``, ``requantize``,
        ``cast`` or ``other``.
    dtype : str
        The dtype that it computes in, as the file says: of a multiplication, that of the activations
        (``int8`` weights behind a dequantization are multiplied as ``float32``).
    scales : str
        How the scales of its activations are found: ``none`` (floats), ``dynamic`` or ``static``.
    macs : int or None
        Multiply-accumulates of one sample; None where the file does not say shapes.
    weights : int
        Elements of its weights.
    weight_dtype : str
        Their stored dtype; empty without weights.
    layer : str
        Canonical name of the layer that it computes; empty where it computes none.
    fused : tuple of str
        What was fused into it, e.g. ``BatchNormalization``, ``Relu``.
    reason : str
        Why it is in float, where that is known and the method does not say it.
    """

    name: str
    kind: str
    role: str = OTHER
    dtype: str = "float32"
    scales: str = "none"
    macs: int | None = 0
    weights: int = 0
    weight_dtype: str = ""
    layer: str = ""
    fused: tuple[str, ...] = ()
    reason: str = ""

    @property
    def integer(self) -> bool:
        """Whether it computes on integers."""
        return is_integer(self.dtype)


@dataclass(frozen=True, slots=True)
class Record:
    """What a file holds, read back from the file alone: tensors and nodes in the file's order.

    ``nodes`` is empty for a file of weights alone, whose graph is code elsewhere.
    """

    tensors: tuple[TensorRecord, ...]
    nodes: tuple[NodeRecord, ...]

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Payload bytes of constants by dtype, e.g. ``{"int8": 71000, "int32": 420}``."""
        total: Counter[str] = Counter()
        for tensor in self.tensors:
            total[tensor.dtype] += tensor.bytes
        return {dtype: size for dtype, size in sorted(total.items()) if size}

    @property
    def operators(self) -> dict[str, int]:
        """Number of nodes by the framework's name of the operator."""
        return dict(sorted(Counter(node.kind for node in self.nodes).items()))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`."""
        lists = ("shape", "scale", "zero_point")
        tensors = [{**t, **{key: tuple(t[key]) for key in lists}} for t in data["tensors"]]
        nodes = [{**n, "fused": tuple(n["fused"])} for n in data["nodes"]]
        return cls(
            tuple(TensorRecord(**tensor) for tensor in tensors),
            tuple(NodeRecord(**node) for node in nodes),
        )


@dataclass(frozen=True, slots=True)
class Operation:
    """One operator that a runtime really executes in one inference of batch size 1.

    Parameters
    ----------
    name, kind : str
        The node's name and the operator's type, in the framework's words.
    macs : int
        Multiply-accumulates; 0 for operators that have none.
    dtype : str
        The dtype it computes in: of a multiplication, that of the activations as multiplied.
    engine : str
        Which kernels ran it, e.g. ``xnnpack``, ``builtin``, ``CPUExecutionProvider``.
    role : str
        As `NodeRecord.role`; or ``input``, of an entry that stands before the others for an input of
        the graph, and writes it.
    scales : str
        As `NodeRecord.scales`: how the activations' scales are found.
    weights : int
        Elements of the constants that it multiplies by.
    reads : tuple of str
        Tensors that it reads, constants left out.
    writes : mapping
        Bytes of each tensor that it writes. A view of a tensor writes nothing; whoever reads the
        view reads the tensor.
    """

    name: str
    kind: str
    macs: int
    dtype: str
    engine: str = ""
    role: str = OTHER
    scales: str = "none"
    weights: int = 0
    reads: tuple[str, ...] = ()
    writes: Mapping[str, int] = field(default_factory=dict)

    @property
    def integer(self) -> bool:
        """Whether it computes on integers."""
        return is_integer(self.dtype)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Operation:
        """The inverse of ``dataclasses.asdict``."""
        return cls(**{**data, "reads": tuple(data["reads"])})


def is_integer(dtype: str) -> bool:
    """Whether a dtype is one of integers: ``int8``, ``uint4``..."""
    return dtype.startswith(("int", "uint"))


def levels_of(dtype: str) -> int:
    """How many values an integer dtype has; 0 for floats.

    >>> levels_of("uint4"), levels_of("int16"), levels_of("float32")
    (16, 65536, 0)
    """
    return 2 ** int(dtype.removeprefix("u").removeprefix("int")) if is_integer(dtype) else 0


def integer_macs_fraction(operations: Sequence[Operation]) -> float | None:
    """Share of multiply-accumulates executed on integers; None for a graph without any."""
    total = sum(op.macs for op in operations)
    return sum(op.macs for op in operations if op.integer) / total if total else None


def activation_bytes(operations: Sequence[Operation]) -> int | None:
    """The largest sum of bytes of tensors that are live at once, in the order of execution.

    A tensor lives from the operation that writes it to the last that reads it, both included; what
    nobody reads is an output and lives to the end. Buffers that a kernel uses inside are not seen.
    None where nobody told what operations write.
    """
    if not any(op.writes for op in operations):
        return None
    size: dict[str, int] = {}
    born: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, op in enumerate(operations):
        for name, count in op.writes.items():
            # written again in place: it lives on
            size[name] = max(count, size.get(name, 0))
            born.setdefault(name, step)
        for name in (*op.reads, *op.writes):
            last[name] = step
    read = {name for op in operations for name in op.reads}
    end = len(operations) - 1
    change = [0] * (len(operations) + 1)
    for name, start in born.items():
        stop = last[name] if name in read else end
        change[start] += size[name]
        change[stop + 1] -= size[name]
    live = best = 0
    for step in change[:-1]:
        live += step
        best = max(best, live)
    return best


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much is done in integers, as shares of nodes, weights and multiply-accumulates.

    Nodes are those that multiply. A share is None where there is nothing to share, or nobody knows.
    """

    nodes: float | None
    weights: float | None
    macs: float | None


def requested(record: Record, method: Method) -> Coverage:
    """What the method asks for, of what the file holds.

    Weights: all but those of layers that it leaves in float. Nodes and multiply-accumulates: those
    of the same layers where it quantizes activations too, and with static scales also products of
    two activations; else none.
    """
    if method.is_float:
        return Coverage(0.0, 0.0, 0.0)
    multiplying = [node for node in record.nodes if node.role == MULTIPLY]
    stored = [t for t in record.tensors if t.role == WEIGHT and t.elements]
    weights = sum(t.elements for t in stored if not why_float(t.layer, method))
    integers = [
        method.scales != "none"
        and (bool(node.weights) or method.scales == "static")
        and not why_float(node.layer, method)
        for node in multiplying
    ]
    macs = [node.macs for node in multiplying]
    return Coverage(
        nodes=_share(sum(integers), len(integers)),
        weights=_share(weights, sum(t.elements for t in stored)),
        macs=_macs_share(zip(macs, integers, strict=True)),
    )


def why_float(layer: str, method: Method) -> str:
    """Why the method leaves a layer in float; empty where it does not, or is a float method."""
    if method.only and not any(fnmatch(layer, pattern) for pattern in method.only):
        return "not among the layers of 'only'"
    if any(fnmatch(layer, pattern) for pattern in method.keep_float):
        return "named by 'keep_float'"
    return ""


def serialized(record: Record) -> Coverage:
    """What the file says: integer multiplications, and weights stored as integers (or ``nf4``)."""
    multiplying = [node for node in record.nodes if node.role == MULTIPLY]
    stored = [t for t in record.tensors if t.role == WEIGHT and t.elements]
    narrow = [t.elements for t in stored if is_narrow(t.dtype)]
    return Coverage(
        nodes=_share(len([n for n in multiplying if n.integer]), len(multiplying)),
        weights=_share(sum(narrow), sum(t.elements for t in stored)),
        macs=_macs_share((n.macs, n.integer) for n in multiplying),
    )


def executed(operations: Sequence[Operation]) -> Coverage:
    """What the runtime did; weights are those that were multiplied as integers."""
    multiplying = [op for op in operations if op.macs]
    integers = [op for op in multiplying if op.integer]
    return Coverage(
        nodes=_share(len(integers), len(multiplying)),
        weights=_share(sum(op.weights for op in integers), sum(op.weights for op in multiplying)),
        macs=integer_macs_fraction(operations),
    )


def is_narrow(dtype: str) -> bool:
    """Whether weights of this dtype are quantized: integers, or a table of 16 floats (``nf4``)."""
    return is_integer(dtype) or dtype == "nf4"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _macs_share(counts: Iterable[tuple[int | None, bool]]) -> float | None:
    known = list(counts)
    if any(macs is None for macs, _ in known):
        return None
    return _share(sum(m or 0 for m, integer in known if integer), sum(m or 0 for m, _ in known))


def observed_name(tensor: str, layer: str, names: Iterable[str]) -> str | None:
    """Which of the observed ``names`` a file's tensor has, or None.

    A file's name is the observed one, that one with an ending (``_QuantizeLinear_Output``; not a
    number, which is another's), or says nothing; then what was observed under the name of the layer
    that gives it is meant.
    """
    known = set(names)
    begun = [name for name in known if name and _ends_in_words(tensor, name)]
    name = max(begun, key=len, default=layer)
    return name if name in known else None


def _ends_in_words(tensor: str, name: str) -> bool:
    """Whether a tensor's name is ``name``, or that with more than a number behind it."""
    return tensor.startswith(name) and not tensor[len(name) :].lstrip("_")[:1].isdigit()
