"""Retiming: the artifacts that two runs keep of the same trials, timed in the same rounds on this machine.

Of each trial the baseline's artifact, the candidate's and the baseline's once more (the A/A control) are
one comparison, timed as a run times: interleaved, in fresh processes, until the ratio is known. What the
runs measured themselves, and on which machine, plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from quantbench.backend_api import Artifact, Backend, Runtime, registry
from quantbench.errors import BadInput, NotComparable, QuantbenchError
from quantbench.execution import Ending, Job, run_jobs
from quantbench.experiment import declared_targets
from quantbench.results import Results, TrialRow
from quantbench.runs.comparison import Comparison, Contender
from quantbench.runs.interleaved_timing import Generation, log_ratios, log_times, run_comparison
from quantbench.runs.reporter import Reporter
from quantbench.runs.states import Scored
from quantbench.runs.store import Store
from quantbench.spec import Limits, Method, Precision, Status, Target, presets
from quantbench.stats import Interval, exp_interval
from quantbench.steps import prepare_data, timed_burst
from quantbench.system import (
    ENVIRONMENT,
    entry,
    installed_packages,
    locate,
    machine,
    stored_as,
    usable_cpus,
    write_json,
)

SIDES = ("baseline", "candidate")
SAME_FILE = "the same file in both runs"


@dataclass(frozen=True, slots=True)
class Retimed:
    """What timing a trial's two artifacts again has shown, at one batch size.

    Parameters
    ----------
    trial : str
        What both runs know it by.
    baseline_ms, candidate_ms : float or None
        Median time of a call here; None where it was not timed.
    ratio : Interval or None
        The candidate's time over the baseline's, paired by round; exactly 1 of one and the same file.
    control : Interval or None
        The baseline's artifact over itself; None where nothing was timed.
    reason : str
        How the ratio was found, or why there is none.
    lost : bool
        Whether the candidate's artifact could not be timed where the baseline's could.
    """

    trial: str
    batch_size: int
    baseline_ms: float | None = None
    candidate_ms: float | None = None
    ratio: Interval | None = None
    control: Interval | None = None
    reason: str = ""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Twins:
    """A trial's artifact in both runs, the baseline's first, and what times them here."""

    trial: str
    model: str
    backend: Backend
    target: Target
    artifacts: tuple[Artifact, Artifact]
    data: Path

    @property
    def same(self) -> bool:
        """Whether both are one file that is run in one way."""
        one, other = self.artifacts
        return (one.digest, dict(one.details)) == (other.digest, dict(other.details))


def retime(
    baseline: Results,
    candidate: Results,
    trials: Mapping[str, tuple[TrialRow, TrialRow]],
    *,
    reporter: Reporter,
) -> tuple[Retimed, ...]:
    """Time the artifacts of trials that both runs have, by the candidate's protocol.

    Parameters
    ----------
    trials : mapping
        By the name that both runs know, the row in each.

    Returns
    -------
    tuple of Retimed
        One for each trial and batch size of both runs; what was observed is kept in
        ``retimed/`` of the candidate's folder.

    Raises
    ------
    BadInput
        If the candidate's folder cannot be written to.
    NotComparable
        If not a single trial could be timed, with the reasons.
    """
    runs, precision = (baseline, candidate), Precision.of_run(candidate.run)
    folder = _folder(candidate)
    twins: dict[str, Twins] = {}
    refused: dict[str, str] = {}
    with reporter as report:
        report.phase("open", len(trials))
        samples: dict[str, Path] = {}
        for name, own in trials.items():
            report.step(name)
            try:
                twins[name] = _twins(name, own, runs, folder, samples)
            except QuantbenchError as error:
                refused[name] = str(error)
                report.say(f"{name} is not timed again: {error}")
            report.done()
        if not twins:
            told = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:3])
            raise NotComparable(f"no trial of both runs can be timed again ({told})")
        sizes, clock = batch_sizes(*runs), _Clock(candidate, precision, folder, report)
        timed = sum(not both.same for both in twins.values()) * len(sizes)
        report.phase("retime", timed * precision.rounds * precision.generations)
        found = tuple(
            clock.time(twins[name], size)
            if name in twins
            else Retimed(name, size, reason=f"not timed again: {refused[name]}")
            for name in trials
            for size in sizes
        )
    write_json(
        folder / "retimed.json",
        {
            "baseline": str(baseline.folder), "candidate": str(candidate.folder),
            "machine": machine.describe(), "precision": asdict(precision),
            "retimed": [
                {**asdict(one), "samples": _place(one.trial, one.batch_size)} for one in found
            ],
        },
    )  # fmt: skip
    return found


def _folder(candidate: Results) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = candidate.folder / "retimed" / stamp
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise BadInput(f"{folder} is there already; start the same command again") from error
    except OSError as error:
        raise BadInput(
            f"what is timed again is kept in the candidate's folder, and {folder} cannot be written "
            f"({error.strerror}); copy the run to another place"
        ) from error
    return folder


def batch_sizes(baseline: Results, candidate: Results) -> tuple[int, ...]:
    """The batch sizes that both runs have timed, in the candidate's order.

    Raises
    ------
    NotComparable
        If they have none in common.
    """
    own, other = (
        tuple((run.run.get("protocol") or {}).get("batch_sizes") or (1,))
        for run in (candidate, baseline)
    )
    found = tuple(size for size in own if size in other)
    if not found:
        raise NotComparable(
            f"the baseline was timed at batch sizes {', '.join(map(str, other))} and the candidate at "
            f"{', '.join(map(str, own))}: none is in both"
        )
    return found


def other_versions(
    baseline: Results, candidate: Results, trials: Mapping[str, tuple[TrialRow, TrialRow]]
) -> tuple[str, ...]:
    """A line for each package of the trials' runtimes that is here in another version than in a run."""
    here, told = installed_packages(), []
    backends = dict.fromkeys(row.backend for _, row in trials.values())
    known = [name for name in backends if name in registry.names("backends")]
    packages = dict.fromkeys(p for name in known for p in registry.backend(name).run_packages)
    for package in packages:
        versions = {
            side: (run.machine.get("packages") or {}).get(package)
            for side, run in zip(SIDES, (baseline, candidate), strict=True)
        }
        others = [
            f"the {side} was measured with {version}"
            for side, version in versions.items()
            if version and package in here and version != here[package]
        ]
        if others:
            told.append(f"{package} {here[package]} runs both artifacts: {', '.join(others)}")
    return tuple(told)


# --- what is timed -------------------------------------------------------------------------------


def _twins(
    name: str,
    own: tuple[TrialRow, TrialRow],
    runs: tuple[Results, Results],
    folder: Path,
    samples: dict[str, Path],
) -> Twins:
    """A trial's two artifacts, ready to be timed; raises `QuantbenchError` where they are not.

    ``samples``: where the test samples of each model lie, filled as they are needed.
    """
    row = own[1]
    artifacts = [_kept(side, run, o) for side, run, o in zip(SIDES, runs, own, strict=True)]
    backend, target = registry.backend(row.backend), _target(row, runs[1])
    if missing := registry.missing_packages(backend.run_packages):
        raise NotComparable(f"{', '.join(missing)} is not installed here; {backend.install}")
    runtime: Runtime = locate(backend.runtime)()
    axes = {axis: value for axis, value in row.axes.items() if value is not None}
    if refusal := runtime.refuse(target, Method(row.method, **axes, seed=row.seed)):
        raise NotComparable(refusal)
    if row.model not in samples:
        samples[row.model] = _samples(own, runs, folder)
    return Twins(name, row.model, backend, target, (artifacts[0], artifacts[1]), samples[row.model])


def _kept(side: str, run: Results, row: TrialRow) -> Artifact:
    """The artifact that a run keeps, or the cache."""
    places = (Store(run.folder).artifact(row.artifact), entry("artifacts", row.artifact))
    folder = next((place for place in places if row.artifact and place.exists()), None)
    if folder is None:
        raise NotComparable(
            f"the {side} keeps no artifact of it ({run.folder / 'artifacts'}), and the cache has none"
        )
    return Artifact.open(folder)


def _target(row: TrialRow, run: Results) -> Target:
    """The target of a trial, on this machine."""
    declared = declared_targets(str(run.run.get("experiment_text") or ""))
    known = {**presets(), **declared}
    if row.target not in known:
        raise NotComparable(f"the run does not say what its target '{row.target}' is")
    found = known[row.target]
    if absent := sorted(set(found.affinity) - set(usable_cpus())):
        raise NotComparable(
            f"its target '{row.target}' is pinned to CPU {', '.join(map(str, absent))}, which this "
            "machine does not have"
        )
    return found


def _samples(own: tuple[TrialRow, TrialRow], runs: tuple[Results, Results], folder: Path) -> Path:
    """The test samples that a run was scored on, or the task's, prepared anew."""
    for run, row in zip(reversed(runs), reversed(own), strict=True):
        scored = Store(run.folder).get(Scored, row.trial)
        if scored is not None and scored.data and (Path(scored.data) / "test").exists():
            return Path(scored.data)
    name = own[1].model
    if name.partition("@")[0] not in registry.names("models"):
        raise NotComparable(
            f"the test samples of {name} are not here; run the candidate's experiment on this "
            "machine first"
        )
    model = registry.model(name)
    where = folder / "data" / stored_as(name)
    where.parent.mkdir(exist_ok=True)
    task = registry.task(model.task)
    arguments = {
        "load": task.load, "model": model.to_json(), "splits": ["test"], "folder": str(where),
    }  # fmt: skip
    job = Job(f"data {name}", prepare_data.write, arguments, ENVIRONMENT)
    endings: list[Ending] = []

    def on_end(job: Job, ending: Ending) -> Sequence[Job]:
        endings.append(ending)
        return ()

    run_jobs([job], folder / "logs", on_end, slots=1)
    if endings[-1].status != Status.OK:
        raise NotComparable(f"the test samples of {name} cannot be read: {endings[-1].reason}")
    return where


# --- timing --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Clock:
    """How pairs are timed: by the candidate's protocol, kept in ``folder``."""

    candidate: Results
    precision: Precision
    folder: Path
    report: Reporter

    def time(self, twins: Twins, size: int) -> Retimed:
        """Time one pair at a batch size; one file is not timed against itself."""
        if twins.same:
            return Retimed(twins.trial, size, ratio=Interval(1.0, 1.0, 1.0), reason=SAME_FILE)
        comparison = self._comparison(twins, size)
        try:
            generations = run_comparison(
                comparison, self.precision, int(self.candidate.run.get("seed") or 0),
                self._kept_at(twins, size), self.folder / "logs",
                partial(self._on_round, f"{twins.trial} at batch size {size}"),
            )  # fmt: skip
        except NotComparable as error:
            self.report.say(f"{twins.trial} is not timed again: {error}")
            return Retimed(twins.trial, size, reason=f"not timed again: {error}")
        return seen(twins.trial, size, comparison, generations)

    def _on_round(self, what: str, generation: int, round_: int) -> None:
        self.report.step(f"{what}: generation {generation + 1} round {round_ + 1}")
        self.report.done(f"{what}: generation {generation + 1}" if round_ == 0 else "")

    def _kept_at(self, twins: Twins, size: int) -> Path:
        place = self.folder / _place(twins.trial, size)
        place.mkdir(parents=True)
        write_json(place / "trial.json", {"trial": twins.trial, "batch_size": size})
        return place

    def _comparison(self, twins: Twins, size: int) -> Comparison:
        one, other = (f"{twins.trial} of the {side}" for side in SIDES)
        plain = Comparison(twins.model, twins.target, (Contender(one, None, size),), one)
        places = {one: 0, other: 1, plain.control: 0}
        contenders = tuple(
            Contender(name, self._job(twins, name, twins.artifacts[place], size), size)
            for name, place in places.items()
        )
        return Comparison(twins.model, twins.target, contenders, one)

    def _job(self, twins: Twins, name: str, artifact: Artifact, size: int) -> Job:
        runtime: Runtime = locate(twins.backend.runtime)()
        limits, protocol = Limits(), self.candidate.run.get("protocol") or {}
        arguments = {
            "artifact": str(artifact.folder.absolute()),
            "runtime": twins.backend.runtime,
            "target": twins.target.to_json(),
            "data": str(twins.data.absolute()),
            "batch_size": size,
            "warmup_s": self.precision.warmup_s,
            "burst_ms": self.precision.burst_ms,
        }
        return Job(
            f"retime {name}", timed_burst.serve, arguments, runtime.environment(twins.target), (),
            float(protocol.get("limit_start_s", limits.start_s)),
            float(protocol.get("limit_memory_mb", limits.memory_mb)),
        )  # fmt: skip


def _place(trial: str, size: int) -> str:
    """The folder of a pair's raw samples, within that of the retiming."""
    return stored_as(f"{trial} {size}")


def seen(
    trial: str, size: int, comparison: Comparison, generations: Sequence[Generation]
) -> Retimed:
    """What the rounds of a comparison of two artifacts, the reference first, say of the second."""
    one, other = (contender.name for contender in comparison.contenders[:2])
    times, ratios = log_times(generations), log_ratios(comparison, generations)
    if other not in ratios:
        failed = [g.failures[other] for g in generations if other in g.failures]
        why = f"{failed[0][0]}: {failed[0][1]}" if failed else "it was not timed"
        return Retimed(trial, size, reason=f"the candidate's artifact: {why}", lost=True)
    milliseconds = {
        name: math.exp(float(np.median([t for g in times[name] for t in g.values()]))) * size / 1e6
        for name in (one, other)
    }
    gain, control = ratios[other], ratios.get(comparison.control)
    rounds = sum(len(g) for g in times[other])
    return Retimed(
        trial, size, milliseconds[one], milliseconds[other],
        exp_interval(Interval(-gain.value, -gain.high, -gain.low)),
        None if control is None else exp_interval(control),
        f"timed again here, both in {rounds} rounds of {len(generations)} generations",
    )  # fmt: skip
