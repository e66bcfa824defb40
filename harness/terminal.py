"""Terminal: a finished run, or a matrix of capabilities, in lines that fit."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.capability import Matrix, changed_versions, compare
from harness.results import Results


def show(found: Results, console: Console) -> None:
    """Print one line per trial, fastest first, and where the files are."""
    values = found.measurements.pivot_table(
        index="trial", columns=["metric"], values="value", aggfunc="first"
    )
    trials = found.trials.set_index("trial").join(values)
    for column in ("latency_ms", "quality", "size_bytes"):
        if column not in trials:
            trials[column] = math.nan
    ratios = _against_reference(found)
    shared = _shared(trials)
    table = Table(box=None, pad_edge=False, title=None)
    for title, side in (
        ("trial", "left"), ("ms", "right"), ("speed-up", "right"), ("quality", "right"), ("kB", "right"),
    ):  # fmt: skip
        table.add_column(title, justify="left" if side == "left" else "right", overflow="fold")
    shown = trials[trials["status"].isin(["ok", "no-op", "simulated"])].sort_values("latency_ms")
    for name, row in shown.iterrows():
        table.add_row(
            _without(str(name), shared),
            _number(row["latency_ms"], "{:.3f}"),
            ratios.get(str(name), ""),
            _number(100 * row["quality"], "{:.2f} %"),
            _number(row["size_bytes"] / 1000, "{:,.0f}"),
        )
    if shared:
        console.print(" on ".join(shared), markup=False)
    console.print(table)
    for (status, reason), group in trials[trials["status"] != "ok"].groupby(
        ["status", "reason"], sort=False
    ):
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        console.print(f"{status}: {group.index[0]}{more}: {reason}", markup=False, soft_wrap=True)
    console.print(f"\nresults: {found.folder}", markup=False, soft_wrap=True)
    console.print(f"report:  {found.folder / 'report.html'}", markup=False, soft_wrap=True)


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
    for reason, number in matrix.reasons.items():
        console.print(f"[{number}] {reason}", markup=False, soft_wrap=True)
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


def _shared(trials: pd.DataFrame) -> tuple[str, str] | None:
    """Model and target where all trials have the same, to be said once."""
    places = set(zip(trials["model"], trials["target"], strict=True))
    return places.pop() if len(places) == 1 else None


def _without(name: str, shared: tuple[str, str] | None) -> str:
    """A trial's name without what is said above."""
    if shared is None:
        return name
    return "/".join(part for part in name.split("/") if part not in shared)


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else form.format(value)


def _against_reference(found: Results) -> dict[str, str]:
    """Speed-up with its interval against the comparison's own reference."""
    references = set(found.run["reference"].values())
    rows = found.measurements[
        (found.measurements["metric"] == "speedup")
        & found.measurements["reference"].isin(references)
    ].drop_duplicates("trial")
    shown = {
        str(row.trial): f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for row in rows.itertuples()
    }
    return shown | dict.fromkeys(references, "reference")
