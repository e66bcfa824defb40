"""Methods: TFLiteConverter's post-training quantization, in the order of its documentation.

Each takes the Keras model, the method and the calibration samples by Keras input name (float32,
first axis the samples), and returns the bytes of the .tflite file.
Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # the converter then takes tf_keras models
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import tf_keras

from harness.method import Method
from harness.tensors import Arrays


def keras_form(form: Callable[[Arrays], Any], state: Arrays, seed: int) -> Any:
    """The tf_keras model; Keras numbers its layers from 1 again, so that names never differ."""
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(seed)
    return form(state)


def float32(model: Any, method: Method, calibration: Arrays) -> bytes:
    """No quantization."""
    return _convert(_converter(model))


def dynamic_range(model: Any, method: Method, calibration: Arrays) -> bytes:
    """int8 weights (of 1024 elements or more); activations are quantized at run time."""
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel = method.granularity == "per-tensor"
    return _convert(converter)


def full_integer(model: Any, method: Method, calibration: Arrays) -> bytes:
    """int8 weights and activations, int32 biases; calibrated by minimum and maximum."""

    def samples() -> Iterator[dict[str, Any]]:
        for i in range(method.samples):
            yield {name: array[i : i + 1] for name, array in calibration.items()}

    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.as_dtype(method.io)
    converter.inference_output_type = tf.as_dtype(method.io)
    converter._experimental_disable_per_channel = method.granularity == "per-tensor"
    return _convert(converter)


def float16(model: Any, method: Method, calibration: Arrays) -> bytes:
    """float16 weights, each behind a DEQUANTIZE."""
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return _convert(converter)


def _converter(model: Any) -> Any:
    return tf.lite.TFLiteConverter.from_keras_model(model)


def _convert(converter: Any) -> bytes:
    file: bytes = converter.convert()
    return file


METHODS: Mapping[str, Callable[[Any, Method, Arrays], bytes]] = {
    "fp32": float32,
    "dynamic-int8": dynamic_range,
    "static-int8": full_integer,
    "fp16": float16,
}
