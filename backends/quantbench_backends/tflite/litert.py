"""Litert: LiteRT Quantizer's recipes on a float .tflite file (it was the AI Edge Quantizer).

Source: https://github.com/google-ai-edge/ai-edge-quantizer
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from math import gcd
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from litert_quantizer import calibrator, qtyping, quantizer, recipe_manager
from litert_quantizer.utils import qsv_utils

from quantbench.backend_api import See
from quantbench.errors import BadInput
from quantbench.spec import Array, Arrays, Method
from quantbench_backends.tflite import layers, signature
from quantbench_backends.tflite.flatbuffer import parse
from quantbench_backends.tflite.layers import Operator

EVERY = ".*"
OBSERVED = 32
"""Samples of one inference while activations are observed."""
GRANULARITY: Mapping[str, Any] = {
    "none": qtyping.QuantGranularity.TENSORWISE,
    "per-tensor": qtyping.QuantGranularity.TENSORWISE,
    "per-channel": qtyping.QuantGranularity.CHANNELWISE,
}
BITS: Mapping[str, int] = {"int4": 4, "int8": 8, "float16": 16}
BLOCKED = "FULLY_CONNECTED"
"""The operator whose weights may have one scale per group."""


def quantize(
    content: bytes,
    method: Method,
    samples: Arrays,
    known: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
) -> bytes:
    """The quantized file.

    Parameters
    ----------
    content : bytes
        The float file, for one sample a call.
    samples : mapping
        Calibration samples by the file's names, as it takes them; first axis the samples.
    known : sequence of str
        Canonical names of the model's layers.
    ranges : mapping
        Injected ones by the name of the tensor.

    Raises
    ------
    BadInput
        If an axis names a layer that is not in the file, a group does not divide its features, or
        the tool fails, as it does on loops.
    """
    tool = _recipe(content, method, known)
    with _refused():
        found = _calibrate(content, tool, method, samples) if method.scales == "static" else None
        if found is not None and method.ranges == "injected":
            found = {name: _injected(name, known, ranges) for name, known in found.items()}
        result = tool.quantize(found, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def observe(
    content: bytes, method: Method, samples: Arrays, known: Sequence[str], see: See
) -> None:
    """Run the float file over the samples; give each activation that needs a range to ``see``."""
    with _refused():
        first = {name: array[:1] for name, array in samples.items()}
        names = _calibrate(content, _recipe(content, method, known), method, first) or ()
        running = Interpreter(
            model_content=content, num_threads=1, experimental_preserve_all_tensors=True
        )
    inputs = signature.read(content).inputs
    where = {t["name"]: t["index"] for t in running.get_tensor_details()}
    # a file of a free batch gives for each sample what it gives for one: see `batch`
    size = OBSERVED if all(tensor.shape[0] is None for tensor in inputs.values()) else 1
    total = len(next(iter(samples.values())))
    ready = 0
    for start in range(0, total, size):
        batch = {name: array[start : start + size] for name, array in samples.items()}
        count = min(size, total - start)
        if count != ready:
            for name, tensor in inputs.items():
                running.resize_tensor_input(tensor.index, batch[name].shape)
            running.allocate_tensors()
            ready = count
        running.reset_all_variables()  # what a recurrent layer remembers
        for name, tensor in inputs.items():
            running.set_tensor(tensor.index, batch[name])
        running.invoke()
        for name in names:
            values = running.get_tensor(where[name])
            # attention puts heads beside samples on the first axis
            see(name, values.reshape(count, -1) if values.size % count == 0 else values)


@contextmanager
def _refused() -> Iterator[None]:
    """Failures of the tool as `BadInput`; its interpreters keep all tensors, and say so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            yield
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(
                f"LiteRT Quantizer cannot take the file ({reason}); use route: keras"
            ) from error


def _recipe(content: bytes, method: Method, known: Sequence[str]) -> Any:
    """The tool with what the method asks for."""
    file = parse(content)
    if method.granularity == "group":
        _check_groups(method, layers.operators(file, known))
    if method.parts == "weights":
        method = replace(method, scales="none")
    tool = quantizer.Quantizer(content)
    chosen = tuple(_scopes("only", method.only, file, known)) or (EVERY,)
    for scope in chosen:
        _add(tool, scope, method, method.weights)
    for scope in _scopes("int4_weights", method.int4_weights, file, known):
        if scope in chosen or not method.only:
            _add(tool, scope, method, "int4")
    for scope in _scopes("keep_float", method.keep_float, file, known):
        _leave(tool, scope, "ALL_SUPPORTED")
    if method.scales == "static" and not method.only:
        _set_io(tool, method)
    return tool


def _injected(
    name: str, found: Mapping[str, Array], ranges: Mapping[str, tuple[float, float]]
) -> dict[str, Array]:
    """The range of a tensor as the tool keeps it: shapes of what it found itself."""
    if name not in ranges:
        raise BadInput(f"no range was given for '{name}'; observe the model again")
    return {
        key: np.full_like(found[key], end)
        for key, end in zip(("min", "max"), ranges[name], strict=True)
    }


def _add(tool: Any, scope: str, method: Method, weights: str) -> None:
    """Have every operator in a scope quantized that the tool knows to."""
    cast = weights == "float16"
    tool.update_quantization_recipe(
        scope,
        qtyping.TFLOperationName.ALL_SUPPORTED,
        qtyping.OpQuantizationConfig(
            activation_tensor_config=_activations(method) if method.scales == "static" else None,
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=BITS[weights],
                symmetric=method.symmetric_weights,
                granularity=_granularity(method),
                dtype=qtyping.TensorDataType.FLOAT if cast else qtyping.TensorDataType.INT,
            ),
            compute_precision=(
                qtyping.ComputePrecision.FLOAT
                if method.scales == "none"
                else qtyping.ComputePrecision.INTEGER
            ),
            explicit_dequantize=method.scales == "none",
        ),
        (
            quantizer.AlgorithmName.FLOAT_CASTING
            if cast
            else quantizer.AlgorithmName.MIN_MAX_UNIFORM_QUANT
        ),
    )


def _activations(method: Method) -> Any:
    return qtyping.TensorQuantizationConfig(
        num_bits=int(method.activations.removeprefix("int")),
        symmetric=method.symmetric_activations,
    )


def _granularity(method: Method) -> Any:
    if method.granularity == "group":
        return qtyping.QuantGranularity[f"BLOCKWISE_{method.group_size}"]
    return GRANULARITY[method.granularity]


def _leave(tool: Any, scope: str, operation: str) -> None:
    tool.update_quantization_recipe(
        scope,
        qtyping.TFLOperationName[operation],
        algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE,
    )


def _set_io(tool: Any, method: Method) -> None:
    """Inputs and outputs as ``method.io`` says; int8 is what int8 activations have anyway."""
    for operation in ("INPUT", "OUTPUT"):
        if method.io == "float32":
            _leave(tool, EVERY, operation)
        elif method.io == "uint8":
            tool.update_quantization_recipe(
                EVERY,
                qtyping.TFLOperationName[operation],
                qtyping.OpQuantizationConfig(
                    activation_tensor_config=qtyping.TensorQuantizationConfig(
                        num_bits=8, symmetric=False, dtype=qtyping.TensorDataType.UINT
                    ),
                    weight_tensor_config=qtyping.TensorQuantizationConfig(
                        num_bits=8, granularity=_granularity(method)
                    ),
                    compute_precision=qtyping.ComputePrecision.INTEGER,
                ),
            )


def _scopes(axis: str, patterns: Sequence[str], file: Any, known: Sequence[str]) -> Iterator[str]:
    """A regular expression for each operator of the named layers: LiteRT's name of it, exactly."""
    if patterns:
        for operator in layers.named(axis, patterns, file, known):
            yield f"^{re.escape(';'.join(operator.outputs) + ';')}$"


def _calibrate(content: bytes, tool: Any, method: Method, samples: Arrays) -> Any:
    """Ranges by minimum and maximum of all samples, or by the tool's own moving average.

    That average, 0.95 of the old and 0.05 of each new sample, is far off after some samples.
    """
    recipe = recipe_manager.RecipeManager()
    recipe.load_quantization_recipe(tool.get_quantization_recipe())
    own = method.calibrator == "moving-average" and method.ranges == "native"
    if method.parts == "weights":
        return None
    if method.ranges == "injected":  # what it finds is replaced
        samples = {name: array[:1] for name, array in samples.items()}
    update = {} if own else {"qsv_update_func": qsv_utils.min_max_update}
    observer = calibrator.Calibrator(content, num_threads=1, **update)
    (signature,) = observer.get_signature_list()
    with redirect_stderr(StringIO()):  # a progress bar
        observer.calibrate({signature: list(_one_by_one(samples))}, recipe)
    return observer.get_model_qsvs()


def _one_by_one(samples: Arrays) -> Iterator[dict[str, Array]]:
    for i in range(len(next(iter(samples.values())))):
        yield {name: array[i : i + 1] for name, array in samples.items()}


def _check_groups(method: Method, operators: Mapping[str, Operator]) -> None:
    for layer, operator in operators.items():
        features = operator.shape[-1]
        if operator.kind == BLOCKED and features % method.group_size:
            fitting = gcd(features, 256)
            remedy = (
                f"use group_size: {fitting}" if fitting >= 32 else "use granularity: per-channel"
            )
            raise BadInput(
                f"group_size {method.group_size} does not divide the {features} input features of "
                f"layer '{layer}'; {remedy}"
            )
