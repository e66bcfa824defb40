"""TfliteQuantizer: builds .tflite files from a model's Keras form with TFLiteConverter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backends.tflite.refusals import refusal
from harness.errors import BadInput
from harness.method import Method
from harness.model import Model
from harness.protocol import Artifact, Record
from harness.registry import locate
from harness.task import Data
from harness.tensors import Arrays, check_inputs

FILE = "model.tflite"


class TfliteQuantizer:
    """Builds fp32, fp16, dynamic-int8 and static-int8; TensorFlow is imported when it builds."""

    name = "tflite"
    takes: Mapping[str, str] = {"keras": "keras"}

    def refuse(self, model: Model, method: Method) -> str | None:
        """Why this cell cannot be built, or None."""
        if "keras" not in model.forms:
            return (
                f"model '{model.name}' has no Keras form, which TFLiteConverter starts from; "
                "add a 'keras' form to it, or use a backend that takes one of: "
                f"{', '.join(sorted(model.forms))}"
            )
        return refusal(method)

    def form(self, method: Method) -> str:
        """The form that the method's route starts from."""
        return "keras"

    def layers(self, model: Model) -> tuple[str, ...]:
        """Canonical names of the layers whose weights have two axes or more (no batch norm)."""
        return tuple(
            name.removesuffix(".weight")
            for name, array in _state(model).items()
            if name.endswith(".weight") and array.ndim > 1
        )

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        """Convert and save ``model.tflite`` with its manifest.

        Raises
        ------
        BadInput
            For a method that is refused, weights or calibration samples that are not finite or
            not as the model says, or a Keras form whose inputs or outputs do not fit the model's.
        """
        if reason := self.refuse(model, method):
            raise BadInput(reason)
        state = _state(model)
        _check_finite(f"weights of model '{model.name}'", state)
        samples = data.calibration.inputs
        if method.samples:
            check_inputs(model.inputs, samples, len(data.calibration))
            _check_finite("calibration samples", samples)

        # here and not above: they import TensorFlow and LiteRT
        from backends.tflite import methods, signature

        keras = methods.keras_form(locate(model.forms["keras"]), state, method.seed)
        inputs = signature.by_name(model.inputs, keras.input_names)
        outputs = signature.by_name(model.outputs, keras.output_names)
        shapes = dict(zip(keras.input_names, (i.shape for i in keras.inputs), strict=True))
        calibration = {
            name: signature.stored_array(samples[spec.name], spec, tuple(shapes[name]))
            for name, spec in inputs.items()
            if method.samples
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(methods.METHODS[method.name](keras, method, calibration))
        file = signature.read(folder / FILE)
        return Artifact(
            folder=folder,
            files=(FILE,),
            runtime=self.name,
            inputs=tuple(file.inputs[name].spec(task) for name, task in inputs.items()),
            outputs=tuple(file.outputs[name].spec(task) for name, task in outputs.items()),
            task_inputs=model.inputs,
            task_outputs=model.outputs,
            details={
                "route": "keras",
                "inputs": " ".join(str(file.inputs[name].index) for name in inputs),
                "outputs": " ".join(str(file.outputs[name].index) for name in outputs),
            },
        ).save()

    def inspect(self, artifact: Artifact) -> Record:
        """Weight bytes by dtype and operator counts, from the file."""
        from backends.tflite.inspect import record

        return record(artifact.path)


def _state(model: Model) -> Arrays:
    state: Arrays = locate(model.state)(locate(model.weights)())
    return state


def _check_finite(what: str, arrays: Arrays) -> None:
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise BadInput(f"{what}: '{name}' holds NaN or infinity; replace it with finite values")
