"""Activations: what the tensors of an ONNX file hold, as floats, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, helper

from quantbench.backend_api import Artifact, See
from quantbench.errors import BadInput
from quantbench.spec import Array, Arrays, encode
from quantbench_backends.onnx_files import form, graph, in_order, quantization_parameters
from quantbench_backends.onnxruntime.calibration import Batches
from quantbench_backends.onnxruntime.methods import CALIBRATION_BATCH
from quantbench_backends.onnxruntime.observe import groups, with_outputs

_FLOATS = ("float32", "float16")


def activations(artifact: Artifact, inputs: Arrays, see: See) -> None:
    """Show every batch of every tensor that can be read; see `quantbench.backend_api.Transparent`.

    Without graph optimization, as `observe` runs the float graph: what is fused has no tensors, and
    an output that is asked for would forbid fusing and change what is computed.

    Raises
    ------
    BadInput
        If the file computes nothing that is a float or has a scale.
    """
    model = onnx.load(artifact.path)
    outermost, *_ = graph.of_model(model)
    known = quantization_parameters.of_nodes(outermost.proto.node, outermost.values)
    shown = dict(_readable(outermost, known))
    if not shown:
        raise BadInput(f"{artifact.path} computes no tensor whose type and scale the file tells")
    session = with_outputs(model, {name: _element(outermost, name) for name in shown})
    fixed = form.fixed_batch(model)
    together: list[list[str]] | None = None
    for batch in Batches(_stored(artifact, model, inputs), fixed or CALIBRATION_BATCH):
        together = together or list(groups(session, list(shown), batch, bool(fixed)))
        for names in together:
            for name, values in zip(names, session.run(names, batch), strict=True):
                see(name, _floats(values, shown[name]))


def _readable(
    found: graph.Graph, known: dict[str, quantization_parameters.Scale]
) -> Iterator[tuple[str, quantization_parameters.Scale | None]]:
    """Computed tensors in the order of execution, integers with their scale.

    Of a float that is rounded only what it is rounded to, after DequantizeLinear where there is one.
    """
    for node in found.proto.node:
        for name in node.output:
            tensor = found.free.get(name)
            if tensor is None or name in found.constants or found.origin(name):
                continue
            readers = {reader.op_type for reader in found.readers_of(name)}
            scale = known.get(name)
            if tensor.dtype in _FLOATS and "QuantizeLinear" not in readers:
                yield name, None
            elif scale is not None and len(scale.scale) == 1 and "DequantizeLinear" not in readers:
                yield name, scale


def _element(found: graph.Graph, name: str) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(found.free[name].dtype))


def _stored(artifact: Artifact, model: ModelProto, inputs: Arrays) -> Arrays:
    """The task's arrays as the file takes them, by its own names."""
    names = in_order(artifact.inputs, list(form.inputs(model)))
    specs = zip(names, artifact.task_inputs, artifact.inputs, strict=True)
    return {own: encode(inputs[task.name], task, stored) for own, task, stored in specs}


def _floats(values: Array, scale: quantization_parameters.Scale | None) -> Array:
    if scale is None:
        return values.astype(np.float32)
    (step,), (zero,) = scale.scale, scale.zero_point or (0,)
    return (values.astype(np.float32) - zero) * np.float32(step)
