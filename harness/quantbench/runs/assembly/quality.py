"""Quality: scores with their intervals, losses on the same samples, and what a score hides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from quantbench.backend_api import registry
from quantbench.experiment import Experiment
from quantbench.results import PREDICTIONS
from quantbench.runs.assembly.trial_state import Row, View, bounds
from quantbench.runs.store import Store
from quantbench.spec import RECIPE, Array, Scenario, Verdict
from quantbench.stats import (
    FIDELITY,
    STATISTICS,
    UNITS,
    Interval,
    Outcome,
    PairedDrop,
    answers,
    cosine,
    kl_divergence,
    metric_of,
    statistics,
)
from quantbench.steps import read_labels
from quantbench.system import entry

MANY_SAMPLES = 1000
"""Fewer test samples are said beside the score, with what they can tell apart."""
TARGETS = (0.99, 0.999)
"""Shares of the float score to keep, as MLPerf Inference asks for."""


def quality(
    views: Sequence[View], experiment: Experiment, store: Store
) -> tuple[pa.Table, list[Row]]:
    """Per-sample predictions, and quality, drop, agreement and fidelity of every scored trial."""
    rows: list[Row] = []
    tables = []
    floats: dict[str, _Float] = {}
    outcomes: dict[str, Outcome] = {}
    for view in views:
        if not view.has_outputs:
            continue
        task, model = registry.task(view.cell.model.task), view.cell.model
        labels = read_labels(Path(view.scored["data"]), "test")
        if model.name not in floats:
            floats[model.name] = _Float.of(view, views, store, task.metric, labels)
        full, outputs = floats[model.name], view.outputs()[model.outputs[0].name]
        own = outcomes[view.id] = full.judge(outputs)
        tables.append(_predictions(view.id, own))
        row: Row = {"trial": view.id, "scenario": Scenario.SCORE, "n": len(own.outcome)}
        rows += _scores(row, view, own, full)
        rows += _fidelity({**row, "reference": full.trial}, view, full, own, outputs)
        against = {**row, "reference": full.trial} if full.trial != view.id else row
        if full.trial != view.id:
            rows += _drop(row, full.outcome, own, full.trial, experiment.quality_margin, full.unit)
        if own.classes and outputs.ndim == 2:
            divergence = kl_divergence(full.outputs, outputs)
            rows += _classification(against, full.outcome, own)
            rows.append({**against, "metric": "kl_divergence", "unit": "nat", "value": divergence})
    units = {view.id: floats[view.cell.model.name].unit for view in views if view.id in outcomes}
    rows += _against_controls(views, outcomes, units, experiment.quality_margin)
    return pa.concat_tables(tables) if tables else PREDICTIONS.empty_table(), rows


@dataclass(frozen=True, slots=True)
class _Float:
    """A model's reference form, which other trials are judged against.

    ``trial``: its name; ``outputs``: its own, and their ``outcome``; ``judge``: outputs to the
    outcome of the task's metric; ``unit``: of that metric.
    """

    trial: str
    outputs: Array
    outcome: Outcome
    judge: Callable[[Array], Outcome]
    unit: str
    labelled: bool

    @classmethod
    def of(
        cls, view: View, views: Sequence[View], store: Store, metric: str, labels: Array
    ) -> _Float:
        """Of the model of ``view``; the first trial that scored the same artifact names it."""
        state = store.get("parity", view.cell.model.name) or {}
        form = state["forms"][state["reference"]]
        score = form["score"]
        outputs = store.outputs.read(entry("scores", score))[view.cell.model.outputs[0].name]
        same = [v.id for v in views if v.scored.get("score") == score]
        backend = str(state["reference"]).partition(" ")[0]
        name = same[0] if same else f"{view.cell.model.name}/{backend}/{form['trial']}"
        labelled, unit = metric != FIDELITY, UNITS.get(metric, "")
        if not labelled:
            metric, labels = answers(outputs)
            unit = UNITS[metric]
        judge = metric_of(metric)
        own = judge(outputs, labels)
        return cls(name, outputs, own, lambda given: judge(given, labels), unit, labelled)


def _scores(row: Row, view: View, own: Outcome, full: _Float) -> Iterator[Row]:
    """The score, its ties, and what the fake-quantized model of the training scored."""
    found = _score_interval(own)
    reason = _resolution(found, len(own.outcome)) if own.binary else None
    if not full.labelled:
        reason = "no labels: against the answers of the float model"
    yield {**row, **found, "metric": "quality", "unit": full.unit, "reason": reason}
    if own.classes:
        yield {**row, "metric": "ties", "value": own.ties, "unit": "count"}
    peak = view.scored["summary"]["peak_rss_bytes"]
    yield {**row, "metric": "peak_rss_bytes", "unit": "byte", "value": peak, "n": 1}
    if "simulation" in view.built:
        outputs = view.store.outputs.read(entry("simulations", view.built["simulation"]))
        fake = full.judge(outputs[view.cell.model.outputs[0].name])
        told = {**row, "metric": "fake_quantized_quality", "unit": full.unit}
        yield {**told, **_score_interval(fake)}


def _resolution(found: Row, n: int) -> str | None:
    """What a small test set can tell apart, in words; None for a large one."""
    if n >= MANY_SAMPLES or found["low"] is None or found["high"] is None:
        return None
    half = 50 * (found["high"] - found["low"])
    return f"resolution ±{half:.1f} points: only {n} test samples"


def _fidelity(row: Row, view: View, full: _Float, own: Outcome, outputs: Array) -> Iterator[Row]:
    """How near the outputs are to the float model's."""
    if own.classes:
        same = int((own.prediction == full.outcome.prediction).sum())
        share = statistics.wilson(same, len(own.outcome))
        yield {**row, "metric": "agreement", "unit": "fraction", **bounds(share)}
    yield {**row, "metric": "sqnr_db", "unit": "dB", "value": view.scored["sqnr_db"]}
    yield {**row, "metric": "cosine", "unit": "ratio", "value": cosine(full.outputs, outputs)}


def _classification(row: Row, full: Outcome, own: Outcome) -> Iterator[Row]:
    """What accuracy hides: the range over tie rules, flips, and the class that loses most."""
    if own.span is not None:
        low, high = own.span
        yield {
            **row, "metric": "quality_over_tie_rules", "unit": "fraction", "value": own.score,
            "low": low, "high": high, "reference": None,
        }  # fmt: skip
    if "reference" not in row:
        return
    right, before = own.prediction == own.label, full.prediction == full.label
    flipped = statistics.wilson(int((right != before).sum()), len(right))
    yield {**row, "metric": "flips", "unit": "fraction", **bounds(flipped)}
    told: Row = {**row, "metric": "worst_class_drop", "unit": "fraction"}
    worst = statistics.worst_class(before.astype(float), right.astype(float), own.label)
    if worst is None:
        yield {**told, "reason": f"no class has {statistics.CLASS_SAMPLES} samples"}
        return
    loses = worst.p < 0.05 and worst.drop.interval.value > 0
    yield {
        **told, **bounds(worst.drop.interval), "n": worst.drop.n,
        "verdict": Verdict.LOSES if loses else Verdict.UNDECIDED,
        "reason": f"class {worst.label} of {worst.classes}; p {worst.p:.2g} after Holm's correction",
    }  # fmt: skip


def _drop(
    row: Row, full: Outcome, own: Outcome, reference: str, margin: float, unit: str
) -> list[Row]:
    """What ``own`` loses against ``full`` on the same samples; the margin is a share of the score."""
    drop = paired_drop(full, own)
    against: Row = {**row, "unit": unit, "reference": reference}
    return [
        {
            **against, "metric": "quality_drop",
            "verdict": statistics.quality_verdict(drop, margin * abs(full.score)),
            "reason": _tie_rule(drop.interval.value, own), **bounds(drop.interval),
        },
        *_kept(against, full, drop),
        {**against, "metric": "quality_drop_bound", "value": drop.upper},
        {**against, "metric": "quality_p", "unit": "probability", "value": drop.p},
    ]  # fmt: skip


def _tie_rule(drop: float, own: Outcome) -> str | None:
    """Whether the rule for ties moves the score by more than quantization did, in words."""
    spread = own.span[1] - own.span[0] if own.span else 0.0
    if spread <= abs(drop):
        return None
    return f"ties move the score by up to {100 * spread:.2f} points"


def _kept(row: Row, full: Outcome, drop: PairedDrop) -> Iterator[Row]:
    """The share of the float score that is kept, and which of MLPerf's targets that surely meets.

    ``low``: by the one-sided 95 % bound. Source: MLPerf Inference, 99 % and 99.9 % of fp32.
    """
    if full.score <= 0:
        return
    met = [t for t in TARGETS if statistics.quality_verdict(drop, (1 - t) * full.score) == "keeps"]
    yield {
        **row, "metric": "quality_kept", "value": 1 - drop.interval.value / full.score,
        "low": 1 - drop.upper / full.score,
        "verdict": f"keeps {100 * max(met):g} %" if met else Verdict.UNDECIDED,
    }  # fmt: skip


def _against_controls(
    views: Sequence[View],
    outcomes: Mapping[str, Outcome],
    units: Mapping[str, str],
    margin: float,
) -> list[Row]:
    """QAT against the float fine-tune of the same budget; then over the seeds of each method."""
    rows: list[Row] = []
    groups: dict[tuple[str, ...], list[tuple[str, str | None]]] = {}
    for view in views:
        if view.id not in outcomes:
            continue
        trial = view.cell.trial
        control = _control(view, views) if trial.method.training == "qat" else None
        if control is not None and control in outcomes:
            row: Row = {
                "trial": view.id,
                "scenario": Scenario.SCORE,
                "n": len(outcomes[view.id].outcome),
            }
            both = outcomes[control], outcomes[view.id]
            for found in _drop(row, *both, control, margin, units[view.id]):
                rows.append({**found, "metric": found["metric"].replace("quality", "control")})
        if trial.several_seeds:
            key = (trial.model, trial.backend, trial.label, trial.target.name)
            groups.setdefault(key, []).append((view.id, control))
    for group in groups.values():
        rows += _over_seeds(group, outcomes, units[group[0][0]], margin)
    return rows


def _control(view: View, views: Sequence[View]) -> str | None:
    """The trial that was fine-tuned in float by the same backend, recipe and seed."""
    own = view.cell.trial
    for other in views:
        trial = other.cell.trial
        same = (trial.model, trial.backend, trial.target.name, trial.seed) == (
            own.model, own.backend, own.target.name, own.seed,
        )  # fmt: skip
        recipe = all(getattr(trial.method, a) == getattr(own.method, a) for a in RECIPE)
        if same and recipe and trial.method.training == "finetune":
            return other.id
    return None


def _over_seeds(
    group: Sequence[tuple[str, str | None]],
    outcomes: Mapping[str, Outcome],
    unit: str,
    margin: float,
) -> list[Row]:
    """Mean quality over the seeds of a method, and its mean loss against the controls."""
    if len(group) < 2:
        return []
    first, control = group[0]
    row: Row = {"trial": first, "scenario": Scenario.SEEDS, "n": len(group), "unit": unit}
    own = [outcomes[name] for name, _ in group]
    rows: list[Row] = [{**row, "metric": "seeds_quality", **bounds(_mean(own).interval)}]
    if all(c in outcomes for _, c in group):
        floats = [outcomes[str(c)] for _, c in group]
        loss = _mean(floats, own)
        mean = abs(float(np.mean([full.score for full in floats])))
        verdict = statistics.quality_verdict(loss, margin * mean)
        rows += [
            {
                **row, "metric": "seeds_control_drop", "reference": control, "verdict": verdict,
                **bounds(loss.interval),
            },
            {
                **row, "metric": "seeds_control_drop_bound", "reference": control,
                "value": loss.upper,
            },
        ]  # fmt: skip
    return rows


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


def _score_interval(own: Outcome) -> Row:
    if own.statistic:
        return bounds(statistics.bootstrap(STATISTICS[own.statistic], own.prediction, own.label))
    if own.binary:
        return bounds(statistics.wilson(int(own.outcome.sum()), len(own.outcome)))
    error = float(own.outcome.std(ddof=1)) / math.sqrt(len(own.outcome))
    half = statistics.Z95 * error
    return bounds(Interval(own.score, own.score - half, own.score + half))


def _predictions(trial: str, own: Outcome) -> pa.Table:
    count = len(own.outcome)
    return pa.table(
        {
            "trial": [trial] * count,
            "sample": np.arange(count),
            "label": own.label,
            "prediction": own.prediction,
            "outcome": own.outcome,
        }
    )
