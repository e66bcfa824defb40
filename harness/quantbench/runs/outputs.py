"""Outputs: what scored artifacts gave for the test split, read once a run."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from quantbench.spec import Array, read_arrays

KEPT_BYTES = 512_000_000
"""Of outputs that are kept in memory; those asked for longest ago go first."""

_KEPT: OrderedDict[Path, dict[str, Array]] = OrderedDict()


def outputs(folder: Path) -> dict[str, Array]:
    """Arrays by output name, of a folder that a score or a simulation has filled.

    Its name is its content's key, so that what was read stays true.
    """
    if folder in _KEPT:
        _KEPT.move_to_end(folder)
        return _KEPT[folder]
    found = _KEPT[folder] = read_arrays(folder)
    while (
        len(_KEPT) > 1
        and sum(a.nbytes for one in _KEPT.values() for a in one.values()) > KEPT_BYTES
    ):
        _KEPT.popitem(last=False)
    return found
