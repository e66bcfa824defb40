"""Quantizer: builds PyTorch artifacts from a model's torch form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backends.pytorch.refusals import form_of, refusal
from harness.errors import BadInput
from harness.method import Method
from harness.model import Model
from harness.protocol import Artifact, Record
from harness.task import Data


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
        from backends.pytorch import form

        return form.layers(form.architecture(model))

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        """Build, save in ``folder`` and return the artifact.

        Float methods (but route ``traced``) and bitsandbytes' become ``model.safetensors``,
        torchao's a program of torch.export, ``model.pt2``, all others TorchScript, ``model.pt``.

        Raises
        ------
        BadInput
            For a refused method, or if weights or calibration samples are not finite, a layer's
            name is unknown, a group size does not divide, or the module cannot be traced.
        """
        if reason := self.refuse(model, method):
            raise BadInput(reason)

        from backends.pytorch import methods

        return methods.build(model, method, data, folder)

    def inspect(self, artifact: Artifact) -> Record:
        """Read the file back: payload bytes by dtype, operators where the file holds a graph."""
        from backends.pytorch import inspect

        return inspect.record(artifact)
