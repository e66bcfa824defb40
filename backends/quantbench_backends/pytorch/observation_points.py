"""Observation points: where a prepared model observes activations; their values, and ranges given from outside."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
import torch.ao.quantization as ao
from torch import Tensor, nn
from torch.fx import GraphModule

from quantbench.backend_api import See
from quantbench.errors import BadInput

_ACTIVATIONS = (torch.quint8, torch.uint8)  # weights are signed
_HOOKED = "activation_post_process"


class Seen(nn.Module):
    """Shows what passes, and passes it on."""

    def __init__(self, name: str, see: See) -> None:
        super().__init__()
        self._name, self._see = name, see
        self._last: weakref.ref[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``x`` itself."""
        # eager mode's fused modules are sequences that end with their observer, and call it again
        # from a hook with what it returned
        if self._last is None or self._last() is not x:
            self._see(self._name, x.detach().contiguous().numpy())
        self._last = weakref.ref(x)
        return x


class Rounded(nn.Module):
    """Rounds to the grid that an observer has found, and leaves floats."""

    def __init__(self, observer: Any) -> None:
        super().__init__()
        scale, point = observer.calculate_qparams()
        self._grid = float(scale), int(point), int(observer.quant_min), int(observer.quant_max)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` after quantization and dequantization."""
        return torch.fake_quantize_per_tensor_affine(x, *self._grid)


def observers(module: nn.Module) -> dict[str, Any]:
    """Observers of activations by the first place where each stands.

    A place has the name of what is observed: the path of a module, else the name of the graph's node.
    An observer may stand in several, as before and after a pooling: it sees all of them. Scales that
    torch.ao fixes, such as a sigmoid's, are no matter of ranges.
    """
    found = _in_graph(module) if isinstance(module, GraphModule) else _in_modules(module)
    named: dict[int, tuple[str, Any]] = {}
    for name, observer in found:
        fixed = isinstance(observer, ao.FixedQParamsObserver | ao.FixedQParamsFakeQuantize)
        if getattr(observer, "dtype", None) in _ACTIVATIONS and not fixed:
            named.setdefault(id(observer), (name, observer))
    taken: dict[str, Any] = {}
    for name, observer in named.values():
        unique = name if name not in taken else f"{name}:{len(taken)}"
        taken[unique] = observer
    return taken


def _in_graph(module: GraphModule) -> list[tuple[str, Any]]:
    found = []
    for node in module.graph.nodes:
        if node.op == "call_module" and _HOOKED in str(node.target):
            source: Any = node.args[0]
            name = source.target if source.op in ("call_module", "placeholder") else source.name
            found.append((str(name), module.get_submodule(str(node.target))))
    return found


def _in_modules(module: nn.Module) -> list[tuple[str, Any]]:
    return [
        (path.removesuffix(_HOOKED).rstrip("."), child)
        for path, child in module.named_modules()
        if path.rpartition(".")[2] == _HOOKED
    ]


def show(module: nn.Module, see: See) -> None:
    """Put something that shows what passes to ``see`` in place of every observer."""
    shown = {id(observer): Seen(name, see) for name, observer in observers(module).items()}
    _replace(module, shown)


def silence(module: nn.Module) -> None:
    """Let activations pass as they are."""
    _replace(module, {id(o): nn.Identity() for o in _all(module)})


def simulate(module: nn.Module) -> None:
    """Round activations to the grids that have been observed."""
    _replace(module, {id(o): Rounded(o) for o in _all(module)})


def _all(module: nn.Module) -> list[Any]:
    """Every observer of an activation, those with fixed scales too."""
    return [
        child
        for path, child in module.named_modules()
        if path.rpartition(".")[2].startswith(_HOOKED) and child.dtype in _ACTIVATIONS
    ]


def _replace(module: nn.Module, substitutes: Mapping[int, nn.Module]) -> None:
    for parent in list(module.modules()):
        # named_children would leave out the second name of an observer that stands in two places
        for name, child in list(parent._modules.items()):
            if id(child) in substitutes:
                setattr(parent, name, substitutes[id(child)])


def give(module: nn.Module, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Let every observer have seen the ends of its range, and nothing else.

    Raises
    ------
    BadInput
        If an activation has no range.
    """
    for name, observer in observers(module).items():
        if name not in ranges:
            raise BadInput(
                f"no range is given for activation '{name}'; observe the model again with this method"
            )
        getattr(observer, _HOOKED, observer).reset_min_max_vals()
        observer(torch.tensor(ranges[name], dtype=torch.float32))
