"""OnnxQuantizer: builds .onnx files from a model's ONNX form with ONNX Runtime's quantizer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbench.backend_api import Artifact, Record, See, as_is, check_finite, levels_of
from quantbench.errors import BadInput
from quantbench.spec import Arrays, Data, Method, Model, check_inputs
from quantbench_backends.onnx_files import in_order
from quantbench_backends.onnxruntime.refusals import refusal, simulated

if TYPE_CHECKING:
    from quantbench_backends.onnx_files import layers as onnx_layers

FILE, SUFFIX = "model.onnx", ".onnx"
# the graph optimizer that quantizes, on loading, what was left in float on purpose
REQUANTIZER = "WeightBiasQuantization"


class OnnxQuantizer:
    """Builds ONNX files with ONNX Runtime's tools; onnx is imported when it builds."""

    name = "onnxruntime"
    # there is one way to a float file, so that all are judged by it
    takes: Mapping[str, str] = {"onnx": "", "onnx-unfused": "", "onnx-qat": ""}

    def refuse(self, model: Model, method: Method) -> str | None:
        """Why this method cannot be built, or None; the ONNX form may come from a converter."""
        if method.name == as_is.PRESET:
            return as_is.refusal(model, method, SUFFIX)
        return refusal(method)

    def form(self, method: Method) -> str:
        """The form that the method's route starts from."""
        if method.training == "qat":
            return "onnx-qat"
        return "onnx" if method.fusion else "onnx-unfused"

    def layers(self, model: Model) -> tuple[str, ...]:
        """Torch paths of the layers that hold weights, or node names where there is no torch form."""
        from quantbench_backends.onnx_files import layers

        return layers.of_model(model)

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        """Build ``model.onnx`` and its manifest.

        Raises
        ------
        BadInput
            For a refused method, an ONNX form that is missing, unreadable or does not fit the
            model, NaN in weights, calibration samples that are not finite, or a layer that an axis
            names and that is not in the graph.
        """
        # here and not above: they import onnx and ONNX Runtime
        from quantbench_backends.onnx_files import form
        from quantbench_backends.onnxruntime import methods
        from quantbench_backends.onnxruntime.calibration import Given

        folder.mkdir(parents=True, exist_ok=True)
        if method.name == as_is.PRESET:
            shutil.copyfile(as_is.file(model, method, SUFFIX), folder / FILE)
        else:
            source, samples = self._source(model, method, data)
            given = Given(samples, data.ranges)
            choice = self._choice(model, method)
            methods.METHODS[method.name](source, method, choice, given, folder / FILE)
        built = form.read(folder / FILE)
        return Artifact(
            folder=folder,
            files=(FILE,),
            runtime=self.name,
            inputs=form.stored(model.inputs, form.inputs(built)),
            outputs=form.stored(model.outputs, form.outputs(built)),
            task_inputs=model.inputs,
            task_outputs=model.outputs,
            details=_details(method),
        ).save()

    def observe(self, model: Model, method: Method, data: Data, see: See) -> None:
        """Run the graph that `quantize_static` starts from; names are those of its tensors.

        Raises
        ------
        BadInput
            As `quantize` does.
        """
        source, samples = self._source(model, method, data)

        from quantbench_backends.onnxruntime.observe import observe

        observe(source, method, self._choice(model, method), samples, see)

    def activations(self, artifact: Artifact, inputs: Arrays, see: See) -> None:
        """What the file's tensors hold for the task's inputs; names are those of its tensors."""
        from quantbench_backends.onnxruntime.activations import activations

        activations(artifact, inputs, see)

    def levels(self, method: Method) -> int:
        """How many values a quantized activation can take."""
        return levels_of(method.activations)

    def inspect(self, artifact: Artifact, layers: tuple[str, ...] = ()) -> Record:
        """Tensors and nodes of the file; ``layers`` are the names to attach to them."""
        from quantbench_backends.onnx_files import artifact_record
        from quantbench_backends.onnxruntime.float_fallbacks import why_float

        return artifact_record.record(artifact.path, layers, why_float)

    def _source(self, model: Model, method: Method, data: Data) -> tuple[Any, Arrays]:
        """The form that the method starts from, and samples by its own names; all checked."""
        if reason := self.refuse(model, method):
            raise BadInput(reason)
        wanted = self.form(method)
        if wanted not in model.forms:
            raise BadInput(
                f"model '{model.name}' has no {wanted} form; give it a torch form and "
                "pip install 'quantbench[pytorch,onnxruntime]'"
            )
        samples = data.calibration.inputs
        if method.samples:
            check_inputs(model.inputs, samples, len(data.calibration))
            check_finite("calibration samples", samples)

        from quantbench_backends.onnx_files import form

        source = form.read(Path(model.forms[wanted]))
        inputs = in_order(model.inputs, list(form.inputs(source)))
        return source, {n: samples[spec.name] for n, spec in inputs.items() if method.samples}

    def _choice(self, model: Model, method: Method) -> onnx_layers.Choice:
        """The layers that the method names."""
        from quantbench_backends.onnx_files import layers

        return layers.Choice(method, self.layers(model) if _names_layers(method) else ())


def _names_layers(method: Method) -> bool:
    return bool(method.only or method.keep_float or method.int4_weights or method.int4_activations)


def _details(method: Method) -> Mapping[str, str]:
    """What the runtime must know, and why no kernel executes the method, where that is so."""
    details = {"route": method.route}
    left_in_float = method.keep_float or method.only or method.parts != "both"
    if left_in_float or method.training == "qat":
        details["disabled_optimizers"] = REQUANTIZER
    if reason := simulated(method):
        details["simulated"] = reason
    return details
