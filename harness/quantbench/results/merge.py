"""Merging: several runs as one, so that one page shows them; ratios stay within each run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from quantbench.results.schema import SCHEMAS
from quantbench.results.tables import Reference, Results, references_of


@dataclass(frozen=True, slots=True)
class Part:
    """One run within results.

    Parameters
    ----------
    name : str
        The run's name; told apart where several have the same.
    trials : mapping
        Its trials: the name in the results, and the name in the run.
    """

    name: str
    folder: Path
    run: Mapping[str, Any]
    machine: Mapping[str, Any]
    trials: Mapping[str, str]

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of each of its comparisons, the trial that ratios are shown against."""
        return references_of(self.run)


def parts(results: Results) -> tuple[Part, ...]:
    """The runs that results were merged from; of a single run, itself."""
    known = results.run.get("parts")
    if known is not None:
        return tuple(known)
    names = {str(trial): str(trial) for trial in results.trials["trial"]}
    return (Part(_name(results), results.folder, results.run, results.machine, names),)


def merge(runs: Sequence[Results]) -> Results:
    """Several runs as one.

    A target that runs share for the same model is told apart in its name, ``cpu-1 (run NAME)``, and
    so are its trials: each keeps its own reference, so that nothing is compared across runs. `parts`
    tells the runs and each trial's own name.

    Parameters
    ----------
    runs : sequence of Results, at least one
    """
    if len(runs) == 1:
        return runs[0]
    named = _told_apart(runs)
    shared = _shared(runs)
    pieces = [_renamed(run, name, shared) for run, name in zip(runs, named, strict=True)]
    references = [told for piece in pieces for told in piece.run["reference"]]
    machines = [dict(run.machine) for run in runs]
    warnings = list(dict.fromkeys(w for m in machines for w in m.get("warnings") or ()))
    return Results(
        folder=runs[0].folder,
        run={
            "experiment": " + ".join(dict.fromkeys(str(r.run.get("experiment")) for r in runs)),
            "reference": references,
            "parts": tuple(part for piece in pieces for part in parts(piece)),
        },
        machine={**_agreed(machines), "warnings": warnings},
        **{
            table: pd.concat([getattr(piece, table) for piece in pieces], ignore_index=True)
            for table in SCHEMAS
        },
    )


def _name(run: Results) -> str:
    return str(run.run.get("run") or run.folder.name)


def _told_apart(runs: Sequence[Results]) -> list[str]:
    """A name for each run: its own, with its folder or its place in the list where that is not enough."""
    names = [_name(run) for run in runs]
    for more in ([run.folder.name for run in runs], [f"{i + 1}" for i in range(len(runs))]):
        counts = Counter(names)
        names = [
            f"{name}, {word}" if counts[name] > 1 else name
            for name, word in zip(names, more, strict=True)
        ]
    return names


def _shared(runs: Sequence[Results]) -> set[str]:
    """Targets that more than one run has for the same model."""
    places = [set(zip(run.trials["model"], run.trials["target"], strict=True)) for run in runs]
    counts = Counter(place for here in places for place in here)
    return {str(target) for (_, target), count in counts.items() if count > 1}


def _renamed(run: Results, name: str, shared: Iterable[str]) -> Results:
    """A run whose shared targets, and the trials on them, carry its name."""
    mark = f" (run {name})"
    trials = run.trials.copy()
    hit = trials["target"].isin(list(shared))
    old = [str(trial) for trial in trials["trial"]]
    trials.loc[hit, ["trial", "target"]] += mark
    new = dict(zip(old, map(str, trials["trial"]), strict=True))

    def follow(column: pd.Series[Any]) -> pd.Series[Any]:
        return column.map(lambda value: new.get(value, value))

    tables: dict[str, pd.DataFrame] = {"trials": trials}
    for table in SCHEMAS:
        frame: pd.DataFrame = getattr(run, table)
        if "trials" in frame:
            several = [[new.get(t, t) for t in names] for names in frame["trials"]]
            tables[table] = frame.assign(trials=pd.Series(several, frame.index, dtype=object))
        elif table != "trials":
            columns = [c for c in ("trial", "reference") if c in frame]
            tables[table] = frame.assign(**{c: follow(frame[c]) for c in columns})
    references = [
        asdict(
            replace(
                one,
                target=one.target + mark if one.target in shared else one.target,
                trial=new.get(one.trial, one.trial),
            )
        )
        for one in run.references
    ]
    part = Part(name, run.folder, run.run, run.machine, {n: o for o, n in new.items()})
    marked = {**run.run, "reference": references, "parts": (part,)}
    return Results(run.folder, marked, run.machine, **tables)


def _agreed(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all machines have in common."""
    first, *others = machines
    return {k: v for k, v in first.items() if all(k in m and m[k] == v for m in others)}
