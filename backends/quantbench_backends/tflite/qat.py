"""Qat: fake quantization of a Keras model by TensorFlow's Model Optimization Toolkit (tfmot).

Source: https://www.tensorflow.org/model_optimization/guide/quantization/training_comprehensive_guide
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import tf_keras
from tensorflow_model_optimization.quantization import keras as tfmot

from quantbench.errors import BadInput
from quantbench.spec import Method

FOLDED = (tf_keras.layers.Conv2D, tf_keras.layers.DepthwiseConv2D, tf_keras.layers.Dense)
"""Layers into which the converter folds a batch norm that follows."""
NORMS = tf_keras.layers.BatchNormalization
PREFIX = "quant_"
DECAY = 0.9  # of moving averages while ranges are initialised; tfmot's own 0.999 is for training


def fake_quantized(model: Any, method: Method) -> Any:
    """The model with fake quantization and the same weights.

    Layers that tfmot has no quantization for, such as group norms, stay in float. It gives weights
    of convolutions one scale per channel, those of Dense layers always one in all.

    Raises
    ------
    BadInput
        If tfmot cannot take the model; names the layer.
    """
    scheme = tfmot.default_8bit.Default8BitQuantizeScheme(
        disable_per_axis=method.granularity == "per-tensor"
    )
    registry = scheme.get_quantize_registry()

    def annotated(layer: Any) -> Any:
        quantizable = _is_folded(layer) if isinstance(layer, NORMS) else registry.supports(layer)
        return tfmot.quantize_annotate_layer(layer) if quantizable else layer

    try:
        with tfmot.quantize_scope():
            chosen = tf_keras.models.clone_model(model, clone_function=annotated)
            return tfmot.quantize_apply(chosen, scheme, quantized_layer_name_prefix=PREFIX)
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
        raise BadInput(_why_not(model, registry, error)) from error


def _is_folded(norm: Any) -> bool:
    """Whether a batch norm follows a layer that it is folded into."""
    return isinstance(norm.inbound_nodes[0].inbound_layers, FOLDED)


def _why_not(model: Any, registry: Any, error: Exception) -> str:
    reason = " ".join(str(error).split())
    odd = [
        layer
        for layer in model.layers
        if not (registry.supports(layer) or isinstance(layer, (NORMS, tf_keras.layers.InputLayer)))
    ]
    if not odd:
        return f"tfmot cannot take the Keras form ({reason[:200]}); use static-int8"
    layer = next((layer for layer in odd if type(layer).__name__ in reason), odd[0])
    return (
        f"tfmot cannot take layer '{layer.name}' ({type(layer).__name__}) of the Keras form; "
        "write it with layers that tfmot knows, or use static-int8"
    )


def calibrate(model: Any, method: Method, batches: Iterable[Any]) -> None:
    """Initialise the ranges of activations from calibration batches.

    tfmot starts at -6 and 6, which 1/(1 - 0.999) steps of its moving average hardly change: the
    accuracy of a short training collapses. ``minmax`` takes the extremes of all batches,
    ``moving-average`` starts from the first batch.
    """
    for weight in model.weights:
        if weight.name.endswith(("_min:0", "_max:0")):
            weight.assign(weight * 0)  # where a minimum and a maximum start from
    with statistics(model, frozen=True):
        for i, batch in enumerate(batches):
            moving = method.calibrator == "moving-average" and i > 0
            with _observing(model, _Average if moving else tfmot.quantizers.AllValuesQuantizer):
                model(batch, training=True)


class _Average(tfmot.quantizers.Quantizer):  # type: ignore[misc]
    """A moving average that forgets faster than tfmot's."""

    def __init__(self, **options: Any) -> None:
        self._extremes = tfmot.quantizers.AllValuesQuantizer(**options)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
        raise NotImplementedError  # it takes the place of one that is built

    def get_config(self) -> dict[str, Any]:
        return self._extremes.get_config()  # type: ignore[no-any-return]

    def __call__(self, inputs: Any, training: Any, weights: Any, **options: Any) -> Any:
        before = [weights[name].numpy() for name in ("min_var", "max_var")]
        for name in ("min_var", "max_var"):
            weights[name].assign(weights[name] * 0)
        outputs = self._extremes(inputs, training, weights, **options)
        for name, old in zip(("min_var", "max_var"), before, strict=True):
            weights[name].assign(DECAY * old + (1 - DECAY) * weights[name])
        return outputs


@contextmanager
def _observing(model: Any, observer: Any) -> Iterator[None]:
    """With all quantizers of activations replaced by observers of the same grid."""
    slots = list(_slots(model))
    known = [holder[name] for holder, name in slots]
    for (holder, name), old in zip(slots, known, strict=True):
        holder[name] = observer(**old.get_config())
    try:
        yield
    finally:
        for (holder, name), old in zip(slots, known, strict=True):
            holder[name] = old


def _slots(model: Any) -> Iterator[tuple[Any, Any]]:
    """Where quantizers of activations are kept: containers with a key each."""
    for layer in model.layers:
        if isinstance(getattr(layer, "quantizer", None), tfmot.quantizers.Quantizer):
            yield vars(layer), "quantizer"
        for activation in getattr(layer, "_quantize_activations", ()):
            yield vars(activation), "quantizer"
        if getattr(layer, "_output_quantizers", None):
            yield layer._output_quantizers, 0


@contextmanager
def statistics(model: Any, *, frozen: bool) -> Iterator[None]:
    """With the statistics of batch norms used and left as they are, if ``frozen``.

    Their scales and offsets are trained all the same, as in other frameworks.
    """
    inner = (getattr(layer, "layer", layer) for layer in model.layers)
    norms = [layer for layer in inner if isinstance(layer, NORMS) and layer.trainable]
    for norm in norms:
        norm.trainable = not frozen
    try:
        yield
    finally:
        for norm in norms:
            norm.trainable = True


def trained_variables(model: Any) -> list[Any]:
    """What gradients change, each once; tfmot forgets that a wrapped layer is not trainable."""
    found = {}
    for layer in model.layers:
        inner = getattr(layer, "layer", layer)
        if inner.trainable:
            found.update({id(v): v for v in layer.trainable_weights})
    return list(found.values())
