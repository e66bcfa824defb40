"""Command line: ``quantbench``, one file per command, and how results are written on a terminal."""

from quantbench.cli.app import main

__all__ = [
    "main",
]
