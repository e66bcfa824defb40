"""What ``import quantbench`` offers: an experiment is run, its results are read, its page is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantbench.experiment import Experiment
from quantbench.results import Results, load_results
from quantbench.runs import Reporter, runner

__all__ = ["Experiment", "Results", "load_results", "run"]


def run(
    experiment: Experiment | str | Path,
    *,
    results: str | Path = "results",
    fresh: bool = False,
    again: bool = False,
    seed: int | None = None,
    only: Sequence[str] = (),
    command: str = "",
    reporter: Reporter | None = None,
) -> Results:
    """Run an experiment, or continue an interrupted run of it; a finished one is only read.

    Parameters
    ----------
    experiment
        An experiment, or the path of its YAML file.
    results
        Folder for runs; this run goes to ``results/<experiment>/<run>/``.
    fresh
        Start a new run: everything is timed again; cached artifacts and scores are used.
    again
        Time a finished run once more, as a further session of it.
    seed, only
        As in `Experiment.load`; only with a path.
    command
        As typed, for the report.
    reporter
        Says what is under way; on standard error by default.

    Returns
    -------
    Results
        The frames, with ``folder`` where the Parquet files and ``report.html`` are.

    Raises
    ------
    QuantbenchError
        For a bad experiment or an unwritable results folder; a trial's failure is a row instead.
    """
    from quantbench.analysis import to_confirm
    from quantbench.report import write_report

    return runner.run(
        experiment, results=results, fresh=fresh, again=again, seed=seed, only=only, command=command,
        reporter=reporter, write_report=write_report, choose=to_confirm,
    )  # fmt: skip
