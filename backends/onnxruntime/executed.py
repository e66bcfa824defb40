"""Operations: what ONNX Runtime really executes in one inference, from its own profile."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from backends.onnxruntime import session
from harness.protocol import Artifact, Operation
from harness.target import Target
from harness.tensors import Arrays

_CONVOLUTIONS = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "NhwcConv", "QLinearConv", "ConvInteger"}
)
_TRANSPOSED = frozenset({"ConvTranspose", "ConvTransposeWithDynamicPads", "QLinearConvTranspose"})
_PRODUCTS = frozenset(
    {
        "MatMul", "FusedMatMul", "TransposeMatMul", "Gemm", "FusedGemm", "QGemm", "QLinearMatMul",
        "MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
        "MatMulNBits",
    }
)  # fmt: skip
_RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})

_NUMPY_NAMES = {"float": "float32", "double": "float64"}
# float tensors go in and out, integers are multiplied
_INTEGER_INSIDE = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
_BLOCKED = "_nchwc"
_BLOCKS = (16, 8)  # channels in a block, with AVX-512 and without


@dataclass(frozen=True, slots=True)
class Tensor:
    """Dtype (NumPy's name) and shape of one operand."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One executed node of a profile. Absent optional inputs are left out of ``inputs``."""

    name: str
    kind: str
    provider: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def operand(self, integer_inside: frozenset[str]) -> str:
        """The dtype that is multiplied; of nodes that multiply nothing, the first input's."""
        if self.kind in integer_inside:
            return "int8"
        return self.inputs[0].dtype if self.inputs else ""

    @property
    def is_blocked(self) -> bool:
        """Whether it is a convolution in a blocked layout, whose channels are filled up."""
        return self.kind in _CONVOLUTIONS and self.name.endswith(_BLOCKED)


def operations(artifact: Artifact, target: Target, inputs: Arrays) -> tuple[Operation, ...]:
    """See `harness.protocol.Runtime.operations`.

    ``engine`` is the execution provider and the dtype it computes in: the CPU provider runs most of
    a float16 graph in float32. Einsum has no count of multiplications: its profile lacks the
    equation.
    """
    executed = profile(artifact, target, inputs)
    # the same graph but for blocked layouts, which show channels filled up to a block
    plain = (
        profile(artifact, target, inputs, without=("NchwcTransformer",))
        if any(node.is_blocked for node in executed)
        else ()
    )
    counts = unblocked_macs(executed, plain)
    # a profile shows no attributes, and so not what MatMulNBits makes of its activations
    grouped = {"MatMulNBits"} if "integer_groups" in artifact.details else set()
    operands = [node.operand(_INTEGER_INSIDE | grouped) for node in executed]
    return tuple(
        Operation(
            name=node.name,
            kind=node.kind,
            macs=counts.get(index, macs(node)),
            integer=operand.startswith(("int", "uint")),
            engine=f"{node.provider} {operand}".strip(),
        )
        for index, (node, operand) in enumerate(zip(executed, operands, strict=True))
    )


def profile(
    artifact: Artifact, target: Target, inputs: Arrays, without: tuple[str, ...] = ()
) -> tuple[Node, ...]:
    """Nodes in the order in which one inference of one sample executed them."""
    with tempfile.TemporaryDirectory() as folder:
        options = session.options(target)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        # kernels that repack their weights drop the original, and the profile its shape; packing
        # comes after graph optimization and changes no node
        options.add_session_config_entry("session.disable_prepacking", "1")
        opened = session.open_file(artifact, target, options, without)
        bound = session.OnnxSession(artifact, opened, target.device, 1, {})
        opened.run(None, bound.feed(inputs))
        events = json.loads(Path(opened.end_profiling()).read_text(encoding="utf-8"))
    return tuple(
        node(event)
        for event in events
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
    )


def node(event: dict[str, Any]) -> Node:
    """One node's event of the profile."""
    arguments = event["args"]
    return Node(
        name=event["name"].removesuffix("_kernel_time"),
        kind=arguments["op_name"],
        provider=arguments["provider"],
        inputs=_tensors(arguments["input_type_shape"]),
        outputs=_tensors(arguments["output_type_shape"]),
    )


def _tensors(listed: Iterable[dict[str, list[int]]]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(_NUMPY_NAMES.get(dtype, dtype), tuple(shape))
        for tensor in listed
        for dtype, shape in tensor.items()
    )


def macs(node: Node) -> int:
    """Multiply-accumulates of a node, from its shapes; 0 for operators that have none."""
    if node.kind in _CONVOLUTIONS:
        # weights [out, in / groups, *kernel] in every layout of the activations
        return prod(node.outputs[0].shape) * prod(_kernel(node)[1:])
    if node.kind in _TRANSPOSED:
        return prod(node.inputs[0].shape) * prod(_kernel(node)[1:])
    if node.kind in _PRODUCTS:
        return prod(node.outputs[0].shape) * _depth(node)
    if node.kind in _RECURRENT:
        steps, batch, _ = node.inputs[0].shape
        return steps * batch * sum(prod(weights.shape) for weights in node.inputs[1:3])
    if node.kind == "Attention":
        return _attention(node)
    if node.kind == "MultiHeadAttention":
        (batch, length, width), keys, values = (tensor.shape for tensor in node.inputs[:3])
        return batch * length * keys[1] * (width + values[-1])
    return 0


def _kernel(node: Node) -> tuple[int, ...]:
    """Shape of a convolution's weights: its second operand with axes for a kernel."""
    return next(tensor.shape for tensor in node.inputs[1:] if len(tensor.shape) > 2)


def _depth(node: Node) -> int:
    """Length of the axis that a matrix product sums over, transposed or not."""
    left, out = node.inputs[0].shape, node.outputs[0].shape
    if len(left) < 2 or len(out) < 2:
        return left[-1]
    return left[-2] * left[-1] // out[-2]


def _attention(node: Node) -> int:
    """Projection to queries, keys and values [in, 3 * width], and the two products of attention."""
    (batch, length, _), weights = node.inputs[0].shape, node.inputs[1].shape
    width = node.outputs[0].shape[-1]
    return batch * length * prod(weights) + 2 * batch * length * length * width


def unblocked_macs(executed: Sequence[Node], plain: Sequence[Node]) -> dict[int, int]:
    """Multiply-accumulates by position of convolutions in blocked layouts, channels not filled up.

    Each is paired with a convolution of the ``plain`` profile that has its shape once filled up:
    names do not pair them, because a blocked one is named after its output. Empty where a runtime
    fills up in another way; then the filled-up channels count.
    """
    pairs = (_pairs(executed, plain, block) for block in _BLOCKS)
    return next((found for found in pairs if found is not None), {})


def _pairs(executed: Sequence[Node], plain: Sequence[Node], block: int) -> dict[int, int] | None:
    waiting: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for node in plain:
        if node.kind in _CONVOLUTIONS:
            waiting[_filled_up(node, block)].append(macs(node))
    counts = {}
    for index, node in enumerate(executed):
        if node.is_blocked:
            candidates = waiting[_filled_up(node, 1)]
            if not candidates:
                return None
            counts[index] = candidates.pop(0)
    return counts


def _filled_up(node: Node, block: int) -> tuple[int, ...]:
    """Shapes of weights and output; fewer input channels than a block stay as they are."""
    out, into, *kernel = _kernel(node)
    filled = into if into < block else -(-into // block) * block
    return (-(-out // block) * block, filled, *kernel, *node.outputs[0].shape[2:])
