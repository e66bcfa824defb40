"""Synthetic runs for tests: invented numbers in the real Parquet files, read back by the reader."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quantbench.backend_api import NodeRecord, Operation, TensorRecord
from quantbench.results import SCHEMAS, Results, load_results, write_table
from quantbench.runs.assembly.artifacts import node_row, operation_row, tensor_row
from quantbench.spec import AXES, PRESETS, preset
from quantbench.stats.statistics import bonett_price, wilson
from quantbench.system import write_json

SAMPLES = 897
FLOAT_RIGHT = 888
REFERENCE_BACKEND = "pytorch"


@dataclass(frozen=True)
class Invented:
    """A trial of a synthetic run; ``lost`` and ``won`` are samples against the reference."""

    backend: str
    method: str
    latency_ms: float | None = None
    size_bytes: float = 370_000.0
    lost: int = 0
    won: int = 0
    integer: float = 0.0
    sqnr_db: float = 40.0
    status: str = "ok"
    reason: str = ""
    stage: str = ""
    axes: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    width: float = 0.012  # of the interval; not a number for what was timed in one generation
    model: str = "digits"
    target: str = "cpu-1"
    energy_j: float | None = None
    per_s: float | None = None  # offline, at batch size 32
    seed: int | None = None  # of several

    @property
    def label(self) -> str:
        return "+".join([self.method, *(f"{k}={v}" for k, v in self.axes.items())])

    @property
    def id(self) -> str:
        place = f"{self.model}/{self.backend}/{self.label}/{self.target}"
        return place if self.seed is None else f"{place}/seed{self.seed}"


TYPICAL = (
    Invented("pytorch", "fp32", 0.982, 371_204, sqnr_db=math.inf),
    Invented("pytorch", "fp32", 0.611, 371_930, sqnr_db=130.2, axes={"route": "traced"}),
    Invented("pytorch", "fp32", 0.433, 392_118, sqnr_db=131.0, axes={"route": "compiled"}),
    Invented("pytorch", "fp16", 3.41, 187_644, sqnr_db=62.1, flags=("not-steady",)),
    Invented("pytorch", "bf16", 1.16, 187_644, lost=3, won=2, sqnr_db=45.0),
    Invented("pytorch", "dynamic-int8", 0.991, 369_850, sqnr_db=88.0, status="no-op",
             reason="no multiply-accumulate runs on integers: the model has one Linear layer and dynamic quantization takes only Linear"),
    Invented("pytorch", "static-int8", 0.274, 101_118, lost=5, won=3, integer=1.0, sqnr_db=31.2),
    Invented("tflite", "fp32", 0.381, 366_020, sqnr_db=128.7),
    Invented("tflite", "fp16", 0.384, 185_412, sqnr_db=67.9),
    Invented("tflite", "dynamic-int8", 0.246, 98_040, lost=2, won=1, integer=0.98, sqnr_db=38.0),
    Invented("tflite", "static-int8", 0.0842, 101_064, lost=4, won=4, integer=1.0, sqnr_db=32.8),
    Invented("onnxruntime", "fp32", 0.2401, 364_911, sqnr_db=127.9),
    Invented("onnxruntime", "fp16", status="unsupported",
             reason="ONNX Runtime's CPU provider has no float16 convolution kernels; use fp32 or static-int8"),
    Invented("onnxruntime", "dynamic-int8", 1.71, 97_001, lost=4, won=1, integer=1.0, sqnr_db=35.1),
    Invented("onnxruntime", "static-int8", 0.0839, 104_882, lost=4, won=2, integer=1.0, sqnr_db=33.6),
    Invented("onnxruntime", "static-int8", 0.0723, 104_310, lost=19, won=5, integer=1.0, sqnr_db=21.4,
             axes={"granularity": "per-tensor"}),
)  # fmt: skip
OLD_MACHINE = (
    Invented("pytorch", "fp32", 1.62, 371_204, sqnr_db=math.inf, target="cpu-avx2"),
    Invented("pytorch", "static-int8", 0.802, 101_118, lost=120, won=3, integer=1.0, sqnr_db=7.2, target="cpu-avx2"),
    Invented("tflite", "fp32", status="unsupported", target="cpu-avx2",
             reason="LiteRT cannot be limited to AVX2; its kernels choose by the CPU alone"),
    Invented("tflite", "static-int8", status="unsupported", target="cpu-avx2",
             reason="LiteRT cannot be limited to AVX2; its kernels choose by the CPU alone"),
    Invented("onnxruntime", "fp32", status="crashed", stage="clock", target="cpu-avx2",
             reason="process ended by signal 4 (SIGILL)"),
    Invented("onnxruntime", "static-int8", status="timeout", stage="build", target="cpu-avx2",
             reason="stopped after 900 s"),
)  # fmt: skip


def sample_results(
    folder: Path,
    trials: Sequence[Invented] = TYPICAL,
    *,
    experiment: str = "synthetic",
    batch_sizes: Sequence[int] = (1,),
    run: Mapping[str, Any] | None = None,
    machine: Mapping[str, Any] | None = None,
    noise: float = 0.004,
    detailed: bool = False,
) -> Results:
    """Write a synthetic run to ``folder`` and read it; ``run`` and ``machine`` replace keys.

    ``detailed``: with rounds, predictions and histograms of weights, which most tests do not need.
    """
    references = _references(trials)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    described = {**_MACHINE, **(machine or {})}
    for trial in trials:
        tables["trials"].append(_trial(trial, experiment, described["fingerprint"]))
        tables["measurements"] += _measurements(trial, trials, references, batch_sizes, noise)
        tables["artifacts"] += _artifacts(trial, layer="conv" if detailed else "")
        if detailed and trial.latency_ms is not None:
            again = trial is references.get(f"{trial.model}/{trial.target}")
            for name in (trial.id, f"{trial.id}@control") if again else (trial.id,):
                tables["samples"] += _rounds(name, trial)
            tables["predictions"] += _predictions(trial)
    if detailed:
        tables["histograms"] = [_weights(trials)]
    for name, rows in tables.items():
        write_table(folder, name, rows)
    write_json(folder / "run.json", {**_run(experiment, references), **(run or {})})
    write_json(folder / "machine.json", described)
    return load_results(folder)


KERNELS: Mapping[str, str] = {"dynamic-int8": "ConvInteger", "fp16": "HalfConv"}


GENERATIONS, ROUNDS = 3, 7


def _rounds(name: str, t: Invented) -> list[dict[str, Any]]:
    """Two samples of each round, around the latency; the second round of each generation is slow."""
    chance = random.Random(name)
    return [
        {"trial": name, "scenario": "single-stream", "batch_size": 1, "session": 0, "generation": generation,
         "round": round_, "position": 0, "calls": 10,
         "nanoseconds": int(1e7 * (t.latency_ms or 0) * chance.gauss(1, 0.01) * (1.2 if round_ == 1 else 1))}
        for generation in range(GENERATIONS) for round_ in range(ROUNDS) for _ in range(2)
    ]  # fmt: skip


def _predictions(t: Invented) -> list[dict[str, Any]]:
    """Ten classes in turn; float errs on the first samples, of which ``won`` are right here.

    The next ``lost`` samples are wrong here alone. All wrong answers are the next class.
    """
    rows = []
    for sample in range(SAMPLES):
        label = sample % 10
        wrong = t.won <= sample < SAMPLES - FLOAT_RIGHT + t.lost
        rows.append(
            {"trial": t.id, "sample": sample, "label": label, "prediction": (label + wrong) % 10,
             "outcome": 1 - wrong}
        )  # fmt: skip
    return rows


def _weights(trials: Sequence[Invented]) -> dict[str, Any]:
    """Of the convolution of `_artifacts`; its extremes are the ends of the file's range."""
    return {
        "trials": [t.id for t in trials], "role": "weight", "name": "conv", "start": -25.4,
        "width": 2.54, "counts": [1, 9, 99, 999, 9999, 9999, 999, 99, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        "minimum": -25.4, "maximum": 25.4, "mean": 0.0, "std": 4.0, "count": 22216,
    }  # fmt: skip


def _artifacts(t: Invented, layer: str = "") -> list[dict[str, Any]]:
    """A file of one convolution, as its method would make it; nothing of what did not run."""
    if t.latency_ms is None:
        return []
    integer = t.integer > 0
    weight = TensorRecord("w", "weight", "int8" if integer else "float32", (90_000,), layer=layer)
    if integer:
        levels = {"qmin": -128 if t.backend == "pytorch" else -127, "qmax": 127}
        weight = replace(weight, scale=(0.1, 0.2), zero_point=(0, 0), axis=0, **levels)
    dtype = "uint8" if integer else {"fp16": "float16"}.get(t.method, "float32")
    scales = "none" if not integer else t.method.partition("-")[0]
    kind = KERNELS.get(t.method, "Conv")
    node = NodeRecord("c", kind, "multiply", dtype, scales, 2_000_000, 90_000, weight.dtype)
    ran = Operation("c", kind, 2_000_000, dtype, "kernels", "multiply", scales, 90_000)
    method = preset(t.method if t.method in PRESETS else "fp32")
    return [
        tensor_row(t.id, weight, method),
        node_row(t.id, node, method),
        operation_row(t.id, ran),
    ]


def _references(trials: Sequence[Invented]) -> dict[str, Invented]:
    found: dict[str, Invented] = {}
    for t in trials:
        if (t.backend, t.label) == (REFERENCE_BACKEND, "fp32"):
            found.setdefault(f"{t.model}/{t.target}", t)
    return found


def _trial(t: Invented, experiment: str, machine: str) -> dict[str, Any]:
    known = {axis: value for axis, value in t.axes.items() if axis in AXES}
    method = preset(t.method if t.method in PRESETS else "fp32", known)
    return {
        "run": "20260102-030405",
        "trial": t.id,
        "experiment": experiment,
        "model": t.model,
        "task": "digits",
        "backend": t.backend,
        "method": t.method,
        "label": t.label,
        **{axis: getattr(method, axis) for axis in AXES},
        "target": t.target,
        "device": "cpu",
        "threads": 1,
        "isa": "native",
        "kernels": "default",
        "seed": t.seed or 0,
        "division": method.division,
        "precision": "preview",
        "machine": machine,
        "status": t.status,
        "stage": t.stage or None,
        "reason": t.reason or None,
        "flags": list(t.flags),
    }


def _measurements(
    t: Invented,
    trials: Sequence[Invented],
    references: Mapping[str, Invented],
    batch_sizes: Sequence[int],
    noise: float,
) -> list[dict[str, Any]]:
    if t.latency_ms is None or t.status not in ("ok", "no-op"):
        return []
    rows: list[dict[str, Any]] = []

    def add(scenario: str, metric: str, value: float, unit: str, **more: Any) -> None:
        rows.append(
            {"trial": t.id, "scenario": scenario, "batch_size": 1, "metric": metric,
             "value": value, "unit": unit, "n": SAMPLES, **more}
        )  # fmt: skip

    reference = references.get(f"{t.model}/{t.target}")
    quality = wilson(FLOAT_RIGHT - t.lost + t.won, SAMPLES)
    add("score", "quality", quality.value, "fraction", low=quality.low, high=quality.high)
    if reference is not None and t is not reference:
        drop = bonett_price(t.lost, t.won, SAMPLES)
        verdict = "keeps" if drop.upper < 0.01 else "undecided"
        verdict = "loses" if drop.interval.low > 0.01 else verdict
        add("score", "quality_drop", drop.interval.value, "fraction", low=drop.interval.low,
            high=drop.interval.high, reference=reference.id, verdict=verdict)  # fmt: skip
        add("score", "quality_drop_bound", drop.upper, "fraction", reference=reference.id)
        agreement = wilson(SAMPLES - t.lost - t.won, SAMPLES)
        add("score", "agreement", agreement.value, "fraction", low=agreement.low,
            high=agreement.high, reference=reference.id)  # fmt: skip
        add("score", "sqnr_db", t.sqnr_db, "dB", reference=reference.id)
    for batch in batch_sizes:
        time = t.latency_ms * batch**0.9
        add("single-stream", "latency_ms", time, "ms", batch_size=batch,
            low=time * (1 - 2 * t.width), high=time * (1 + 3 * t.width))  # fmt: skip
        per_s = 1000 * batch / time
        add("single-stream", "throughput_per_s", per_s, "1/s", batch_size=batch,
            low=per_s * (1 - 3 * t.width), high=per_s * (1 + 2 * t.width))  # fmt: skip
        if t is reference:
            add("single-stream", "aa_control", 1.0007, "ratio", batch_size=batch,
                low=1.0007 - noise, high=1.0007 + noise, reference=t.id)  # fmt: skip
        for other in trials:
            same = (other.model, other.target) == (t.model, t.target)
            if same and other is not t and other.method == "fp32" and other.latency_ms:
                times = other.latency_ms / t.latency_ms
                verdict = "faster" if times > 1 + t.width else "slower"
                verdict = "undecided" if abs(times - 1) <= t.width else verdict
                add("single-stream", "speedup", times, "ratio", batch_size=batch,
                    low=times * (1 - t.width), high=times * (1 + t.width), reference=other.id,
                    verdict=verdict)  # fmt: skip
    if t.energy_j is not None:
        add("energy", "energy_net_j", t.energy_j, "J", low=t.energy_j * (1 - t.width),
            high=t.energy_j * (1 + t.width))  # fmt: skip
    if t.per_s is not None:
        add("offline", "throughput_per_s", t.per_s, "1/s", batch_size=32,
            low=t.per_s * (1 - t.width), high=t.per_s * (1 + t.width))  # fmt: skip
    add("artifact", "size_bytes", t.size_bytes, "byte")
    add("artifact", "size_gzip_bytes", t.size_bytes * 0.91, "byte")
    if reference is not None:
        add(
            "artifact",
            "compression",
            reference.size_bytes / t.size_bytes,
            "ratio",
            reference=reference.id,
        )
    add("artifact", "integer_macs_fraction", t.integer, "fraction")
    add("score", "peak_rss_bytes", 999e6, "byte")  # of another scenario: not what is reported
    add("memory", "peak_rss_bytes", 71e6 + 4 * t.size_bytes, "byte")
    add("memory", "model_rss_bytes", 4 * t.size_bytes, "byte")
    add("start", "load_ms", 11.0 + t.latency_ms, "ms")
    add("start", "first_inference_ms", 3 * t.latency_ms, "ms")
    return rows


def _run(experiment: str, references: Mapping[str, Invented]) -> dict[str, Any]:
    return {
        "run": "20260102-030405",
        "experiment": experiment,
        "created": "2026-01-02T03:04:05+00:00",
        "command": f"quantbench run experiments/{experiment}.yaml",
        "seed": 0,
        "precision": "preview",
        "protocol": {"generations": 5, "max_generations": 5, "rounds": 7, "width": 0.02,
                     "time_limit_s": 30.0, "warmup_s": 0.1, "burst_ms": 50.0, "memory_processes": 1},
        "experiment_text": (
            f"name: {experiment}\nmodels: [digits]\nbackends: [pytorch, tflite, onnxruntime]\n"
            "methods: [fp32, fp16, static-int8]  # < 1 MB & fast\nprecision: preview\n"
        ),
        "reference": [
            {"model": one.model, "target": one.target, "comparison": "batch1", "trial": one.id}
            for one in references.values()
        ],
        "quantbench": "0.0.0",
    }  # fmt: skip


_MACHINE: dict[str, Any] = {
    "cpu": "Invented CPU 9000 @ 3.0 GHz",
    "architecture": "x86_64",
    "isa": ["avx2", "fma", "avx512f", "avx512_vnni"],
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "kernel": "6.1.0",
    "governor": "none visible",
    "virtualization": "Invented Hypervisor",
    "packages": {"quantbench": "0.0.0", "numpy": "2.4.6", "onnxruntime": "1.31.1"},
    "environment": {"PYTHONHASHSEED": "0", "OMP_WAIT_POLICY": "ACTIVE"},
    "git_commit": "0" * 40,
    "fingerprint": "0123456789ab",
    "warnings": [
        "This is a virtual machine (Invented Hypervisor): neighbours may slow it without a trace. "
        "Ratios come from interleaved rounds and tolerate that; milliseconds may not repeat."
    ],
}
