"""Terminal: a finished run, or a matrix of capabilities, in lines that fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from quantbench.analysis import MeasuredTrial, trial_rows
from quantbench.results import Results, SensitivityRow
from quantbench.spec import RAN, Status
from quantbench.studies import Diagnosis, Matrix, Tuning, changed_versions, compare, guide
from quantbench.units import ABOUT, number

SHOWN = 4
WORST = 5
"""Lines of advice for each layer."""


def show(found: Results, console: Console) -> None:
    """Print one line per trial, fastest first, and where the files are."""
    trials = trial_rows(found)
    shared = _shared(trials)
    offline = any(row.of("offline_throughput_per_s").known for row in trials)
    table = Table(box=None, pad_edge=False, title=None)
    table.add_column("trial", overflow="fold")
    for title in ("ms", "speed-up", "quality", "kB", *(["offline 1/s @batch"] if offline else [])):
        table.add_column(title, justify="right", overflow="fold")
    shown = [row for row in trials if row.status in RAN]
    for row in sorted(shown, key=lambda row: _last(row.value("latency_ms"))):
        cells = [
            without(row.trial, shared),
            _number(row.value("latency_ms"), f"{ABOUT if row.about('latency_ms') else ''}{{:.3f}}"),
            _against_reference(row),
            _number(100 * row.value("quality"), "{:.2f} %"),
            _number(row.value("size_bytes") / 1000, "{:,.0f}"),
        ]
        if offline:
            cells.append(_at_best_batch(row))
        table.add_row(*cells)
    if shared:
        console.print(" on ".join(shared), markup=False)
    console.print(table)
    failed: dict[tuple[str, str], list[str]] = {}
    for row in trials:
        if row.status != Status.OK:
            failed.setdefault((row.status, row.reason), []).append(row.trial)
    for (status, reason), names in failed.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        console.print(f"{status}: {names[0]}{more}: {reason}", markup=False, soft_wrap=True)
    console.print(f"\nresults: {found.folder}", markup=False, soft_wrap=True)
    console.print(f"report:  {found.folder / 'report.html'}", markup=False, soft_wrap=True)


def show_diagnosis(found: Diagnosis, console: Console) -> None:
    """Print each backend's layers, most sensitive first, the checks, and what to try next."""
    for backend in found.sensitivity["backend"].unique():
        _show_patient(found, str(backend), console)
    for a, b, correlation in found.agreement():
        console.print(f"rank correlation of the layers, {a} and {b}: {correlation:.2f}")
    for name, why in found.refused.items():
        console.print(f"{name}: unsupported: {why}", markup=False, soft_wrap=True)
    console.print(
        f"\nsensitivity: {found.folder / 'sensitivity.parquet'}", markup=False, soft_wrap=True
    )


def _show_patient(found: Diagnosis, backend: str, console: Console) -> None:
    everything = found.whole(backend)
    console.print(
        f"[bold]{backend} {found.request.preset}[/bold]: SQNR {everything.sqnr_db:.1f} dB, "
        f"quality {_number(everything.quality, '{:.2%}')}, drop "
        f"{_number(everything.quality_drop, '{:.2%}')} on {everything.samples:,} samples"
    )
    for mode, title in (("quantized", "quantized alone"), ("kept", "kept in float alone")):
        layers = found.ranking(backend, mode)
        if layers:
            console.print(_layers(title, layers))
    _show_depth(found.depth(backend), console)
    console.print(f"keep_float: [{', '.join(found.keep_float(backend))}]", markup=False)
    for check in guide.checks(found, backend):
        colour = {"good": "green", "bad": "red", "calm": "yellow"}[check.tone]
        said = Text(check.question, style=colour)
        said.append(f" {check.answer} ({check.number})", style="default")
        console.print(said)
    worst = [row.layer for row in found.ranking(backend)][: found.request.worst]
    for layer in ("", *worst):
        told = list(guide.advice(found, backend, layer))
        hurts = guide.part(found, backend, layer)
        if told or hurts:
            console.print(f"[bold]{layer or 'whole model'}[/bold]{': ' + hurts if hurts else ''}")
        for line in told[:SHOWN]:
            console.print(f"  try {line}", markup=False)
    console.print()


def _show_depth(rows: Sequence[SensitivityRow], console: Console) -> None:
    """The activations of the whole model that are furthest from float, or why none is known."""
    known = sorted((row for row in rows if row.status == Status.OK), key=lambda row: row.sqnr_db)
    if not known:
        for row in rows:
            console.print(f"activations: {row.reason}", markup=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column(
        f"activations of the whole model, worst {min(WORST, len(known))} of {len(known)}",
        overflow="fold",
    )
    table.add_column("layer", overflow="fold")
    for name in ("SQNR dB", "RMSE"):
        table.add_column(name, justify="right")
    for row in known[:WORST]:
        table.add_row(row.change, row.layer, f"{row.sqnr_db:.1f}", number(math.sqrt(row.mse)))
    console.print(table)


def _layers(title: str, layers: Sequence[SensitivityRow]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, overflow="fold")
    for name in ("SQNR dB", "drop", "agree", "error/step", "clipped"):
        table.add_column(name, justify="right")
    for row in layers:
        if row.status != Status.OK:
            table.add_row(row.layer, row.status)
            continue
        table.add_row(
            row.layer, f"{row.sqnr_db:.1f}", f"{row.quality_drop:.2%}",
            f"{row.agreement:.1%}", _number(row.error_over_scale, "{:.2f}"),
            _number(row.saturation, "{:.2%}"),
        )  # fmt: skip
    return table


def show_tuning(found: Tuning, console: Console) -> None:
    """Print the candidates, what is within the budget first, and the one to take."""
    table = Table(box=None, pad_edge=False)
    table.add_column("candidate", overflow="fold")
    for name in ("ms", "kB", "quality", "drop at most", "within", "front"):
        table.add_column(name, justify="right")
    for candidate in found.candidates:
        row = candidate.row
        style = "bold" if row.trial == found.chosen else ""
        if row.status != Status.OK:
            table.add_row(row.label, "", "", "", row.status, style="dim")
            continue
        table.add_row(
            row.label, _number(row.value("latency_ms"), "{:.3f}"),
            _number(row.value("size_bytes") / 1000, "{:,.0f}"),
            _number(row.value("quality"), "{:.2%}"),
            _number(row.value("quality_drop_bound"), "{:.2%}"),
            "yes" if candidate.qualifies else "no", "*" if candidate.pareto else "", style=style,
        )  # fmt: skip
    console.print(table)
    chosen = next(one.row for one in found.candidates if one.row.trial == found.chosen)
    kept, narrow = chosen.axes["keep_float"], chosen.axes["int4_weights"]
    if found.qualified:
        console.print(
            f"take {chosen.label}: the best by {found.budget.objective} within the budget"
        )
    else:
        console.print(
            f"nothing is within {found.budget.max_drop:.2%}; {chosen.label} loses least",
            markup=False,
        )
    for axis, layers in (("keep_float", kept), ("int4_weights", narrow)):
        if layers:
            console.print(f"{axis}: [{', '.join(layers)}]", markup=False, soft_wrap=True)
    command = f"quantbench export {found.run.folder} {found.chosen} -o FILE"
    console.print(f"export:  {command}", markup=False, soft_wrap=True)
    console.print(f"report:  {found.run.folder / 'report.html'}", markup=False, soft_wrap=True)


def show_matrix(matrix: Matrix, console: Console) -> None:
    """Print a row per method and route, a column per kind of layer, and the reasons."""
    for backend in matrix.backends:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(backend, overflow="fold")
        for layer in matrix.layers:
            table.add_column(layer, no_wrap=True)
        for method, route, cells in matrix.rows(backend):
            # a cell in brackets is no markup
            table.add_row(f"{method} {route}".strip(), *map(Text, cells))
        console.print(table)
        console.print()
    for reason, note in matrix.reasons.items():
        console.print(f"[{note}] {reason}", markup=False, soft_wrap=True)
    for backend, reason in matrix.absent.items():
        console.print(f"{backend}: {reason}", markup=False, soft_wrap=True)


def show_differences(kept: Matrix, found: Matrix, console: Console) -> int:
    """Print what differs from a matrix kept before; returns 1 where anything does, else 0."""
    compared = compare(kept, found)
    for text in (
        *(f"not compared: {text}" for text in compared.left_out),
        *(f"version: {text}" for text in changed_versions(kept, found)),
        *(f"difference: {text}" for text in compared.differences),
    ):
        console.print(text, markup=False, soft_wrap=True)
    if not compared.differences:
        console.print("no difference from the matrix that was kept")
    return int(bool(compared.differences))


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _shared(trials: Sequence[MeasuredTrial]) -> tuple[str, str] | None:
    """Model and target where all trials have the same, to be said once."""
    places = {(row.model, row.target) for row in trials}
    return places.pop() if len(places) == 1 else None


def without(name: str, shared: tuple[str, str] | None) -> str:
    """A trial's name without what is said above."""
    if shared is None:
        return name
    model, target = shared
    return name.removeprefix(f"{model}/").replace(f"/{target}", "", 1)


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _against_reference(row: MeasuredTrial) -> str:
    """Speed-up with its interval against the comparison's reference."""
    if row.is_reference:
        return "reference"
    found = row.interval("speedup")
    if found is None:
        return ""
    if row.about("speedup"):
        return f"{ABOUT}{number(found.value)}"
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def _at_best_batch(row: MeasuredTrial) -> str:
    """Samples a second at the batch size that suits a trial best."""
    found = row.of("offline_throughput_per_s")
    about = ABOUT if row.about("offline_throughput_per_s") else ""
    return f"{about}{found.value:,.0f} @{found.batch_size}" if found.known else ""
