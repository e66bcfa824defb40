"""Mixed precision: mixed precision to a budget of quality, driven by sensitivities, checked by real runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantbench.analysis import (
    Constraints,
    MeasuredTrial,
    recommend,
    refusal,
    trial_rows,
    unbeaten,
)
from quantbench.backend_api import Quantizer, registry
from quantbench.errors import BadInput, NotComparable
from quantbench.experiment import Experiment
from quantbench.results import Results
from quantbench.runs import Reporter, run
from quantbench.spec import PRECISIONS, Method, Model, Status, Trial, preset, presets
from quantbench.studies.sensitivity import Diagnosis, Request, diagnose
from quantbench.system import locate

OBJECTIVES = ("latency", "size")
"""What is made small, of `quantbench.analysis.constraints.OBJECTIVES`."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be lost, and what is wanted.

    Parameters
    ----------
    max_drop : float
        The largest drop of quality against the backend's own float model, a fraction: its one-sided
        95 % bound on the paired test samples stays below.
    objective : str
        One of `OBJECTIVES`.
    """

    max_drop: float
    objective: str = "latency"

    @property
    def limits(self) -> Constraints:
        """The same as constraints of a choice."""
        return Constraints(self.max_drop, objective=self.objective)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A quantized trial.

    ``qualifies``: it is within the budget. ``pareto``: no other loses less and is smaller by the objective.
    """

    row: MeasuredTrial
    qualifies: bool
    pareto: bool


@dataclass(frozen=True, slots=True)
class Tuning:
    """A finished tuning.

    Parameters
    ----------
    candidates : tuple of Candidate
        What qualifies first, the smallest objective first.
    chosen : str
        The trial to take; where none qualifies, the one that loses least.
    qualified : bool
        Whether ``chosen`` is within the budget.
    """

    budget: Budget
    diagnosis: Diagnosis
    run: Results
    candidates: tuple[Candidate, ...]
    chosen: str
    qualified: bool

    @property
    def metric(self) -> str:
        """The metric that the objective is."""
        return self.budget.limits.wanted.metric


def tune(
    model: str,
    backend: str,
    budget: Budget,
    *,
    own: Model | None = None,
    method: Method | None = None,
    precision: str = "preview",
    samples: int = 1000,
    results: str | Path = "results",
    reporter: Reporter | None = None,
    write_report: Callable[[Results, Path], object] | None = None,
) -> Tuning:
    """Search mixed precision: rank the layers, build candidates, score and time them all.

    Everything is a run like any other: kept, resumable, with its page where ``write_report`` writes
    one. ``own``: the model, where an experiment file describes it.

    Raises
    ------
    BadInput
        For an unknown model, backend, objective or precision.
    """
    if budget.objective not in OBJECTIVES:
        raise BadInput(f"objective is one of {', '.join(OBJECTIVES)}, not '{budget.objective}'")
    if precision not in PRECISIONS:
        raise BadInput(f"precision is one of {', '.join(PRECISIONS)}, not '{precision}'")
    start = method or preset("static-int8", registry.backend(backend).axes("static-int8"))
    usual = preset(start.name, registry.backend(backend).axes(start.name))
    axes = {
        axis: value for axis, value in start.to_json().items()
        if axis not in ("name", "seed") and value != usual.to_json()[axis]
    }  # fmt: skip
    request = Request(model, start.name, axes, (backend,), samples=samples, worst=0, own=own)
    found = diagnose(request, results=results, reporter=reporter)
    ranked = [row.layer for row in found.ranking(backend) if not math.isnan(row.sqnr_db)]
    trials = tuple(_trials(own or registry.model(model), backend, start, ranked))
    done = run(
        Experiment.of(
            f"tune-{model}-{backend}-{budget.objective}", trials, PRECISIONS[precision],
            seed=start.seed, models={model: own} if own else {},
        ),
        results=results, reporter=reporter, write_report=write_report,
    )  # fmt: skip
    judged = judge(done, budget)
    measured = [candidate.row.trial for candidate in judged if candidate.row.status == Status.OK]
    if not measured:
        raise NotComparable(f"no quantized candidate could be measured; see {done.folder}")
    choice = recommend(done, budget.limits)[0].trial
    qualified = choice in {candidate.row.trial for candidate in judged}
    chosen = str(choice) if qualified else measured[0]
    return Tuning(budget, found, done, judged, chosen, qualified)


def _trials(model: Model, backend: str, start: Method, ranked: Sequence[str]) -> Iterator[Trial]:
    """The float model, then every candidate that the backend has."""
    quantizer: Quantizer = locate(registry.backend(backend).quantizer)()
    target = presets()["cpu-1"]
    route = quantizer.takes.get(quantizer.form(start), "")
    plain = preset(
        "fp32", registry.backend(backend).axes("fp32", {"route": route} if route else {})
    )
    yield Trial(model.name, backend, plain, "fp32", target, start.seed)
    for label, method in candidates(start, ranked):
        if quantizer.refuse(model, method) is None:
            yield Trial(model.name, backend, method, label, target, start.seed)


def candidates(start: Method, ranked: Sequence[str]) -> Iterator[tuple[str, Method]]:
    """Mixed precisions to try, each with a label: the most sensitive layers get more bits.

    All in int8; the k most sensitive layers in float; all activations in 16 bits; the m least
    sensitive layers with weights of 4 bits, alone and with the most sensitive ones in float.

    Parameters
    ----------
    ranked : sequence of str
        Layers, the most sensitive first.
    """
    yield start.name, start
    for k in _steps(len(ranked)):
        kept = tuple(ranked[:k])
        yield f"{start.name}+float={k}", replace(start, keep_float=(*start.keep_float, *kept))
    if start.activations != "int16":
        wide = replace(
            start, name="static-int16x8", activations="int16", symmetric_activations=True,
            io="float32",
        )  # fmt: skip
        yield "static-int16x8", wide
    for m in _steps(len(ranked)):
        narrow = tuple(ranked[len(ranked) - m :])
        for k in (0, 1, 2):
            kept = tuple(ranked[:k])
            if k + m <= len(ranked):
                label = f"{start.name}+int4={m}" + (f"+float={k}" if k else "")
                yield (
                    label,
                    replace(start, int4_weights=narrow, keep_float=(*start.keep_float, *kept)),
                )


def _steps(count: int) -> list[int]:
    """1, 2, 3, 5, 8... below ``count``: few candidates, close together where it matters."""
    found = [1, 2]
    while found[-1] < count:
        found.append(found[-1] + found[-2])
    return [k for k in found if k < count]


def judge(found: Results, budget: Budget) -> tuple[Candidate, ...]:
    """The quantized trials of a run, best first; see `Tuning`."""
    metric = budget.limits.wanted.metric
    trials = [row for row in trial_rows(found) if row.method != "fp32"]
    costs = [
        (row.value(metric), row.value("quality_drop_bound"))
        if row.status == Status.OK
        else (math.nan, math.nan)
        for row in trials
    ]
    known = [
        Candidate(row, refusal(row, budget.limits) is None and row.of(metric).known, best)
        for row, best in zip(trials, unbeaten(costs), strict=True)
    ]
    best = sorted((c for c in known if c.qualifies), key=lambda c: c.row.value(metric))
    rest = sorted((c for c in known if not c.qualifies), key=lambda c: _least(c.row))
    return (*best, *rest)


def _least(row: MeasuredTrial) -> float:
    """What it may lose; without a bound more than any other."""
    bound = row.value("quality_drop_bound")
    return math.inf if math.isnan(bound) else bound
