"""Profiles: a cause is named where its operators hold the time that differs, and nowhere else."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from rich.console import Console

from quantbench.analysis import Remedy, explain, remedies
from quantbench.analysis.measured_causes import MeasuredCause, candidates, named_causes, verdict
from quantbench.analysis.time_differences import CONVERSION, OUTSIDE, time_difference
from quantbench.api import run
from quantbench.backend_api import Operation, TimedOperation, named, typical
from quantbench.cli import explaining
from quantbench.errors import BadInput, NotProfiled
from quantbench.results import (
    ArtifactRow,
    OperatorProfile,
    ProfiledCall,
    load_profile,
    save_profile,
    typical_call,
)
from quantbench.runs import Reporter, attempt, offered, profile, rebuilt, trials_of
from tests.harness import fake

MS = 1_000_000
US = 1_000


def row(name: str, kind: str, macs: int = 0, dtype: str = "float32", **more) -> ArtifactRow:
    """An executed operation."""
    empty = {f.name: "" for f in dataclasses.fields(ArtifactRow)}
    known = {"trial": "t", "kind": "executed", "name": name, "operator": kind, "macs": macs,
             "dtype": dtype, "role": "multiply" if macs else "other", "engine": "cpu", "layer": ""}  # fmt: skip
    return ArtifactRow(**{**empty, **known, **more})


def timed(rows: list[ArtifactRow], times: list[float]) -> tuple[TimedOperation, ...]:
    return tuple(
        TimedOperation(r.name, r.operator, r.engine, 1, ns)
        for r, ns in zip(rows, times, strict=True)
    )


def difference(own: list[tuple[ArtifactRow, float]], full: list[tuple[ArtifactRow, float]],
               own_ns: float = 0.0, full_ns: float = 0.0):  # fmt: skip
    """Of calls whose operators take these nanoseconds; nothing outside them where not said."""
    calls = []
    for side, ns in ((own, own_ns), (full, full_ns)):
        operations = timed([r for r, _ in side], [t for _, t in side])
        calls.append(ProfiledCall(ns or sum(t for _, t in side), operations))
    found = OperatorProfile("own", "full", 3, *calls, (1.0,))
    return time_difference(found, [r for r, _ in own], [r for r, _ in full])


FLOAT = [(row("a", "Conv", 9_000), 0.5 * MS), (row("b", "Conv", 1_000), 0.5 * MS)]


# --- causes --------------------------------------------------------------------------------------


def test_a_kernel_that_holds_the_time_is_named_with_its_share():
    own = [
        (row("a", "ConvInteger", 9_000, "uint8", layer="conv1"), 8 * MS),
        (row("b", "ConvInteger", 1_000, "uint8", layer="conv2"), 1 * MS),
        (row("q", "DynamicQuantizeLinear", role="quantize"), 1 * MS),
    ]

    (cause,) = named_causes(difference(own, FLOAT))

    assert cause.name == "slow-kernels"
    assert cause.share == pytest.approx(8 / 9)  # an exact ratio, but for rounding
    assert "2 ConvInteger" in cause.sentence
    assert (cause.layers, cause.dtypes) == (("conv1", "conv2"), ("uint8",))


def test_conversions_are_named_where_they_hold_the_time_and_not_where_a_kernel_does():
    ranges = (row("q", "DynamicQuantizeLinear", role="quantize"), 8 * MS)
    own = [(row("a", "ConvInteger", 9_000, "uint8"), 0.7 * MS), FLOAT[1], ranges]

    (cause,) = named_causes(difference(own, FLOAT))

    assert cause.name == "conversions"


def test_the_few_operators_that_other_kernels_run_are_named_not_the_many_multiplications():
    depthwise = row("d", "DEPTHWISE_CONV_2D", 400, "int8", engine="builtin", layer="dw")
    own = [(row("a", "CONV_2D", 9_600, "int8", engine="xnnpack"), 0.4 * MS), (depthwise, 2 * MS)]
    full = [
        (row("a", "CONV_2D", 9_600, engine="xnnpack"), 1 * MS),
        (row("d", "DEPTHWISE_CONV_2D", 400, engine="xnnpack"), 0.1 * MS),
    ]

    (cause,) = named_causes(difference(own, full))

    assert cause.name == "other-kernels"
    assert "builtin" in cause.sentence
    assert "4% of the multiplications" in cause.sentence
    assert cause.layers == ("dw",)


def test_operators_that_only_the_artifact_has_are_named():
    reorder = [(row(f"r{i}", "ReorderOutput"), 0.1 * MS) for i in range(7)]
    clips = [(row(f"c{i}", "Clip"), 0.1 * MS) for i in range(4)]

    (cause,) = named_causes(difference([*FLOAT, *reorder, *clips], FLOAT))

    assert cause.name == "added-operators"
    assert "7 ReorderOutput" in cause.sentence
    assert "4 Clip" in cause.sentence
    assert cause.share == pytest.approx(1.0)  # all of it, but for rounding


def test_time_in_no_operator_is_named_as_how_the_graph_is_run():
    found = difference(FLOAT, FLOAT, own_ns=3 * MS, full_ns=1.1 * MS)

    assert [cause.name for cause in named_causes(found)] == ["outside-operators"]


def test_a_cost_that_is_the_same_whatever_an_operator_multiplies_is_one_of_the_call():
    macs = [1_000, 2_000, 4_000, 8_000, 16_000]
    full = [(row(str(m), "aten::convolution", m), m * 1.0) for m in macs]
    own = [(row(str(m), "aten::convolution", m, "bfloat16"), 30 * US + m * 0.5) for m in macs]

    (cause,) = named_causes(difference(own, full))

    assert cause.name == "cost-per-call"
    assert "30.0 microseconds" in cause.sentence


def test_a_kernel_that_is_slower_by_a_factor_is_no_cost_of_the_call():
    macs = [1_000, 2_000, 4_000, 8_000, 16_000]
    full = [(row(str(m), "aten::convolution", m), m * 1.0) for m in macs]
    own = [(row(str(m), "aten::convolution", m, "bfloat16"), m * 3.0) for m in macs]

    assert [cause.name for cause in named_causes(difference(own, full))] == ["slow-kernels"]


def test_where_nothing_holds_half_no_cause_is_named_and_what_holds_the_time_is_listed():
    own = [
        (row("a", "ConvInteger", 9_000, "uint8"), 1.4 * MS), (row("b", "Conv", 1_000), 0.0),
        (row("q", "DynamicQuantizeLinear", role="quantize"), 0.4 * MS),
        (row("r", "Reorder"), 0.3 * MS),
    ]  # fmt: skip
    found = difference(own, FLOAT, own_ns=2.5 * MS, full_ns=1 * MS)

    assert named_causes(found) == ()
    assert len(candidates(found)) == 4
    words = verdict(found)
    assert "none is named" in words
    assert "DynamicQuantizeLinear" in words


def test_a_faster_artifact_has_no_cause_and_is_told_where_its_gain_is():
    own = [(row("a", "QLinearConv", 9_000, "uint8"), 0.1 * MS), FLOAT[1]]
    found = difference([*own, (row("q", "QuantizeLinear", role="quantize"), 0.05 * MS)], FLOAT)

    assert named_causes(found) == ()
    assert "100% of what it gains is in convolution" in verdict(found)


def test_what_takes_longer_than_the_call_is_scaled_so_that_shares_stay_shares():
    found = difference([(row("a", "Conv", 9_000), 4 * MS)], FLOAT, own_ns=2 * MS)

    (conv, outside) = found.types
    assert (conv.name, outside.name) == ("convolution", OUTSIDE)
    assert conv.own_ns == pytest.approx(2 * MS)  # scaled by a half
    assert outside.own_ns == pytest.approx(0.0, abs=1e-6)  # what rounding leaves


def test_the_differences_of_all_types_add_up_to_that_of_the_calls():
    own = [(row("a", "ConvInteger", 9_000, "uint8"), 8 * MS), (row("q", "Cast"), 1 * MS)]
    found = difference(own, FLOAT, own_ns=9.5 * MS, full_ns=1.2 * MS)

    total = sum(one.difference for one in found.types)
    assert total == pytest.approx(found.own_ns - found.full_ns)  # a sum in another order
    losing = [found.share(one) for one in found.types if one.difference > 0]
    assert sum(losing) == pytest.approx(1.0)  # shares, but for rounding


def test_a_profiler_s_own_word_for_a_conversion_is_one():
    found = difference([*FLOAT, (row("x", "Convert"), 1 * MS)], FLOAT)

    assert found.types[0].name == CONVERSION


# --- remedies ------------------------------------------------------------------------------------


def test_remedies_are_methods_with_axes_the_most_direct_first():
    cause = MeasuredCause("other-kernels", "", 0.9, ("dw1", "dw2"), ("int8",))

    found = remedies(cause, "dynamic-int8", "dynamic", ["litert-torch"])

    assert found[0] == Remedy("dynamic-int8", {"keep_float": ("dw1", "dw2")})
    assert Remedy("static-int8") in found
    assert Remedy("dynamic-int8", {"route": "litert-torch"}) in found
    assert str(found[0]) == "dynamic-int8+keep_float=dw1,dw2"


# --- what profilers tell -------------------------------------------------------------------------


def test_operators_are_named_in_order_where_there_are_as_many_as_were_executed():
    executed = [Operation(n, "conv", 1, "float32", "cpu") for n in ("first", "second")]
    shown = [TimedOperation("", "conv", "cpu", 1, t) for t in (1.0, 2.0)]

    assert [one.name for one in named(shown, executed)] == ["first", "second"]
    assert [one.name for one in named(shown[:1], executed)] == [""]


def test_calls_with_other_operators_each_time_are_told_by_kind():
    calls = [[("a", 1.0), ("a", 1.0)], [("a", 1.0)]]

    assert typical(calls) == [("a", 2, 1.5)]


def test_a_call_that_was_interrupted_once_changes_nothing():
    calls = [[("a", 1000.0 if place == 3 else 10.0)] for place in range(8)]

    assert typical(calls) == [("a", 1, 10.0)]


def test_rounds_become_one_call_by_their_medians():
    def answer(ns: float) -> dict:
        operation = dataclasses.asdict(TimedOperation("w", "matmul", "cpu", 1, ns))
        return {"call_ns": 2 * ns, "operations": [operation, {**operation, "nanoseconds": 1.0}]}

    call = typical_call([answer(10.0), answer(500.0), answer(12.0)])

    assert call.nanoseconds == 24.0
    assert [one.nanoseconds for one in call.operations] == [12.0, 1.0]


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture
def finished(experiment_file, fakery):
    """A run of a float model, an integer one, and one that is 20 times slower."""
    path = experiment_file("[fp32, static-int8, static-int8: {route: slow}]")
    return run(path, results=fakery / "results", reporter=Reporter(quiet=True))


def test_a_profile_is_kept_in_the_run_and_read_again(finished, fakery):
    trials, quiet = trials_of(finished), Reporter(quiet=True)
    name, reference = "fake/fakery/static-int8+route=slow/cpu-1", "fake/fakery/fp32/cpu-1"
    at_hand = rebuilt(finished, [trials[name], trials[reference]], fakery / "there", quiet)

    made = profile(at_hand, name, reference, rounds=2, seconds=0.05, reporter=quiet)

    assert load_profile(finished.folder, name) is None
    save_profile(finished.folder, made)
    assert load_profile(finished.folder, name) == made
    kinds = Counter(one.kind for one in made.own.operations)
    assert kinds == {"matmul": 1, "copy": 1}
    assert made.own.nanoseconds > made.full.nanoseconds > 0
    found = explain(finished, name, made)
    assert found.difference is not None
    assert found.possible == explain(finished, name).possible


def test_what_may_help_is_built_timed_and_said_to_have_helped_or_not(finished, fakery):
    trials, quiet = trials_of(finished), Reporter(quiet=True)
    slow, full = (
        trials["fake/fakery/static-int8+route=slow/cpu-1"],
        trials["fake/fakery/fp32/cpu-1"],
    )

    others = offered(
        finished, slow, [("bf16", {}), ("fp32", {}), ("static-int8", {"route": "slow"})]
    )
    assert [one.id for one in others] == [full.id]  # bf16 is refused, the third is the trial itself
    (tried,) = attempt(finished, slow, full, others, fakery / "tried", quiet)

    assert tried.helped
    assert tried.faster is not None
    assert tried.faster.value > 2  # it computes 20 times less; calling it takes as long
    out = Console(record=True, width=120)
    explaining.show_tried([tried], out)
    assert "fake/fakery/fp32/cpu-1: helped" in out.export_text()


def test_a_profile_is_shown_as_a_table_with_the_share_of_each_type(finished, fakery):
    own = ProfiledCall(6_000.0, (TimedOperation("w", "matmul", "numpy", 1, 5_000.0),))
    full = ProfiledCall(700.0, (TimedOperation("w", "matmul", "numpy", 1, 500.0),))
    name, reference = "fake/fakery/static-int8/cpu-1", "fake/fakery/fp32/cpu-1"
    made = OperatorProfile(name, reference, 3, own, full, (8.0,) * 3)
    out = Console(record=True, width=120)

    explaining.show(explain(finished, name, made), made, out)

    text = out.export_text()
    assert "slow-kernels: 85% of what takes longer" in text
    assert "0.0050" in text
    assert "could explain" not in text


def test_without_a_profile_nothing_is_called_the_cause(finished):
    out = Console(record=True, width=120)

    explaining.show(explain(finished, "fake/fakery/static-int8/cpu-1"), None, out)

    text = out.export_text()
    assert "--profile measures it" in text or "Nothing that was recorded" in text


def test_what_cannot_run_here_is_refused_with_its_reason(finished, fakery):
    trials = trials_of(finished)
    gpu = dataclasses.replace(
        trials["fake/fakery/fp32/cpu-1"],
        target=dataclasses.replace(trials["fake/fakery/fp32/cpu-1"].target, device="cuda"),
    )

    with pytest.raises(BadInput, match="cannot run here: the fake has no GPU"):
        rebuilt(finished, [gpu], fakery / "there", Reporter(quiet=True))


def test_a_runtime_without_a_profiler_says_so(finished, fakery, monkeypatch):
    trials, quiet = trials_of(finished), Reporter(quiet=True)
    name, reference = "fake/fakery/static-int8/cpu-1", "fake/fakery/fp32/cpu-1"
    at_hand = rebuilt(finished, [trials[name], trials[reference]], fakery / "there", quiet)
    cells = {
        key: dataclasses.replace(
            cell, backend=dataclasses.replace(cell.backend, runtime="tests.harness.fake:Unprofiled")
        )
        for key, cell in at_hand.cells.items()
    }

    with pytest.raises(NotProfiled, match="runtime fakery has no profiler"):
        profile(
            dataclasses.replace(at_hand, cells=cells), name, reference, rounds=1, seconds=0.05,
            reporter=quiet,
        )  # fmt: skip
    assert fake.Unprofiled.name == "fakery"
