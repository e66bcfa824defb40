"""Consoles: standard output and standard error, as every command writes to them."""

from __future__ import annotations

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
