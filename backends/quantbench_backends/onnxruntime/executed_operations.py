"""Operations: what ONNX Runtime really executes in one inference, from its own profile."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from quantbench.backend_api import DEQUANTIZE, INPUT, QUANTIZE, Artifact, Operation
from quantbench.spec import Arrays, Target
from quantbench_backends.onnx_files import (
    CONVOLUTIONS,
    QUANTIZED,
    Node,
    Tensor,
    kernel,
    macs,
    protobuf_reader,
)
from quantbench_backends.onnxruntime import session

_NUMPY_NAMES = {"float": "float32", "double": "float64", "Int4x2": "int4", "UInt4x2": "uint4"}
# bytes of what NumPy does not have; texts lie elsewhere
_ODD_BYTES = {"int4": 0.5, "uint4": 0.5, "bfloat16": 2, "string": 0}
_BLOCKED = "_nchwc"
_BLOCKS = (16, 8)  # channels in a block, with AVX-512 and without
# kernels whose output is their input's memory, in every version of their registration
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_MOVERS = _VIEWS | {"Transpose"}


def operations(artifact: Artifact, target: Target, inputs: Arrays) -> tuple[Operation, ...]:
    """See `quantbench.backend_api.protocol.Runtime.operations`.

    The profile says what was executed, with dtypes and shapes; the optimized graph, saved by the
    same session, which tensors lie between. ``dtype`` is the kernel's: the CPU provider runs most of
    a float16 graph in float32. Einsum has no count of multiplications: its profile lacks the
    equation. Of a graph with loops or branches no tensors are told: their bodies' names repeat.
    """
    profile = profiled(artifact, target, inputs)
    # the same graph but for blocked layouts, which show channels filled up to a block
    plain: tuple[Node, ...] = ()
    if any(is_blocked(node) for node in profile.nodes):
        plain = profiled(artifact, target, inputs, without=("NchwcTransformer",)).nodes
    counts = unblocked_macs(profile.nodes, plain)
    dynamic = found_at_run_time(profile.edges)
    by_name = {edge.name: edge for edge in profile.edges.nodes}
    flows = flow(profile)
    executed = tuple(
        Operation(
            name=node.name,
            kind=node.kind,
            macs=counts.get(index, macs(node)),
            dtype=node.dtype,
            engine=node.provider,
            role=node.role,
            scales=_scales(node, by_name.get(node.name), dynamic),
            reads=flows[index][0] if flows else (),
            writes=flows[index][1] if flows else {},
        )
        for index, node in enumerate(profile.nodes)
    )
    return (entrances(profile) if flows else ()) + executed


@dataclass(frozen=True, slots=True)
class Profile:
    """One inference of one sample: nodes in the order of execution, edges, the inputs."""

    nodes: tuple[Node, ...]
    edges: protobuf_reader.Edges
    inputs: Mapping[str, Tensor]


def profiled(
    artifact: Artifact, target: Target, inputs: Arrays, without: tuple[str, ...] = ()
) -> Profile:
    """Run one sample, ``without`` some of the graph optimizers."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = session.options(target)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.optimized_model_filepath = str(optimized)
        # kernels that repack their weights drop the original, and the profile its shape; packing
        # comes after graph optimization and changes no node
        options.add_session_config_entry("session.disable_prepacking", "1")
        opened = session.open_file(artifact, target, options, without)
        feed = session.OnnxSession(artifact, opened, target.device, 1, {}).feed(inputs)
        opened.run(None, feed)
        events = json.loads(Path(opened.end_profiling()).read_text(encoding="utf-8"))
        edges = protobuf_reader.read(optimized)
    levels = {edge.name: edge.integers.get("accuracy_level", 0) for edge in edges.nodes}
    nodes = (
        node(event)
        for event in events
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
    )
    return Profile(
        nodes=tuple(replace(n, accuracy_level=levels.get(n.name, 0)) for n in nodes),
        edges=edges,
        inputs={name: Tensor(str(array.dtype), array.shape) for name, array in feed.items()},
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


def is_blocked(node: Node) -> bool:
    """Whether it is a convolution in a blocked layout, whose channels are filled up."""
    return node.kind in CONVOLUTIONS and node.name.endswith(_BLOCKED)


# --- tensors between nodes ------------------------------------------------------------------------

Flow = tuple[tuple[str, ...], Mapping[str, int]]
"""Tensors that a node reads, and bytes of those that it writes."""


def flow(profile: Profile) -> tuple[Flow, ...] | None:
    """What each executed node reads and writes; None where the graph does not tell it."""
    edges = profile.edges
    by_name = {edge.name: edge for edge in edges.nodes}
    names = sorted(node.name for node in profile.nodes)
    if names != sorted(edge.name for edge in edges.nodes) or len(by_name) != len(names):
        return None
    # what a name stands for: itself, or the tensor that it is a view of; constants are left out
    stands_for = {name: name for name in edges.inputs}
    flows: list[Flow] = []
    for node in profile.nodes:
        edge = by_name[node.name]
        written = [name for name in edge.writes if name]
        if len(written) != len(node.outputs):
            return None
        reads = tuple(dict.fromkeys(stands_for[n] for n in edge.reads if n in stands_for))
        writes = {}
        for name, tensor in zip(written, node.outputs, strict=True):
            if node.kind in _VIEWS and name not in edges.outputs:
                stands_for.update((name, source) for source in reads[:1])
            else:
                stands_for[name] = name
                writes[name] = size(tensor)
        flows.append((reads, writes))
    return tuple(flows)


def entrances(profile: Profile) -> tuple[Operation, ...]:
    """An entry for each input of the graph, which writes it."""
    return tuple(
        Operation(name, INPUT, 0, tensor.dtype, role=INPUT, writes={name: size(tensor)})
        for name, tensor in profile.inputs.items()
    )


def size(tensor: Tensor) -> int:
    """Bytes of a tensor."""
    odd = _ODD_BYTES.get(tensor.dtype)
    return ceil(prod(tensor.shape) * (np.dtype(tensor.dtype).itemsize if odd is None else odd))


def found_at_run_time(edges: protobuf_reader.Edges) -> frozenset[str]:
    """Tensors that hold activations whose scale was found at run time, or that scale."""
    found: set[str] = set()
    for edge in edges.nodes:
        if edge.kind == "DynamicQuantizeLinear" or (
            edge.kind in _MOVERS and found.intersection(edge.reads[:1])
        ):
            found.update(edge.writes)
    return frozenset(found)


def _scales(node: Node, edge: protobuf_reader.Edge | None, dynamic: frozenset[str]) -> str:
    """See `Operation.scales`."""
    quantized = node.dtype in QUANTIZED or node.role in (QUANTIZE, DEQUANTIZE)
    # sums of integers are cast to floats where no scale was known
    summed = node.role == DEQUANTIZE and node.kind == "Cast"
    reads_dynamic = edge is not None and not dynamic.isdisjoint(edge.reads)
    if node.finds_scales or summed or (quantized and reads_dynamic):
        return "dynamic"
    return "static" if quantized else "none"


# --- channels of blocked layouts ------------------------------------------------------------------


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
        if node.kind in CONVOLUTIONS:
            waiting[_filled_up(node, block)].append(macs(node))
    counts = {}
    for index, node in enumerate(executed):
        if is_blocked(node):
            candidates = waiting[_filled_up(node, 1)]
            if not candidates:
                return None
            counts[index] = candidates.pop(0)
    return counts


def _filled_up(node: Node, block: int) -> tuple[int, ...]:
    """Shapes of weights and output; fewer input channels than a block stay as they are."""
    out, into, *positions = kernel(node)
    filled = into if into < block else -(-into // block) * block
    return (-(-out // block) * block, filled, *positions, *node.outputs[0].shape[2:])
