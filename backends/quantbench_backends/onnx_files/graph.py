"""Graph: an ONNX graph with its constants, edges and shapes at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from quantbench.spec import Array
from quantbench_backends.onnx_files import shapes
from quantbench_backends.onnx_files.nodes import Node, Tensor

# what gives a constant's numbers in another shape or dtype
_SAME = frozenset(
    {
        "DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Cast", "Identity",
        "Squeeze", "Unsqueeze",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph as one reads it; nodes are in the order of execution, as ONNX demands.

    Parameters
    ----------
    outermost : bool
        Whether it is not the body of a loop or branch, of which shapes are unknown.
    constants : mapping
        Initializers and values of Constant nodes, by name.
    producers, readers : mapping
        Tensor -> the node that writes it, the nodes that read it.
    free, single : mapping
        Dtype and shape of tensors, for any number of samples and for one.
    """

    proto: GraphProto
    outermost: bool
    constants: Mapping[str, TensorProto]
    producers: Mapping[str, NodeProto]
    readers: Mapping[str, tuple[NodeProto, ...]]
    free: Mapping[str, Tensor]
    single: Mapping[str, Tensor]

    def values(self, name: str) -> Array | None:
        """A constant's values; None for what is computed, and for ``""``."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def origin(self, name: str) -> str:
        """The constant that a tensor holds the numbers of; ``""`` for an activation."""
        while name not in self.constants:
            node = self.producers.get(name)
            if node is None or node.op_type not in _SAME:
                return ""
            name = node.input[0]
        return name

    def dequantized(self, name: str) -> Tensor | None:
        """The integers that a DequantizeLinear makes a tensor of; None where none does."""
        node = self.producers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return self.free.get(node.input[0])

    def readers_of(self, name: str) -> tuple[NodeProto, ...]:
        """The nodes that read a tensor."""
        return self.readers.get(name, ())

    def with_operands(self, node: NodeProto, known: Mapping[str, Tensor]) -> Node | None:
        """The node with dtypes and shapes; None where one of them is unknown."""
        names = [[name for name in side if name] for side in (node.input, node.output)]
        if not known.keys() >= {name for side in names for name in side}:
            return None
        inputs, outputs = (tuple(known[name] for name in side) for side in names)
        level = next((a.i for a in node.attribute if a.name == "accuracy_level"), 0)
        return Node(node.name, node.op_type, "", inputs, outputs, level)


def of_model(model: ModelProto) -> tuple[Graph, ...]:
    """The model's graph, then the bodies of its loops and branches."""
    outermost, *bodies = _graphs(model.graph)
    return (
        _graph(outermost, shapes.inferred(model), shapes.inferred(model, batch=1), outermost=True),
        *(_graph(body, {}, {}, outermost=False) for body in bodies),
    )


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _graph(
    proto: GraphProto,
    free: Mapping[str, Tensor],
    single: Mapping[str, Tensor],
    *,
    outermost: bool,
) -> Graph:
    constants = {tensor.name: tensor for tensor in proto.initializer}
    readers: dict[str, tuple[NodeProto, ...]] = {}
    for node in proto.node:
        if node.op_type == "Constant":
            values = (a.t for a in node.attribute if a.type == AttributeProto.TENSOR)
            constants.update((node.output[0], value) for value in values)
        for name in dict.fromkeys(node.input):
            readers[name] = (*readers.get(name, ()), node)
    producers = {name: node for node in proto.node for name in node.output}
    return Graph(proto, outermost, constants, producers, readers, free, single)
