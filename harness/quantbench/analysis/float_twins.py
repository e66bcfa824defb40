"""Float twins: the fp32 trial that runs in the same graph as a quantized one, so that like is compared with like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quantbench.analysis.trial_table import MeasuredTrial
from quantbench.backend_api import registry
from quantbench.errors import BadInput
from quantbench.results import TrialRow
from quantbench.spec import Status


@dataclass(frozen=True, slots=True)
class Twin:
    """What a trial is compared with in its own runtime.

    Parameters
    ----------
    trial : MeasuredTrial or None
        The float model in the same graph; where the run lacks it, the backend's float in another
        graph; None where there is neither.
    graph : str
        The fp32 route whose graph the trial runs in; empty for a backend that has but one.
    same : bool
        Whether ``trial`` runs in that graph.
    """

    trial: MeasuredTrial | None
    graph: str
    same: bool

    @property
    def words(self) -> str:
        """What the float is to the trial, and what would be nearer where it is not its twin."""
        if self.same or self.trial is None:
            return "in the same runtime"
        return f"which runs {graph(self.trial)} and this {self.graph}: add fp32 with route: {self.graph}"


def graph(row: TrialRow) -> str:
    """The fp32 route of its backend whose graph a trial's artifact runs in; empty where there is one alone.

    Of a backend that is not installed here every route is taken for a graph of its own.
    """
    try:
        backend = registry.backend(row.backend)
    except BadInput:
        return row.route
    return backend.graph(row.route, floats=_is_float(row))


def kind(row: TrialRow) -> tuple[str, str]:
    """Backend and graph: what runs an artifact, and how."""
    return row.backend, graph(row)


def twin(row: MeasuredTrial, trials: Iterable[MeasuredTrial]) -> Twin:
    """The float that a trial of ``trials`` is compared with in its own runtime."""
    own = graph(row)
    floats = [
        other
        for other in trials
        if (other.model, other.target, other.backend) == (row.model, row.target, row.backend)
        and is_plain(other)
        and other.of("latency_ms").known
    ]
    same = next((other for other in floats if graph(other) == own), None)
    return Twin(same or next(iter(floats), None), own, same is not None)


def is_plain(row: TrialRow) -> bool:
    """Whether a trial is the float model as it was trained, in fp32; fine-tuned it is another model."""
    return (row.method, row.training, row.status) == ("fp32", "ptq", Status.OK)


def _is_float(row: TrialRow) -> bool:
    """`quantbench.spec.Method.is_float` of a row."""
    return row.axes["scales"] == "none" and str(row.axes["weights"]).startswith(("float", "bfloat"))
