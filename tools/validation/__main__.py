"""Run the checks: ``python -m tools.validation [--results FOLDER] [CHECK ...]``.

They start from complete runs of ``experiments/resnet20_cifar10.yaml`` (``repeat`` from two), made here
unless the folder holds them. What they find is kept in ``results/reference/validation`` and shown in docs/validation.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quantbench import load_results
from quantbench.results import Results
from quantbench.runs import run
from quantbench.system import read_json
from tools.validation import aa, busy, repeat, sessions, tools
from tools.validation.contenders import keep

EXPERIMENT = Path(__file__).parents[1] / "resnet20_cifar10.yaml"
CHECKS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "repeat": lambda folder: repeat.check(runs(folder, 2)),
    "tools": lambda folder: tools.check(runs(folder, 1)[0]),
    "aa": lambda folder: aa.check(runs(folder, 1)[0]),
    "busy": lambda folder: busy.check(runs(folder, 1)[0]),
    "sessions": lambda folder: sessions.check(),
}


def main(arguments: list[str]) -> int:
    """0 if every check that was asked for reached its figure, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.validation")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--results", type=Path, default=Path("results/validation"))
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.checks) - set(CHECKS):
        parser.error(f"no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    failed = []
    for name in chosen.checks or CHECKS:
        started = time.monotonic()
        found = CHECKS[name](chosen.results)
        keep(name, {**found, "seconds": time.monotonic() - started})
        print(f"{name}: {'reached' if found['reached'] else 'NOT reached'}")
        if not found["reached"]:
            failed.append(name)
    return 1 if failed else 0


def runs(folder: Path, count: int) -> list[Results]:
    """The newest finished runs in a folder; those that are missing are made."""
    home = folder / EXPERIMENT.stem
    known = [path.parent for path in sorted(home.glob("*/run.json")) if read_json(path)["finished"]]
    while len(known) < count:
        found = run(EXPERIMENT, results=folder, fresh=bool(known))
        known = [*(path for path in known if path != found.folder), found.folder]
    return [load_results(path) for path in known[-count:]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
