"""Cache: folders named by the hash of everything their content depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """``$QUANTBENCH_CACHE``, or ``quantbench`` in the user's cache folder."""
    if chosen := os.environ.get("QUANTBENCH_CACHE"):
        return Path(chosen)
    import platformdirs  # not on a device, which is told where its files lie

    return Path(platformdirs.user_cache_dir("quantbench"))


def content_key(**parts: Any) -> str:
    """A hash of JSON-serialisable parts: the same parts give the same key on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def entry(kind: str, key: str) -> Path:
    """The folder of one entry; it exists exactly if the entry is complete."""
    return cache_folder() / kind / key


def sweep(older_than_s: float = 86_400.0) -> None:
    """Remove what killed workers left half-filled, once nobody can still be filling it."""
    for folder in cache_folder().glob("*/.*"):
        with contextlib.suppress(OSError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > older_than_s:
                shutil.rmtree(folder)
