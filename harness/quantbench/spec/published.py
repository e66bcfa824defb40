"""Published: figures that others have published, to be shown beside those measured here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Published:
    """A published row of figures and the trial that it stands beside.

    Parameters
    ----------
    what : str
        What the source calls it.
    trial : str
        The trial of the experiment that is its like.
    quality : float or None
        In the unit of the task's metric (0..1 for a share).
    size_bytes : float or None
    speedup : float or None
        Over the source's own float model.
    source : str
        Who published it.
    """

    what: str
    trial: str
    quality: float | None = None
    size_bytes: float | None = None
    speedup: float | None = None
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; ``Published(**data)`` reads it back."""
        return asdict(self)
