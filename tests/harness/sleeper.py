"""Worker functions for the tests of jobs."""

from __future__ import annotations

import os
import signal
import time


def sleep() -> None:
    """Outlast any test."""
    time.sleep(60)


def killed() -> None:
    """Die as if somebody else had sent SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)
