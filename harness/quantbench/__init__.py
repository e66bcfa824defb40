"""quantbench: quantize one model with every method of every framework, measure, choose.

>>> from quantbench import Experiment, run, load_results, plot
>>> callable(run) and callable(load_results)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantbench.api import Experiment, Results, load_results, run
    from quantbench.report import plot

__version__ = "0.1.0"
__all__ = ["Experiment", "Results", "__version__", "load_results", "plot", "run"]


def __getattr__(name: str) -> Any:
    # Workers import `quantbench` too and must stay as light as a device: nothing is imported
    # before it is asked for.
    if name == "plot":
        return importlib.import_module("quantbench.report.plot")
    if name not in __all__:
        raise AttributeError(f"module 'quantbench' has no attribute {name!r}")
    return getattr(importlib.import_module("quantbench.api"), name)
