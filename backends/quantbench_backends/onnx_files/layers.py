"""Layers: canonical layer names, and the graph's nodes that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from quantbench.backend_api import state_of
from quantbench.spec import Method, Model, computed
from quantbench_backends.onnx_files import form


@dataclass(frozen=True, slots=True)
class Choice:
    """The layers that a method's axes name (``keep_float``...), among all ``layers`` of a model."""

    method: Method
    layers: tuple[str, ...]

    def nodes(self, model: ModelProto, axis: str) -> list[str]:
        """Names of the nodes of ``model`` that compute the layers named by ``axis``.

        Raises
        ------
        BadInput
            If a name or pattern names no layer, or none that has a node of its own.
        """
        owners = {node.name: owner(node.name, self.layers) for node in model.graph.node}
        patterns = getattr(self.method, axis)
        chosen = computed(axis, patterns, self.layers, set(owners.values()))
        return [name for name, layer in owners.items() if layer in chosen]


def of_model(model: Model) -> tuple[str, ...]:
    """Names of the layers whose weights have two axes or more (no batch norm, no biases)."""
    if "torch" not in model.forms:
        return _of_graph(form.read(Path(model.forms["onnx"])))
    keys = (key.rpartition(".") for key, array in state_of(model).items() if array.ndim > 1)
    return tuple(dict.fromkeys(path for path, _, name in keys if path and "weight" in name))


def owner(node: str, layers: tuple[str, ...]) -> str | None:
    """The innermost of ``layers`` that a node belongs to, by the module path in its name.

    PyTorch's exporter names nodes ``/blocks/blocks.0/conv1/Conv``: one part for each module that was
    called, where a child of a container repeats the container's own name.

    >>> owner("/blocks/blocks.0/conv1/Conv", ("blocks.0.conv1", "linear"))
    'blocks.0.conv1'
    """
    if node in layers:
        return node
    path: list[str] = []
    found = None
    for part in node.strip("/").split("/")[:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
        name = ".".join(path)
        if name in layers:
            found = name
    return found


def _of_graph(model: ModelProto) -> tuple[str, ...]:
    """Nodes that hold weights, where the file is all there is."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1}
    return tuple(node.name for node in model.graph.node if weights & set(node.input))
