"""Form: an ONNX file as a build reads it, with its inputs and outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

from quantbench.errors import BadInput
from quantbench.spec import TensorSpec
from quantbench_backends.onnx_files.tensor_names import in_order

Values = Mapping[str, ValueInfoProto]


def read(path: Path) -> ModelProto:
    """Read an ONNX file.

    Raises
    ------
    BadInput
        If it cannot be read, or one of its weights holds NaN.
    """
    try:
        model = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise BadInput(
            f"ONNX form {path} cannot be read ({error}); export the model again"
        ) from error
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise BadInput(f"weights: '{tensor.name}' holds NaN; replace it with finite values")
    return model


def inputs(model: ModelProto) -> Values:
    """Inputs by name, without weights that the file also lists as inputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return {value.name: value for value in model.graph.input if value.name not in constants}


def outputs(model: ModelProto) -> Values:
    """Outputs by name."""
    return {value.name: value for value in model.graph.output}


def stored(specs: tuple[TensorSpec, ...], values: Values) -> tuple[TensorSpec, ...]:
    """The task's specs with the dtypes that the file stores."""
    return tuple(
        dataclasses.replace(spec, dtype=_dtype(values[name]))
        for name, spec in in_order(specs, list(values)).items()
    )


def fixed_batch(model: ModelProto) -> int | None:
    """The number of samples a call takes where the file fixes it."""
    for value in inputs(model).values():
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and dimensions[0].HasField("dim_value"):
            return int(dimensions[0].dim_value)
    return None


def _dtype(value: ValueInfoProto) -> str:
    return str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name)
