"""Quantizer, Runtime, Session, Artifact: what a backend is. The heart; kept small on purpose.

A new backend is one folder, these two classes, one entry point of the group ``quantbench.backends``,
and passes ``tests/backends/conformance.py`` unchanged.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import BadArtifact
from harness.files import is_plain
from harness.method import Method
from harness.model import Model
from harness.record import Operation, Record
from harness.target import Target
from harness.task import Data
from harness.tensors import Array, Arrays, TensorSpec

if TYPE_CHECKING:  # what trains is not for a device
    from harness.training import Course

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Backend:
    """A framework's Quantizer with its Runtime, described without importing either.

    Parameters
    ----------
    name : str
        ``pytorch``, ``tflite``, ``onnxruntime``...
    quantizer, runtime : str
        Locators of the two classes. Importing their modules imports no framework: ``refuse`` is
        asked in the parent process.
    build_packages, run_packages : tuple of str
        Distribution names that building, and scoring or timing, need.
    install : str
        The command that installs them.
    run_modules : tuple of str
        Modules of the runtime, imported before the memory of the bare runtime is read.
    methods : mapping
        Preset name -> the axes whose default in this framework differs from the preset's.
    trainer : str
        Locator of the `Trainer` whose work its quantizer takes; empty where it takes none.
    routes : mapping
        Preset name -> every route there is -> the axes whose default on it differs from
        ``methods``. A preset that is not here has one route.
    optional_packages : tuple of str
        Distribution names that single routes need, which are refused without them.
    kinds : tuple of str
        What it reads of a user's own models: keys of a ``model`` in an experiment file.
    own : str
        The module that does it, with ``outputs(source, folder)`` and the builders of forms.
    """

    name: str
    quantizer: str
    runtime: str
    build_packages: tuple[str, ...]
    run_packages: tuple[str, ...]
    install: str
    run_modules: tuple[str, ...] = ()
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trainer: str = ""
    routes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    optional_packages: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    own: str = ""

    @property
    def packages(self) -> tuple[str, ...]:
        """Everything that must be installed, each once."""
        return tuple(dict.fromkeys(self.build_packages + self.run_packages))

    def ways(self, preset: str) -> tuple[str, ...]:
        """Every route of a preset, the default one first."""
        usual = self.methods.get(preset, {}).get("route", "")
        return tuple(dict.fromkeys((usual, *self.routes.get(preset, {}))))

    def axes(self, preset: str, chosen: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The axes of a preset here: the defaults, those of the chosen route, what is chosen."""
        own, chosen = self.methods.get(preset, {}), chosen or {}
        route = chosen.get("route", own.get("route", ""))
        return {**own, **self.routes.get(preset, {}).get(route, {}), **chosen}


@dataclass(frozen=True, slots=True)
class Converter:
    """A registered way from one form of a model to another, e.g. ``torch`` to ``onnx``.

    ``convert`` is the locator of ``(model: Model, folder: Path) -> Path``; the file is
    ``folder/model.*``. ``model.trained`` may name a trained folder to start from.
    """

    source: str
    target: str
    convert: str
    packages: tuple[str, ...]
    install: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """The deployable file or files that a Quantizer built, with a manifest.

    Parameters
    ----------
    folder : Path
        Where the files and ``manifest.json`` lie.
    files : tuple of str
        Every file needed at run time, the main one first.
    runtime : str
        Name of the backend that runs it.
    inputs, outputs : tuple of TensorSpec
        As stored in the file: its shapes, dtypes, scales and layouts, under the task's names.
    task_inputs, task_outputs : tuple of TensorSpec
        The same tensors as the task sees them, in the same order.
    details : mapping
        What the runtime must know to load it (``route``, ``architecture``...). ``simulated``: why
        no kernel executes the method as it is, so that latency would be another method's.
    sha256 : mapping
        SHA-256 by file name.
    """

    folder: Path
    files: tuple[str, ...]
    runtime: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task_inputs: tuple[TensorSpec, ...]
    task_outputs: tuple[TensorSpec, ...]
    details: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The main file."""
        return self.folder / self.files[0]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files needed at run time."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    def gzip_bytes(self) -> int:
        """Bytes of the same files as gzip compresses each at its best; slow for large ones."""
        files = (self.folder / name for name in self.files)
        return sum(len(gzip.compress(f.read_bytes(), compresslevel=9, mtime=0)) for f in files)

    @property
    def digest(self) -> str:
        """SHA-256 of the main file, or of all files' hashes where there are several."""
        if len(self.files) == 1:
            return self.sha256[self.files[0]]
        return hashlib.sha256("".join(self.sha256[f] for f in self.files).encode()).hexdigest()

    def save(self) -> Artifact:
        """Hash the files and write the manifest; returns the artifact with its hashes."""
        hashes = {name: file_sha256(self.folder / name) for name in self.files}
        specs = ("inputs", "outputs", "task_inputs", "task_outputs")
        manifest = {
            "files": list(self.files),
            "runtime": self.runtime,
            "details": dict(self.details),
            "sha256": hashes,
            **{key: [spec.to_json() for spec in getattr(self, key)] for key in specs},
        }
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        return Artifact.open(self.folder, verify=False)

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Artifact:
        """Read a saved artifact.

        Raises
        ------
        BadArtifact
            If the manifest or a file is missing, truncated or altered.
        """
        try:
            data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            specs = {
                key: tuple(TensorSpec.from_json(spec) for spec in data[key])
                for key in ("inputs", "outputs", "task_inputs", "task_outputs")
            }
            artifact = cls(
                folder=folder,
                files=tuple(data["files"]),
                runtime=data["runtime"],
                details=data["details"],
                sha256=data["sha256"],
                **specs,
            )
            strange = next((name for name in artifact.files if not is_plain(name)), None)
            if strange is not None:
                raise BadArtifact(
                    f"artifact {folder} lists the file {strange!r}, which is not in its folder; "
                    "it was not made by quantbench, or was altered: delete it"
                )
            if verify:
                for name in artifact.files:
                    if file_sha256(folder / name) != artifact.sha256[name]:
                        raise BadArtifact(
                            f"artifact {folder / name} is truncated or altered; "
                            "delete its folder and run again to rebuild it"
                        )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadArtifact(
                f"artifact {folder} cannot be read ({error}); delete the folder and run again"
            ) from error
        return artifact


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
        """Load for ``batch_size`` samples a call.

        Raises
        ------
        BadArtifact
            If the runtime cannot read the file.
        TargetNotApplied
            If a setting of the target did not take effect.
        """

    def operations(
        self, artifact: Artifact, target: Target, inputs: Arrays
    ) -> tuple[Operation, ...]:
        """What one inference of batch size 1 really executes, after all optimization."""


class Session(Protocol):
    """An artifact loaded by its runtime on a target, ready to run."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    effective: Mapping[str, str]
    """Settings as the runtime reports them (threads, instruction set, kernels)."""

    def bind(self, inputs: Mapping[str, Array]) -> None:
        """Convert the task's arrays and copy them to the device; not timed. Raises `BadInput`."""

    def run(self) -> None:
        """One inference; timed; returns when the outputs are complete on the device."""

    def read(self) -> Mapping[str, Array]:
        """Outputs of the last run on the host, float, in the task's layout; not timed."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
