"""Activations: what a PyTorch artifact computes on the way, as floats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._fuser import optimized_execution

from quantbench.backend_api import Artifact, See
from quantbench.errors import BadInput
from quantbench.spec import Arrays, Target, encode
from quantbench_backends.pytorch import routes, session
from quantbench_backends.pytorch.archive import deprecated_torchscript

AT_ONCE = 32
"""Samples a call."""
CPU = Target("cpu-1")
Reader = Callable[[Any, See], Callable[[list[Tensor]], Any]]
"""Takes a module and what is to see; gives what runs a batch."""


def activations(artifact: Artifact, inputs: Arrays, see: See) -> None:
    """Show every batch of every tensor that can be read; see `quantbench.backend_api.Transparent`."""
    suffix = artifact.path.suffix
    if suffix == routes.WEIGHTS and routes.of(artifact).compiled:
        raise BadInput(
            "inductor makes one function of several operators, and nothing in between exists; "
            "use route: eager"
        )
    if suffix == routes.SCRIPT and "simulated" in artifact.details:
        raise BadInput(
            "its activations are rounded in float, by operators that the file names by numbers "
            "alone; use int8 activations"
        )
    if artifact.details["engine"] != "none":
        torch.backends.quantized.engine = artifact.details["engine"]
    module = session.read_module(artifact, CPU)
    read: Reader = {routes.SCRIPT: _script, routes.PROGRAM: _program}.get(suffix) or _modules
    with torch.inference_mode(), deprecated_torchscript():
        call = read(module, see)
        for batch in _batches(artifact, inputs):
            call(batch)


def _batches(artifact: Artifact, inputs: Arrays) -> Iterator[list[Tensor]]:
    precision = getattr(torch, artifact.details["precision"])
    total = len(next(iter(inputs.values())))
    for start in range(0, total, AT_ONCE):
        arrays = (
            encode(inputs[task.name][start : start + AT_ONCE], task, stored)
            for task, stored in zip(artifact.task_inputs, artifact.inputs, strict=True)
        )
        tensors = (torch.from_numpy(array.copy()) for array in arrays)
        yield [t.to(precision) if t.is_floating_point() else t for t in tensors]


def _modules(module: nn.Module, see: See) -> Callable[[list[Tensor]], Any]:
    """Outputs of the modules that have no others inside, by their paths."""
    for path, child in module.named_modules():
        if path and not list(child.children()):
            child.register_forward_hook(lambda _, __, result, path=path: _show(see, path, result))
    return lambda batch: module(*batch)


def _script(module: Any, see: See) -> Callable[[list[Tensor]], Any]:
    """Every tensor of the graph, which is made to return them all; operator by operator."""
    graph = module.inlined_graph  # a copy of its own, whose values are numbered as the record's
    values = [
        value
        for node in graph.nodes()
        if not node.kind().startswith("prim::")
        for value in node.outputs()
        if str(value.type()) == "Tensor"
    ]
    names = [value.debugName() for value in values]
    every = graph.create("prim::TupleConstruct", values, 1)
    graph.appendNode(every)
    every.output().setType(torch._C.TupleType([value.type() for value in values]))
    for _ in list(graph.outputs()):
        graph.eraseOutput(0)
    graph.registerOutput(every.output())
    function = torch._C._create_function_from_graph("activations", graph)

    def call(batch: list[Tensor]) -> None:
        with optimized_execution(False):
            found = function(module._c, *batch)
        for name, result in zip(names, found, strict=True):
            _show(see, name, result)

    return call


def _program(module: Any, see: See) -> Callable[[list[Tensor]], Any]:
    """Every value of the graph; of one that is rounded what it is rounded to, under its own name."""

    class Shown(torch.fx.Interpreter):
        def run_node(self, node: torch.fx.Node) -> Any:
            result = super().run_node(node)
            name = _name(node)
            if name and name not in shown:  # each reader has a copy of its own
                shown.add(name)
                _show(see, name, result)
            return result

    def call(batch: list[Tensor]) -> None:
        shown.clear()
        interpreter.run(*batch)

    shown: set[str] = set()
    interpreter = Shown(module)
    return call


_ROUNDS, _BACK = "quantized_decomposed.quantize_per", "quantized_decomposed.dequantize_per"


def _name(node: torch.fx.Node) -> str:
    """Under which name a node's result is shown; empty for what is not."""
    if _BACK in str(node.target):
        integers: Any = node.args[0]
        constant = integers.op == "get_attr"
        return "" if constant else str(integers.args[0] if integers.args else integers)
    rounded = any(_ROUNDS in str(each.target) for each in (node, *node.users))
    return "" if rounded or node.op != "call_function" else node.name


def _show(see: See, name: str, result: Any) -> None:
    if not isinstance(result, Tensor) or result.dim() == 0:
        return
    plain = result.dequantize() if result.is_quantized else result
    if plain.is_floating_point():
        see(name, plain.detach().float().contiguous().numpy())
