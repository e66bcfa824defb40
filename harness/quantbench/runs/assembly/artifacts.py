"""Artifacts: what artifacts hold and weigh, what of it is quantized, and the histograms behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from quantbench.backend_api import (
    INPUT,
    MULTIPLY,
    WEIGHT,
    Artifact,
    Histogram,
    NodeRecord,
    Observation,
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
from quantbench.results import Measurement
from quantbench.runs.assembly.trial_state import Row, View
from quantbench.runs.states import Weighed
from quantbench.runs.store import Store
from quantbench.spec import Method, Scenario, Status
from quantbench.steps import HISTOGRAMS
from quantbench.system import entry

SHOWN_BINS = 256


def sizes(views: Iterable[View], store: Store) -> list[Measurement]:
    """What the files weigh, by what they hold; and how much of it is quantized."""
    rows: list[Measurement] = []
    for view in views:
        if view.built.status != Status.OK:
            continue
        artifact = Artifact.open(entry("artifacts", view.built.artifact), verify=False)
        zipped = view.built.record["gzip_bytes"]
        held = view.built.record["weight_bytes"]
        size = artifact.size_bytes
        row = Measurement(trial=view.id, scenario=Scenario.ARTIFACT)
        rows += [
            replace(row, metric="size_bytes", value=size, unit="byte", n=1),
            replace(row, metric="size_gzip_bytes", value=zipped, unit="byte", n=1),
            replace(row, metric="weight_bytes", value=sum(held.values()), unit="byte", n=1),
            *(
                replace(row, metric=f"weight_bytes_{dtype}", value=n, unit="byte", n=1)
                for dtype, n in sorted(held.items())
            ),
        ]
        if own := view.parity():
            full = Artifact.open(entry("artifacts", own.artifact), verify=False).size_bytes
            rows.append(
                replace(row, metric="compression", value=full / size, unit="ratio", n=1, reference=f"{view.cell.trial.model}/{view.cell.trial.backend}/{own.trial}")
            )  # fmt: skip
        if view.built.observed_bytes is not None:
            rows.append(
                replace(row, scenario=Scenario.CALIBRATION, metric="observed_rss_bytes", unit="byte", value=view.built.observed_bytes, n=1)
            )  # fmt: skip
        rows += list(_coverage(view, replace(row, n=1)))
    return rows


def _coverage(view: View, row: Measurement) -> Iterator[Measurement]:
    """What is quantized: asked for, in the file, executed; and the memory of activations."""
    record = Record.from_json(view.built.record)
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
            reason = _unknown(level, record, operations) if share is None else ""
            yield replace(row, metric=name, value=_known(share), unit="fraction", reason=reason)
    if view.has_outputs:
        live = activation_bytes(operations)
        reason = "the runtime does not show the buffers of this graph" if live is None else ""
        yield replace(
            row, metric="activation_bytes", value=_known(live), unit="byte", reason=reason
        )


def _known(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _unknown(level: str, record: Record, operations: Sequence[Operation]) -> str:
    """Why a share is not known."""
    if level == "executed":
        return "the graph has no multiply-accumulates"
    if not record.nodes:
        return "the file holds weights alone, no graph"
    return "the file does not hold all shapes"


def artifacts(views: Iterable[View]) -> list[Row]:
    """Every tensor and node of every file, and every operation that was executed."""
    rows: list[Row] = []
    for view in views:
        if view.built.record:
            record, method = Record.from_json(view.built.record), view.cell.trial.method
            rows += [tensor_row(view.id, tensor, method) for tensor in record.tensors]
            rows += [node_row(view.id, node, method) for node in record.nodes]
        if view.has_outputs:
            rows += [operation_row(view.id, op) for op in view.operations() if op.role != INPUT]
    return rows


def tensor_row(trial: str, tensor: TensorRecord, method: Method) -> Row:
    """A tensor of a file, with the reason where a weight stayed in float."""
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


def node_row(trial: str, node: NodeRecord, method: Method) -> Row:
    """A node of a file, with the reason where a multiplication stayed in float."""
    names = (
        "name", "role", "dtype", "scales", "macs", "weights", "weight_dtype", "layer", "integer",
    )  # fmt: skip
    kept = node.role == MULTIPLY and not node.integer
    return {
        "trial": trial, "kind": "node", **{name: getattr(node, name) for name in names},
        "operator": node.kind, "fused": list(node.fused),
        "reason": (node.reason or why_float(node.layer, method)) if kept else None,
    }  # fmt: skip


def operation_row(trial: str, op: Operation) -> Row:
    """An operation that the runtime executed."""
    names = ("name", "role", "dtype", "scales", "macs", "weights", "integer", "engine")
    return {
        "trial": trial, "kind": "executed", **{name: getattr(op, name) for name in names},
        "operator": op.kind, "bytes": sum(op.writes.values()),
    }  # fmt: skip


def histograms(views: Sequence[View], store: Store) -> list[Row]:
    """Of the activations of every float form that was observed, and of each model's weights."""
    owners: dict[tuple[str, str], list[str]] = {}
    for view in views:
        if key := view.built.observation:
            owners.setdefault(("activation", key), []).append(view.id)
        known = store.get(Weighed, view.cell.model.name)
        if known and view.cell.trial.method.training == "ptq" and view.built.status == Status.OK:
            owners.setdefault(("weight", known.observed), []).append(view.id)
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
