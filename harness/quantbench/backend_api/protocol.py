"""Quantizer, Runtime, Session, Artifact: what a backend is. The heart; kept small on purpose.

A new backend is one folder, these two classes, one entry point of the group ``quantbench.backends``,
and passes ``tests/backends/conformance.py`` unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quantbench.backend_api.artifact_record import Operation, Record
from quantbench.backend_api.timed_operation import TimedOperation
from quantbench.spec import Array, Arrays, Data, Method, Model, Target, TensorSpec

if TYPE_CHECKING:  # what trains is not for a device
    from quantbench.backend_api.training_recipe import Course
from quantbench.backend_api.artifact import Artifact

See = Callable[[str, Array], None]
"""Takes the name of an activation and a batch of its values."""


class Quantizer(Protocol):
    """One framework's way to build artifacts from a form; used in a build worker only."""

    name: str
    takes: Mapping[str, str]
    """The forms it starts from, each with the route of ``fp32`` that has the same float function."""

    def refuse(self, model: Model, method: Method) -> str | None:
        """Why this cell cannot be built, or None; imports no framework."""

    def form(self, method: Method) -> str:
        """The form that the method's route starts from: one that it ``takes``."""

    def layers(self, model: Model) -> tuple[str, ...]:
        """Canonical names of the model's layers that hold weights."""

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        """Build, save in ``folder`` and return the artifact.

        ``model.trained`` is what this backend's trainer left for the method, where it trains;
        ``data.ranges`` are the ranges to take where ``method.ranges`` is ``injected``.
        """

    def observe(self, model: Model, method: Method, data: Data, see: See) -> None:
        """Run the float form that the method's route starts from over ``data.calibration``.

        ``see`` is given each batch of every activation whose range `quantize` needs: its name in
        the backend's words, and its float values, first axis the samples, batches in order.
        """

    def levels(self, method: Method) -> int:
        """How many values a quantized activation can take: 256, or 128 with 7 bits in a byte."""

    def inspect(self, artifact: Artifact, layers: tuple[str, ...] = ()) -> Record:
        """Read the file back; ``layers`` are the names to attach to what belongs to them."""


@runtime_checkable
class Transparent(Protocol):
    """What a `Quantizer` may be too: one that reads what its files compute on the way."""

    def activations(self, artifact: Artifact, inputs: Arrays, see: See) -> None:
        """Run the file over the task's arrays and show each tensor on the way that can be read.

        ``see`` is given each batch of each: its name as in `inspect`, in the order of execution,
        and its values as floats, those of integers by their scale and zero point; first axis the
        samples, batches in order. Axes are as `observe` has them for the same tensor. Operator by
        operator, without what the runtime fuses when it optimizes.

        Raises
        ------
        BadInput
            Where nothing on the way can be read, with the reason.
        """


class Trainer(Protocol):
    """One framework's training, in float or with fake quantization; in a train worker only."""

    def train(self, model: Model, method: Method, data: Data, course: Course) -> None:
        """Train from the model's weights; leave what `quantize` reads in ``course.folder``.

        Ranges are initialised from ``data.calibration`` before the first step. The steps, learning
        rates, record and checkpoints are the course's, so that they are the same everywhere.
        """

    def outputs(self, model: Model, method: Method, inputs: Arrays) -> Arrays:
        """What the trained model in ``model.trained`` gives for a batch, fake quantization included.

        Arrays as the task sees them, by the names of the model's inputs and outputs.
        """


class Runtime(Protocol):
    """What loads and runs an artifact: NumPy and the runtime, as on a device."""

    name: str

    def refuse(self, target: Target, method: Method) -> str | None:
        """Why this target cannot run artifacts of this method, or None; imports no framework."""

    def environment(self, target: Target) -> Mapping[str, str]:
        """Variables that must be set before the runtime is imported; the parent sets them."""

    def load(self, artifact: Artifact, target: Target, batch_size: int) -> Session:
        """Load for ``batch_size`` samples a call, as a deployed application would: it is timed.

        What only checks, and takes long, belongs in `Session.effective`.

        Raises
        ------
        BadArtifact
            If the runtime cannot read the file.
        TargetNotApplied
            If a setting of the target did not take effect, where that is seen without asking.
        """

    def operations(
        self, artifact: Artifact, target: Target, inputs: Arrays
    ) -> tuple[Operation, ...]:
        """What one inference of batch size 1 really executes, after all optimization."""


@runtime_checkable
class Profiler(Protocol):
    """What a `Runtime` has besides, where it can tell the time of its operators."""

    def profile(
        self, artifact: Artifact, target: Target, inputs: Arrays, seconds: float
    ) -> tuple[TimedOperation, ...]:
        """Operators of one inference of batch size 1, in their order, each with its time.

        Called for about ``seconds`` after a warm-up, loaded as `Runtime.load` does. The time of a
        call between its operators is no operator's, so that the sum may be less than the call; a
        profiler that notes many small operators makes it more.

        Raises
        ------
        NotProfiled
            Where the runtime cannot tell; says why.
        """


class Session(Protocol):
    """An artifact loaded by its runtime on a target, ready to run."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def effective(self) -> Mapping[str, str]:
        """Settings as the runtime reports them (threads, instruction set, kernels).

        Read by whoever scores or times. Raises `TargetNotApplied` if one is not the target's.
        """

    def bind(self, inputs: Mapping[str, Array]) -> None:
        """Convert the task's arrays and copy them to the device; not timed. Raises `BadInput`."""

    def run(self) -> None:
        """One inference; timed; returns when the outputs are complete on the device."""

    def read(self) -> Mapping[str, Array]:
        """Outputs of the last run on the host, float, in the task's layout; not timed."""
