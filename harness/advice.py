"""Advice: which trial to ship, the Pareto front, and what a choice gains; pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.comparison import MULTI_STREAM, OFFLINE, SINGLE_STREAM
from harness.errors import BadInput, did_you_mean
from harness.results import Results
from harness.rounds import Times, bursts, log_times, paired
from harness.statistics import Interval, exp_interval, rounds_interval

Row = Mapping[str, Any]

TIMED = "timed"
"""Stands for `SINGLE_STREAM` and `MULTI_STREAM`: one sample a call, or several."""
# What `trial_frame` makes columns of, and the scenario they come from (the peak of memory, say,
# is also known of scoring and timing); a metric that no trial has is a column of nulls.
METRICS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "quality", "quality_drop", "quality_drop_bound", "quality_kept", "agreement", "flips",
            "sqnr_db", "worst_class_drop",
        ),
        "score",
    ),
    **dict.fromkeys(
        ("latency_ms", "latency_p90_ms", "latency_p99_ms", "throughput_per_s", "speedup"), TIMED
    ),
    **dict.fromkeys(
        (
            "size_bytes", "size_gzip_bytes", "weight_bytes", "compression", "integer_macs_fraction",
            "activation_bytes",
        ),
        "artifact",
    ),
    **dict.fromkeys(("peak_rss_bytes", "model_rss_bytes", "runtime_rss_bytes"), "memory"),
    **dict.fromkeys(("load_ms", "first_inference_ms"), "start"),
    "energy_net_j": "energy",
    **dict.fromkeys(("offline_throughput_per_s", "offline_speedup"), OFFLINE),
}  # fmt: skip

OBJECTIVES: Mapping[str, str] = {"latency": "latency_ms", "size": "size_bytes"}
"""What `recommend` can minimise, and the metric behind it."""

LARGEST_DROP = 0.01
NEAR = 1.25
"""Trials whose latencies differ by more are told apart without a look at their rounds."""
OUTPUTS_DIFFER = "outputs-differ"
SMALLEST_CLAIM = 0.01
"""No difference in time under 1 %, or under twice the A/A half-width, is called a difference."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A trial that is better by the objective but may not be shipped, and why."""

    trial: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What to ship for one model on one target.

    Parameters
    ----------
    trial : str or None
        None where no trial qualifies.
    reason : str
        Why this one, or why none; one sentence.
    ties : tuple of str
        Allowed trials that cannot be told from the best within noise; ``trial`` is the smallest
        of them and itself not listed.
    passed_over : tuple of PassedOver
        Measured trials ahead of ``trial`` that are not allowed, best first.
    allowed : int
        How many trials qualified.
    """

    model: str
    target: str
    trial: str | None
    reason: str
    ties: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    allowed: int = 0


@dataclass(frozen=True, slots=True)
class Gain:
    """Speed-up of a trial over one float trial; ``versus`` says in words which one that is."""

    reference: str
    versus: str
    speedup: Interval
    verdict: str


# --- a run as one row per trial ------------------------------------------------------------------


def batch_sizes(results: Results) -> list[int]:
    """Batch sizes that were timed, ascending."""
    rows = results.measurements
    latencies = rows[(rows["metric"] == "latency_ms") & (rows["scenario"] != OFFLINE)]
    return sorted({int(size) for size in latencies["batch_size"].dropna()})


def reference_trial(
    results: Results, model: str, target: str, last: str | None = None
) -> str | None:
    """The fp32 trial that speed-ups of a comparison are relative to, or None where there is none.

    As the run names it, under ``model/target/last`` (``batch1``, ``offline``; the first of the place
    by default); a run that does not is asked for its A/A control, then for what its losses are
    relative to.
    """
    place = f"{model}/{target}"
    known = {str(key): str(named) for key, named in (results.run.get("reference") or {}).items()}
    for key in (f"{place}/{last}", place, *known):
        if key in known and (key == place or key.startswith(f"{place}/")):
            return known[key]
    trials, rows = results.trials, results.measurements
    here = set(trials.loc[(trials["model"] == model) & (trials["target"] == target), "trial"])
    control = rows.loc[(rows["metric"] == "aa_control") & rows["trial"].isin(here), "trial"]
    if len(control):
        return str(control.iloc[0])
    drops = rows.loc[(rows["metric"] == "quality_drop") & rows["trial"].isin(here), "reference"]
    named = drops.dropna()
    return str(named.mode().iloc[0]) if len(named) else None


def trial_frame(results: Results, batch_size: int | None = None) -> pd.DataFrame:
    """One row per trial, with its measurements as columns.

    Parameters
    ----------
    batch_size : int, optional
        Of the timed metrics; the smallest that was timed by default.

    Returns
    -------
    DataFrame
        The columns of ``trials``, then for each of `METRICS` its value (null where not measured)
        and the same name with ``_low``, ``_high``, ``_n``, ``_verdict``, ``_unit`` and
        ``_reason``; ``batch_size``; ``reference`` (the trial that ``speedup`` is relative to) and
        ``is_reference``. The drop of a trial that drops are measured against is 0. Where the
        one-sided bound is missing, ``quality_drop_bound`` is the upper end of the drop's interval.
    """
    sizes = batch_sizes(results)
    batch = batch_size if batch_size is not None else (sizes[0] if sizes else None)
    frame = results.trials.reset_index(drop=True).copy()
    frame["batch_size"] = batch
    at_batch, offline = (_references(results, last) for last in (f"batch{batch}", OFFLINE))
    frame["reference"] = [at_batch[trial] for trial in frame["trial"]]
    frame["is_reference"] = frame["trial"] == frame["reference"]
    found = _rows_by_trial(results, (at_batch, offline), batch)
    columns: dict[str, list[Any]] = {}
    at_best = [found.get((t, "offline_throughput_per_s"), {}) for t in frame["trial"]]
    columns["offline_batch_size"] = [_number(row.get("batch_size")) for row in at_best]
    for metric in METRICS:
        rows = [found.get((trial, metric), {}) for trial in frame["trial"]]
        for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high"), ("_n", "n")):
            columns[metric + suffix] = [_number(row.get(key)) for row in rows]
        for suffix, key in (("_verdict", "verdict"), ("_reason", "reason"), ("_unit", "unit")):
            columns[metric + suffix] = [_word(row.get(key)) for row in rows]
    frame = pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)
    unknown = frame["quality_drop_bound"].isna()
    frame.loc[unknown, "quality_drop_bound"] = frame.loc[unknown, "quality_drop_high"]
    drops = results.measurements[results.measurements["metric"] == "quality_drop"]
    itself = frame["trial"].isin(drops["reference"].dropna()) | frame["is_reference"]
    itself &= frame["quality"].notna() & frame["quality_drop"].isna()
    for column in ("quality_drop", "quality_drop_low", "quality_drop_high", "quality_drop_bound"):
        frame.loc[itself, column] = 0.0
    return frame


def _references(results: Results, last: str) -> dict[str, str | None]:
    """The reference of each trial in its place's comparison of that name."""
    columns = (results.trials[name] for name in ("trial", "model", "target"))
    rows = list(zip(*columns, strict=True))
    places = dict.fromkeys((model, target) for _, model, target in rows)
    known = {place: reference_trial(results, *place, last) for place in places}
    return {str(trial): known[model, target] for trial, model, target in rows}


def _rows_by_trial(
    results: Results,
    references: tuple[Mapping[str, str | None], Mapping[str, str | None]],
    batch: int | None,
) -> dict[tuple[str, str], dict[str, Any]]:
    """The measurement of each (trial, metric): of its scenario, batch size and reference.

    ``references``: of each trial, at the batch size and offline.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in records(results.measurements):
        trial, metric = str(row["trial"]), str(row["metric"])
        scenario = TIMED if row["scenario"] in (SINGLE_STREAM, MULTI_STREAM) else row["scenario"]
        if scenario == OFFLINE and (known := f"offline_{metric}") in METRICS:
            metric = known
        if METRICS.get(metric) != scenario:
            continue
        if scenario in (TIMED, "energy") and _number(row["batch_size"]) != batch:
            continue
        wanted = references[scenario == OFFLINE].get(trial)
        if metric.endswith("speedup") and _word(row["reference"]) not in ("", wanted):
            continue
        found.setdefault((trial, metric), row)
    return found


def records(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows as mappings from column to value."""
    names = [str(name) for name in frame.columns]
    for values in frame.itertuples(index=False, name=None):
        yield dict(zip(names, values, strict=True))


def _number(value: Any) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)


def _word(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)


def interval(row: Mapping[str, Any], metric: str) -> Interval | None:
    """A metric of one row of `trial_frame`; None where it was not measured.

    Ends that are unknown are not a number.
    """
    value = _number(row[metric])
    if math.isnan(value):
        return None
    return Interval(value, _number(row[f"{metric}_low"]), _number(row[f"{metric}_high"]))


# --- noise ---------------------------------------------------------------------------------------


def control(
    results: Results, model: str, target: str, batch_size: int | None = None
) -> Interval | None:
    """The A/A control of a comparison: the reference against itself, as a ratio of times."""
    trials, rows = results.trials, results.measurements
    here = set(trials.loc[(trials["model"] == model) & (trials["target"] == target), "trial"])
    sizes = batch_sizes(results)
    batch = batch_size if batch_size is not None else (sizes[0] if sizes else None)
    controls = rows[(rows["metric"] == "aa_control") & (rows["scenario"] != OFFLINE)]
    for row in records(controls):
        same_batch = batch is None or _number(row["batch_size"]) == batch
        if row["trial"] in here and same_batch:
            found = Interval(*(_number(row[key]) for key in ("value", "low", "high")))
            return None if math.isnan(found.value) else found
    return None


def smallest_claim(aa: Interval | None) -> float:
    """The relative difference in time below which nothing is claimed, as `latency_verdict` has it."""
    known = aa is not None and math.isfinite(aa.half_width)
    return max(SMALLEST_CLAIM, 2 * aa.half_width) if aa is not None and known else SMALLEST_CLAIM


def same_speed(
    a: Mapping[str, Any], b: Mapping[str, Any], claim: float, times: Times | None = None
) -> bool:
    """Whether two rows of `trial_frame` cannot be told apart by their time.

    Parameters
    ----------
    claim : float
        Smaller relative differences are called none (`smallest_claim`).
    times : Times, optional
        Of the rounds in which both were timed. Their ratio, paired by round, then decides: they
        are the same where its interval holds 1.

    Without rounds they can be told apart where their intervals are disjoint: those of the speed-up
    over the same reference, or of the latency where a speed-up is missing. That is a stricter
    demand than a 5 % test: a tie may be called where the rounds would show a small difference.
    """
    x, y = float(a["latency_ms"]), float(b["latency_ms"])
    pairs = paired(times, str(a["trial"]), str(b["trial"])) if times else []
    if pairs:
        ratio = exp_interval(rounds_interval(pairs))
        return abs(ratio.value - 1) <= claim or not ratio.excludes(1.0)
    if max(x, y) / min(x, y) - 1 <= claim:
        return True
    for metric in ("speedup", "latency_ms"):
        one, two = interval(a, metric), interval(b, metric)
        if (
            one
            and two
            and not any(math.isnan(end) for end in (one.low, one.high, two.low, two.high))
        ):
            return one.low <= two.high and two.low <= one.high
    return False


# --- the Pareto front and the choice -------------------------------------------------------------


def pareto(
    frame: pd.DataFrame,
    lower: Sequence[str] = ("latency_ms",),
    higher: Sequence[str] = ("quality",),
) -> pd.Series[bool]:
    """Which rows no other row beats: as good in every column and better in one.

    Parameters
    ----------
    frame : DataFrame
        A row with a null in any of the columns is never on the front.
    lower, higher : sequence of str
        Columns where less, and where more, is better.

    Returns
    -------
    Series of bool, with the index of ``frame``

    >>> f = pd.DataFrame({"latency_ms": [1.0, 2.0, 3.0], "quality": [0.8, 0.9, 0.85]})
    >>> list(pareto(f))
    [True, True, False]
    """
    costs = [
        [float(row[c]) for c in lower] + [-float(row[c]) for c in higher] for row in records(frame)
    ]

    def beaten(i: int) -> bool:
        return any(
            other != costs[i] and all(o <= mine for o, mine in zip(other, costs[i], strict=True))
            for other in costs
        )

    known = [not any(math.isnan(c) for c in cost) for cost in costs]
    return pd.Series(
        [known[i] and not beaten(i) for i in range(len(costs))], frame.index, dtype=bool
    )


def refusal(row: Mapping[str, Any], max_drop: float) -> str | None:
    """Why a measured trial may not be shipped, or None.

    The loss is judged by its one-sided 95 % upper bound, so that too few test samples speak
    against a trial, not for it.
    """
    if row["status"] != "ok":
        return f"its status is {row['status']}"
    flags = row.get("flags")
    differ = {OUTPUTS_DIFFER, f"{OUTPUTS_DIFFER}-at-batch-{row['batch_size']}"}
    if flags is not None and differ & set(flags):
        return "the outputs that were timed differ from those that were scored"
    bound, drop = float(row["quality_drop_bound"]), float(row["quality_drop"])
    if math.isnan(bound):
        return "its loss of quality was not measured"
    if bound <= max_drop:
        return None
    limit = f"{100 * max_drop:g} point" + ("" if max_drop == 0.01 else "s")
    if math.isnan(drop) or drop > max_drop:
        return f"loses {100 * drop:.2f} points, more than the {limit} allowed"
    return (
        f"measured loss {100 * drop:.2f} points, but the test samples cannot rule out "
        f"{100 * bound:.2f} (limit {limit})"
    )


def recommend(
    results: Results,
    max_drop: float = LARGEST_DROP,
    target: str | None = None,
    objective: str = "latency",
) -> list[Choice]:
    """What to ship, one choice per model and target, in the order of the trials.

    Parameters
    ----------
    max_drop : float
        Largest allowed loss of quality against the float reference, in the unit of the metric
        (0.01 is one percentage point), judged by the one-sided 95 % bound of the loss.
    target : str, optional
        Only this target.
    objective : str
        One of `OBJECTIVES`.

    Raises
    ------
    BadInput
        For an unknown objective or target; says which is nearest.
    """
    if objective not in OBJECTIVES:
        raise BadInput(f"unknown objective '{objective}'.{did_you_mean(objective, OBJECTIVES)}")
    frame = trial_frame(results)
    targets = [str(name) for name in frame["target"].unique()]
    if target is not None and target not in targets:
        raise BadInput(f"no trial on target '{target}'.{did_you_mean(target, targets)}")
    choices = []
    for model, name in frame[["model", "target"]].drop_duplicates().itertuples(index=False):
        if target is None or name == target:
            here = frame[(frame["model"] == model) & (frame["target"] == name)]
            claim = smallest_claim(control(results, model, name))

            def same(a: Row, b: Row, claim: float = claim) -> bool:
                near = max(a["latency_ms"], b["latency_ms"]) < NEAR * min(
                    a["latency_ms"], b["latency_ms"]
                )
                return same_speed(a, b, claim, _times(results, a, b) if near else None)

            choices.append(_choose(here, str(model), str(name), max_drop, objective, same))
    return choices


def _times(results: Results, a: Row, b: Row) -> Times:
    """Of two trials at the batch size of their rows, from the raw samples."""
    samples = results.samples
    mine = samples["trial"].isin((a["trial"], b["trial"]))
    same_batch = samples["batch_size"] == a["batch_size"]
    timed = samples["scenario"].isin((SINGLE_STREAM, MULTI_STREAM))
    return log_times(bursts(samples[mine & same_batch & timed]))


def _choose(
    frame: pd.DataFrame,
    model: str,
    target: str,
    max_drop: float,
    objective: str,
    same: Callable[[Row, Row], bool],
) -> Choice:
    metric = OBJECTIVES[objective]
    measured = sorted(
        (row for row in records(frame) if not math.isnan(row[metric])), key=lambda row: row[metric]
    )
    allowed = [row for row in measured if refusal(row, max_drop) is None]
    if not allowed:
        reasons = [PassedOver(row["trial"], refusal(row, max_drop) or "") for row in measured]
        why = (
            "no trial was measured to the end"
            if not measured
            else f"none of {len(measured)} measured trials is within the allowed loss"
        )
        return Choice(model, target, None, why, passed_over=tuple(reasons))
    best = allowed[0]
    if objective == "latency":
        equal = [row for row in allowed if row is best or same(best, row)]
        chosen = min(equal, key=lambda row: (_last(row["size_bytes"]), row["latency_ms"]))
    else:
        equal = [row for row in allowed if row["size_bytes"] == best["size_bytes"]]
        chosen = min(equal, key=lambda row: _last(row["latency_ms"]))
    ahead = [
        PassedOver(str(row["trial"]), refused)
        for row in measured
        if row[metric] < chosen[metric] and (refused := refusal(row, max_drop)) is not None
    ]
    word = {"latency": "fastest", "size": "smallest"}[objective]
    reason = f"the {word} of {len(allowed)} trials within the allowed loss"
    if len(allowed) == 1:
        reason = "the only measured trial within the allowed loss"
    if len(equal) > 1:
        by = "the smallest file" if objective == "latency" else "the lowest latency"
        reason = (
            f"{by} of {len(equal)} that tie as the {word} of {len(allowed)} within the allowed loss"
        )
    ties = tuple(str(row["trial"]) for row in equal if row is not chosen)
    return Choice(model, target, str(chosen["trial"]), reason, ties, tuple(ahead), len(allowed))


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def gains(results: Results, trial: str) -> list[Gain]:
    """Speed-ups of ``trial`` over the reference, and over the fastest fp32 that people could use.

    Those are the fastest fp32 of the reference's backend (traced, compiled...) and the fastest of
    the trial's own backend; only speed-ups that were measured, each float trial once.
    """
    frame = trial_frame(results)
    rows = {str(row["trial"]): row for row in records(frame)}
    if trial not in rows:
        raise BadInput(f"no trial '{trial}'.{did_you_mean(trial, rows)}")
    mine = rows[trial]
    first = batch_sizes(results)[:1]
    speedups = {
        str(row["reference"]): row
        for row in records(results.measurements)
        if row["metric"] == "speedup"
        and row["trial"] == trial
        and [_number(row["batch_size"])] == first
        and row["scenario"] != OFFLINE
        and not math.isnan(_number(row["value"]))
    }

    def fastest(backend: str) -> str | None:
        floats = [
            row
            for row in rows.values()
            if (row["model"], row["target"]) == (mine["model"], mine["target"])
            and (row["backend"], row["method"], row["status"]) == (backend, "fp32", "ok")
            and not math.isnan(row["latency_ms"])
        ]
        return str(min(floats, key=lambda row: row["latency_ms"])["trial"]) if floats else None

    wanted: dict[str, str] = {}
    reference = rows.get(_word(mine["reference"]))
    if reference is not None:
        wanted[str(reference["trial"])] = "the reference"
        if quickest := fastest(str(reference["backend"])):
            wanted.setdefault(quickest, f"the fastest float of {reference['backend']}")
    if own := fastest(str(mine["backend"])):
        wanted.setdefault(own, f"the fastest float of {mine['backend']}")
    return [
        Gain(
            name,
            versus,
            Interval(*(_number(speedups[name][key]) for key in ("value", "low", "high"))),
            _word(speedups[name]["verdict"]),
        )
        for name, versus in wanted.items()
        if name != trial and name in speedups
    ]
