"""quantbench: quantize one model with every method of every framework, measure, choose.

>>> from harness import Experiment, run, load_results
>>> callable(run) and callable(load_results)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness import plot
    from harness.experiment import Experiment
    from harness.results import Results, load_results
    from harness.runner import run

__version__ = "0.1.0"
__all__ = ["Experiment", "Results", "__version__", "load_results", "plot", "run"]

_HOME = {
    "Experiment": "harness.experiment",
    "Results": "harness.results",
    "load_results": "harness.results",
    "run": "harness.runner",
}


def __getattr__(name: str) -> Any:
    # Workers import `harness` too and must stay as light as a device: nothing is imported
    # before it is asked for.
    import importlib

    if name == "plot":
        return importlib.import_module("harness.plot")
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
