"""Naming: the one pattern of names of models, tasks and experiments, given or derived."""

from __future__ import annotations

import re

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def as_name(text: str, default: str) -> str:
    """``text`` made to obey `NAME`; ``default`` where nothing of it can stay.

    >>> as_name("float (2)", "model"), as_name("models/tiny", "model"), as_name("…", "model")
    ('float-2', 'models-tiny', 'model')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or default
