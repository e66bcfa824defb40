"""Capability: what one method of one framework does to one kind of layer; Matrix: all of them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantbench.errors import BadInput
from quantbench.spec import RAN, Status
from quantbench.system import write_atomically

BY_MACHINE, BY_INSTALLATION = "machine", "installation"
NOISE_DB = 3.0
"""SQNR that differs by more between two probes on one kind of machine is a difference."""

_WORDS: Mapping[str, str] = {Status.UNSUPPORTED: "refused"}
_RAN = {*RAN, Status.INVALID}


@dataclass(frozen=True, slots=True)
class Capability:
    """One cell: a backend's method by a route, on one kind of layer.

    Parameters
    ----------
    status, reason : str
        As of a trial; the reason without what differs from run to run.
    refused_by : str
        ``machine`` or ``installation`` where it is not the backend that refuses; else empty.
    integers : str
        What is multiplied, ``int8`` or ``int16``; empty where nothing is.
    integer_macs : float or None
        Share of multiply-accumulates on integers, 0..1; None where the runtime shows none.
    sqnr_db : float or None
        Of the outputs against the float model's, 100 at most; None where nothing ran.
    weight_bytes : float or None
        Bytes of the file's constants against the weights' in float32; None where there is no file.
    """

    backend: str
    method: str
    route: str
    layer: str
    status: str
    reason: str = ""
    refused_by: str = ""
    integers: str = ""
    integer_macs: float | None = None
    sqnr_db: float | None = None
    weight_bytes: float | None = None

    @property
    def row(self) -> tuple[str, str, str]:
        """Backend, method and route."""
        return self.backend, self.method, self.route

    @property
    def narrower(self) -> bool:
        """Whether the weights take less room than in float32."""
        return self.weight_bytes is not None and self.weight_bytes < 0.99

    @property
    def word(self) -> str:
        """What it does, in a word or two: ``int8 100 %``, ``float``, ``no-op``, ``refused``."""
        if self.status != Status.OK:
            return _WORDS.get(self.status, self.status)
        if self.integer_macs is None:
            return "ran"
        return f"{self.integers} {_percent(self.integer_macs)}" if self.integer_macs else "float"

    @property
    def figures(self) -> str:
        """SQNR and bytes of weights, where there are any."""
        found = []
        if self.sqnr_db is not None:
            found.append("exact" if self.sqnr_db >= 100 else f"{self.sqnr_db:.0f} dB")
        if self.weight_bytes is not None and self.status in _RAN:
            found.append(_percent(self.weight_bytes))
        return ", ".join(found)


@dataclass(frozen=True, slots=True)
class Matrix:
    """The capabilities of all backends that were probed, and what they were probed with.

    ``machine``: what refusals and kernels depend on. ``versions``: by package. ``absent``: the
    backends that are not installed, with the reason.
    """

    capabilities: tuple[Capability, ...]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    absent: Mapping[str, str]

    @property
    def layers(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(dict.fromkeys(c.layer for c in self.capabilities))

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends, in order."""
        return tuple(dict.fromkeys(c.backend for c in self.capabilities))

    @property
    def reasons(self) -> dict[str, int]:
        """Every reason with its number, in the order of the cells."""
        said = dict.fromkeys(c.reason for c in self.capabilities if c.reason)
        return {reason: number for number, reason in enumerate(said, 1)}

    def rows(
        self, backend: str, *, figures: bool = False
    ) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Method, route and the cells of each row of a backend; refusals come with their number."""
        numbers = self.reasons
        own = [c for c in self.capabilities if c.backend == backend]
        for row in dict.fromkeys(c.row for c in own):
            cells = {c.layer: c for c in own if c.row == row}
            shown = (
                _shown(cells[layer], numbers, figures=figures) if layer in cells else ""
                for layer in self.layers
            )
            yield row[1], row[2], tuple(shown)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `from_json` reads it back."""
        return {
            "versions": dict(self.versions),
            "machine": dict(self.machine),
            "absent": dict(self.absent),
            "capabilities": [dataclasses.asdict(c) for c in self.capabilities],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Matrix:
        """The inverse of `to_json`."""
        return cls(
            tuple(Capability(**c) for c in data["capabilities"]),
            data["machine"], data["versions"], data["absent"],
        )  # fmt: skip


def _shown(cell: Capability, numbers: Mapping[str, int], *, figures: bool) -> str:
    number = f" [{numbers[cell.reason]}]" if cell.reason else ""
    more = f", {cell.figures}" if figures and cell.figures else ""
    return f"{cell.word}{number}{more}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "<1 %"


# --- files ---------------------------------------------------------------------------------------

_HEAD = """# Capabilities

What every method of every backend does to a network of three layers, with convolutions, linear layers,
an LSTM or self-attention. Written by `quantbench probe --output`; {json}
holds the same for `quantbench probe --check`, which shows what another version of a framework changes.

A cell says what multiplies (`int8 100 %`: that share of the multiply-accumulates is done on integers;
`float`: none; `ran`: the runtime does not show), how near the outputs are to the float model's
(signal-to-quantization-noise ratio), and how many bytes the file's constants take against the weights in
float32. `no-op`: the method changed no weight; every model ends in a linear layer, so that a method of
linear layers alone shows as `<1 %`, or as bytes near 100 %. `simulated`: no kernel executes it as it is.
`refused`, `failed`, `crashed` and `invalid` have their reason below. `qat-int8` is trained for a few
steps on random labels: its ratio includes what they changed.
"""


def check_output(path: Path) -> None:
    """Raise `BadInput` unless `write` knows what to write to ``path``."""
    if path.suffix not in (".md", ".json"):
        raise BadInput(f"'{path}' is neither a .md nor a .json file; name one of these")


def write(matrix: Matrix, path: Path) -> list[Path]:
    """Write a ``.json`` file, or a ``.md`` file with that beside it; returns their paths."""
    check_output(path)
    data = path.with_suffix(".json")
    write_atomically(data, _text(matrix))
    if path.suffix == ".json":
        return [data]
    write_atomically(path, markdown(matrix, path.name))
    return [path, data]


def _text(matrix: Matrix) -> str:
    """JSON with one line for each cell, so that versions of the file can be compared."""
    parts = matrix.to_json()
    cells = (json.dumps(cell, ensure_ascii=False) for cell in parts.pop("capabilities"))
    head = json.dumps(parts, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{head},\n "capabilities": [\n  ' + ",\n  ".join(cells) + "\n ]\n}\n"


def read(path: Path) -> Matrix:
    """A matrix that `write` has written; of a ``.md`` file, the one beside it.

    Raises
    ------
    BadInput
        If there is none.
    """
    data = path.with_suffix(".json")
    try:
        return Matrix.from_json(json.loads(data.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"no matrix of capabilities in {data} ({error}); "
            f"write it with 'quantbench probe --output {path}'"
        ) from error


def markdown(matrix: Matrix, name: str = "capabilities.md") -> str:
    """The matrix as a page for people."""
    beside = Path(name).with_suffix(".json").name
    lines = [_HEAD.format(json=f"[{beside}]({beside})")]
    versions = ", ".join(f"{p} {v}" for p, v in matrix.versions.items())
    lines += [f"Made with {versions}; on {_kind(matrix.machine)}.", ""]
    for backend in matrix.backends:
        lines += [f"## {backend}", "", _row("method", "route", *matrix.layers)]
        lines.append("|---" * (2 + len(matrix.layers)) + "|")
        lines += [
            _row(method, route, *cells)
            for method, route, cells in matrix.rows(backend, figures=True)
        ]
        lines.append("")
    lines += [f"{backend}: {reason}\n" for backend, reason in matrix.absent.items()]
    lines += ["## Reasons", ""]
    lines += [f"{number}. {_plain(reason)}" for reason, number in matrix.reasons.items()]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(reason: str) -> str:
    """A reason as Markdown text: nothing in it is a mark."""
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", reason)


def _kind(machine: Mapping[str, Any]) -> str:
    vnni = "with" if any("vnni" in flag for flag in machine["isa"]) else "without"
    compiler = "a" if machine["compiler"] else "no"
    return f"{machine['architecture']} {vnni} VNNI, {compiler} C++ compiler"


# --- differences ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a fresh matrix differs from a kept one: a line per difference, and what was left out."""

    differences: tuple[str, ...]
    left_out: tuple[str, ...]


def compare(kept: Matrix, found: Matrix) -> Comparison:
    """Compare cell by cell what both have probed.

    What a machine refuses, the share of integers and the SQNR are compared between machines of one
    kind only; what is not installed is not compared.
    """
    same = dict(kept.machine) == dict(found.machine)
    before, after = _by_place(kept), _by_place(found)
    differences, left_out = [], []
    if not same:
        left_out.append(
            f"machines differ ({_kind(kept.machine)}; {_kind(found.machine)}): shares of integers, "
            "SQNR and what a machine refuses are not compared"
        )
    for backend in kept.backends:
        if backend not in found.backends:
            why = found.absent.get(backend, "not probed this time")
            left_out.append(f"{backend}: {why}")
    silent = {*kept.backends} - {*found.backends} | {*kept.absent}
    for place in dict.fromkeys((*before, *after)):
        backend, method, route, layer = place
        if backend in silent:
            continue
        old, new = before.get(place), after.get(place)
        name = f"{backend} {method}{f' ({route})' if route else ''}, {layer}"
        if old is None and new is not None:
            differences.append(f"{name}: is new: {_said(new)}")
        elif new is None and old is not None:
            differences.append(f"{name}: is gone: was {_said(old)}")
        elif old is not None and new is not None:
            if reason := _incomparable(old, new, same=same):
                left_out.append(f"{name}: {reason}")
            elif _differs(old, new, same=same):
                differences.append(f"{name}: was {_said(old)}; is {_said(new)}")
    return Comparison(tuple(differences), tuple(left_out))


def changed_versions(kept: Matrix, found: Matrix) -> list[str]:
    """Packages of another version than then: ``torch 2.13.0 -> 2.14.0``."""
    names = dict.fromkeys((*kept.versions, *found.versions))
    pairs = ((n, kept.versions.get(n, "none"), found.versions.get(n, "none")) for n in names)
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]


def cut(matrix: Matrix, part: Matrix) -> Matrix:
    """What a matrix says of the methods and the layers that ``part`` has."""
    wanted = {(c.method, c.layer) for c in part.capabilities}
    kept = tuple(c for c in matrix.capabilities if (c.method, c.layer) in wanted)
    return dataclasses.replace(matrix, capabilities=kept)


def _by_place(matrix: Matrix) -> dict[tuple[str, str, str, str], Capability]:
    return {(*c.row, c.layer): c for c in matrix.capabilities}


def _incomparable(old: Capability, new: Capability, *, same: bool) -> str:
    for cell in (old, new):
        if cell.refused_by == BY_INSTALLATION or (cell.refused_by == BY_MACHINE and not same):
            return f"refused by the {cell.refused_by}: {cell.reason}"
    return ""


def _differs(old: Capability, new: Capability, *, same: bool) -> bool:
    if (old.status, old.narrower) != (new.status, new.narrower):
        return True
    if _numberless(old.reason) != _numberless(new.reason):
        return True
    return same and (old.word != new.word or _noisier(old, new))


def _noisier(old: Capability, new: Capability) -> bool:
    if old.sqnr_db is None or new.sqnr_db is None:
        return old.sqnr_db is not new.sqnr_db
    # above, both are the float model's outputs but for the order of sums
    low = min(old.sqnr_db, new.sqnr_db)
    return low < 80 and abs(old.sqnr_db - new.sqnr_db) > NOISE_DB


def _numberless(reason: str) -> str:
    return re.sub(r"-?\d+(\.\d+)?", "#", reason)


def _said(cell: Capability) -> str:
    parts = [cell.word, cell.figures, f"({cell.reason})" if cell.reason else ""]
    return " ".join(part for part in parts if part)
