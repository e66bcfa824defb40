"""Outputs: what scored artifacts gave for the test split, read once a run."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from quantbench.spec import Array, read_arrays

KEPT_BYTES = 512_000_000
"""Of outputs that are kept in memory; those asked for longest ago go first."""


class Outputs:
    """Reads arrays by output name, of folders that a score or a simulation has filled."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, dict[str, Array]] = OrderedDict()

    def read(self, folder: Path) -> dict[str, Array]:
        """The arrays of a folder; what was read before is not read again."""
        if folder in self._kept:
            self._kept.move_to_end(folder)
            return self._kept[folder]
        found = self._kept[folder] = read_arrays(folder)
        while len(self._kept) > 1 and self._bytes() > KEPT_BYTES:
            self._kept.popitem(last=False)
        return found

    def _bytes(self) -> int:
        return sum(array.nbytes for arrays in self._kept.values() for array in arrays.values())
