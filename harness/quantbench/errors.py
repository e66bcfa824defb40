"""The errors a user may see; each message says what to do. All derive from `QuantbenchError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuantbenchError(Exception):
    """A user's mistake or a missing thing: shown as one line, never as a traceback."""


class BadInput(QuantbenchError):
    """An array, a file or an argument has the wrong shape, dtype, content or name."""


class DataMissing(QuantbenchError):
    """A data or weights file is absent or its checksum differs."""


class BadArtifact(QuantbenchError):
    """An artifact on disk is truncated, altered or not readable by its runtime."""


class TargetNotApplied(QuantbenchError):
    """The runtime did not take a setting of the target (threads, instruction set, kernels)."""


class BadExperiment(QuantbenchError):
    """An experiment file has problems; one line each in the message."""


class NotComparable(QuantbenchError):
    """Results of another schema version, or nothing measured."""


class NotProfiled(QuantbenchError):
    """A runtime cannot tell the time of its operators here."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest known word, or an empty string.

    >>> did_you_mean("static-in8", ["static-int8", "fp32"])
    " Did you mean 'static-int8'?"
    """
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
