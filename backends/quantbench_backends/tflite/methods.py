"""Methods: TFLiteConverter's ways to a file, in the order of its documentation.

Each takes the Keras model, the method and the calibration samples by Keras input name (float32,
first axis the samples), and returns the bytes of the .tflite file.
Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # the converter then takes tf_keras models
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import tf_keras
from tensorflow.lite.python.convert import mlir_quantize

from quantbench.spec import Arrays, Method

OF_ONE_SAMPLE = (tf_keras.layers.GroupNormalization, tf_keras.layers.RNN)


def keras_form(form: Callable[[Arrays], Any], state: Arrays, seed: int) -> Any:
    """The tf_keras model; Keras numbers its layers from 1 again, so that names never differ."""
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(seed)
    return form(state)


def of_one_sample(model: Any) -> Any:
    """The model for one sample a call where it needs that, itself elsewhere; layers are shared.

    Of a free batch, Keras' group norm computes shapes in the graph, and LiteRT then fails in its
    ``BROADCAST_TO`` for any number of samples; recurrent layers are not converted at all.
    """
    layers = (getattr(layer, "layer", layer) for layer in model.layers)
    if not any(isinstance(layer, OF_ONE_SAMPLE) for layer in layers):
        return model
    named = zip(model.input_names, model.inputs, strict=True)
    inputs = [tf_keras.Input(x.shape[1:], 1, name, x.dtype) for name, x in named]
    return tf_keras.models.clone_model(model, inputs, lambda layer: layer)


def float32(model: Any, method: Method, calibration: Arrays) -> bytes:
    """No quantization."""
    return _convert(_converter(model))


def float16(model: Any, method: Method, calibration: Arrays) -> bytes:
    """float16 weights, each behind a DEQUANTIZE."""
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return _convert(converter)


def dynamic_range(model: Any, method: Method, calibration: Arrays) -> bytes:
    """int8 weights (of 1024 elements or more); activations are quantized at run time."""
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    _set_granularity(converter, method)
    return _convert(converter)


def full_integer(model: Any, method: Method, calibration: Arrays) -> bytes:
    """int8 weights and activations, int32 biases; calibrated by minimum and maximum."""
    converter = _calibrated(model, method, calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    _set_io(converter, method)
    return _convert(converter)


def integer_16x8(model: Any, method: Method, calibration: Arrays) -> bytes:
    """int8 weights, int16 activations, float32 inputs and outputs; float where no kernel is."""
    converter = _calibrated(model, method, calibration)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    return _convert(converter)


def fake_quantized(model: Any, method: Method, calibration: Arrays) -> bytes:
    """int8 where the model holds fake quantization, with its ranges; float elsewhere."""
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    _set_io(converter, method)
    _set_granularity(converter, method)
    return _convert(converter)


def ranged(model: Any, method: Method, calibration: Arrays) -> bytes:
    """The float file with the observed range of every tensor; `selective` quantizes it."""
    converter = _calibrated(model, method, calibration)
    converter._experimental_calibrate_only = True
    return _convert(converter)


def selective(file: bytes, method: Method, kept: Sequence[str]) -> bytes:
    """As `full_integer`, but for the operators with the outputs ``kept``, which stay in float.

    What `tf.lite.experimental.QuantizationDebugger` does with a file of `ranged`, without its
    instrumented copy.
    """
    one_scale = method.granularity == "per-tensor"
    quantized: bytes = mlir_quantize(
        file,
        disable_per_channel=one_scale,
        disable_per_channel_for_dense_layers=one_scale,
        # what lies around a single layer is float, inputs and outputs too
        fully_quantize=method.io != "float32" and not method.only,
        denylisted_nodes=list(kept),
    )
    return quantized


def _calibrated(model: Any, method: Method, calibration: Arrays) -> Any:
    """A converter that calibrates with one sample at a time."""

    def samples() -> Iterator[dict[str, Any]]:
        for i in range(method.samples):
            yield {name: array[i : i + 1] for name, array in calibration.items()}

    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    _set_granularity(converter, method)
    return converter


def _converter(model: Any) -> Any:
    return tf.lite.TFLiteConverter.from_keras_model(model)


def _set_granularity(converter: Any, method: Method) -> None:
    one_scale = method.granularity == "per-tensor"
    converter._experimental_disable_per_channel = one_scale
    converter._experimental_disable_per_channel_quantization_for_dense_layers = one_scale


def _set_io(converter: Any, method: Method) -> None:
    converter.inference_input_type = tf.as_dtype(method.io)
    converter.inference_output_type = tf.as_dtype(method.io)


def _convert(converter: Any) -> bytes:
    file: bytes = converter.convert()
    return file


METHODS: Mapping[str, Callable[[Any, Method, Arrays], bytes]] = {
    "fp32": float32,
    "fp16": float16,
    "dynamic-int8": dynamic_range,
    "static-int8": full_integer,
    "static-int16x8": integer_16x8,
    "qat-int8": fake_quantized,
}
