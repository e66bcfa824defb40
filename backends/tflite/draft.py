"""Draft: the content of a file as a route makes it, with what its tensors are called in the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backends.tflite import layers, signature
from backends.tflite.flatbuffer import parse
from backends.tflite.layers import Operator
from backends.tflite.refusals import KERAS, LITERT_TORCH, route_of
from backends.tflite.signature import FileTensor
from harness.errors import BadInput
from harness.method import Method
from harness.model import Model
from harness.tensors import Array, Arrays, TensorSpec


@dataclass(frozen=True, slots=True)
class Draft:
    """A file's content; ``inputs`` and ``outputs`` give the task's spec by the file's own name.

    Both are in the model's order. ``channels_last``: see `signature.stored_layout`.
    """

    content: bytes
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    channels_last: bool

    @property
    def stored_inputs(self) -> Mapping[str, FileTensor]:
        """The inputs as the file declares them."""
        return signature.read(self.content).inputs

    @property
    def stored_outputs(self) -> Mapping[str, FileTensor]:
        """The outputs as the file declares them."""
        return signature.read(self.content).outputs

    def specs(
        self, tasks: Mapping[str, TensorSpec], stored: Mapping[str, FileTensor]
    ) -> tuple[TensorSpec, ...]:
        """The tensors ``tasks`` as stored, under the task's names."""
        return tuple(
            stored[name].spec(task, channels_last=self.channels_last)
            for name, task in tasks.items()
        )

    def arrays(self, samples: Arrays) -> dict[str, Array]:
        """The task's samples by the file's own names, as it takes them in float."""
        shapes = {name: (None, *t.shape[1:]) for name, t in self.stored_inputs.items()}
        return {
            name: signature.stored_array(
                samples[task.name], task, shapes[name], channels_last=self.channels_last
            )
            for name, task in self.inputs.items()
        }


def draft(
    model: Model,
    method: Method,
    samples: Arrays,
    known: Sequence[str],
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> Draft:
    """The file that the method's route makes of the model.

    ``samples`` are the calibration samples, ``known`` the model's layers, ``ranges`` what is injected.
    """
    if route_of(method) == KERAS:
        return _from_keras(model, method, samples, known)
    plain = floating(model, method)
    if method.name == "fp32":
        return plain
    from backends.tflite import litert

    arrays = plain.arrays(samples) if method.samples else {}
    content = litert.quantize(plain.content, method, arrays, known, ranges or {})
    return replace(plain, content=content)


def floating(model: Model, method: Method) -> Draft:
    """The float file that LiteRT Quantizer starts from on the method's route."""
    if route_of(method) == LITERT_TORCH:
        return _from_file(model)
    return _from_keras(
        model, replace(method, name="fp32", samples=0, keep_float=(), only=()), {}, ()
    )


def _from_file(model: Model) -> Draft:
    path = Path(model.forms["tflite"])
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise BadInput(f"the tflite form {path} is not a TFLite file; make it again")
    tensors = signature.read(content)
    return Draft(
        content,
        signature.by_name(model.inputs, list(tensors.inputs)),
        signature.by_name(model.outputs, list(tensors.outputs)),
        channels_last=False,
    )


def _from_keras(model: Model, method: Method, samples: Arrays, known: Sequence[str]) -> Draft:
    from backends.tflite import form, methods
    from backends.tflite.batch import for_any_batch

    start = form.of(model, method)
    names = start.keras.input_names, start.keras.output_names
    inputs, outputs = (
        dict(sorted(zip(own, specs, strict=True), key=lambda pair: ordered.index(pair[1])))
        for own, specs, ordered in (
            (names[0], start.inputs, model.inputs),
            (names[1], start.outputs, model.outputs),
        )
    )
    stored = start.stored(samples) if method.samples else {}
    keras = methods.of_one_sample(start.keras)
    if method.keep_float or method.only:
        plain = methods.float32(keras, method, {})
        nodes = [name for operator in _kept(plain, method, known) for name in operator.outputs]
        if method.only:
            nodes += _others(plain, method, known)
        content = methods.selective(keras, method, stored, nodes)
        if any(operator.dtype != "float32" for operator in _kept(content, method, known)):
            raise BadInput(
                "keep_float: TFLiteConverter quantizes one of these layers all the same; "
                "use route: litert-keras"
            )
    else:
        content = methods.METHODS[method.name](keras, method, stored)
    if keras is not start.keras:
        content = for_any_batch(content)
    return Draft(content, inputs, outputs, channels_last=True)


def _others(content: bytes, method: Method, known: Sequence[str]) -> list[str]:
    """Outputs of all operators but those of the layers that ``only`` names."""
    file = parse(content)
    graph = file.subgraphs[0]
    chosen = {n for o in layers.named("only", method.only, file, known) for n in o.outputs}
    every = (graph.tensors[i].name.decode() for o in graph.operators for i in o.outputs)
    return [name for name in every if name not in chosen]


def _kept(content: bytes, method: Method, known: Sequence[str]) -> list[Operator]:
    return layers.named("keep_float", method.keep_float, parse(content), known)
