"""Form: a model's Keras form with its weights, and what the task calls its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from quantbench.backend_api import state_of
from quantbench.errors import BadInput
from quantbench.spec import Array, Arrays, Method, Model, TensorSpec, relayout
from quantbench.system import locate
from quantbench_backends.tflite import methods, signature

TRAINED = "keras.safetensors"
"""What the trainer leaves: the Keras model's variables by name."""


@dataclass(frozen=True, slots=True)
class Form:
    """A Keras model; ``inputs`` and ``outputs`` are the task's specs, in the Keras model's order."""

    keras: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def stored(self, arrays: Arrays) -> dict[str, Array]:
        """The task's arrays by Keras name, as the Keras model takes them."""
        shapes = (tuple(tensor.shape) for tensor in self.keras.inputs)
        return {
            name: signature.stored_array(arrays[spec.name], spec, shape)
            for name, spec, shape in zip(self.keras.input_names, self.inputs, shapes, strict=True)
        }

    def wanted(self, array: Array, position: int) -> Array:
        """An output of the task as the Keras output at ``position`` has it."""
        shape = tuple(self.keras.outputs[position].shape)
        return signature.stored_array(array, self.outputs[position], shape)

    def task_outputs(self, arrays: list[Array]) -> dict[str, Array]:
        """The Keras model's outputs by the task's names, in the task's layout."""
        found = {}
        for spec, array in zip(self.outputs, arrays, strict=True):
            layout = signature.stored_layout(spec, (None, *array.shape[1:]))
            found[spec.name] = relayout(array, layout, spec.layout)
        return found


def of(model: Model, method: Method) -> Form:
    """The form as the method starts from it: with fake quantization, with trained weights.

    Raises
    ------
    BadInput
        For weights that are not finite, inputs or outputs that do not fit the model's, or a form
        that cannot be fake-quantized.
    """
    state = state_of(model)
    keras = methods.keras_form(locate(model.forms["keras"]), state, method.seed)
    inputs = signature.by_name(model.inputs, keras.input_names)
    outputs = signature.by_name(model.outputs, keras.output_names)
    names = keras.input_names, keras.output_names
    if method.training == "qat":
        from quantbench_backends.tflite import qat

        keras = qat.fake_quantized(keras, method)
    if model.trained:
        load(keras, load_file(Path(model.trained) / TRAINED))
    return Form(keras, tuple(inputs[n] for n in names[0]), tuple(outputs[n] for n in names[1]))


def variables(keras: Any) -> dict[str, Any]:
    """A Keras model's variables by name; raises `BadInput` where two have the same."""
    found = {variable.name: variable for variable in keras.weights}
    if len(found) < len(keras.weights):
        raise BadInput("the Keras form has two variables of one name; name its layers differently")
    return found


def load(keras: Any, arrays: Mapping[str, Array]) -> None:
    """Give a Keras model's variables the values that were saved of them."""
    assign(variables(keras), arrays)


def assign(known: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Give variables their values by name; a scalar may have become an array of one."""
    for name, variable in known.items():
        variable.assign(arrays[name].reshape(variable.shape))
