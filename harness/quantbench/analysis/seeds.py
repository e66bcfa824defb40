"""Seeds: trials that differ by seed alone are one candidate; which of them stands for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from quantbench.analysis.trial_table import MeasuredTrial, Pool
from quantbench.results import Measurement
from quantbench.spec import Status
from quantbench.stats import Loss, over_losses

OUTPUTS_DIFFER = "outputs-differ"


def pooled(trials: Sequence[MeasuredTrial]) -> tuple[MeasuredTrial, ...]:
    """The same rows; of those that differ by seed alone, one stands for all (`MeasuredTrial.pool`).

    It is the median by loss, of an even number the worse of the two in the middle: it ships, so it
    shall be usual, neither the luckiest (chosen on the very samples that judge it) nor an outlier that
    happens to be listed first. Its time, size and score are its own; its loss, with the interval and
    the bound, is the mean over the seeds. Seeds that may not be shipped, or have no loss, take no part.
    """
    groups: dict[tuple[str, ...], list[MeasuredTrial]] = {}
    for row in trials:
        groups.setdefault((row.model, row.backend, row.label, row.target), []).append(row)
    found: dict[str, MeasuredTrial] = {}
    for group in groups.values():
        if len(group) > 1:
            found |= {row.trial: row for row in _pool(group)}
    return tuple(found.get(row.trial, row) for row in trials)


def _pool(group: Sequence[MeasuredTrial]) -> Iterator[MeasuredTrial]:
    known = [(row, loss) for row in group if fit(row) and (loss := row.loss) is not None]
    # the one that losses are relative to loses nothing, and stands for its group
    itself = [one for one in known if one[1].certain]
    judged = sorted(itself or known, key=lambda one: (one[1].value, one[0].seed))
    pick = judged[len(judged) // 2][0] if judged else group[0]
    loss = over_losses([loss for _, loss in judged]) if judged else None
    losses = {row.seed: own.value for row, own in known}
    pool = Pool(pick.trial, losses, len(group) - len(known), loss)
    for row in group:
        metrics = row.metrics
        if row is pick and loss is not None and loss.seeds > 1:
            metrics = _over(row, loss)
        yield replace(row, pool=pool, metrics=metrics)


def _over(row: MeasuredTrial, loss: Loss) -> Mapping[str, Measurement]:
    """The measurements of a trial with the loss over its seeds."""
    ends, drop, bound = loss.interval, row.of("quality_drop"), row.of("quality_drop_bound")
    return {
        **row.metrics,
        "quality_drop": replace(drop, value=ends.value, low=ends.low, high=ends.high),
        "quality_drop_bound": replace(bound, value=loss.bound()),
    }


def fit(row: MeasuredTrial) -> bool:
    """Whether an artifact is what it says, at every batch size."""
    return row.status == Status.OK and not any(f.startswith(OUTPUTS_DIFFER) for f in row.flags)
