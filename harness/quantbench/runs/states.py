"""States: what is known of a trial, a model or a comparison after each phase; a JSON file each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from quantbench.spec import Stage, Status


@dataclass(frozen=True, slots=True)
class State:
    """How a phase ended.

    ``again``: the same command should try it again, for somebody killed it, or its reason told the
    user what to mend.
    """

    PHASE: ClassVar[str] = ""

    status: Status
    reason: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Built(State):
    """A trial after building, or why it could not be built.

    Parameters
    ----------
    artifact, sha256 : str
        Key in the cache and digest of the file.
    record : mapping
        What the file holds, as `quantbench.backend_api.Record.to_json` writes it, with
        ``weight_bytes`` by dtype and ``gzip_bytes``.
    simulated : str
        Why no kernel executes it as it is; empty where one does.
    inputs : mapping
        Argument of the builder -> key of what was given.
    trained_s, converted_s, observed_s, built_s : float or None
        Seconds of the steps; None of those that it did not need.
    observed_bytes : int or None
        Memory of the pass over the calibration samples, above the loaded model.
    observation, simulation : str
        Keys of histograms, and of the outputs of the fake-quantized model; empty for none.
    journal : sequence of mapping
        Epoch, step, loss and learning rate of each gradient step.
    """

    PHASE: ClassVar[str] = "build"

    stage: Stage = Stage.BUILD
    artifact: str = ""
    sha256: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    simulated: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    trained_s: float | None = None
    converted_s: float | None = None
    observed_s: float | None = None
    built_s: float | None = None
    observed_bytes: int | None = None
    observation: str = ""
    simulation: str = ""
    journal: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Scored(State):
    """A trial after scoring.

    Parameters
    ----------
    score : str
        Key of its outputs; empty where it has none.
    data : str
        Folder of the samples.
    sqnr_db : float or None
        The smallest of its outputs against the float reference.
    summary : mapping
        What `quantbench.steps.score.score` returns.
    """

    PHASE: ClassVar[str] = "score"

    stage: Stage = Stage.SCORE
    score: str = ""
    data: str = ""
    sqnr_db: float | None = None
    scored_s: float | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Confirmed(State):
    """A trial after it was scored again on samples that took no part in the choice.

    ``score``, ``reference``: keys of its outputs and of the float reference's; ``data``: folder of
    the samples.
    """

    PHASE: ClassVar[str] = "confirm"

    score: str = ""
    reference: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True)
class Started(State):
    """A trial after starting: what each fresh process told (`quantbench.steps.startup.start`)."""

    PHASE: ClassVar[str] = "start"

    observed: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Metered(State):
    """A comparison after counting energy: `quantbench.runs.energy.Window` as mappings."""

    PHASE: ClassVar[str] = "energy"

    windows: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """A float form of a model after it was compared with the reference form.

    ``trial``: the label it was built under; ``score`` and ``artifact``: keys; ``reason``: why it is
    another function, empty where it is the same.
    """

    trial: str
    max_abs: float
    relative: float
    samples: int
    holds: bool
    score: str
    artifact: str
    reason: str


@dataclass(frozen=True, slots=True)
class Compared(State):
    """A model after its float forms were compared; ``reference``: the form that others are held to."""

    PHASE: ClassVar[str] = "parity"

    reference: str | None = None
    forms: Mapping[str, Form] = field(default_factory=dict)

    def __post_init__(self) -> None:
        read = {n: f if isinstance(f, Form) else Form(**f) for n, f in self.forms.items()}
        object.__setattr__(self, "forms", read)

    @property
    def full(self) -> Form:
        """The reference form."""
        assert self.reference is not None  # noqa: S101 - asked for where something was scored
        return self.forms[self.reference]


@dataclass(frozen=True, slots=True)
class Weighed(State):
    """A model after its weights were looked at: the key of their histograms."""

    PHASE: ClassVar[str] = "weights"

    observed: str = ""
