"""Routes: the file that each way to a PyTorch artifact leaves, and how it is read and run.

One table for whoever writes a file, reads it, runs it or refuses to. Light: the runtime is asked about
targets before any framework is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what trains looks routes up too, and depends on no artifact
    from quantbench.backend_api import Artifact
    from quantbench.spec import Method

WEIGHTS = ".safetensors"
"""Suffix of a module's tensors; the manifest names its architecture, which is code, in eager mode."""
SCRIPT = ".pt"
"""Suffix of a TorchScript archive."""
PROGRAM = ".pt2"
"""Suffix of a program of torch.export."""

X86 = "x86"
"""torch.ao's engine of integer kernels, as ``torch.backends.quantized.engine`` names it."""
ONEDNN = "onednn"
"""oneDNN's integer kernels, which inductor lowers quantized graphs to."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way to build and run a PyTorch model.

    Parameters
    ----------
    floats, integers : str
        Suffix of the file that a float method leaves, and a quantized one; empty where there is none.
    compiled : bool
        Whether inductor compiles the graph when it is loaded, for one batch size.
    kernels : str
        Whose integer kernels, all for x86 CPUs, compute a method that quantizes activations.
    operators : str
        Modules, between spaces, that define operators of its programs beyond PyTorch's own.
    packed : bool
        Whether its tensors are those of bitsandbytes' layers, which take the place of linear ones.
    """

    floats: str = ""
    integers: str = ""
    compiled: bool = False
    kernels: str = ""
    operators: str = ""
    packed: bool = False

    @property
    def graph(self) -> str:
        """The route of ``fp32`` that runs as a quantized file of this one does.

        An archive of TorchScript is optimized by its executor, as a traced float is; inductor
        compiles; anything else, a program of torch.export that is not compiled too, is called
        operator by operator.
        """
        if self.compiled:
            return "compiled"
        return "traced" if self.integers == SCRIPT else "eager"

    def suffix(self, method: Method) -> str:
        """Suffix of the file that ``method`` leaves."""
        return self.floats if method.is_float else self.integers


_TORCHAO = "torchao.quantization"
_X86_INDUCTOR = f"{_TORCHAO}.pt2e.quantizer.x86_inductor_quantizer"
ROUTES: Mapping[str, Route] = {
    "eager": Route(floats=WEIGHTS, integers=SCRIPT, kernels=X86),
    "stubs": Route(floats=WEIGHTS),
    "traced": Route(floats=SCRIPT),
    "compiled": Route(floats=WEIGHTS, compiled=True),
    "fx": Route(integers=SCRIPT, kernels=X86),
    "pt2e": Route(integers=PROGRAM, compiled=True, kernels=ONEDNN, operators=_X86_INDUCTOR),
    "torchao": Route(integers=PROGRAM, operators=_TORCHAO),
    "torchao-compiled": Route(integers=PROGRAM, compiled=True, operators=_TORCHAO),
    "bitsandbytes": Route(integers=WEIGHTS, packed=True),
}
_UNKNOWN = Route()


def named(name: str) -> Route:
    """The route of a name; one without properties where PyTorch has none of that name.

    >>> named("pt2e").compiled, named("").compiled
    (True, False)
    """
    return ROUTES.get(name, _UNKNOWN)


def of(artifact: Artifact) -> Route:
    """The route that an artifact was built by."""
    return named(artifact.details["route"])
