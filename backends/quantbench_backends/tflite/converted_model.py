"""Converted model: the content of a file as a route makes it, with what its tensors are called in the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from quantbench.backend_api import state_of
from quantbench.errors import BadInput
from quantbench.spec import Array, Arrays, Method, Model, TensorSpec
from quantbench.system import content_key
from quantbench_backends.tflite import layers, signature
from quantbench_backends.tflite.flatbuffer import parse
from quantbench_backends.tflite.layers import Operator
from quantbench_backends.tflite.refusals import KERAS, LITERT_TORCH, route_of
from quantbench_backends.tflite.signature import FileTensor


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
    from quantbench_backends.tflite import litert

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
    return _read(model, Path(model.forms["tflite"]), channels_last=False)


def draft_of(model: Model, path: Path) -> Draft:
    """A ready file, not a byte of it changed."""
    return _read(model, path, channels_last=True)


def _read(model: Model, path: Path, *, channels_last: bool) -> Draft:
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise BadInput(f"{path} is not a TFLite file; make it again")
    tensors = signature.read(content)
    return Draft(
        content,
        signature.by_name(model.inputs, list(tensors.inputs)),
        signature.by_name(model.outputs, list(tensors.outputs)),
        channels_last=channels_last,
    )


def _from_keras(model: Model, method: Method, samples: Arrays, known: Sequence[str]) -> Draft:
    from quantbench_backends.tflite import methods

    if method.keep_float or method.only:
        return _selected(model, method, samples, known)
    start, keras, stored = _start(model, method, samples)
    return _draft(start, model, methods.METHODS[method.name](keras, method, stored), keras)


def _start(model: Model, method: Method, samples: Arrays) -> tuple[Any, Any, Arrays]:
    """The `form.Form`, its Keras model for one sample, and the samples by Keras name."""
    from quantbench_backends.tflite import form, methods

    found = form.of(model, method)
    stored = found.stored(samples) if method.samples else {}
    return found, methods.of_one_sample(found.keras), stored


def _draft(start: Any, model: Model, content: bytes, keras: Any) -> Draft:
    """A file of the Keras model ``keras``, which is that of the `form.Form` or its copy for one sample."""
    from quantbench_backends.tflite.dynamic_batch import for_any_batch

    names = start.keras.input_names, start.keras.output_names
    inputs, outputs = (
        dict(sorted(zip(own, specs, strict=True), key=lambda pair: ordered.index(pair[1])))
        for own, specs, ordered in (
            (names[0], start.inputs, model.inputs),
            (names[1], start.outputs, model.outputs),
        )
    )
    if keras is not start.keras:
        content = for_any_batch(content)
    return Draft(content, inputs, outputs, channels_last=True)


@dataclass(frozen=True, slots=True)
class _Calibrated:
    """A Keras model converted to float, and with ranges: where every choice of layers starts."""

    form: Any
    keras: Any
    plain: bytes
    ranged: bytes


_last: dict[str, _Calibrated] = {}
"""At most one: a diagnosis asks for dozens of choices of layers of one model, one after the other."""


def _calibrated(model: Model, method: Method, samples: Arrays) -> _Calibrated:
    from quantbench_backends.tflite import methods

    arrays = {"state": state_of(model), "samples": samples}
    whole = replace(method, keep_float=(), only=())
    key = content_key(
        model=model.to_json(), method=whole.to_json(),
        arrays={f"{kind} {name}": sha256(array.tobytes()).hexdigest()
                for kind, known in arrays.items() for name, array in known.items()},
    )  # fmt: skip
    if key not in _last:
        _last.clear()
        start, keras, stored = _start(model, method, samples)
        plain = methods.float32(keras, method, {})
        _last[key] = _Calibrated(start, keras, plain, methods.ranged(keras, method, stored))
    return _last[key]


def _selected(model: Model, method: Method, samples: Arrays, known: Sequence[str]) -> Draft:
    """With some layers in float: all but those of ``only``, or those of ``keep_float``."""
    from quantbench_backends.tflite import methods

    start = _calibrated(model, method, samples)
    nodes = [n for operator in _kept(start.plain, method, known) for n in operator.outputs]
    if method.only:
        nodes += _others(start.plain, method, known)
    content = methods.selective(start.ranged, method, nodes)
    if any(operator.dtype != "float32" for operator in _kept(content, method, known)):
        raise BadInput(
            "keep_float: TFLiteConverter quantizes one of these layers all the same; "
            "use route: litert-keras"
        )
    return _draft(start.form, model, content, start.keras)


def _others(content: bytes, method: Method, known: Sequence[str]) -> list[str]:
    """Outputs of all operators but those of the layers that ``only`` names."""
    file = parse(content)
    graph = file.subgraphs[0]
    chosen = {n for o in layers.named("only", method.only, file, known) for n in o.outputs}
    every = (graph.tensors[i].name.decode() for o in graph.operators for i in o.outputs)
    return [name for name in every if name not in chosen]


def _kept(content: bytes, method: Method, known: Sequence[str]) -> list[Operator]:
    return layers.named("keep_float", method.keep_float, parse(content), known)
