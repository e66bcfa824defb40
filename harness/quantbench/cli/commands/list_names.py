"""``quantbench list``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from quantbench.cli.consoles import out


class Kind(StrEnum):
    """What `quantbench list` can list."""

    models = "models"
    tasks = "tasks"
    backends = "backends"
    methods = "methods"
    targets = "targets"
    experiments = "experiments"


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_choices=True)],
) -> None:
    """List what can be named in an experiment file, and the experiments themselves.

    [bold]Example[/bold]

      quantbench list methods
    """
    from quantbench.experiment.catalogue import rows

    columns, lines = rows(kind.value)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*line)
    out.print(table)
