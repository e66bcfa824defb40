"""Report: pages and figures that say what to ship, or where quantization hurts, and why."""

from quantbench.report.html import render, write_diagnosis, write_figures, write_report

__all__ = [
    "render",
    "write_diagnosis",
    "write_figures",
    "write_report",
]
