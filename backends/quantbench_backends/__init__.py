"""Backends: one folder per framework; beside them `onnx_files`, which reads ONNX files for any of them."""
