"""TfliteQuantizer: builds .tflite files with TFLiteConverter and LiteRT Quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantbench.backend_api import Artifact, Record, See, as_is, check_finite, levels_of, state_of
from quantbench.errors import BadInput
from quantbench.spec import Arrays, Data, Method, Model, check_inputs
from quantbench_backends.tflite.refusals import ROUTES, refusal, route_of

FILE, SUFFIX = "model.tflite", ".tflite"
WEIGHTS_ALONE = "weights alone, to see what they cost: its times are those of weight-only-int8"


class TfliteQuantizer:
    """Three routes: TFLiteConverter, and LiteRT Quantizer after it or after litert-torch."""

    name = "tflite"
    takes: Mapping[str, str] = {"keras": "keras", "tflite": "litert-torch"}

    def refuse(self, model: Model, method: Method) -> str | None:
        """Why this cell cannot be built, or None."""
        if method.name == as_is.PRESET:
            return as_is.refusal(model, method, SUFFIX)
        reason = refusal(method)
        if reason is None and self.form(method) == "keras" and "keras" not in model.forms:
            return (
                f"model '{model.name}' has no Keras form, which TFLiteConverter starts from; "
                "add a 'keras' form to it, or use route: litert-torch"
            )
        return reason

    def form(self, method: Method) -> str:
        """The form that the method's route starts from."""
        return ROUTES.get(route_of(method), "keras")

    def layers(self, model: Model) -> tuple[str, ...]:
        """Canonical names of the layers whose weights have two axes or more (no batch norm)."""
        from quantbench_backends.tflite.layers import of_state

        return of_state(state_of(model))

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        """Convert and save ``model.tflite`` with its manifest.

        Raises
        ------
        BadInput
            For a method that is refused, weights or calibration samples that are not finite or
            not as the model says, layers that an axis names and the model does not have, or a form
            whose inputs or outputs do not fit the model's.
        """
        if reason := self.refuse(model, method):
            raise BadInput(reason)
        samples: Arrays = {}
        if method.samples:
            samples = data.calibration.inputs
            check_inputs(model.inputs, samples, len(data.calibration))
            check_finite("calibration samples", samples)
        # here and not above: they import TensorFlow and LiteRT
        from quantbench_backends.tflite.converted_model import draft, draft_of

        if method.name == as_is.PRESET:
            made = draft_of(model, as_is.file(model, method, SUFFIX))
        else:
            made = draft(model, method, samples, self.layers(model), data.ranges)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(made.content)
        inputs, outputs = made.stored_inputs, made.stored_outputs
        return Artifact(
            folder=folder,
            files=(FILE,),
            runtime=self.name,
            inputs=made.specs(made.inputs, inputs),
            outputs=made.specs(made.outputs, outputs),
            task_inputs=model.inputs,
            task_outputs=model.outputs,
            details={
                **({"simulated": WEIGHTS_ALONE} if method.parts == "weights" else {}),
                "route": route_of(method),
                "inputs": " ".join(str(inputs[name].index) for name in made.inputs),
                "outputs": " ".join(str(outputs[name].index) for name in made.outputs),
            },
        ).save()

    def observe(self, model: Model, method: Method, data: Data, see: See) -> None:
        """Run the float file of the method's route; see `quantbench.backend_api.protocol.Quantizer.observe`."""
        if reason := self.refuse(model, method):
            raise BadInput(reason)
        samples = data.calibration.inputs
        check_inputs(model.inputs, samples, len(data.calibration))
        check_finite("calibration samples", samples)
        from quantbench_backends.tflite import litert
        from quantbench_backends.tflite.converted_model import floating

        plain = floating(model, method)
        litert.observe(plain.content, method, plain.arrays(samples), self.layers(model), see)

    def activations(self, artifact: Artifact, inputs: Arrays, see: See) -> None:
        """What the file's tensors hold for the task's inputs; names are those of its tensors."""
        from quantbench_backends.tflite.activations import activations

        activations(artifact, inputs, see)

    def levels(self, method: Method) -> int:
        """How many values a quantized activation can take."""
        return levels_of(method.activations)

    def inspect(self, artifact: Artifact, layers: tuple[str, ...] = ()) -> Record:
        """Every tensor and operator of the file."""
        from quantbench_backends.tflite.artifact_record import record

        return record(artifact.path, layers)
