"""Slowdown causes: what could explain why an artifact is no faster than its float model.

Found in the record of the artifact, the operations that were executed, the measurements and the
machine, which say what an artifact is and not where its time goes: none of these is the cause until a
profile shows that its operators hold the time (`quantbench.analysis.measured_causes`). Nothing here
knows a backend's or a method's name: a new one is explained as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quantbench.analysis.measured_causes import MeasuredCause, named_causes, verdict
from quantbench.analysis.time_differences import TimeDifference, time_difference
from quantbench.backend_api import CONVERSIONS, DEQUANTIZE, MULTIPLY, WEIGHT, is_integer, is_narrow
from quantbench.errors import BadInput, did_you_mean
from quantbench.results import (
    ArtifactRow,
    Measurement,
    OperatorProfile,
    Results,
    TrialRow,
    rows,
)

SOME = 0.05
"""A share below this explains nothing."""
MUCH_SLOWER = 5.0
SPINNING = 1.7
"""Processor time over wall time and threads; up to 1.3 was seen where one thread ran alone."""
TINY_MACS = 500_000
"""Multiply-accumulates that a core does in some 50 microseconds: calls cost as much."""
# What a processor must have to multiply a dtype at full speed; names as in machine.json.
INSTRUCTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "x86_64": {
        "int8": ("avx512_vnni", "avx_vnni", "amx_int8"),
        "bfloat16": ("avx512_bf16", "amx_bf16"),
        "float16": ("avx512_fp16", "amx_fp16"),
    },
    "aarch64": {
        "int8": ("asimddp", "i8mm"),
        "bfloat16": ("bf16",),
        "float16": ("asimdhp", "fphp"),
    },
}


@dataclass(frozen=True, slots=True)
class Multiplication:
    """One executed operator, or one node of a file, that multiplies."""

    kind: str
    macs: int
    dtype: str
    engine: str
    scales: str
    name: str = ""
    reason: str = ""
    narrow: bool = False  # whether its weights are quantized


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one trial and of the float model that it is compared with.

    Parameters
    ----------
    latency_ms, float_latency_ms : float
        Medians of the same rounds; NaN where one was not timed.
    speedup : float
        Of the trial over its float model, from paired rounds; NaN where not timed.
    executed, float_executed : tuple of Multiplication
        What one inference multiplied, as the runtimes showed it.
    operators, float_operators : int
        Executed operators, all kinds.
    conversions, float_conversions : int
        Of those, the ones that quantize, dequantize, requantize or cast.
    dequantizations : int
        Of those, the ones that dequantize.
    nodes : tuple of Multiplication
        What the file's graph multiplies; empty where the file holds weights alone.
    weights : int
        Elements of the file's weights, and ``narrow`` of those that are quantized.
    requested_weights, serialized_macs : float
        Shares: of weights that the method asks to quantize, of multiplications that are integer in
        the file; NaN where nobody knows.
    float_weights : frozenset of str
        Dtypes of the float model's weights.
    threads, effective_threads : int
        As asked for, and as the runtime reported them (0: it did not).
    cpu_share : float
        CPU time over wall time of an inference; NaN where not measured.
    isa, architecture : frozenset of str, str
        The machine's instruction sets, less what the target caps.
    """

    latency_ms: float
    float_latency_ms: float
    speedup: float
    executed: tuple[Multiplication, ...]
    float_executed: tuple[Multiplication, ...]
    operators: int
    float_operators: int
    conversions: int
    float_conversions: int
    dequantizations: int
    nodes: tuple[Multiplication, ...]
    weights: int
    narrow: int
    requested_weights: float
    serialized_macs: float
    float_weights: frozenset[str]
    threads: int
    effective_threads: int
    cpu_share: float
    isa: frozenset[str]
    architecture: str

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(op.macs for op in self.executed)

    def share(self, which: Callable[[Multiplication], bool]) -> float:
        """Share of the executed multiply-accumulates that ``which`` is true of."""
        return sum(op.macs for op in self.executed if which(op)) / self.macs if self.macs else 0.0

    @property
    def slower(self) -> bool:
        """Whether it was timed and is no faster than its float model."""
        return self.speedup < 1.02


@dataclass(frozen=True, slots=True)
class Cause:
    """What could explain a time: its name, and one plain sentence of what was recorded."""

    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A trial, how it compares with its float model, and why.

    Parameters
    ----------
    possible : tuple of Cause
        What the record has that could explain it, whether or not it holds the time.
    difference : TimeDifference or None
        Where the time differs; None where nothing was profiled.
    causes : tuple of MeasuredCause
        Those that hold half of the time that is lost, most telling first.
    verdict : str
        What the profile says where it names no cause; empty without a profile.
    """

    trial: str
    reference: str
    summary: str
    possible: tuple[Cause, ...]
    difference: TimeDifference | None = None
    causes: tuple[MeasuredCause, ...] = ()
    verdict: str = ""


# --- the causes ----------------------------------------------------------------------------------


def instruction_set_missing(f: Facts) -> Iterator[Cause]:
    """Multiplications in a dtype that this processor has no instructions for."""
    known = INSTRUCTIONS.get(f.architecture, {})
    for dtype, wanted in known.items():
        share = f.share(lambda op, dtype=dtype: _family(op.dtype) == dtype)  # type: ignore[misc]
        if share > SOME and not f.isa & set(wanted) and f.slower:
            yield Cause(
                "instruction-set-missing",
                f"{share:.0%} of the multiplications are in {dtype}, for which this processor has no "
                f"instructions ({' or '.join(wanted)}).",
            )


def reference_kernels(f: Facts) -> Iterator[Cause]:
    """Kernels of another engine than the float model's, and far below its rate."""
    engines = {op.engine for op in f.float_executed if op.macs}
    other = f.share(lambda op: op.engine not in engines)
    if not engines or other <= SOME or not f.latency_ms > 0 or not f.float_latency_ms > 0:
        return
    rate = f.macs / f.latency_ms
    full = sum(op.macs for op in f.float_executed) / f.float_latency_ms
    if rate * MUCH_SLOWER < full:
        used = sorted({op.engine for op in f.executed if op.macs and op.engine not in engines})
        yield Cause(
            "reference-kernels",
            f"{other:.0%} of the multiplications run in {', '.join(used)} kernels, where the float "
            f"model runs in {', '.join(sorted(engines))}; they do {full / rate:.0f} times fewer of "
            "them in the same time.",
        )


def dynamic_convolutions(f: Facts) -> Iterator[Cause]:
    """Convolutions whose activations are quantized at each call."""
    share = f.share(
        lambda op: op.scales == "dynamic" and "conv" in op.kind.lower() and is_integer(op.dtype)
    )
    if share > SOME and f.slower:
        yield Cause(
            "dynamic-convolutions",
            f"{share:.0%} of the multiplications are integer convolutions whose activations' scales are "
            "found at each inference, which a runtime may have no fast kernel for.",
        )


def slow_activation_type(f: Facts) -> Iterator[Cause]:
    """Signed activations where the instructions multiply unsigned by signed; 16 bits anywhere."""
    if not f.slower:
        return
    nodes = f.nodes or f.executed
    total = sum(op.macs for op in nodes) or len(nodes)
    for dtype in ("int16", "uint16", "int8"):
        share = sum(
            op.macs or 1 for op in nodes if op.dtype == dtype and op.scales == "static"
        ) / max(total, 1)
        if share <= SOME or (dtype == "int8" and not f.architecture.startswith("x86")):
            continue
        lost = f.share(lambda op: not is_integer(op.dtype))
        rest = (
            f"; {lost:.0%} of the multiplications are executed in float instead"
            if lost > SOME
            else ""
        )
        why = (
            "x86 multiplies unsigned by signed bytes, so that both signed need extra steps"
            if dtype == "int8"
            else "vector instructions multiply bytes, not 16-bit integers by bytes"
        )
        yield Cause(
            "slow-activation-type",
            f"Activations are {dtype}, which is slow in many kernels for this processor: {why}{rest}.",
        )


def left_in_float(f: Facts) -> Iterator[Cause]:
    """Weights that the method asks to quantize and that are float in the file."""
    if not f.weights or math.isnan(f.requested_weights):
        return
    narrow = f.narrow / f.weights
    if f.requested_weights - narrow > SOME:
        known = [op for op in f.nodes or f.executed if not is_integer(op.dtype)]
        kinds = sorted({op.kind for op in known if not op.narrow})
        yield Cause(
            "left-in-float",
            f"{narrow:.1%} of the weights are quantized, of {f.requested_weights:.0%} asked for: the "
            f"method has no quantized {', '.join(kinds) or 'kernel'} and left the rest in float.",
        )


def float_fallback(f: Facts) -> Iterator[Cause]:
    """Integer in the file, float when executed."""
    if math.isnan(f.serialized_macs):
        return
    integer = f.share(lambda op: is_integer(op.dtype))
    if f.serialized_macs - integer > SOME and not _interpreted(f):
        reasons = sorted({op.reason for op in (*f.nodes, *f.executed) if op.reason})
        yield Cause(
            "float-fallback",
            f"{f.serialized_macs:.0%} of the multiplications are integer in the file, {integer:.0%} "
            "are executed so: the runtime has no integer kernel for the others"
            + (f" ({'; '.join(reasons)})" if reasons else "")
            + ".",
        )


def uncompiled_graph(f: Facts) -> Iterator[Cause]:
    """Quantize and dequantize executed one by one around float multiplications."""
    if _interpreted(f):
        yield Cause(
            "uncompiled-graph",
            f"The graph is executed as it is written: {f.dequantizations} dequantizations around "
            "multiplications in float. It simulates integers and was not compiled or optimized.",
        )


def _interpreted(f: Facts) -> bool:
    integer = f.share(lambda op: is_integer(op.dtype))
    many = len([op for op in f.executed if op.macs])
    if any(op.reason for op in f.nodes):
        return False  # compiled or not, there is no kernel
    return f.serialized_macs > SOME and integer <= SOME and f.dequantizations >= max(many, 1)


def conversions_left(f: Facts) -> Iterator[Cause]:
    """Operators that quantization added and nothing fused."""
    added = f.conversions - f.float_conversions
    if added > 0.25 * max(f.float_operators, 1) and f.slower and not _interpreted(f):
        yield Cause(
            "conversions-left",
            f"{added} conversions between float and integer are executed beside "
            f"{f.operators - f.conversions} operators: what they cost, integers must first save.",
        )


def reduced_float_baseline(f: Facts) -> Iterator[Cause]:
    """A float32 model whose multiplications the runtime does in fewer bits."""
    total = sum(op.macs for op in f.float_executed)
    reduced = sum(op.macs for op in f.float_executed if op.dtype in ("bfloat16", "float16"))
    if total and reduced / total > SOME and "float32" in f.float_weights:
        dtype = next(op.dtype for op in f.float_executed if op.dtype in ("bfloat16", "float16"))
        yield Cause(
            "reduced-float-baseline",
            f"The float model that this is compared with holds float32 weights, but {reduced / total:.0%} "
            f"of its multiplications run in {dtype}: the baseline is faster, and less exact, than "
            "float32.",
        )


def thread_mismatch(f: Facts) -> Iterator[Cause]:
    """Another number of threads than asked for."""
    if f.effective_threads and f.effective_threads != f.threads:
        yield Cause(
            "thread-mismatch",
            f"It ran on {f.effective_threads} threads, {f.threads} were asked for.",
        )
    elif f.cpu_share > SPINNING * f.threads:
        yield Cause(
            "thread-mismatch",
            f"An inference took {f.cpu_share:.1f} times its wall time of processor time, on "
            f"{f.threads} thread{'s' if f.threads > 1 else ''}.",
        )


def too_small(f: Facts) -> Iterator[Cause]:
    """A model whose multiplications take less than calling its operators."""
    if 0 < f.macs < TINY_MACS and f.speedup < 1.2:
        yield Cause(
            "too-small",
            f"One inference has {f.macs:,} multiply-accumulates in {f.operators} operators: calling "
            "operators takes as long as multiplying, whatever the type.",
        )


CAUSES: tuple[Callable[[Facts], Iterator[Cause]], ...] = (
    instruction_set_missing,
    reference_kernels,
    dynamic_convolutions,
    slow_activation_type,
    left_in_float,
    uncompiled_graph,
    float_fallback,
    conversions_left,
    reduced_float_baseline,
    thread_mismatch,
    too_small,
)


def causes(facts: Facts) -> tuple[Cause, ...]:
    """Everything that could explain it, in the order of `CAUSES`."""
    return tuple(cause for find in CAUSES for cause in find(facts))


def _family(dtype: str) -> str:
    """``int8`` for both byte types; float dtypes as they are."""
    return "int8" if dtype in ("int8", "uint8") else dtype


# --- from a run ----------------------------------------------------------------------------------


def explain(results: Results, trial: str, profile: OperatorProfile | None = None) -> Explanation:
    """The explanation of a trial of a run; with a ``profile`` of it, by where the time goes.

    Raises
    ------
    BadInput
        For a trial that the run does not have, or that was not scored; says which is nearest.
    """
    trials = {row.trial: row for row in rows(TrialRow, results.trials)}
    if trial not in trials:
        raise BadInput(f"the run has no trial '{trial}'.{did_you_mean(trial, trials)}")
    row = trials[trial]
    if not any(entry.kind == "executed" for entry in _held(results, trial)):
        raise BadInput(f"trial '{trial}' was not run ({row.status}): {row.reason or 'no record'}")
    reference = baseline(trials.values(), row)
    known = facts(results, row, reference)
    summary, possible = _summary(known, trial == reference), causes(known)
    if profile is None:
        return Explanation(trial, reference, summary, possible)
    difference = time_difference(profile, *(_ran(results, n) for n in (trial, profile.reference)))
    measured = named_causes(difference)
    return Explanation(
        trial, profile.reference, summary, possible, difference, measured,
        "" if measured else verdict(difference),
    )  # fmt: skip


def _ran(results: Results, trial: str) -> tuple[ArtifactRow, ...]:
    """The executed operations of a trial, each with the layer of the file's node of its name."""
    held = _held(results, trial)
    layers = {row.name: row.layer for row in held if row.kind == "node" and row.layer}
    return tuple(
        replace(row, layer=row.layer or layers.get(row.name, ""))
        for row in held
        if row.kind == "executed"
    )


def baseline(trials: Iterable[TrialRow], row: TrialRow) -> str:
    """The float32 trial of the same runtime, model and target: of the same route if there is one."""
    same = [
        other
        for other in trials
        if (other.method, other.training) == ("fp32", "ptq")
        and (other.model, other.backend, other.target) == (row.model, row.backend, row.target)
    ]
    if not same:
        return row.trial
    routed = [other for other in same if other.route == row.route]
    return (routed or same)[0].trial


def facts(results: Results, row: TrialRow, reference: str) -> Facts:
    """What a run knows of a trial and of its float model."""
    trial = row.trial
    own, full = (_held(results, name) for name in (trial, reference))
    measured = _measured(results, trial)
    values = _values(measured)
    effective = json.loads(row.effective or "{}")
    latency = values.get("latency_ms", math.nan)
    float_latency = _values(_measured(results, reference)).get("latency_ms", math.nan)
    executed = [r for r in own if r.kind == "executed"]
    float_executed = [r for r in full if r.kind == "executed"]
    weights = [r for r in own if r.kind == "tensor" and r.role == WEIGHT]
    machine = results.machine
    return Facts(
        latency_ms=latency,
        float_latency_ms=float_latency,
        speedup=1.0
        if trial == reference
        else _speedup(measured, reference, latency, float_latency),
        executed=_multiplications(executed),
        float_executed=_multiplications(float_executed),
        operators=len(executed),
        float_operators=len(float_executed),
        conversions=_count(executed, CONVERSIONS),
        float_conversions=_count(float_executed, CONVERSIONS),
        dequantizations=_count(executed, (DEQUANTIZE,)),
        nodes=_multiplications([r for r in own if r.kind == "node" and r.role == MULTIPLY]),
        weights=sum(math.prod(r.shape) for r in weights),
        narrow=sum(math.prod(r.shape) for r in weights if is_narrow(r.dtype)),
        requested_weights=values.get("requested_weights_fraction", math.nan),
        serialized_macs=values.get("serialized_macs_fraction", math.nan),
        float_weights=frozenset(r.dtype for r in full if r.kind == "tensor" and r.role == WEIGHT),
        threads=row.threads,
        effective_threads=int(effective.get("threads", 0) or 0),
        cpu_share=values.get("cpu_share", math.nan),
        isa=_isa(machine, row.isa),
        architecture=str(machine.get("architecture", "")),
    )


def _held(results: Results, trial: str) -> tuple[ArtifactRow, ...]:
    return rows(ArtifactRow, results.artifacts[results.artifacts["trial"] == trial])


def _measured(results: Results, trial: str) -> tuple[Measurement, ...]:
    return rows(Measurement, results.measurements[results.measurements["trial"] == trial])


def _values(measured: Iterable[Measurement]) -> dict[str, float]:
    """The first value of each metric."""
    found: dict[str, float] = {}
    for row in measured:
        if row.known:
            found.setdefault(row.metric, row.value)
    return found


def _speedup(
    measured: Iterable[Measurement], reference: str, latency: float, float_latency: float
) -> float:
    """From paired rounds where the run has it, else of the two medians."""
    own = [m.value for m in measured if (m.metric, m.reference) == ("speedup", reference)]
    return own[0] if own else float_latency / latency


def _multiplications(entries: Sequence[ArtifactRow]) -> tuple[Multiplication, ...]:
    return tuple(
        Multiplication(
            r.operator, r.macs or 0, r.dtype, r.engine, r.scales or "none", r.name, r.reason,
            is_narrow(r.weight_dtype),
        )
        for r in entries
        if r.kind == "node" or r.macs
    )  # fmt: skip


def _count(entries: Sequence[ArtifactRow], roles: Sequence[str]) -> int:
    return sum(r.role in roles for r in entries)


def _isa(machine: Mapping[str, Any], cap: str) -> frozenset[str]:
    """The instruction sets that kernels may use; of a cap to AVX2, none that came later."""
    found = frozenset(str(name) for name in machine.get("isa", ()))
    later = ("avx512", "amx", "avx_vnni")
    return frozenset(n for n in found if not n.startswith(later)) if cap == "avx2" else found


def _summary(f: Facts, itself: bool) -> str:
    integer = f.share(lambda op: is_integer(op.dtype))
    done = (
        f"{integer:.0%} of its multiplications are executed in integers"
        if f.macs
        else "it multiplies nothing"
    )
    if itself:
        return f"The float model itself: {done}."
    if math.isnan(f.speedup):
        return f"Not timed against its float model: {done}."
    factor = f.speedup if f.speedup >= 1 else 1 / f.speedup
    word = "as fast as" if f.speedup >= 1 else "slower than"
    return f"{factor:.2f} times {word} its float model ({f.latency_ms:.3f} against {f.float_latency_ms:.3f} ms): {done}."
