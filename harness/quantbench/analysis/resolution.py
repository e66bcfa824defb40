"""Resolution: which limit of the loss a run's test samples can show to be kept, and how many another would take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantbench.analysis.recommendation import WITHOUT_LIMITS, Standings, refusal
from quantbench.analysis.trial_table import MeasuredTrial
from quantbench.stats import least_limit, resolvable, samples_needed


@dataclass(frozen=True, slots=True)
class Resolution:
    """What test samples can tell of losses.

    Parameters
    ----------
    samples : int
        Of the test split.
    judged : int
        How many losses are judged together.
    discordance : float
        Share of samples that one alone of a trial and the reference has right, the median of the
        trials; of scores that are no shares, the variance of a sample's difference.
    shown : float
        The smallest limit that a method which loses nothing is shown to keep in 4 runs of 5.
    never : float or None
        No smaller limit can be shown, whatever the answers; None for scores that are no shares.
    limit : float
        The one asked for.
    needed : int or None
        Samples that would show it in 4 runs of 5; None for a limit of 0.
    """

    samples: int
    judged: int
    discordance: float
    shown: float
    never: float | None
    limit: float
    needed: int | None

    @property
    def possible(self) -> bool:
        """Whether any answers could show the limit."""
        return self.never is None or self.limit >= self.never


def resolution(place: Standings, max_drop: float) -> Resolution | None:
    """What the samples of one model can tell; None where no loss was measured.

    The losses of all its trials are judged together, so that the first of them must hold with 5 % over
    their number.
    """
    losses = [
        (row, row.of("quality_drop").n)
        for one in place.places
        if refusal(row := one.row, WITHOUT_LIMITS) is None and _estimated(row)
    ]
    known = [(row, n) for row, n in losses if n]
    if not known:
        return None
    samples, judged = int(np.median([n for _, n in known])), len(losses)
    share = all(row.of("flips").known for row, _ in known)
    discordance = float(np.median([_discordance(row, n, share) for row, n in known]))
    return Resolution(
        samples, judged, discordance,
        resolvable(samples, discordance, judged, share=share),
        least_limit(samples, judged) if share else None,
        max_drop,
        samples_needed(max_drop, discordance, judged, share=share) if max_drop > 0 else None,
    )  # fmt: skip


def _estimated(row: MeasuredTrial) -> bool:
    return row.loss is not None and not row.loss.certain


def _discordance(row: MeasuredTrial, n: int, share: bool) -> float:
    if share:
        return row.value("flips")
    return 0.0 if row.loss is None else n * row.loss.error**2
