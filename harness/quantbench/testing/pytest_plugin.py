"""Pytest plugin: one test per trial of an experiment, and fixtures for people's own tests.

``pytest --quantbench experiments/x.yaml`` (docs/ci.md). It is loaded by every pytest where quantbench
is installed, and therefore imports nothing but pytest before one of its options or fixtures is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from quantbench.analysis import Gate
    from quantbench.execution import RemoteSession
    from quantbench.experiment import Cell, Experiment
    from quantbench.results import Results
    from quantbench.runs import Reporter
    from quantbench.testing.sessions import Bench, Quantized

TOLD = ("quality", "quality_drop", "agreement", "sqnr_db", "size_bytes", "integer_macs_fraction")
"""Metrics that every test leaves as properties, for JUnit XML and plugins that read them."""
BASELINE: pytest.StashKey[Results] = pytest.StashKey()
GATES: pytest.StashKey[Sequence[Gate]] = pytest.StashKey()


# --- options -------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the group ``quantbench``."""
    group = parser.getgroup("quantbench", "quantized models (docs/ci.md of quantbench)")
    group.addoption(
        "--quantbench", action="append", default=[], metavar="EXPERIMENT.yaml",
        help="collect one test per trial of an experiment; may be given several times",
    )  # fmt: skip
    group.addoption(
        "--quantbench-baseline", metavar="RUN",
        help="a run that no trial may be worse than, or an experiment's folder: its newest run",
    )  # fmt: skip
    group.addoption(
        "--quantbench-gate", metavar="FILE",
        help="limits of --quantbench-baseline, as `quantbench compare --gate` takes them; those of "
        "times are left to pytest-benchmark",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Collect the experiments: instead of the usual tests, or beside the paths that were given."""
    from_user = config.args_source is pytest.Config.ArgsSource.ARGS
    given = [_path(config, argument.partition("::")[0]) for argument in config.args]
    wanted = [path for path in _experiments(config) if not (from_user and path in given)]
    if wanted:
        config.args = [*(config.args if from_user else ()), *map(str, wanted)]
    baseline, gate = (config.getoption(f"quantbench_{name}") for name in ("baseline", "gate"))
    if gate and not baseline:
        raise pytest.UsageError("--quantbench-gate judges changes: give --quantbench-baseline too")
    if baseline:
        from quantbench.analysis import gates
        from quantbench.errors import QuantbenchError
        from quantbench.results import load_results

        try:
            config.stash[BASELINE] = load_results(_path(config, baseline))
            config.stash[GATES] = gates.read(_path(config, gate)) if gate else gates.DEFAULT
        except QuantbenchError as error:
            raise pytest.UsageError(str(error)) from error


def _experiments(config: pytest.Config) -> list[Path]:
    return [_path(config, given) for given in config.getoption("quantbench")]


def _path(config: pytest.Config, given: str) -> Path:
    return (config.invocation_params.dir / given).absolute()


# --- collection ----------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """An experiment that ``--quantbench`` names."""
    if file_path in _experiments(parent.config):
        return Trials.from_parent(parent, path=file_path)
    return None


class Trials(pytest.Module):
    """An experiment file; its tests are its trials.

    A module, as pytest's own text files of doctests are one, because fixtures have that scope.
    """

    obj = None
    experiment: Experiment

    def collect(self) -> Iterator[pytest.Item]:
        """A test per trial, refused ones skipped with their reason; imports no framework."""
        from quantbench.errors import QuantbenchError
        from quantbench.experiment import Experiment
        from quantbench.experiment.plan import plan

        try:
            self.experiment = Experiment.load(self.path)
            cells = plan(self.experiment)
        except QuantbenchError as error:
            raise self.CollectError(str(error)) from error
        self._check_baseline()
        for cell in cells:
            item = TrialItem.of(self, cell)
            if cell.refusal:
                item.add_marker(pytest.mark.skip(reason=f"unsupported: {cell.refusal}"))
            yield item

    def _check_baseline(self) -> None:
        from quantbench.testing.sessions import known_in

        baseline = self.config.stash.get(BASELINE, None)
        if baseline is not None and not known_in(baseline, self.experiment.trials):
            raise self.CollectError(f"{baseline.folder} has no trial of {self.path.name}")

    def selected(self) -> Experiment:
        """The experiment with those trials alone that this session runs."""
        from quantbench.testing.sessions import selected

        mine = [i for i in self.session.items if isinstance(i, TrialItem) and i.parent is self]
        return selected(self.experiment, [i.cell.trial for i in mine if not i.cell.refusal])


class TrialItem(pytest.Function):
    """The test of one trial."""

    cell: Cell

    @classmethod
    def of(cls, parent: Trials, cell: Cell) -> TrialItem:
        """Named ``MODEL[BACKEND-LABEL-TARGET]``, with ``-SEED`` where there are several."""
        trial = cell.trial
        rest = [trial.backend, trial.label, trial.target.name]
        rest += [f"seed{trial.seed}"] if trial.several_seeds else []
        clock = WorkerClock()
        timed = parent.config.pluginmanager.hasplugin("benchmark")
        item: TrialItem = cls.from_parent(
            parent,
            name=f"{trial.model}[{'-'.join(rest)}]",
            callobj=_with_statistics(cell, clock) if timed else _without_statistics(cell),
        )
        if hasattr(item, "id"):  # pytest 9.2: --lf and --nf compare ids as they are parsed
            item._id = type(item.id).parse(item.nodeid)
        item.cell = cell
        if timed:
            item.add_marker(pytest.mark.benchmark(timer=clock.read, group=trial.model))
        return item

    def reportinfo(self) -> tuple[Path, int, str]:
        """The experiment file, and the test's name; a line is required where it is skipped."""
        return self.path, 0, self.name


class WorkerClock:
    """The time that inference took in a worker, for pytest-benchmark to read as its timer."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def read(self) -> float:
        """Seconds, all calls so far."""
        return self.seconds

    def advance(self, samples: Iterator[float]) -> None:
        """One more call."""
        self.seconds += next(samples)


def _with_statistics(cell: Cell, clock: WorkerClock) -> Callable[..., None]:
    def test(request: pytest.FixtureRequest, _quantbench: Bench, benchmark: Any) -> None:
        from quantbench.errors import QuantbenchError

        seconds = [0.0]
        try:
            experiment = _judge(request, _quantbench, cell)
            benchmark.disabled |= not _is_ok(_quantbench.score(experiment), cell)
            if not benchmark.disabled:
                seconds = _quantbench.time(experiment, cell)
        except QuantbenchError as error:
            benchmark.disabled = True
            pytest.fail(str(error), pytrace=False)
        except BaseException:
            benchmark.disabled = True
            raise
        finally:  # a fixture that was never called warns of it
            benchmark.pedantic(clock.advance, args=(iter(seconds),), rounds=len(seconds))

    return test


def _without_statistics(cell: Cell) -> Callable[..., None]:
    def test(request: pytest.FixtureRequest, _quantbench: Bench) -> None:
        _judge(request, _quantbench, cell)

    return test


def _judge(request: pytest.FixtureRequest, bench: Bench, cell: Cell) -> Experiment:
    """Fail where the trial did not work, lost quality, or is worse than in the baseline."""
    from quantbench.results import trial_row
    from quantbench.spec import Status
    from quantbench.testing.sessions import shortfall

    item = request.node
    experiment: Experiment = item.parent.selected()
    found, trial = bench.score(experiment), cell.trial.id
    rows = found.measurements[found.measurements["trial"] == trial].set_index("metric")["value"]
    item.user_properties += [(name, float(rows[name])) for name in TOLD if name in rows.index]
    findings = bench.findings(experiment, cell.trial)
    wrong = [shortfall(found, trial)] + [
        f"{finding.gate.text}: {finding.sentence}" for finding in findings if finding.failed
    ]
    if any(wrong):
        pytest.fail("\n".join(filter(None, wrong)), pytrace=False)
    row = trial_row(found.trials, trial)
    if row is not None and row.status == Status.NO_OP:
        pytest.skip(f"no-op: {row.reason}")
    return experiment


def _is_ok(found: Results, cell: Cell) -> bool:
    """Whether its time is that of its method, and not of one that is simulated."""
    from quantbench.spec import Status

    status = found.trials.set_index("trial").loc[cell.trial.id, "status"]
    return bool(status == Status.OK)


def pytest_report_header(config: pytest.Config) -> str | None:
    """What is compared, and that times need pytest-benchmark."""
    if not config.getoption("quantbench"):
        return None
    lines = [f"quantbench: {', '.join(config.getoption('quantbench'))}"]
    if BASELINE in config.stash:
        lines.append(f"baseline: {config.stash[BASELINE].run['run']}")
    if not config.pluginmanager.hasplugin("benchmark"):
        lines.append("no times: pip install pytest-benchmark")
    return "; ".join(lines)


# --- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _quantbench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Everything that this session builds and scores."""
    from quantbench.experiment import Experiment
    from quantbench.spec import Model
    from quantbench.testing.sessions import Bench

    config, models = request.config, dict[str, Model]()
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(config, "workerinput") else base  # pytest-xdist
    for path in _experiments(config):
        models.update(Experiment.load(path).models)
    return Bench(
        shared / "quantbench", lambda: _progress(config), models,
        config.stash.get(BASELINE, None), config.stash.get(GATES, ()),
    )  # fmt: skip


@contextlib.contextmanager
def _progress(config: pytest.Config) -> Iterator[Reporter]:
    """Progress past pytest's capture; none with ``-q`` and in a process without a terminal."""
    from rich.console import Console

    from quantbench.runs import Reporter

    capture = config.pluginmanager.getplugin("capturemanager")
    quiet = config.get_verbosity() < 0 or hasattr(config, "workerinput")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        yield Reporter(Console(stderr=True, quiet=quiet, highlight=False))


@pytest.fixture(scope="session")
def quantized(_quantbench: Bench) -> Callable[..., Quantized]:
    """Give the artifact of a model by a method, built and scored once.

    ``quantized(model, backend, method, *, target="cpu-1", seed=0, **axes)``. The test is skipped where
    the trial cannot run here, and fails with the reason where it could not be built.
    """

    def build(model: str, backend: str, method: str, **more: Any) -> Quantized:
        from quantbench.errors import QuantbenchError
        from quantbench.testing.sessions import Refused

        try:
            return _quantbench.quantized(model, backend, method, **more)
        except Refused as refusal:
            pytest.skip(f"unsupported: {refusal}")
        except QuantbenchError as error:
            pytest.fail(str(error), pytrace=False)

    return build


@pytest.fixture(scope="session")
def reference(quantized: Callable[..., Quantized]) -> Callable[..., Quantized]:
    """Give the model in fp32: ``reference(model, backend, **axes)``, as `quantized` gives it."""

    def build(model: str, backend: str, **more: Any) -> Quantized:
        return quantized(model, backend, "fp32", **more)

    return build


@pytest.fixture
def session(_quantbench: Bench) -> Iterator[Callable[..., RemoteSession]]:
    """Give an artifact loaded on its target: ``session(artifact, batch_size=1)``.

    It has ``bind(inputs)``, ``run()`` and ``read()``, and ends with the test.
    """
    with contextlib.ExitStack() as opened:

        def load(artifact: Quantized, batch_size: int = 1) -> RemoteSession:
            found = _quantbench.open(artifact, batch_size)
            opened.callback(found.close)
            return found

        yield load
