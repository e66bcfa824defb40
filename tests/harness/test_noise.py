"""What makes times doubtful: each flag on invented times that deserve it, and on quiet ones none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from quantbench.execution import Job
from quantbench.results import SAMPLES
from quantbench.runs import Comparison, Contender, Generation
from quantbench.runs.assembly.doubts import flags
from quantbench.runs.interleaved_timing import CALIBRATION_LOOP, Spent
from quantbench.spec import Target

GENERATIONS, ROUNDS = 5, 7
NAMES = ("reference", "reference@control", "variant")


def comparison(threads: int = 1) -> Comparison:
    job = Job("j", print, {}, {}, (), 1.0, 1.0)
    contenders = tuple(Contender(name, job) for name in NAMES)
    return Comparison("model", Target("cpu-1", threads=threads), contenders, "reference")


def generations(shape=lambda name, round_, first: 1.0, *, loop=lambda round_: 1.0, cpu=1.0):
    """Times around 1 ms: ``shape`` is a factor by name, round (of all) and whether it came first."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(GENERATIONS):
        rows = []
        for round_ in range(ROUNDS):
            order = list(rng.permutation(NAMES))
            first = order.index("variant") < order.index("reference")
            overall = number * ROUNDS + round_
            for position, name in enumerate(order):
                noise = np.exp(rng.normal(0, 0.002))
                factors = {CALIBRATION_LOOP: loop(overall), name: shape(name, overall, first)}
                for trial, factor in factors.items():
                    rows.append((trial, number, round_, position, int(1e6 * factor * noise)))
        columns = zip(*rows, strict=True)
        keys = ("trial", "generation", "round", "position", "nanoseconds")
        named = dict(zip(keys, columns, strict=True))
        named |= {"calls": [1] * len(rows), "batch_size": [1] * len(rows)}
        named |= {"scenario": ["single-stream"] * len(rows), "session": [0] * len(rows)}
        table = pa.table({f.name: pa.array(named[f.name], f.type) for f in SAMPLES})
        spent = {name: Spent(int(1e9 * cpu), int(1e9), 100) for name in NAMES}
        found.append(Generation(number, table, {}, {}, spent, {}, 1.0))
    return found


def test_quiet_times_have_no_flag():
    assert flags(comparison(), generations()) == {name: set() for name in NAMES}
    assert flags(comparison(), []) == {}


def test_a_machine_that_warms_up_is_said_of_every_trial():
    rising = generations(lambda name, round_, first: 1 + 0.002 * round_)

    assert flags(comparison(), rising) == {name: {"drift", "warming"} for name in NAMES}


def test_times_that_fall_are_drift_alone():
    falling = generations(lambda name, round_, first: 1 - 0.002 * round_)

    assert flags(comparison(), falling)["variant"] == {"drift"}


@pytest.mark.parametrize(("share", "noisy"), [(0.2, False), (0.5, True)])
def test_a_held_processor_is_seen_by_the_calibration_loop(share, noisy):
    slow = set(np.random.default_rng(1).permutation(35)[: int(35 * share)])
    held = generations(loop=lambda round_: 1.3 if round_ in slow else 1.0)

    assert (flags(comparison(), held)["reference"] == {"noisy-machine"}) == noisy


@pytest.mark.parametrize(("effect", "seen"), [(0.005, False), (0.03, True)])
def test_an_effect_of_the_order_is_the_variants_own(effect, seen):
    ordered = generations(
        lambda name, round_, first: 1 + effect if name == "variant" and first else 1.0
    )
    found = flags(comparison(), ordered)

    assert ("order-effect" in found["variant"]) == seen
    assert found["reference"] == set()


@pytest.mark.parametrize(
    ("threads", "cpu", "more"), [(1, 1.0, False), (1, 1.9, True), (2, 1.9, False)]
)
def test_more_threads_than_the_target_has(threads, cpu, more):
    found = flags(comparison(threads), generations(cpu=cpu))

    assert all(("more-threads" in known) == more for known in found.values())
