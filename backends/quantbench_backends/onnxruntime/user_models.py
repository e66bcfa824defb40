"""The user's own ONNX files."""

from __future__ import annotations

import json
from pathlib import Path

from quantbench.experiment import OUTPUTS
from quantbench.spec import TensorSpec
from quantbench.system import write_json
from quantbench_backends.onnx_files import form


def outputs(source: str, folder: Path) -> Path:
    """Write what the outputs of a file look like, as it declares them; unknown axes are free."""
    values = form.outputs(form.read(Path(json.loads(source)["onnx"])))
    told = []
    for name, value in values.items():
        dims = value.type.tensor_type.shape.dim
        shape = (None, *(d.dim_value if d.HasField("dim_value") else None for d in dims[1:]))
        told.append(TensorSpec(name, shape, "float32").to_json())
    write_json(folder / OUTPUTS, told)
    return folder / OUTPUTS
