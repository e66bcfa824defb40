"""Report: pages and figures that say what to ship, or where quantization hurts, and why."""

from quantbench.report.html import render, write_diagnosis, write_figures, write_report
from quantbench.report.notebook import notebook

__all__ = [
    "notebook",
    "render",
    "write_diagnosis",
    "write_figures",
    "write_report",
]
