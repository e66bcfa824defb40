"""What could explain a time: each on a case that has it, and silence on one that only looks like it."""

from __future__ import annotations

import dataclasses
import math

import pytest

from quantbench.analysis import causes
from quantbench.analysis.slowdown_causes import Facts, Multiplication

SERVER = frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"})
OLD = frozenset({"avx2"})
M = 40_000_000


def op(share: float = 1.0, dtype: str = "float32", engine: str = "mlas", **more) -> Multiplication:
    return Multiplication(
        more.pop("kind", "Conv"),
        round(share * M),
        dtype,
        engine,
        more.pop("scales", "none"),
        **more,
    )


FLOAT = Facts(
    latency_ms=0.4, float_latency_ms=0.4, speedup=1.0, executed=(op(),), float_executed=(op(),),
    operators=60, float_operators=60, conversions=0, float_conversions=0, dequantizations=0,
    nodes=(op(),), weights=270_000, narrow=0, requested_weights=0.0, serialized_macs=0.0,
    float_weights=frozenset({"float32"}), threads=1, effective_threads=1, cpu_share=1.0,
    isa=SERVER, architecture="x86_64",
)  # fmt: skip


def static(activations: str = "uint8", **more) -> Facts:
    """An artifact in static 8 bits that is twice as fast."""
    done = op(dtype=activations, scales="static")
    known = {
        "latency_ms": 0.2, "speedup": 2.0, "executed": (done,), "nodes": (done,), "narrow": 270_000,
        "requested_weights": 1.0, "serialized_macs": 1.0, "conversions": 2,
    }  # fmt: skip
    return dataclasses.replace(FLOAT, **{**known, **more})


def names(facts: Facts) -> list[str]:
    return [cause.name for cause in causes(facts)]


def test_a_float_model_and_a_fast_integer_one_need_no_explanation():
    assert names(FLOAT) == []
    assert names(static()) == []


# --- the activation type -------------------------------------------------------------------------


def test_signed_activations_on_x86_are_named_where_they_are_slower_than_float():
    done = (op(0.52, "uint8", scales="static"), op(0.48))
    found = static("int8", latency_ms=0.53, speedup=0.79, executed=done)

    cause = next(c for c in causes(found) if c.name == "slow-activation-type")
    assert "int8" in cause.sentence
    assert "48% of the multiplications are executed in float" in cause.sentence


@pytest.mark.parametrize(
    "facts",
    [
        static("int8", speedup=3.1, latency_ms=0.13),  # kernels that take signed bytes well
        static("uint8", speedup=0.9, latency_ms=0.44),  # slow for another reason
        static("int8", speedup=0.8, latency_ms=0.5, architecture="aarch64", isa=frozenset({"asimddp"})),
    ],
)  # fmt: skip
def test_the_activation_type_is_not_blamed_where_it_is_fast_or_another(facts):
    assert "slow-activation-type" not in names(facts)


# --- dynamic convolutions ------------------------------------------------------------------------


def test_dynamic_quantization_of_convolutions_is_named():
    done = op(dtype="uint8", kind="ConvInteger", scales="dynamic")

    assert "dynamic-convolutions" in names(static(latency_ms=3.1, speedup=0.14, executed=(done,)))


def test_dynamic_convolutions_that_are_fast_and_dynamic_products_are_not_blamed():
    fast = op(dtype="int8", kind="CONV_2D", scales="dynamic")
    product = op(dtype="uint8", kind="MatMulInteger", scales="dynamic")

    assert names(static(executed=(fast,), speedup=2.6)) == []
    assert "dynamic-convolutions" not in names(static(executed=(product,), speedup=0.9))


# --- reference kernels ---------------------------------------------------------------------------


def test_kernels_of_another_engine_far_below_the_float_rate_are_named():
    done = op(dtype="int16", engine="builtin", scales="static")
    found = static("int16", latency_ms=14.3, speedup=0.03, executed=(done,))

    cause = next(c for c in causes(found) if c.name == "reference-kernels")
    assert "builtin" in cause.sentence
    assert "36 times fewer" in cause.sentence


def test_another_engine_at_a_good_rate_and_a_slow_run_of_the_same_engine_are_not_blamed():
    other = op(dtype="uint8", engine="fbgemm", scales="static")

    assert "reference-kernels" not in names(static(executed=(other,), latency_ms=0.3))
    assert "reference-kernels" not in names(static(latency_ms=4.0, speedup=0.1))


# --- instructions --------------------------------------------------------------------------------


def test_float16_without_its_instructions_is_named():
    found = dataclasses.replace(FLOAT, executed=(op(dtype="float16"),), latency_ms=33, speedup=0.04)

    cause = next(c for c in causes(found) if c.name == "instruction-set-missing")
    assert "float16" in cause.sentence
    assert "avx512_fp16" in cause.sentence


def test_int8_without_vnni_is_named_and_with_it_or_where_it_is_fast_not():
    slow = static(speedup=0.8, latency_ms=0.5)

    assert "instruction-set-missing" in names(dataclasses.replace(slow, isa=OLD))
    assert "instruction-set-missing" not in names(slow)
    assert "instruction-set-missing" not in names(static(isa=OLD, speedup=1.6))


def test_bfloat16_needs_instructions_of_its_own():
    found = dataclasses.replace(FLOAT, executed=(op(dtype="bfloat16"),), speedup=0.02)

    assert "instruction-set-missing" not in names(found)
    assert "instruction-set-missing" in names(dataclasses.replace(found, isa=OLD))


# --- left in float -------------------------------------------------------------------------------


def test_layers_that_the_method_left_in_float_are_named():
    done = (op(0.9999), op(0.0001, "uint8", kind="Linear", scales="dynamic"))
    found = static(
        executed=done, nodes=done, narrow=640, speedup=1.0, latency_ms=0.4, serialized_macs=math.nan
    )

    cause = next(c for c in causes(found) if c.name == "left-in-float")
    assert "0.2% of the weights are quantized, of 100% asked for" in cause.sentence
    assert "quantized Conv" in cause.sentence


def test_layers_kept_in_float_on_purpose_are_not_blamed():
    found = static(narrow=100_000, requested_weights=100_000 / 270_000)

    assert "left-in-float" not in names(found)


def test_integers_in_the_file_that_run_in_float_are_a_fallback():
    found = static(
        executed=(op(0.5, "uint8", scales="static"), op(0.5, reason="no kernel for groups")),
        speedup=1.3, latency_ms=0.3,
    )  # fmt: skip

    cause = next(c for c in causes(found) if c.name == "float-fallback")
    assert "100% of the multiplications are integer in the file, 50%" in cause.sentence
    assert "no kernel for groups" in cause.sentence


def test_a_graph_for_which_there_is_no_kernel_is_a_fallback_and_not_uncompiled():
    nodes = (op(dtype="uint16", scales="static", reason="no kernel multiplies 16 bits"),)
    found = static(executed=(op(),) * 20, nodes=nodes, dequantizations=60, speedup=math.nan)

    assert "float-fallback" in names(found)
    assert "uncompiled-graph" not in names(found)


def test_operators_with_quantized_weights_are_not_said_to_have_none():
    done = (op(0.9), op(0.1, kind="MatMulNBits", narrow=True))
    found = static(executed=done, nodes=done, narrow=640, speedup=1.0, serialized_macs=0.0)

    (cause,) = [c for c in causes(found) if c.name == "left-in-float"]
    assert "quantized Conv and left" in cause.sentence


def test_weight_only_files_are_no_fallback():
    found = static(executed=(op(),), nodes=(op(),), serialized_macs=0.0, speedup=1.0)

    assert "float-fallback" not in names(found)


# --- graphs --------------------------------------------------------------------------------------


def test_a_graph_that_runs_as_written_is_uncompiled_and_nothing_else():
    found = static(
        executed=(op(),) * 20, dequantizations=60, conversions=100, operators=180, speedup=0.06,
        latency_ms=24.0,
    )  # fmt: skip

    assert "uncompiled-graph" in names(found)
    assert not {"float-fallback", "conversions-left"} & set(names(found))


def test_a_few_dequantizations_of_a_compiled_graph_are_not_blamed():
    assert "uncompiled-graph" not in names(static(dequantizations=2))


def test_many_conversions_left_are_named_and_two_at_the_ends_not():
    slow = static(conversions=40, operators=100, speedup=0.95, latency_ms=0.42)

    assert "conversions-left" in names(slow)
    assert "conversions-left" not in names(static(conversions=2, speedup=0.95))
    assert "conversions-left" not in names(static(conversions=40, operators=100))


# --- the float baseline, threads, size -----------------------------------------------------------


def test_a_float_baseline_that_runs_in_bfloat16_is_named():
    found = static(float_executed=(op(dtype="bfloat16"),), speedup=1.2)

    assert "reduced-float-baseline" in names(found)
    honest = dataclasses.replace(found, float_weights=frozenset({"bfloat16"}))
    assert "reduced-float-baseline" not in names(honest)


def test_other_threads_than_asked_for_are_named():
    assert "thread-mismatch" in names(static(effective_threads=2))
    assert "thread-mismatch" in names(static(cpu_share=1.9))
    assert "thread-mismatch" not in names(static(threads=2, effective_threads=2, cpu_share=1.9))
    assert "thread-mismatch" not in names(static(effective_threads=0, cpu_share=math.nan))


def test_a_model_too_small_to_gain_is_named():
    tiny = (Multiplication("MatMul", 40_000, "uint8", "mlas", "static"),)

    assert "too-small" in names(static(executed=tiny, speedup=1.02, latency_ms=0.006))
    assert "too-small" not in names(static(executed=tiny, speedup=1.8))
    assert "too-small" not in names(static(speedup=1.0))


def test_a_trial_that_was_not_timed_is_explained_by_its_record_alone():
    found = static(latency_ms=math.nan, float_latency_ms=math.nan, speedup=math.nan, narrow=0)

    assert names(found) == ["left-in-float"]
