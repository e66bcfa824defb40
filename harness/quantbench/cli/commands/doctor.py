"""``quantbench doctor``."""

from __future__ import annotations

from quantbench.cli.consoles import out


def doctor() -> None:
    """Say what is installed, which backends and targets work here, and how to get the rest."""
    from quantbench.cli.doctor import diagnose

    for line in diagnose():
        mark = {"ok": "[green]ok     [/green]", "missing": "[yellow]missing[/yellow]"}.get(
            line.status, "[yellow]note   [/yellow]"
        )
        out.print(mark, f"{line.subject}: {line.text}", sep=" ", markup=True, soft_wrap=True)
