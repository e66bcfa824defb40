"""Quantizer: builds PyTorch artifacts from a model's torch form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantbench.backend_api import Artifact, Record, See, levels_of
from quantbench.errors import BadInput
from quantbench.spec import Arrays, Data, Method, Model
from quantbench_backends.pytorch import routes
from quantbench_backends.pytorch.refusals import form_of, refusal, route


class PyTorchQuantizer:
    """Float models in three precisions, torch.ao's and torchao's methods, and bitsandbytes."""

    name = "pytorch"
    takes: Mapping[str, str] = {"torch": "eager", "torch-eager": "stubs"}

    def refuse(self, model: Model, method: Method) -> str | None:
        """Why this cell cannot be built, or None; imports no framework."""
        return refusal(model, method)

    def form(self, method: Method) -> str:
        """The form that the method's route starts from."""
        return form_of(method)

    def layers(self, model: Model) -> tuple[str, ...]:
        """Module paths of the layers that multiply by weights (matrices or kernels)."""
        from quantbench_backends.pytorch import form

        return form.layers(form.architecture(model))

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        """Build, save in ``folder`` and return the artifact.

        The file is called ``model``, with the suffix that `routes.Route` has for the method.

        Raises
        ------
        BadInput
            For a refused method, or if weights or calibration samples are not finite, a layer's
            name is unknown, a group size does not divide, or the module cannot be traced.
        """
        if reason := self.refuse(model, method):
            raise BadInput(reason)

        from quantbench_backends.pytorch import methods

        return methods.build(model, method, data, folder)

    def observe(self, model: Model, method: Method, data: Data, see: See) -> None:
        """Run the prepared float model over the calibration samples, 32 at a time.

        Names are paths of modules, or of nodes of the graph, that give the activations.

        Raises
        ------
        BadInput
            For a method that is refused or has no static ranges, and as `quantize` does.
        """
        if reason := self.refuse(model, method):
            raise BadInput(reason)
        if method.scales != "static":
            raise BadInput(f"{method.name} has no static ranges to observe; use static-int8")

        from quantbench_backends.pytorch import methods

        methods.observe(model, method, data, see)

    def activations(self, artifact: Artifact, inputs: Arrays, see: See) -> None:
        """What is computed for the task's inputs; names are those of values in the file's graph.

        Of tensors alone, whose graph is code, they are paths of modules.

        Raises
        ------
        BadInput
            Where nothing in between exists: inductor's code, and grids of 4 bits.
        """
        from quantbench_backends.pytorch.activations import activations

        activations(artifact, inputs, see)

    def levels(self, method: Method) -> int:
        """How many values a quantized activation can take."""
        uint8 = method.activations == "uint8"
        seven = uint8 and routes.named(route(method)).kernels == routes.X86
        return 128 if seven else levels_of(method.activations)

    def inspect(self, artifact: Artifact, layers: tuple[str, ...] = ()) -> Record:
        """Read the file back: tensors, and nodes where the file holds a graph."""
        from quantbench_backends.pytorch import artifact_record

        return artifact_record.record(artifact, layers)
