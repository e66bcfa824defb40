"""Schema: the columns of a run's Parquet files, the contract that other tools rely on.

docs/results.md describes each column. Every file carries ``SCHEMA_VERSION`` in its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from quantbench.spec import AXES, Method, Status

SCHEMA_VERSION = 6
"""Raised by a new column, axis or meaning; `quantbench.results.migration` reads what was before."""


STATUSES = tuple(Status)

_AXIS_TYPES: Mapping[type, pa.DataType] = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), tuple: pa.list_(pa.string()),
}  # fmt: skip


_EXAMPLE = Method("fp32")


TRIALS = pa.schema(
    [
        ("run", pa.string()),
        ("trial", pa.string()),
        ("experiment", pa.string()),
        ("model", pa.string()),
        ("task", pa.string()),
        ("backend", pa.string()),
        ("method", pa.string()),
        ("label", pa.string()),  # method with the axes that were overridden, for people
        *((axis, _AXIS_TYPES[type(getattr(_EXAMPLE, axis))]) for axis in AXES),
        ("target", pa.string()),
        ("device", pa.string()),
        ("threads", pa.int64()),
        ("isa", pa.string()),
        ("kernels", pa.string()),
        ("seed", pa.int64()),
        # closed: from the weights and calibration samples alone; open: retrained; null: a ready file
        ("division", pa.string()),
        ("precision", pa.string()),
        ("machine", pa.string()),
        ("status", pa.string()),
        ("stage", pa.string()),  # build, score or clock: where the status was decided
        ("reason", pa.string()),
        ("artifact", pa.string()),  # content key in the cache
        ("sha256", pa.string()),
        (
            "parity_max_abs",
            pa.float64(),
        ),  # of this backend's fp32 against the model's reference form
        ("parity_samples", pa.int64()),
        ("trained_s", pa.float64()),
        ("converted_s", pa.float64()),  # of the float form, once for all methods that start from it
        ("observed_s", pa.float64()),  # of the histograms, once for all calibrators
        ("built_s", pa.float64()),
        ("scored_s", pa.float64()),
        ("effective", pa.string()),  # JSON: settings as the runtime reported them
        ("flags", pa.list_(pa.string())),  # e.g. not-steady, slower-than-10x, outputs-differ
        ("warnings", pa.list_(pa.string())),  # of the machine and of the target on it, as sentences
    ]
)


MEASUREMENTS = pa.schema(
    [
        ("trial", pa.string()),
        # artifact, score, seeds, memory, start, energy; single-stream, multi-stream, offline, confirmation
        ("scenario", pa.string()),
        ("batch_size", pa.int64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("spread", pa.string()),  # what low and high mean: `quantbench.spec.Spread`
        ("unit", pa.string()),
        ("n", pa.int64()),
        ("reference", pa.string()),  # the trial a ratio or difference is relative to
        ("verdict", pa.string()),
        ("reason", pa.string()),  # why value is null, or how it was limited
    ]
)


SAMPLES = pa.schema(
    [
        ("trial", pa.string()),
        ("scenario", pa.string()),
        ("batch_size", pa.int64()),
        ("session", pa.int64()),  # of the clock phase; later ones are separated from the first
        ("generation", pa.int64()),  # counted through all sessions
        ("round", pa.int64()),
        ("position", pa.int64()),
        ("calls", pa.int64()),
        ("nanoseconds", pa.int64()),
    ]
)


PREDICTIONS = pa.schema(
    [
        ("trial", pa.string()),
        ("sample", pa.int64()),
        ("label", pa.float64()),
        ("prediction", pa.float64()),
        ("outcome", pa.float64()),  # what the metric averages, per sample
        ("tied", pa.bool_()),  # whether the answer depends on a tie rule; null where none can
        ("worst", pa.float64()),  # outcome by the tie rule that is worst for it
        ("best", pa.float64()),
        ("confidence", pa.float32()),  # probability of the answer; null where outputs give none
        ("brier", pa.float32()),  # the sample's term of the Brier score, 0 to 2
    ]
)
FIDELITY = pa.schema(
    [
        ("trial", pa.string()),
        ("sample", pa.int64()),  # along the first axis of the outputs
        ("signal", pa.float32()),  # sum of squares of the reference's output
        ("noise", pa.float32()),  # of the difference to it, of the output of the smallest SQNR
        ("product", pa.float32()),  # of the first output with the reference's
        ("reference_square", pa.float32()),
        ("square", pa.float32()),
        ("kl", pa.float32()),  # nats
    ]
)
READINGS = pa.schema(
    [
        ("trial", pa.string()),
        # memory, energy; single-stream, multi-stream, offline, confirmation; start: load and first
        # inference too
        ("scenario", pa.string()),
        ("batch_size", pa.int64()),
        ("session", pa.int64()),  # of the clock phase, from 0; 0 of all that is read outside of it
        ("process", pa.int64()),  # generation, window, or fresh process
        ("reading", pa.string()),
        ("value", pa.float64()),
        ("text", pa.string()),  # of a failure: its status and reason
    ]
)


ARTIFACTS = pa.schema(
    [
        ("trial", pa.string()),
        ("kind", pa.string()),  # tensor and node (from the file), executed (from the runtime)
        ("name", pa.string()),
        ("role", pa.string()),
        ("operator", pa.string()),  # of nodes and executed: its type in the framework's words
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("bytes", pa.int64()),
        ("bits", pa.int64()),
        ("levels", pa.int64()),  # values that it can take: 256, 255, 128...
        ("signed", pa.bool_()),
        ("symmetric", pa.bool_()),
        ("granularity", pa.string()),
        ("group_size", pa.int64()),
        ("scale", pa.list_(pa.float64())),
        ("zero_point", pa.list_(pa.int64())),
        ("low", pa.float64()),  # the range that the integers stand for
        ("high", pa.float64()),
        ("layer", pa.string()),
        ("scales", pa.string()),  # none, dynamic or static
        ("macs", pa.int64()),
        ("weights", pa.int64()),
        ("weight_dtype", pa.string()),
        ("integer", pa.bool_()),
        ("engine", pa.string()),
        ("fused", pa.list_(pa.string())),
        ("reason", pa.string()),  # why it is in float, where that is known
    ]
)


HISTOGRAMS = pa.schema(
    [
        ("trials", pa.list_(pa.string())),  # whose float form it is of
        ("role", pa.string()),  # activation or weight
        ("name", pa.string()),  # the backend's name of the activation; the layer of the weight
        ("start", pa.float64()),  # of the first bin
        ("width", pa.float64()),
        ("counts", pa.list_(pa.int64())),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        ("mean", pa.float64()),
        ("std", pa.float64()),
        ("count", pa.int64()),
    ]
)


CALIBRATION = pa.schema(
    [
        ("trials", pa.list_(pa.string())),  # that were built with these samples
        ("task", pa.string()),
        ("seed", pa.int64()),  # that chose them
        ("split_samples", pa.int64()),  # how many the calibration split has
        ("samples", pa.list_(pa.int64())),  # their indices in the split, in the order given
    ]
)


TRAINING = pa.schema(
    [
        ("trial", pa.string()),
        ("epoch", pa.int64()),
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
    ]
)


SENSITIVITY = pa.schema(
    [
        ("model", pa.string()),
        ("backend", pa.string()),
        ("method", pa.string()),
        ("parts", pa.string()),
        # float, all; one layer quantized or kept; part and remedy of the worst layers; depth: an
        # activation of the whole model, its tensor's name in ``change``
        ("mode", pa.string()),
        ("layer", pa.string()),
        ("change", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("samples", pa.int64()),
        ("quality", pa.float64()),
        ("quality_drop", pa.float64()),
        ("agreement", pa.float64()),
        ("sqnr_db", pa.float64()),
        ("mse", pa.float64()),
        ("cosine", pa.float64()),
        ("error_over_scale", pa.float64()),  # of the layer's output; 0.289 is ideal rounding
        ("saturation", pa.float64()),  # share of test values beyond the range
        ("unseen", pa.float64()),  # share of test values beyond all calibration values
        ("outlier_ratio", pa.float64()),  # largest value over the standard deviation
    ]
)


SCHEMAS: Mapping[str, pa.Schema] = {
    "trials": TRIALS,
    "measurements": MEASUREMENTS,
    "samples": SAMPLES,
    "predictions": PREDICTIONS,
    "fidelity": FIDELITY,
    "readings": READINGS,
    "artifacts": ARTIFACTS,
    "training": TRAINING,
    "histograms": HISTOGRAMS,
    "calibration": CALIBRATION,
}
SINCE_5 = ("fidelity", "readings")
"""Tables that runs of version 4 lack."""
SINCE_6 = ("calibration",)
"""Tables that runs before version 6 lack."""
