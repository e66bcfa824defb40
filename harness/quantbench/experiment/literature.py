"""Literature: figures that others have published, of the trials that are their like."""

from __future__ import annotations

from dataclasses import replace

from quantbench.backend_api import registry
from quantbench.experiment.expand import Experiment
from quantbench.spec import Published


def rows(experiment: Experiment) -> tuple[Published, ...]:
    """The experiment's own rows, then the published score of each model, beside each plain fp32."""
    scores = []
    for trial in experiment.trials:
        model = experiment.models.get(trial.model) or registry.model(trial.model)
        if trial.label == "fp32" and model.published is not None and not model.shift:
            row = Published(f"{trial.model}, float", trial.id, model.published)
            scores.append(replace(row, source=model.source))
    return (*experiment.published, *scores)
