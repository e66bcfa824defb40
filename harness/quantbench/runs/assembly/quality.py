"""Quality: scores with their intervals, losses on the same samples, and what a score hides.

`judge` makes per-sample tables of outputs, once; `quality` computes everything else from these tables,
for a run that has just ended and for one that ended long ago.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from quantbench.backend_api import registry
from quantbench.errors import QuantbenchError
from quantbench.results import FIDELITY as FIDELITY_TABLE
from quantbench.results import PREDICTIONS, Measurement, Results, TrialRow, rows
from quantbench.runs.assembly.trial_state import View, bounds
from quantbench.runs.states import Compared, Confirmed
from quantbench.runs.store import Store
from quantbench.spec import CONFIRMATION, RECIPE, Array, Scenario, Status, Verdict
from quantbench.stats import (
    FIDELITY,
    STATISTICS,
    UNITS,
    Fidelity,
    Interval,
    Outcome,
    PairedDrop,
    answers,
    calibration_error,
    metric_of,
    statistics,
)
from quantbench.steps import read_labels
from quantbench.system import entry
from quantbench.units import METRICS

MANY_SAMPLES = 1000
"""Fewer test samples are said beside the score, with what they can tell apart."""
TARGETS = (0.99, 0.999)
"""Shares of the float score to keep, as MLPerf Inference asks for."""
SIMULATED = "@simulated"
"""Stands after a trial's name at what its fake-quantized model answered."""
CONFIRMED = "@confirmation"
"""Stands after a trial's name at its answers to samples that took no part in the choice."""
_OF_OTHERS = ("flips", "brier_rise")
"""Metrics that mean nothing of the reference itself."""
_SOMETIMES = {"worst": float, "best": float, "confidence": np.float32, "brier": np.float32}
"""Columns of ``predictions`` that an outcome may lack."""
_CLASSES = ("top1", "top5", "f1")
_STATISTIC = {"f1": "f1", "auc": "auc", "spearman": "spearman", "pairs": "spearman"}


@dataclass(frozen=True, slots=True)
class Judged:
    """By what a model's outputs were judged.

    Parameters
    ----------
    metric, unit : str
        The task's; without labels `quantbench.stats.FIDELITY`'s stand-in.
    labelled : bool
        Whether labels were given, and not the float model's own answers.
    full : str
        The trial whose outputs are the reference; its samples are stored even where it is no trial
        of the run.
    """

    metric: str
    unit: str
    labelled: bool
    full: str

    @property
    def classes(self) -> bool:
        """Whether an answer is a class."""
        return self.metric in _CLASSES


# --- from outputs to tables of samples -----------------------------------------------------------


def judge(views: Sequence[View], store: Store) -> tuple[dict[str, Judged], pa.Table, pa.Table]:
    """Of every scored trial the answers and the fidelity, sample by sample.

    Returns
    -------
    tuple
        By what each model was judged; rows of ``predictions`` and of ``fidelity``.
    """
    models: dict[str, Judged] = {}
    floats: dict[str, dict[str, Array]] = {}
    predictions, fidelities = [], []
    for view in views:
        if not view.has_outputs:
            continue
        name, first = view.cell.model.name, view.cell.model.outputs[0].name
        labels = read_labels(Path(view.score.data), "test")
        if name not in models:
            models[name], floats[name] = _float(view, views, store)
            if models[name].full not in {v.id for v in views}:
                known = _outcome(models[name], floats[name][first], floats[name][first], labels)
                predictions.append(_predictions(models[name].full, known))
        judged, full, own = models[name], floats[name], view.outputs()
        outcome = _outcome(judged, full[first], own[first], labels)
        predictions.append(_predictions(view.id, outcome))
        classes = judged.classes and own[first].ndim == 2
        fidelities.append(_fidelities(view.id, Fidelity.of(full, own, first, classes=classes)))
        if view.built.simulation:
            outputs = store.outputs.read(entry("simulations", view.built.simulation))
            fake = _outcome(judged, full[first], outputs[first], labels)
            predictions.append(_predictions(f"{view.id}{SIMULATED}", fake))
        if (again := store.done(Confirmed, view.id)) is not None and again.status == Status.OK:
            predictions += _confirmation(view.id, judged, first, again, store)
    return (
        models,
        pa.concat_tables(predictions) if predictions else PREDICTIONS.empty_table(),
        pa.concat_tables(fidelities) if fidelities else FIDELITY_TABLE.empty_table(),
    )


def _confirmation(
    trial: str, judged: Judged, first: str, again: Confirmed, store: Store
) -> list[pa.Table]:
    """Answers of a trial and of its float reference to samples that took no part in the choice."""
    labels = read_labels(Path(again.data), CONFIRMATION)
    full, own = (
        store.outputs.read(entry("scores", key))[first] for key in (again.reference, again.score)
    )
    return [
        _predictions(f"{trial}{CONFIRMED}{of}", _outcome(judged, full, outputs, labels))
        for of, outputs in (("", own), (judged.full, full))
    ]


def _float(view: View, views: Sequence[View], store: Store) -> tuple[Judged, dict[str, Array]]:
    """By what a model is judged, and its reference form's outputs.

    The first trial that scored the same artifact gives the reference its name.
    """
    model, task = view.cell.model, registry.task(view.cell.model.task)
    compared = store.get(Compared, model.name)
    assert compared is not None  # noqa: S101 - trials are scored after the comparison
    form = compared.full
    outputs = store.outputs.read(entry("scores", form.score))
    same = [v.id for v in views if v.scored is not None and v.scored.score == form.score]
    backend = str(compared.reference).partition(" ")[0]
    full = same[0] if same else f"{model.name}/{backend}/{form.trial}"
    if task.metric != FIDELITY:
        return Judged(task.metric, UNITS.get(task.metric, ""), True, full), outputs
    metric, _ = answers(outputs[model.outputs[0].name])
    return Judged(metric, UNITS[metric], False, full), outputs


def _outcome(judged: Judged, full: Array, outputs: Array, labels: Array) -> Outcome:
    if not judged.labelled:
        return metric_of(judged.metric)(outputs, answers(full)[1])
    own = metric_of(judged.metric)(outputs, labels)
    return calibration_error.with_confidence(own, full, outputs, labels) if own.classes else own


def _predictions(trial: str, own: Outcome) -> pa.Table:
    count = len(own.outcome)
    columns = {
        "trial": [trial] * count, "sample": np.arange(count), "label": own.label,
        "prediction": own.prediction, "outcome": own.outcome, "tied": own.tied,
        "worst": own.worst, "best": own.best, "confidence": own.confidence, "brier": own.brier,
    }  # fmt: skip
    return _table(PREDICTIONS, columns, count)


def _fidelities(trial: str, own: Fidelity) -> pa.Table:
    count = len(own.signal)
    columns = {
        "trial": [trial] * count, "sample": np.arange(count), "signal": own.signal,
        "noise": own.noise, "product": own.product, "reference_square": own.reference_square,
        "square": own.square, "kl": own.kl,
    }  # fmt: skip
    return _table(FIDELITY_TABLE, columns, count)


def _table(schema: pa.Schema, columns: Mapping[str, Any], count: int) -> pa.Table:
    return pa.table(
        {
            f.name: pa.nulls(count, f.type)
            if columns[f.name] is None
            else pa.array(columns[f.name], f.type)
            for f in schema
        },
        schema=schema,
    )


# --- from tables of samples to measurements ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """A trial as the tables have it: its row, its answers, and how near it is to the float model.

    ``again``: the answers of the float reference and its own to samples that took no part in the choice.
    """

    row: TrialRow
    judged: Judged
    own: Outcome
    fidelity: Fidelity | None
    fake: Outcome | None
    again: tuple[Outcome, Outcome] | None = None

    @property
    def id(self) -> str:
        """The trial's name."""
        return self.row.trial


def quality(results: Results, margin: float) -> list[Measurement]:
    """Quality, drop, agreement and fidelity of every trial whose samples are stored.

    Parameters
    ----------
    margin : float
        Largest loss that is kept, as a share of the float score.
    """
    measured: list[Measurement] = []
    known, floats = _known(results)
    for scored in known.values():
        full = floats.get(scored.judged.full)
        row = Measurement(trial=scored.id, scenario=Scenario.SCORE, n=len(scored.own.outcome))
        measured += _scores(row, scored)
        if full is None:
            continue
        against = replace(row, reference=scored.judged.full)
        measured += _against_float(against, scored, full)
        itself = scored.judged.full == scored.id
        if not itself:
            measured += _drop(row, full, scored.own, scored.judged.full, margin, scored.judged.unit)
        if scored.own.classes and (scored.fidelity is None or scored.fidelity.kl is not None):
            measured += _classification(row if itself else against, full, scored.own)
        measured += _on_others(row, scored, margin)
    return [*measured, *_against_controls(known, margin)]


def _known(results: Results) -> tuple[dict[str, Scored], dict[str, Outcome]]:
    """Trials with stored samples, in the order of the trials; and the outcomes of float references."""
    models = judged_by(results)
    samples = {str(n): own for n, own in results.predictions.groupby("trial", sort=False)}
    near = {str(n): own for n, own in results.fidelity.groupby("trial", sort=False)}
    known: dict[str, Scored] = {}
    for row in rows(TrialRow, results.trials):
        name, judged = row.trial, models.get(row.model)
        if judged is None or name not in samples:
            continue
        fake = samples.get(f"{name}{SIMULATED}")
        again, other = (samples.get(f"{name}{CONFIRMED}{of}") for of in ("", judged.full))
        known[name] = Scored(
            row, judged,
            _read(samples[name], judged), _near(near.get(name)),
            None if fake is None else _read(fake, judged),
            None if again is None or other is None else (_read(other, judged), _read(again, judged)),
        )  # fmt: skip
    floats = {
        judged.full: _read(samples[judged.full], judged)
        for judged in models.values()
        if judged.full in samples
    }
    return known, floats


def judged_by(results: Results) -> dict[str, Judged]:
    """By what each model was judged, as the run says; of older runs as its task and its rows do."""
    told = results.run.get("models")
    if told is not None:
        return {str(name): Judged(**judged) for name, judged in told.items()}
    known, found = results.measurements, {}
    for model, trials in results.trials.groupby("model", sort=False):
        own = known[known["trial"].isin(trials["trial"])]
        drops = own.loc[own["metric"] == "quality_drop", "reference"].dropna()
        scores = own[(own["metric"] == "quality") & own["value"].notna()]
        try:
            metric = registry.task(str(trials["task"].iloc[0])).metric
        except (QuantbenchError, ImportError, AttributeError):
            continue  # its task is not installed here
        labelled = not scores["reason"].astype(str).str.startswith("no labels").any()
        if drops.empty or scores.empty or not labelled:
            continue
        found[str(model)] = Judged(
            metric, str(scores["unit"].iloc[0]), True, str(drops.mode().iloc[0])
        )
    return found


def _read(samples: pd.DataFrame, judged: Judged) -> Outcome:
    """The outcome that `_predictions` has stored."""
    columns = {
        name: None if samples[name].isna().all() else samples[name].to_numpy(kind)
        for name, kind in _SOMETIMES.items()
    }
    tied = samples["tied"]
    return Outcome(
        samples["prediction"].to_numpy(float), samples["label"].to_numpy(float),
        samples["outcome"].to_numpy(float), None if tied.isna().all() else tied.to_numpy(bool),
        **columns, statistic=_STATISTIC.get(judged.metric, ""), classes=judged.classes,
    )  # fmt: skip


def _near(samples: pd.DataFrame | None) -> Fidelity | None:
    if samples is None:
        return None
    names = ("signal", "noise", "product", "reference_square", "square")
    kl = None if samples["kl"].isna().all() else samples["kl"].to_numpy(np.float32)
    return Fidelity(**{name: samples[name].to_numpy(np.float32) for name in names}, kl=kl)


def _scores(row: Measurement, scored: Scored) -> Iterator[Measurement]:
    """The score, its ties, and what the fake-quantized model of the training scored."""
    own, unit = scored.own, scored.judged.unit
    found = replace(row, **_score_interval(own), metric="quality", unit=unit)
    reason = _resolution(found, len(own.outcome)) if own.binary else ""
    if not scored.judged.labelled:
        reason = "no labels: against the answers of the float model"
    yield replace(found, reason=reason)
    if own.tied is not None:
        yield replace(row, metric="ties", value=own.ties, unit="count")
    if scored.fake is not None:
        told = replace(row, metric="fake_quantized_quality", unit=unit)
        yield replace(told, **_score_interval(scored.fake))


def _resolution(found: Measurement, n: int) -> str:
    """What a small test set can tell apart, in words; empty for a large one."""
    half = 50 * (found.high - found.low)
    if n >= MANY_SAMPLES or math.isnan(half):
        return ""
    return f"resolution ±{half:.1f} points: only {n} test samples"


def _against_float(row: Measurement, scored: Scored, full: Outcome) -> Iterator[Measurement]:
    """The metrics of `quantbench.units.METRICS` that are computed of scored outputs."""
    itself = scored.judged.full == scored.id
    for spec in METRICS.values():
        if spec.of is None or (itself and spec.name in _OF_OTHERS):
            continue
        found = spec.of(scored.own, full, scored.fidelity)
        if found is None:
            continue
        if isinstance(found, str):
            yield replace(row, metric=spec.name, unit=spec.unit, reason=found)
            continue
        known = bounds(found) if isinstance(found, Interval) else {"value": found}
        yield replace(row, metric=spec.name, unit=spec.unit, **known)


def _classification(row: Measurement, full: Outcome, own: Outcome) -> Iterator[Measurement]:
    """What accuracy hides: the range over tie rules, flips, and the class that loses most."""
    if own.span is not None:
        low, high = own.span
        yield replace(row, metric="quality_over_tie_rules", unit="fraction", value=own.score, low=low, high=high, reference="")  # fmt: skip
    if not row.reference:
        return
    right, before = own.prediction == own.label, full.prediction == full.label
    told = replace(row, metric="worst_class_drop", unit="fraction")
    worst = statistics.worst_class(before.astype(float), right.astype(float), own.label)
    if worst is None:
        yield replace(told, reason=f"no class has {statistics.CLASS_SAMPLES} samples")
        return
    loses = worst.p < 0.05 and worst.drop.interval.value > 0
    yield replace(told, **bounds(worst.drop.interval), n=worst.drop.n, verdict=Verdict.LOSES if loses else Verdict.UNDECIDED, reason=f"class {worst.label} of {worst.classes}; p {worst.p:.2g} after Holm's correction")  # fmt: skip


def _drop(
    row: Measurement, full: Outcome, own: Outcome, reference: str, margin: float, unit: str
) -> list[Measurement]:
    """What ``own`` loses against ``full`` on the same samples; the margin is a share of the score."""
    drop = paired_drop(full, own)
    against = replace(row, unit=unit, reference=reference)
    return [
        replace(against, metric="quality_drop", verdict=statistics.quality_verdict(drop, margin * abs(full.score)), reason=_tie_rule(drop.interval.value, own), **bounds(drop.interval)),
        *_kept(against, full, drop),
        replace(against, metric="quality_drop_bound", value=drop.upper),
        replace(against, metric="quality_p", unit="probability", value=drop.p),
    ]  # fmt: skip


def _on_others(row: Measurement, scored: Scored, margin: float) -> Iterator[Measurement]:
    """What was chosen loses on samples that took no part in the choice."""
    if scored.again is None:
        return
    full, own = scored.again
    row = replace(row, scenario=Scenario.CONFIRMATION, n=len(own.outcome))
    unit = scored.judged.unit
    yield replace(row, **_score_interval(own), metric="confirmed_quality", unit=unit)
    for found in _drop(row, full, own, scored.judged.full, margin, unit):
        if found.metric in ("quality_drop", "quality_drop_bound"):
            yield replace(found, metric=found.metric.replace("quality", "confirmed"))


def _tie_rule(drop: float, own: Outcome) -> str:
    """Whether the rule for ties moves the score by more than quantization did, in words; else empty."""
    spread = own.span[1] - own.span[0] if own.span else 0.0
    if spread <= abs(drop):
        return ""
    return f"ties move the score by up to {100 * spread:.2f} points"


def _kept(row: Measurement, full: Outcome, drop: PairedDrop) -> Iterator[Measurement]:
    """The share of the float score that is kept, and which of MLPerf's targets that surely meets.

    ``low``: by the one-sided 95 % bound. Source: MLPerf Inference, 99 % and 99.9 % of fp32.
    """
    if full.score <= 0:
        return
    met = [
        t
        for t in TARGETS
        if statistics.quality_verdict(drop, (1 - t) * full.score) == Verdict.KEEPS
    ]
    yield replace(row, metric="quality_kept", value=1 - drop.interval.value / full.score, low=1 - drop.upper / full.score, verdict=f"keeps {100 * max(met):g} %" if met else Verdict.UNDECIDED)  # fmt: skip


def _against_controls(known: Mapping[str, Scored], margin: float) -> list[Measurement]:
    """QAT against the float fine-tune of the same budget; then over the seeds of each method."""
    measured: list[Measurement] = []
    groups: dict[tuple[str, ...], list[tuple[str, str | None]]] = {}
    for name, scored in known.items():
        control = _control(scored, known.values()) if scored.row.training == "qat" else None
        if control is not None:
            row = Measurement(trial=name, scenario=Scenario.SCORE, n=len(scored.own.outcome))
            both = known[control].own, scored.own
            for found in _drop(row, *both, control, margin, scored.judged.unit):
                measured.append(replace(found, metric=found.metric.replace("quality", "control")))
        trial = scored.row
        key = (trial.model, trial.backend, trial.label, trial.target)
        groups.setdefault(key, []).append((name, control))
    outcomes = {name: scored.own for name, scored in known.items()}
    for group in groups.values():
        measured += _over_seeds(group, outcomes, known[group[0][0]].judged.unit, margin)
    return measured


def _control(own: Scored, others: Iterable[Scored]) -> str | None:
    """The trial that was fine-tuned in float by the same backend, recipe and seed."""
    mine = own.row
    for other in others:
        row = other.row
        same = (row.model, row.backend, row.target) == (mine.model, mine.backend, mine.target)
        same &= row.seed == mine.seed and all(row.axes[a] == mine.axes[a] for a in RECIPE)
        if same and row.training == "finetune":
            return other.id
    return None


def _over_seeds(
    group: Sequence[tuple[str, str | None]],
    outcomes: Mapping[str, Outcome],
    unit: str,
    margin: float,
) -> list[Measurement]:
    """Mean quality over the seeds of a method, and its mean loss against the controls."""
    if len(group) < 2:
        return []
    first, control = group[0]
    row = Measurement(trial=first, scenario=Scenario.SEEDS, n=len(group), unit=unit)
    own = [outcomes[name] for name, _ in group]
    measured: list[Measurement] = [
        replace(row, metric="seeds_quality", **bounds(_mean(own).interval))
    ]
    if all(c in outcomes for _, c in group):
        floats = [outcomes[str(c)] for _, c in group]
        loss = _mean(floats, own)
        mean = abs(float(np.mean([full.score for full in floats])))
        verdict = statistics.quality_verdict(loss, margin * mean)
        measured += [
            replace(row, metric="seeds_control_drop", reference=str(control), verdict=verdict, **bounds(loss.interval)),
            replace(row, metric="seeds_control_drop_bound", reference=str(control), value=loss.upper),
        ]  # fmt: skip
    return measured


def _mean(plus: Sequence[Outcome], minus: Sequence[Outcome] = ()) -> PairedDrop:
    """Mean score over seeds, or mean difference; of a score that is no mean, over the seeds alone."""
    if plus[0].statistic:
        scores = np.array([o.score for o in plus])
        return statistics.over_scores(scores - np.array([o.score for o in minus] or 0.0))
    outcomes = np.stack([o.outcome for o in plus])
    return statistics.over_seeds(
        outcomes - np.stack([o.outcome for o in minus]) if minus else outcomes
    )


def paired_drop(full: Outcome, own: Outcome) -> PairedDrop:
    """What a metric loses on the same samples."""
    if own.statistic:
        statistic = STATISTICS[own.statistic]
        return statistics.bootstrap_drop(statistic, full.prediction, own.prediction, own.label)
    return statistics.paired_drop(full.outcome, own.outcome)


def _score_interval(own: Outcome) -> dict[str, Any]:
    if own.statistic:
        return bounds(statistics.bootstrap(STATISTICS[own.statistic], own.prediction, own.label))
    if own.binary:
        return bounds(statistics.wilson(int(own.outcome.sum()), len(own.outcome)))
    return bounds(statistics.mean_interval(own.outcome))
