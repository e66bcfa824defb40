"""Progress: how a worker tells its parent how far it is."""

from __future__ import annotations

import os
from pathlib import Path

PROGRESS = "QUANTBENCH_PROGRESS"


def tell(text: str) -> None:
    """Show the parent how far this worker is; nothing where no parent asks."""
    path = os.environ.get(PROGRESS)
    if path:
        Path(path).write_text(text, encoding="utf-8")
