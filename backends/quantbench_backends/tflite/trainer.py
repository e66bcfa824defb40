"""Trainer: TensorFlow's gradient steps on the Keras form, in float or with fake quantization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from quantbench_backends.tflite import form, qat

import tensorflow as tf  # isort: skip - after them, which choose the Keras that it shows
import tf_keras  # isort: skip

from quantbench.backend_api import MOMENTUM, Course, Step, check_finite
from quantbench.spec import Array, Arrays, Data, Method, Model, check_inputs
from quantbench_backends.tflite.form import Form

CALIBRATION_BATCH = 32
EPSILON = 1e-8
"""Of Adam, as in Kingma and Ba 2015, arXiv 1412.6980, and PyTorch; Keras would take 1e-7."""


class KerasTrainer:
    """See `quantbench.backend_api.protocol.Trainer`; leaves the Keras model's variables, fake quantization too."""

    def __init__(self) -> None:
        self._known = ""
        self._call: Callable[[Arrays], Arrays] | None = None

    def train(self, model: Model, method: Method, data: Data, course: Course) -> None:
        """Train and save in ``course.folder``; raises `BadInput` where data are not finite."""
        tf.config.experimental.enable_op_determinism()
        start = form.of(model, method)
        known = course.restore()
        if method.training == "qat" and known is None:
            samples = data.calibration
            check_inputs(model.inputs, samples.inputs, len(samples))
            check_finite("calibration samples", samples.inputs)
            batches = (_arguments(start, b) for b in samples.batches(CALIBRATION_BATCH))
            qat.calibrate(start.keras, method, batches)
        trained = qat.trained_variables(start.keras)
        optimizer = _optimizer(method)
        optimizer.build(trained)
        state = form.variables(start.keras)
        kept = [*optimizer.variables, optimizer.learning_rate]
        state |= {f"optimizer/{i}": v for i, v in enumerate(kept)}
        if known is not None:
            form.assign(state, known)
        for epoch in course.epochs():
            # random layers go on from the epoch, not from where the process started
            tf_keras.utils.set_random_seed(method.seed * 10_000 + epoch)
            with qat.statistics(start.keras, frozen=epoch >= method.freeze_batchnorm):
                descend = _descent(start, trained, optimizer, course.loss, model)
                for step in course.steps(epoch):
                    course.record(step, descend(step))
            course.save(epoch, _values(state))
        save_file(_values(form.variables(start.keras)), course.folder / form.TRAINED)
        course.finish()

    def outputs(self, model: Model, method: Method, inputs: Arrays) -> Arrays:
        """What the trained Keras model gives for a batch, fake quantization included."""
        if self._call is None or self._known != model.trained:
            self._call, self._known = _evaluation(form.of(model, method)), model.trained
        found = self._call(inputs)
        return {spec.name: found[spec.name] for spec in model.outputs}


def _values(variables: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(variable.numpy()) for name, variable in variables.items()}


def _optimizer(method: Method) -> Any:
    if method.optimizer == "adam":
        return tf_keras.optimizers.Adam(method.learning_rate, epsilon=EPSILON)
    descent = tf_keras.optimizers.SGD(method.learning_rate, momentum=MOMENTUM)
    descent.momentum = tf.Variable(MOMENTUM, trainable=False)
    return descent


def _descent(
    start: Form, trained: list[Any], optimizer: Any, loss: str, model: Model
) -> Callable[[Step], float]:
    """One gradient step on the loss of the task's first output."""
    first = start.outputs.index(model.outputs[0])

    @tf.function  # type: ignore[untyped-decorator]
    def descend(arguments: Any, wanted: Any) -> Any:
        with tf.GradientTape() as tape:
            output = tf.nest.flatten(start.keras(arguments, training=True))[first]
            if loss == "cross-entropy":
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, output)
            else:
                losses = tf.math.squared_difference(output, wanted)
            value = tf.reduce_mean(losses)
        pairs = zip(tape.gradient(value, trained), trained, strict=True)
        optimizer.apply_gradients([(g, v) for g, v in pairs if g is not None])
        return value

    momentum = getattr(optimizer, "momentum", None)

    def one(step: Step) -> float:
        if momentum is not None:
            # Keras keeps each step's own rate in the velocity, PyTorch the rate of now in all of it
            momentum.assign(MOMENTUM * step.learning_rate / float(optimizer.learning_rate))
        optimizer.learning_rate = step.learning_rate
        labels = step.labels
        wanted = labels if loss == "cross-entropy" else start.wanted(labels, first)
        return float(descend(_arguments(start, step.inputs), tf.constant(wanted)))

    return one


def _arguments(start: Form, inputs: Arrays) -> list[Any]:
    return [tf.constant(array) for array in start.stored(inputs).values()]


def _evaluation(trained: Form) -> Callable[[Arrays], Arrays]:
    @tf.function  # type: ignore[untyped-decorator]
    def call(arguments: Any) -> Any:
        return tf.nest.flatten(trained.keras(arguments, training=False))

    def evaluate(inputs: Arrays) -> Arrays:
        found = call(_arguments(trained, inputs))
        return trained.task_outputs([tensor.numpy() for tensor in found])

    return evaluate
