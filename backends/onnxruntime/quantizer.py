"""OnnxQuantizer: builds .onnx files from a model's ONNX form with ONNX Runtime's quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backends.onnxruntime.names import in_order
from backends.onnxruntime.refusals import refusal
from harness.errors import BadInput
from harness.method import Method
from harness.model import Model
from harness.protocol import Artifact, Record
from harness.task import Data
from harness.tensors import Arrays, check_inputs

FILE = "model.onnx"


class OnnxQuantizer:
    """Builds fp32, fp16, dynamic-int8 and static-int8; onnx is imported when it builds."""

    name = "onnxruntime"
    takes: Mapping[str, str] = {"onnx": ""}

    def refuse(self, model: Model, method: Method) -> str | None:
        """Why this method cannot be built, or None; the ONNX form may come from a converter."""
        return refusal(method)

    def form(self, method: Method) -> str:
        """The form that the method's route starts from."""
        return "onnx"

    def layers(self, model: Model) -> tuple[str, ...]:
        """Torch paths of the layers that hold weights, or node names where there is no torch form."""
        from backends.onnxruntime import layers

        return layers.of_model(model)

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        """Build ``model.onnx`` and its manifest.

        Raises
        ------
        BadInput
            For a refused method, an ONNX form that is missing, unreadable or does not fit the
            model, NaN in weights, calibration samples that are not finite, or a layer of
            ``keep_float`` that is not in the graph.
        """
        if reason := self.refuse(model, method):
            raise BadInput(reason)
        if "onnx" not in model.forms:
            raise BadInput(
                f"model '{model.name}' has no ONNX form; give it a torch form and "
                "pip install 'quantbench[pytorch,onnxruntime]'"
            )
        samples = data.calibration.inputs
        if method.samples:
            check_inputs(model.inputs, samples, len(data.calibration))
            _check_finite(samples)

        # here and not above: they import onnx and ONNX Runtime
        from backends.onnxruntime import form, layers, methods

        source = Path(model.forms["onnx"])
        float_model = form.read(source)
        inputs = in_order(model.inputs, list(form.inputs(float_model)))
        known = self.layers(model) if method.keep_float else ()
        kept = layers.matching(method.keep_float, known)
        folder.mkdir(parents=True, exist_ok=True)
        methods.METHODS[method.name](
            float_model,
            method,
            lambda graph: layers.nodes(graph, kept, known),
            {own: samples[spec.name] for own, spec in inputs.items() if method.samples},
            folder / FILE,
        )
        built = form.read(folder / FILE)
        return Artifact(
            folder=folder,
            files=(FILE,),
            runtime=self.name,
            inputs=form.stored(model.inputs, form.inputs(built)),
            outputs=form.stored(model.outputs, form.outputs(built)),
            task_inputs=model.inputs,
            task_outputs=model.outputs,
            details={"route": method.route, "keep_float": ",".join(method.keep_float)},
        ).save()

    def inspect(self, artifact: Artifact) -> Record:
        """Weight bytes by dtype and operator counts, from the file."""
        from backends.onnxruntime.inspect import record

        return record(artifact.path)


def _check_finite(arrays: Arrays) -> None:
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise BadInput(
                f"calibration samples: '{name}' holds NaN or infinity; "
                "replace it with finite values"
            )
