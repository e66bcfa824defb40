"""ONNX files: reading and describing them, for every backend that takes or leaves some; no backend itself.

The door is light, since a device has a runtime and NumPy only: it brings what describes nodes and
names tensors. What the package onnx reads lies behind it in modules, each imported when it is taken
(``from quantbench_backends.onnx_files import graph``).
"""

from quantbench_backends.onnx_files.nodes import (
    CONVOLUTIONS,
    INTEGER_GROUPS,
    QUANTIZED,
    Node,
    Tensor,
    kernel,
    macs,
)
from quantbench_backends.onnx_files.tensor_names import in_order

__all__ = [
    "CONVOLUTIONS",
    "INTEGER_GROUPS",
    "QUANTIZED",
    "Node",
    "Tensor",
    "artifact_record",
    "form",
    "graph",
    "in_order",
    "kernel",
    "layers",
    "macs",
    "protobuf_reader",
    "quantization_parameters",
    "shapes",
]
