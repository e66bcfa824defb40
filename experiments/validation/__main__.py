"""Run the checks: ``python -m experiments.validation [--results FOLDER] [CHECK ...]``.

They start from two complete runs of ``experiments/resnet20_cifar10.yaml``, made here unless the folder
holds them. What they find is kept in ``results/reference/validation`` and shown in docs/validation.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.validation import aa, busy, repeat, tools
from experiments.validation.contenders import keep
from harness import load_results
from harness.results import Results
from harness.runner import run

EXPERIMENT = Path(__file__).parents[1] / "resnet20_cifar10.yaml"
CHECKS: Mapping[str, Callable[[Results, Results], dict[str, Any]]] = {
    "repeat": repeat.check,
    "tools": lambda first, second: tools.check(second),
    "aa": lambda first, second: aa.check(second),
    "busy": lambda first, second: busy.check(second),
}


def main(arguments: list[str]) -> int:
    """0 if every check that was asked for reached its figure, else 1."""
    parser = argparse.ArgumentParser(prog="python -m experiments.validation")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--results", type=Path, default=Path("results/validation"))
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.checks) - set(CHECKS):
        parser.error(f"no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    first, second = _runs(chosen.results)
    failed = []
    for name in chosen.checks or CHECKS:
        started = time.monotonic()
        found = CHECKS[name](first, second)
        keep(name, {**found, "seconds": time.monotonic() - started})
        print(f"{name}: {'reached' if found['reached'] else 'NOT reached'}")
        if not found["reached"]:
            failed.append(name)
    return 1 if failed else 0


def _runs(folder: Path) -> tuple[Results, Results]:
    """The two newest finished runs in a folder; those that are missing are made."""
    home = folder / EXPERIMENT.stem
    known = sorted(path.parent for path in home.glob("*/run.json")) if home.is_dir() else []
    while len(known) < 2:
        found = run(EXPERIMENT, results=folder, fresh=bool(known))
        known = [*(path for path in known if path != found.folder), found.folder]
    first, second = (load_results(path) for path in known[-2:])
    return first, second


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
