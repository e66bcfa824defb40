"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

MaxDrop = Annotated[
    str,
    typer.Option(
        metavar="DROP",
        help="Largest loss of quality, e.g. 0.5pp (percentage points) or 0.005; its one-sided "
        "95 % bound on the test samples must stay below.",
    ),
]
