"""Records: what a tensor's levels mean, coverage on three levels, memory of activations."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from quantbench.backend_api import (
    NodeRecord,
    Operation,
    Record,
    TensorRecord,
    activation_bytes,
    executed,
    observed_name,
    requested,
    serialized,
)
from quantbench.backend_api.artifact_record import Coverage
from quantbench.results.schema import ARTIFACTS
from quantbench.runs.assembly.artifacts import tensor_row
from quantbench.spec import preset


def tensor(**known) -> TensorRecord:
    return TensorRecord(**{"name": "x", "role": "activation", "dtype": "uint8", **known})


@pytest.mark.parametrize(
    ("qmin", "qmax", "zero", "levels", "bits", "symmetric"),
    [
        (0, 255, 0, 256, 8, False),
        (0, 255, 128, 256, 8, True),
        (0, 127, 64, 128, 7, True),
        (-128, 127, 0, 256, 8, True),
        (-127, 127, 0, 255, 8, True),
        (-128, 127, 3, 256, 8, False),
        (-7, 7, 0, 15, 4, True),
        (-32768, 32767, 0, 65536, 16, True),
    ],
)
def test_levels_bits_and_symmetry_follow_from_the_grid(qmin, qmax, zero, levels, bits, symmetric):
    found = tensor(scale=(0.5,), zero_point=(zero,), qmin=qmin, qmax=qmax)

    assert (found.levels, found.bits, found.symmetric) == (levels, bits, symmetric)
    assert found.signed is (qmin < 0)
    assert (found.low, found.high) == (0.5 * (qmin - zero), 0.5 * (qmax - zero))


def test_floats_have_no_levels_and_no_range():
    found = tensor(dtype="bfloat16")

    assert (found.levels, found.bits, found.granularity) == (0, 16, "none")
    assert found.signed is found.symmetric is found.low is found.high is None


def test_granularity_is_what_shares_a_scale():
    known = {"qmin": -127, "qmax": 127, "scale": (1.0, 2.0), "zero_point": (0, 0)}

    assert tensor(**known, axis=0).granularity == "per-channel"
    assert tensor(**known, group_size=32).granularity == "group"
    assert tensor(**known, axis=0).low == -254.0


def conv(layer: str, dtype: str, macs: int | None, weights: int, **more) -> NodeRecord:
    return NodeRecord(
        layer, "Conv", "multiply", dtype, "static", macs, weights, "int8", layer, **more
    )


def weight(layer: str, dtype: str, count: int) -> TensorRecord:
    return TensorRecord(f"{layer}.w", "weight", dtype, (count,), count, layer=layer)


MIXED = Record(
    (weight("a", "int8", 100), weight("b", "int8", 200), weight("c", "float32", 700), tensor()),
    (
        NodeRecord("q", "Quantize", "quantize"),
        conv("a", "int8", 1000, 100),
        conv("b", "float32", 3000, 200, reason="no integer kernel for it"),
        conv("c", "float32", 6000, 700),
        NodeRecord("add", "Add", "other", "int8"),
    ),
)


def test_coverage_asked_for_in_the_file_and_executed_are_three_things():
    method = preset("static-int8", {"keep_float": ["c"]})
    operations = (
        Operation("q", "Quantize", 0, "int8"),
        Operation("a", "Conv", 1000, "float32", weights=100),
        Operation("c", "Conv", 6000, "float32", weights=700),
        Operation("b", "Conv", 3000, "int8", weights=200),
    )

    assert requested(MIXED, method) == Coverage(2 / 3, 0.3, 0.4)
    assert serialized(MIXED) == Coverage(1 / 3, 0.3, 0.1)
    assert executed(operations) == Coverage(1 / 3, 0.2, 0.3)


def test_only_some_layers_are_asked_for():
    method = preset("static-int8", {"only": ["a"]})

    assert requested(MIXED, method) == Coverage(1 / 3, 0.1, 0.1)


def test_weight_only_methods_ask_for_no_integer_multiplication():
    assert requested(MIXED, preset("weight-only-int8")) == Coverage(0.0, 1.0, 0.0)
    assert requested(MIXED, preset("fp32")) == Coverage(0.0, 0.0, 0.0)


def test_products_of_two_activations_are_asked_for_by_static_scales_only():
    attention = NodeRecord("qk", "MatMul", "multiply", "float32", macs=10)
    record = Record((), (attention,))

    assert requested(record, preset("static-int8")).macs == 1.0
    assert requested(record, preset("dynamic-int8")).macs == 0.0


def test_what_the_file_does_not_say_is_not_guessed():
    record = Record((), (conv("a", "int8", None, 100), conv("b", "float32", 10, 100)))

    assert serialized(record) == Coverage(0.5, None, None)
    assert serialized(Record((), ())) == Coverage(None, None, None)


def test_a_record_survives_json():
    read = Record.from_json(json.loads(json.dumps(MIXED.to_json())))

    assert read == MIXED
    assert read.weight_bytes == {"float32": 700, "int8": 300}
    assert read.operators == {"Add": 1, "Conv": 3, "Quantize": 1}


def step(reads: str, writes: dict[str, int], role: str = "other") -> Operation:
    return Operation("", "", 0, "int8", role=role, reads=tuple(reads), writes=writes)


def test_activation_memory_is_the_largest_sum_that_is_live_at_once():
    operations = (
        step("", {"x": 10}, "input"),
        step("x", {"a": 100}),  # x + a = 110
        step("a", {"b": 50}),  # a + b = 150: x is no longer needed
        step("b", {"c": 20}),  # b + c = 70
        step("bc", {"d": 90}),  # b + c + d = 160
        step("d", {"y": 5}),  # d + y = 95
    )

    assert activation_bytes(operations) == 160


def test_a_branch_keeps_its_tensor_alive_until_it_is_added():
    operations = (
        step("", {"x": 8}, "input"),
        step("x", {"a": 8}),
        step("a", {"b": 8}),
        step("xb", {"y": 8}),
    )

    # x, a, b at the third step; x, b, y at the last
    assert activation_bytes(operations) == 24


def test_outputs_and_what_is_written_in_place_live_on():
    operations = (
        step("", {"x": 4}, "input"),
        step("x", {"first": 4}),  # an output: nobody reads it
        step("x", {"x": 4}),  # in place
        step("x", {"last": 4}),
    )

    assert activation_bytes(operations) == 12


def test_activation_memory_of_hidden_buffers_is_not_known():
    assert activation_bytes((Operation("", "conv", 10, "int8"),)) is None


def test_biases_of_64_bits_fit_into_the_table():
    bias = tensor(role="bias", dtype="int64", scale=(1e-9,), qmin=-(2**63), qmax=2**63 - 1)

    row = tensor_row("trial", bias, preset("static-int16x8"))

    table = pa.Table.from_pylist([row], schema=ARTIFACTS)
    assert table["bits"].to_pylist() == [64]
    assert table["levels"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("tensor", "layer", "expected"),
    [
        ("conv1", "conv1", "conv1"),
        ("conv1_QuantizeLinear_Output", "x", "conv1"),
        ("conv10_out", "x", "conv10"),  # the longest name that it begins with
        ("conv1_2", "x", None),  # a number makes it another
        ("37", "conv1", "conv1"),  # its own name says nothing
        ("37", "fc", None),
    ],
)
def test_a_tensor_of_a_file_is_found_among_what_was_observed(tensor, layer, expected):
    assert observed_name(tensor, layer, ["conv1", "conv10"]) == expected
