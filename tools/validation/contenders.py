"""Contenders: artifacts of a finished run that are timed again, and what a check leaves behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantbench.backend_api import Runtime, registry
from quantbench.execution import Job
from quantbench.results import Results
from quantbench.runs import Comparison, Contender, Generation, Scored, Store, log_times
from quantbench.spec import Limits, Precision, Target, presets
from quantbench.stats import Interval, exp_interval, paired, rounds_interval
from quantbench.steps import timed_burst
from quantbench.system import locate, machine

FOLDER = Path(__file__).parents[2] / "results" / "reference" / "validation"
TARGET = "cpu-1"


def comparison(
    run: Results, trials: dict[str, str], precision: Precision, *, batch_size: int = 1
) -> Comparison:
    """Artifacts of a run, timed interleaved; ``trials``: name -> trial, the reference first."""
    contenders = tuple(
        _contender(run, trial, name, precision, batch_size) for name, trial in trials.items()
    )
    return Comparison("validation", target(), contenders, next(iter(trials)))


def target() -> Target:
    """One thread, pinned."""
    return presets()[TARGET]


def _contender(
    run: Results, trial: str, name: str, precision: Precision, batch_size: int
) -> Contender:
    row = run.trials.set_index("trial").loc[trial]
    backend = registry.backend(str(row["backend"]))
    runtime: Runtime = locate(backend.runtime)()
    store, limits = Store(run.folder), Limits()
    scored = store.get(Scored, trial)
    assert scored is not None  # noqa: S101 - it was timed
    arguments = {
        "artifact": str(store.artifact(str(row["artifact"]))),
        "runtime": backend.runtime,
        "target": target().to_json(),
        "data": scored.data,
        "batch_size": batch_size,
        "warmup_s": precision.warmup_s,
        "burst_ms": precision.burst_ms,
    }
    environment = runtime.environment(target())
    job = Job(
        f"validate {name}", timed_burst.serve, arguments, environment, (),
        limits.start_s, limits.memory_mb,
    )  # fmt: skip
    return Contender(name, job, batch_size)


def speedup(compared: Comparison, generations: Sequence[Generation], name: str) -> Interval:
    """A contender's speed-up over the reference, with its interval."""
    pairs = paired(log_times(generations), compared.reference, name)
    return exp_interval(rounds_interval(pairs))


def keep(name: str, found: dict[str, Any]) -> None:
    """Write what a check found, with the machine that it ran on."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    here = machine.describe()
    told = {**found, "machine": {key: here[key] for key in ("cpu", "virtualization")}}
    (FOLDER / f"{name}.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
