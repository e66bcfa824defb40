"""Observation: the activations that a static method quantizes, as the float graph computes them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper

from quantbench.backend_api import See
from quantbench.spec import Arrays, Method
from quantbench_backends.onnx_files import form, layers
from quantbench_backends.onnxruntime.calibration import Batches
from quantbench_backends.onnxruntime.methods import CALIBRATION_BATCH, prepare, quantized_tensors

MOST_BYTES = 256 << 20
"""Of activations that are held at once, unless one alone is larger."""


def observe(
    model: ModelProto, method: Method, choice: layers.Choice, samples: Arrays, see: See
) -> None:
    """Show every batch of every activation whose range is needed; see `Quantizer.observe`.

    The graph is the one that `quantize_static` starts from, and is run without optimization, as its
    calibrators do.
    """
    with tempfile.TemporaryDirectory() as temporary:
        prepared = prepare(model, Path(temporary), fuse=method.fusion)
        graph = onnx.load(prepared)
        needed = quantized_tensors(prepared, graph, method, choice)
    names = list(dict.fromkeys(needed.values()))
    entering = [name for name in names if name in form.inputs(graph)]
    computed = [name for name in names if name not in entering]
    session = with_outputs(graph, dict.fromkeys(computed, TensorProto.FLOAT))
    together: list[list[str]] | None = None
    fixed = form.fixed_batch(model)
    for batch in Batches(samples, fixed or CALIBRATION_BATCH):
        together = together or list(groups(session, computed, batch, bool(fixed)))
        for name in entering:
            see(name, batch[name])
        for group in together:
            for name, values in zip(group, session.run(group, batch), strict=True):
                see(name, values)


def with_outputs(graph: ModelProto, elements: Mapping[str, int]) -> ort.InferenceSession:
    """A session of the graph without optimization, which gives these tensors of those types too."""
    known = {value.name for value in graph.graph.output}
    graph.graph.output.extend(
        helper.make_tensor_value_info(name, element, None)
        for name, element in elements.items()
        if name not in known
    )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def groups(
    session: ort.InferenceSession, names: list[str], batch: Arrays, fixed: bool
) -> Iterator[list[str]]:
    """Names whose values of one batch are at most `MOST_BYTES`, found with its first sample."""
    few = batch if fixed else {name: array[:1] for name, array in batch.items()}
    times = len(next(iter(batch.values()))) // len(next(iter(few.values())))
    group: list[str] = []
    held = 0
    for name, values in zip(names, session.run(names, few), strict=True):
        size = values.nbytes * times
        if group and held + size > MOST_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group
