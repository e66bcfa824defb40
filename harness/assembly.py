"""Assembly: the Parquet files of a run, computed from its stored state."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness import registry, statistics
from harness.build import HISTOGRAMS
from harness.cache import entry
from harness.calibration import Histogram, Observation
from harness.clock import (
    Comparison,
    Generation,
    load_generations,
    log_times,
    paired,
    still_in,
    why_stop,
)
from harness.energy import Window
from harness.experiment import Experiment
from harness.method import AXES, LISTS, RECIPE, Method
from harness.metrics import BINARY, METRICS, Outcome, kl_divergence
from harness.noise import flags as noise_flags
from harness.plan import Cell, float_form
from harness.protocol import Artifact
from harness.record import (
    INPUT,
    MULTIPLY,
    WEIGHT,
    NodeRecord,
    Operation,
    Record,
    TensorRecord,
    activation_bytes,
    executed,
    is_narrow,
    requested,
    serialized,
    why_float,
)
from harness.results import SAMPLES, read_json, write_table
from harness.statistics import Interval
from harness.store import Store
from harness.tensors import Array

Row = dict[str, Any]
SHOWN_BINS = 256


def write(
    experiment: Experiment, cells: Sequence[Cell], store: Store, compared: Sequence[Comparison]
) -> None:
    """Compute every table and write it atomically."""
    machine = read_json(store.folder / "machine.json")["fingerprint"]
    timed = {c.id: load_generations(store.generations(c.id)) for c in compared}
    clocked = _clock_states(compared, timed)
    views = [_View.of(cell, store) for cell in cells]
    doubtful = {c.id: noise_flags(c, timed[c.id]) for c in compared}
    trials = [_trial_row(v, experiment, store, machine, clocked, timed, doubtful) for v in views]
    status = {row["trial"]: row["status"] for row in trials}
    predictions, quality = _quality(views, experiment, store, status)
    measurements = [
        *_sizes(views, store),
        *quality,
        *_start_up(views, store),
        *(row for c in compared for row in _timing(c, timed[c.id], experiment)),
        *(row for c in compared for row in _energy(c, store)),
    ]
    write_table(store.folder, "trials", trials)
    write_table(store.folder, "measurements", [_complete(row) for row in measurements])
    write_table(store.folder, "samples", _samples(timed.values()))
    write_table(store.folder, "predictions", predictions)
    write_table(store.folder, "artifacts", _artifacts(views))
    write_table(store.folder, "training", _training(views))
    write_table(store.folder, "histograms", _histograms(views, store))


@dataclass(frozen=True, slots=True)
class _View:
    """A cell with what the store knows about it; empty mappings where a phase did not happen."""

    cell: Cell
    built: Mapping[str, Any]
    scored: Mapping[str, Any]

    @classmethod
    def of(cls, cell: Cell, store: Store) -> _View:
        name = cell.trial.id
        return cls(cell, store.get("build", name) or {}, store.get("score", name) or {})

    @property
    def id(self) -> str:
        return self.cell.trial.id

    @property
    def has_outputs(self) -> bool:
        return "score" in self.scored

    def outputs(self) -> dict[str, np.ndarray[Any, Any]]:
        folder = entry("scores", self.scored["score"])
        return {s.name: np.load(folder / f"{s.name}.npy") for s in self.cell.model.outputs}

    def operations(self) -> tuple[Operation, ...]:
        return tuple(Operation.from_json(op) for op in self.scored["summary"]["operations"])


def _complete(row: Row) -> Row:
    """A measurement row with every column; a value that is not a number becomes null."""
    empty = dict.fromkeys(("value", "low", "high", "unit", "n", "reference", "verdict", "reason"))
    return {"batch_size": None, **empty, **row}


# --- trials --------------------------------------------------------------------------------------


def _clock_states(
    compared: Sequence[Comparison], timed: Mapping[str, list[Generation]]
) -> dict[str, tuple[str, str]]:
    """Status and reason of contenders that failed while they were timed."""
    failed = {}
    for comparison in compared:
        for generation in timed[comparison.id]:
            for name, (status, reason) in generation.failures.items():
                if name != comparison.control:
                    failed[name] = (status, reason)
    return failed


def _trial_row(
    view: _View,
    experiment: Experiment,
    store: Store,
    machine: str,
    clocked: Mapping[str, tuple[str, str]],
    timed: Mapping[str, Sequence[Generation]],
    doubtful: Mapping[str, Mapping[str, set[str]]],
) -> Row:
    trial, method, target = view.cell.trial, view.cell.trial.method, view.cell.trial.target
    last = view.scored or view.built
    status, stage, reason = last["status"], last["stage"], last["reason"]
    if status == "ok":
        stage = "clock"
        status, reason = clocked.get(trial.id, ("ok", ""))
    parity = _parity(view, store)
    summary = view.scored.get("summary", {})
    return {
        "run": store.folder.name,
        "trial": trial.id,
        "experiment": experiment.name,
        "model": trial.model,
        "task": view.cell.model.task,
        "backend": trial.backend,
        "method": method.name,
        "label": trial.label,
        **{axis: getattr(method, axis) for axis in AXES},
        **{axis: list(getattr(method, axis)) for axis in LISTS},
        "target": target.name,
        "device": target.device,
        "threads": target.threads,
        "isa": target.isa,
        "kernels": target.kernels,
        "seed": trial.seed,
        "precision": experiment.precision.name,
        "machine": machine,
        "status": status,
        "stage": stage,
        "reason": reason,
        "artifact": view.built.get("artifact"),
        "sha256": view.built.get("sha256"),
        "parity_max_abs": parity.get("max_abs"),
        "parity_samples": parity.get("samples"),
        "trained_s": view.built.get("trained_s"),
        "converted_s": view.built.get("converted_s"),
        "observed_s": view.built.get("observed_s"),
        "built_s": view.built.get("built_s"),
        "scored_s": view.scored.get("scored_s"),
        "effective": json.dumps(summary.get("effective", {}), sort_keys=True),
        "flags": _flags(view, experiment, timed, doubtful),
    }


def _parity(view: _View, store: Store) -> Mapping[str, Any]:
    """What was judged of the float form that the trial starts from; empty where nothing was."""
    if view.cell.refusal:
        return {}
    judged = (store.get("parity", view.cell.trial.model) or {}).get("forms", {})
    found: Mapping[str, Any] = judged.get(float_form(view.cell), {})
    return found


def _training(views: Iterable[_View]) -> list[Row]:
    return [{"trial": view.id, **step} for view in views for step in view.built.get("journal", ())]


def _flags(
    view: _View,
    experiment: Experiment,
    timed: Mapping[str, Sequence[Generation]],
    doubtful: Mapping[str, Mapping[str, set[str]]],
) -> list[str]:
    """What makes a trial's numbers doubtful, in words of the glossary.

    ``doubtful``: flags of `harness.noise` by comparison and name.
    """
    flags = set()
    if view.cell.trial.method.is_float and "record" in view.built:
        tensors = Record.from_json(view.built["record"]).tensors
        if any(t.role == WEIGHT and is_narrow(t.dtype) for t in tensors):
            flags.add("holds-integers")
    for batch_size in experiment.batch_sizes:
        name = f"{view.cell.trial.model}/{view.cell.trial.target.name}/batch{batch_size}"
        flags |= doubtful.get(name, {}).get(view.id, set())
        for generation in timed.get(name, ()):
            ready = generation.ready.get(view.id)
            if ready is None:
                continue
            if not ready["steady"]:
                flags.add("not-steady")
            if not _same_outputs(view, ready["outputs"]):
                flags.add(f"outputs-differ-at-batch-{batch_size}")
    return sorted(flags)


def _same_outputs(view: _View, timed: Mapping[str, Any]) -> bool:
    """Whether the timed process computed what was scored: within 1e-5 of the largest output."""
    for name, scored in view.outputs().items():
        seen = np.asarray(timed[name])
        expected = scored[np.arange(len(seen)) % len(scored)]
        if np.abs(seen - expected).max() > 1e-5 * max(float(np.abs(expected).max()), 1e-30):
            return False
    return True


# --- artifact ------------------------------------------------------------------------------------


def _sizes(views: Iterable[_View], store: Store) -> list[Row]:
    rows = []
    for view in views:
        if view.built.get("status") != "ok":
            continue
        artifact = Artifact.open(entry("artifacts", view.built["artifact"]), verify=False)
        zipped = sum(_gzip_bytes(artifact.folder / name) for name in artifact.files)
        held = view.built["record"]["weight_bytes"]
        size = artifact.size_bytes
        row: Row = {"trial": view.id, "scenario": "artifact"}
        rows += [
            {**row, "metric": "size_bytes", "value": size, "unit": "byte", "n": 1},
            {**row, "metric": "size_gzip_bytes", "value": zipped, "unit": "byte", "n": 1},
            {**row, "metric": "weight_bytes", "value": sum(held.values()), "unit": "byte", "n": 1},
        ]
        if own := _parity(view, store):
            full = Artifact.open(entry("artifacts", own["artifact"]), verify=False).size_bytes
            rows.append(
                {
                    **row, "metric": "compression", "value": full / size, "unit": "ratio", "n": 1,
                    "reference": f"{view.cell.trial.model}/{view.cell.trial.backend}/{own['trial']}",
                }
            )  # fmt: skip
        if "observed_bytes" in view.built:
            rows.append(
                {
                    **row, "scenario": "calibration", "metric": "observed_rss_bytes", "unit": "byte",
                    "value": view.built["observed_bytes"], "n": 1,
                }
            )  # fmt: skip
        rows += [{**row, "n": 1, **found} for found in _coverage(view)]
    return rows


def _coverage(view: _View) -> Iterator[Row]:
    """What is quantized: asked for, in the file, executed; and the memory of activations."""
    record = Record.from_json(view.built["record"])
    operations = view.operations() if view.has_outputs else ()
    levels = {
        "requested": requested(record, view.cell.trial.method),
        "serialized": serialized(record),
        "executed": executed(operations) if view.has_outputs else None,
    }
    for level, found in levels.items():
        for what in ("nodes", "weights", "macs") if found else ():
            share = getattr(found, what)
            # the one that speed depends on has a name of its own
            name = (
                "integer_macs_fraction"
                if (level, what) == ("executed", "macs")
                else f"{level}_{what}_fraction"
            )
            reason = _unknown(level, record, operations) if share is None else None
            yield {"metric": name, "value": share, "unit": "fraction", "reason": reason}
    if view.has_outputs:
        live = activation_bytes(operations)
        reason = "the runtime does not show the buffers of this graph" if live is None else None
        yield {"metric": "activation_bytes", "value": live, "unit": "byte", "reason": reason}


def _unknown(level: str, record: Record, operations: Sequence[Operation]) -> str:
    """Why a share is not known."""
    if level == "executed":
        return "the graph has no multiply-accumulates"
    if not record.nodes:
        return "the file holds weights alone, no graph"
    return "the file does not hold all shapes"


def _gzip_bytes(path: Path) -> int:
    return len(gzip.compress(path.read_bytes(), compresslevel=9, mtime=0))


def _artifacts(views: Iterable[_View]) -> list[Row]:
    rows: list[Row] = []
    for view in views:
        if "record" in view.built:
            record, method = Record.from_json(view.built["record"]), view.cell.trial.method
            rows += [_tensor_row(view.id, tensor, method) for tensor in record.tensors]
            rows += [_node_row(view.id, node, method) for node in record.nodes]
        if view.has_outputs:
            rows += [_operation_row(view.id, op) for op in view.operations() if op.role != INPUT]
    return rows


def _tensor_row(trial: str, tensor: TensorRecord, method: Method) -> Row:
    names = (
        "name", "role", "dtype", "bytes", "bits", "signed", "symmetric", "granularity",
        "group_size", "low", "high", "layer",
    )  # fmt: skip
    kept = tensor.role == WEIGHT and not is_narrow(tensor.dtype)
    return {
        "trial": trial, "kind": "tensor", **{name: getattr(tensor, name) for name in names},
        # of 64 bits there are more than a column can say
        "levels": tensor.levels if tensor.levels < 2**63 else None,
        "shape": list(tensor.shape), "scale": list(tensor.scale),
        "zero_point": list(tensor.zero_point),
        "reason": why_float(tensor.layer, method) if kept else None,
    }  # fmt: skip


def _node_row(trial: str, node: NodeRecord, method: Method) -> Row:
    names = (
        "name", "role", "dtype", "scales", "macs", "weights", "weight_dtype", "layer", "integer",
    )  # fmt: skip
    kept = node.role == MULTIPLY and not node.integer
    return {
        "trial": trial, "kind": "node", **{name: getattr(node, name) for name in names},
        "operator": node.kind, "fused": list(node.fused),
        "reason": (node.reason or why_float(node.layer, method)) if kept else None,
    }  # fmt: skip


def _operation_row(trial: str, op: Operation) -> Row:
    names = ("name", "role", "dtype", "scales", "macs", "weights", "integer", "engine")
    return {
        "trial": trial, "kind": "executed", **{name: getattr(op, name) for name in names},
        "operator": op.kind, "bytes": sum(op.writes.values()),
    }  # fmt: skip


def _histograms(views: Sequence[_View], store: Store) -> list[Row]:
    """Of the activations of every float form that was observed, and of each model's weights."""
    owners: dict[tuple[str, str], list[str]] = {}
    for view in views:
        if key := view.built.get("observation"):
            owners.setdefault(("activation", key), []).append(view.id)
        known = store.get("weights", view.cell.model.name)
        if known and view.cell.trial.method.training == "ptq" and view.built.get("status") == "ok":
            owners.setdefault(("weight", known["observed"]), []).append(view.id)
    return [
        {"trials": trials, "role": role, "name": name, **_bins(histogram)}
        for (role, key), trials in owners.items()
        if (path := entry("observed", key) / HISTOGRAMS).exists()
        for name, histogram in Observation.load(path).histograms.items()
    ]


def _bins(histogram: Histogram) -> Row:
    """A histogram in at most `SHOWN_BINS` bins, which is what a picture can show."""
    start, width, counts = histogram.shown(SHOWN_BINS)
    return {
        "start": start, "width": width, "counts": counts.tolist(),
        "minimum": histogram.minimum, "maximum": histogram.maximum, "mean": histogram.mean,
        "std": histogram.std, "count": histogram.count,
    }  # fmt: skip


# --- quality -------------------------------------------------------------------------------------


def _quality(
    views: Sequence[_View], experiment: Experiment, store: Store, status: Mapping[str, str]
) -> tuple[pa.Table, list[Row]]:
    """Per-sample predictions, and quality, drop, agreement and SQNR of every scored trial."""
    rows: list[Row] = []
    tables = []
    floats: dict[str, tuple[str, Outcome, Array]] = {}
    outcomes: dict[str, Outcome] = {}
    for view in views:
        if not view.has_outputs:
            continue
        task = registry.task(view.cell.model.task)
        labels = np.load(Path(view.scored["data"]) / "test" / "labels.npy")
        metric = METRICS[task.metric]
        output = view.cell.model.outputs[0].name
        own = metric(view.outputs()[output], labels)
        tables.append(_predictions(view.id, labels, own))
        if view.cell.model.name not in floats:
            floats[view.cell.model.name] = _float_outcome(view, views, store, metric, labels)
        name, full, floating = floats[view.cell.model.name]
        row: Row = {"trial": view.id, "scenario": "score", "n": len(labels)}
        rows += [
            {**row, **_score_interval(own, task.metric), "metric": "quality", "unit": "fraction"},
            {**row, "metric": "ties", "value": own.ties, "unit": "count"},
            {**row, "metric": "sqnr_db", "value": view.scored["sqnr_db"], "unit": "dB", "reference": name},
            {
                **row, "metric": "peak_rss_bytes", "unit": "byte",
                "value": view.scored["summary"]["peak_rss_bytes"], "n": 1,
            },
        ]  # fmt: skip
        same = int((own.prediction == full.prediction).sum())
        agreement = statistics.wilson(same, len(labels))
        rows.append(
            {
                **row,
                "metric": "agreement",
                "unit": "fraction",
                "reference": name,
                **_bounds(agreement),
            }
        )
        outcomes[view.id] = own
        if name != view.id:
            rows += _drop(row, full, own, name, experiment.quality_margin)
        if task.metric in BINARY:
            against = {**row, "reference": name} if name != view.id else row
            rows += _classification(against, full, own, labels)
            rows.append(
                {
                    **against, "metric": "kl_divergence", "unit": "nat",
                    "value": kl_divergence(floating, view.outputs()[output]),
                }
            )  # fmt: skip
        if "simulation" in view.built:
            folder = entry("simulated", view.built["simulation"])
            fake = metric(np.load(folder / f"{output}.npy"), labels)
            rows.append(
                {
                    **row, **_score_interval(fake, task.metric),
                    "metric": "fake_quantized_quality", "unit": "fraction",
                }
            )  # fmt: skip
    rows += _against_controls(views, outcomes, experiment.quality_margin)
    return _concat(tables, "predictions"), rows


def _classification(row: Row, full: Outcome, own: Outcome, labels: Array) -> Iterator[Row]:
    """What accuracy hides: the range over tie rules, flips, and the class that loses most."""
    if own.span is not None:
        low, high = own.span
        yield {
            **row, "metric": "quality_over_tie_rules", "unit": "fraction", "value": own.score,
            "low": low, "high": high, "reference": None,
        }  # fmt: skip
    if "reference" not in row:
        return
    flipped = int((full.outcome != own.outcome).sum())
    yield {
        **row, "metric": "flips", "unit": "fraction",
        **_bounds(statistics.wilson(flipped, len(labels))),
    }  # fmt: skip
    told: Row = {**row, "metric": "worst_class_drop", "unit": "fraction"}
    worst = statistics.worst_class(full.outcome, own.outcome, labels)
    if worst is None:
        yield {**told, "reason": f"no class has {statistics.CLASS_SAMPLES} samples"}
        return
    loses = worst.p < 0.05 and worst.drop.interval.value > 0
    yield {
        **told, **_bounds(worst.drop.interval), "n": worst.drop.n,
        "verdict": "loses" if loses else "undecided",
        "reason": f"class {worst.label} of {worst.classes}; p {worst.p:.2g} after Holm's correction",
    }  # fmt: skip


def _drop(row: Row, full: Outcome, own: Outcome, reference: str, margin: float) -> list[Row]:
    """What ``own`` loses against ``full`` on the same samples; the margin is a share of the score."""
    drop = statistics.paired_drop(full.outcome, own.outcome)
    against: Row = {**row, "unit": "fraction", "reference": reference}
    return [
        {
            **against, "metric": "quality_drop",
            "verdict": statistics.quality_verdict(drop, margin * abs(full.score)),
            **_bounds(drop.interval),
        },
        {**against, "metric": "quality_drop_bound", "value": drop.upper},
        {**against, "metric": "quality_p", "unit": "probability", "value": drop.p},
    ]  # fmt: skip


def _against_controls(
    views: Sequence[_View], outcomes: Mapping[str, Outcome], margin: float
) -> list[Row]:
    """QAT against the float fine-tune of the same budget; then over the seeds of each method."""
    rows: list[Row] = []
    groups: dict[tuple[str, ...], list[tuple[str, str | None]]] = {}
    for view in views:
        if view.id not in outcomes:
            continue
        trial = view.cell.trial
        control = _control(view, views) if trial.method.training == "qat" else None
        if control is not None and control in outcomes:
            row: Row = {"trial": view.id, "scenario": "score", "n": len(outcomes[view.id].outcome)}
            for found in _drop(row, outcomes[control], outcomes[view.id], control, margin):
                rows.append({**found, "metric": found["metric"].replace("quality", "control")})
        if trial.several_seeds:
            key = (trial.model, trial.backend, trial.label, trial.target.name)
            groups.setdefault(key, []).append((view.id, control))
    for group in groups.values():
        rows += _over_seeds(group, outcomes, margin)
    return rows


def _control(view: _View, views: Sequence[_View]) -> str | None:
    """The trial that was fine-tuned in float by the same backend, recipe and seed."""
    own = view.cell.trial
    for other in views:
        trial = other.cell.trial
        same = (trial.model, trial.backend, trial.target.name, trial.seed) == (
            own.model, own.backend, own.target.name, own.seed,
        )  # fmt: skip
        recipe = all(getattr(trial.method, a) == getattr(own.method, a) for a in RECIPE)
        if same and recipe and trial.method.training == "finetune":
            return other.id
    return None


def _over_seeds(
    group: Sequence[tuple[str, str | None]], outcomes: Mapping[str, Outcome], margin: float
) -> list[Row]:
    """Mean quality over the seeds of a method, and its mean loss against the controls."""
    if len(group) < 2:
        return []
    first, control = group[0]
    row: Row = {"trial": first, "scenario": "seeds", "n": len(group), "unit": "fraction"}
    own = np.stack([outcomes[name].outcome for name, _ in group])
    mean = statistics.over_seeds(own)
    rows: list[Row] = [{**row, "metric": "seeds_quality", **_bounds(mean.interval)}]
    if all(c in outcomes for _, c in group):
        floats = np.stack([outcomes[str(c)].outcome for _, c in group])
        loss = statistics.over_seeds(floats - own)
        verdict = statistics.quality_verdict(loss, margin * abs(float(floats.mean())))
        rows += [
            {
                **row, "metric": "seeds_control_drop", "reference": control, "verdict": verdict,
                **_bounds(loss.interval),
            },
            {
                **row, "metric": "seeds_control_drop_bound", "reference": control,
                "value": loss.upper,
            },
        ]  # fmt: skip
    return rows


def _float_outcome(
    view: _View, views: Sequence[_View], store: Store, metric: Any, labels: Any
) -> tuple[str, Outcome, Array]:
    """The model's reference form: the name of its trial, its per-sample outcomes, its outputs."""
    state = store.get("parity", view.cell.model.name) or {}
    form = state["forms"][state["reference"]]
    score = form["score"]
    outputs = np.load(entry("scores", score) / f"{view.cell.model.outputs[0].name}.npy")
    same = [v.id for v in views if v.scored.get("score") == score]
    backend = str(state["reference"]).partition(" ")[0]
    name = same[0] if same else f"{view.cell.model.name}/{backend}/{form['trial']}"
    return name, metric(outputs, labels), outputs


def _score_interval(own: Outcome, metric: str) -> Row:
    if metric in BINARY:
        return _bounds(statistics.wilson(int(own.outcome.sum()), len(own.outcome)))
    error = float(own.outcome.std(ddof=1)) / math.sqrt(len(own.outcome))
    half = statistics.Z95 * error
    return _bounds(Interval(own.score, own.score - half, own.score + half))


def _bounds(interval: Interval) -> Row:
    """Value, low and high of a row; an unbounded end is null."""
    ends = {"low": interval.low, "high": interval.high}
    return {
        "value": interval.value,
        **{key: end if math.isfinite(end) else None for key, end in ends.items()},
    }


def _predictions(trial: str, labels: Any, own: Outcome) -> pa.Table:
    count = len(labels)
    return pa.table(
        {
            "trial": [trial] * count,
            "sample": np.arange(count),
            "label": labels.astype(np.float64),
            "prediction": own.prediction,
            "outcome": own.outcome,
        }
    )


def _concat(tables: list[pa.Table], name: str) -> pa.Table:
    from harness.results import SCHEMAS

    return pa.concat_tables(tables) if tables else SCHEMAS[name].empty_table()


# --- start-up ------------------------------------------------------------------------------------


def _start_up(views: Iterable[_View], store: Store) -> list[Row]:
    rows = []
    units = {
        "peak_rss_bytes": ("memory", "byte"),
        "model_rss_bytes": ("memory", "byte"),
        "runtime_rss_bytes": ("memory", "byte"),
        "load_ms": ("start", "ms"),
        "first_inference_ms": ("start", "ms"),
    }
    for view in views:
        state = store.get("start", view.id)
        if state is None:
            continue
        seen = state["observed"]
        for metric, (scenario, unit) in units.items():
            row: Row = {"trial": view.id, "scenario": scenario, "metric": metric, "unit": unit}
            values = [observed[metric] for observed in seen]
            if values:
                row |= {"value": float(np.median(values)), "n": len(values)}
                if not all(observed["reset"] for observed in seen):
                    row["reason"] = "the kernel does not reset the peak: imports are included"
            else:
                row["reason"] = f"{state['status']}: {state['reason']}"
            rows.append(row)
    return rows


# --- latency -------------------------------------------------------------------------------------


def _samples(timed: Iterable[Sequence[Generation]]) -> pa.Table:
    tables = [generation.rows.cast(SAMPLES) for run in timed for generation in run]
    return _concat(tables, "samples")


def _timing(
    comparison: Comparison, generations: Sequence[Generation], experiment: Experiment
) -> list[Row]:
    """Latency, throughput, CPU time, the A/A control, and speed-ups against every fp32 trial."""
    names = [c.name for c in comparison.contenders if c.name != comparison.control]
    base: Row = {"scenario": "single-stream", "batch_size": comparison.batch_size}
    if not generations:
        why = "nothing was timed: the reference failed"
        return [
            {**base, "trial": n, "metric": "latency_ms", "unit": "ms", "reason": why} for n in names
        ]
    times = log_times(generations)
    staying = set(still_in(comparison, generations))
    stopped = why_stop(comparison, generations, experiment.precision) or "interrupted"
    rows: list[Row] = []
    for name in names:
        rows += _latency(name, {**base, "trial": name}, comparison, generations, times, stopped)
    control = paired(times, comparison.reference, comparison.control)
    noise = math.inf  # without a control nothing is claimed
    if control:
        ratio = statistics.exp_interval(statistics.rounds_interval(control))
        noise = ratio.half_width
        rows.append(
            {
                **base, "trial": comparison.reference, "metric": "aa_control", "unit": "ratio",
                "n": sum(map(len, control)), "reference": comparison.reference, **_bounds(ratio),
            }
        )  # fmt: skip
    seconds = sum(g.seconds for g in generations)
    own = sum(g.seconds - g.warm_s - g.burst_s for g in generations)
    rows.append(
        {
            **base, "trial": comparison.reference, "metric": "clock_overhead", "unit": "fraction",
            "n": len(generations), "value": own / seconds,
        }
    )  # fmt: skip
    floats = [n for n in names if _is_fp32(n)]
    for other in dict.fromkeys([comparison.reference, *floats]):
        rows += _speedups(other, names, times, noise, base, staying)
    return rows


def _is_fp32(trial: str) -> bool:
    preset, _, changed = trial.split("/")[2].partition("+")
    return preset == "fp32" and "training=" not in changed


def _latency(
    name: str,
    row: Row,
    comparison: Comparison,
    generations: Sequence[Generation],
    times: Mapping[str, list[dict[int, float]]],
    stopped: str,
) -> list[Row]:
    bursts = [np.array(list(g.values())) for g in times.get(name, []) if g]
    if not bursts:
        failed = [g.failures[name] for g in generations if name in g.failures]
        why = f"{failed[0][0]}: {failed[0][1]}" if failed else "not timed"
        return [{**row, "metric": "latency_ms", "unit": "ms", "reason": why}]
    ln = statistics.exp_interval(statistics.rounds_interval(bursts))
    ms = Interval(ln.value / 1e6, ln.low / 1e6, ln.high / 1e6)
    per_s = [
        1000 * comparison.batch_size / x if x else math.inf for x in (ms.value, ms.high, ms.low)
    ]
    count = sum(map(len, bursts))
    cpu = [g.cpu[name] for g in generations if name in g.cpu]
    calls = sum(c[2] for c in cpu)
    return [
        {**row, "metric": "latency_ms", "unit": "ms", "n": count, "reason": f"stopped by {stopped}", **_bounds(ms)},
        *_tails(name, row, generations),
        {**row, "metric": "throughput_per_s", "unit": "1/s", "n": count, **_bounds(Interval(*per_s))},
        {
            **row, "metric": "cpu_s_per_inference", "unit": "s", "n": calls,
            "value": sum(c[0] for c in cpu) / calls / comparison.batch_size / 1e9,
            "reason": "whole bursts: binding of inputs included",
        },
        {
            **row, "metric": "peak_rss_bytes", "unit": "byte",
            "n": len(peaks := [g.peak_rss_bytes[name] for g in generations if name in g.peak_rss_bytes]),
            "value": float(np.median(peaks)) if peaks else None,
        },
    ]  # fmt: skip


def _tails(name: str, row: Row, generations: Sequence[Generation]) -> Iterator[Row]:
    """p90 and p99 of single calls: an upper bound by LoadGen's rule, or null with the reason."""
    rows = pa.concat_tables([g.rows for g in generations]).select(["trial", "calls", "nanoseconds"])
    calls = rows.filter(pc.equal(rows["trial"], name)).to_pandas()
    count = len(calls)
    for percentile in (90, 99):
        told: Row = {
            **row, "metric": f"latency_p{percentile}_ms", "unit": "ms", "n": count,
        }  # fmt: skip
        rank = statistics.early_stopping_rank(count, percentile / 100)
        if (calls["calls"] > 1).any():
            told["reason"] = "its calls are too short to be timed one by one"
        elif not rank:
            needed = statistics.early_stopping_samples(percentile / 100)
            told["reason"] = f"{count} calls; {needed} are needed"
        else:
            told["value"] = float(calls["nanoseconds"].nlargest(rank).iloc[-1]) / 1e6
            told["reason"] = f"at most, with 99 % confidence: the {rank}. slowest call"
        yield told


def _energy(comparison: Comparison, store: Store) -> Iterator[Row]:
    """Joules per inference, with idle power and without; median of the windows, and their range."""
    state = store.get("energy", comparison.id)
    if state is None:
        return
    known = [Window(**window) for window in state.get("windows", ())]
    for name in (c.name for c in comparison.contenders if c.name != comparison.control):
        own = [w for w in known if w.name == name]
        measured = {
            "energy_j": [w.per_inference for w in own],
            "energy_net_j": [w.net for w in own],
        }
        for metric, values in measured.items():
            row: Row = {
                "trial": name, "scenario": "energy", "batch_size": comparison.batch_size,
                "metric": metric, "unit": "J", "n": len(own),
            }  # fmt: skip
            if values:
                row |= {"value": float(np.median(values)), "low": min(values), "high": max(values)}
            else:
                row["reason"] = state["reason"] or "it ended in a window"
            yield row


def _speedups(
    reference: str,
    names: Sequence[str],
    times: Mapping[str, list[dict[int, float]]],
    noise: float,
    base: Row,
    staying: set[str],
) -> list[Row]:
    """Speed-ups of every trial against one fp32 trial, from the same rounds, with verdicts."""
    pairs = {n: paired(times, reference, n) for n in names if n != reference}
    pairs = {name: rounds for name, rounds in pairs.items() if rounds}
    adjusted = statistics.holm([statistics.rounds_p_value(p) for p in pairs.values()])
    rows = []
    for (name, rounds), p in zip(pairs.items(), adjusted, strict=True):
        ratio = statistics.exp_interval(statistics.rounds_interval(rounds))
        left = name not in staying and len(rounds) == 1
        rows.append(
            {
                **base, "trial": name, "metric": "speedup", "unit": "ratio",
                "n": sum(map(len, rounds)), "reference": reference,
                "verdict": "slower, > 10x" if left else statistics.latency_verdict(ratio, p, noise),
                "reason": "left after one generation" if left else None, **_bounds(ratio),
            }
        )  # fmt: skip
    return rows
