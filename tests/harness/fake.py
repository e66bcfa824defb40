"""A fake framework: a linear model in NumPy, quantized, run and made to fail as a test asks.

The route of a method says how it behaves: ``crash`` and ``hang`` in the build worker, ``eat``
(memory), ``error``, ``nan`` (outputs), ``noise`` (wrong outputs), ``float`` (quantizes nothing),
``narrow`` (quantizes what should be float),
``slow`` (20x), ``cache`` (an input like the last one costs nothing), ``score-crash``, ``clock-crash``; in training, ``diverge`` and ``train-crash``
(once, after the first epoch).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from quantbench.backend_api import (
    ACTIVATION,
    MULTIPLY,
    WEIGHT,
    Artifact,
    Backend,
    Course,
    NodeRecord,
    Operation,
    Record,
    See,
    TensorRecord,
    TimedOperation,
)
from quantbench.errors import BadInput
from quantbench.spec import (
    CONFIRMATION,
    Arrays,
    Data,
    Method,
    Model,
    Samples,
    Target,
    Task,
    TensorSpec,
    check_inputs,
)

X, Y = TensorSpec("x", (None, 16), "float32"), TensorSpec("y", (None, 4), "float32")
TASK = Task("fake-task", (X,), "top1", "tests.harness.fake:load", "1")
MODEL = Model(
    "fake", "fake-task", (X,), (Y,), "tests.harness.fake:weights", "tests.harness.fake:state",
    {"numpy": "tests.harness.fake:form"},
)  # fmt: skip
BACKEND = Backend(
    "fakery", "tests.harness.fake:FakeQuantizer", "tests.harness.fake:FakeRuntime",
    ("numpy",), ("numpy",), "pip install numpy", ("numpy",),
    {"static-int8": {"samples": 8}, "qat-int8": {"samples": 8}},
    "tests.harness.fake:FakeTrainer",
)  # fmt: skip
OTHER = Backend(
    "other", "tests.harness.fake:FakeQuantizer", "tests.harness.fake:OtherRuntime",
    ("numpy",), ("numpy",), "pip install numpy", ("numpy",), {"static-int8": {"samples": 8}},
)  # fmt: skip
ABSENT = Backend(
    "absent", "tests.harness.fake:FakeQuantizer", "tests.harness.fake:FakeRuntime",
    ("no-such-package",), (), "pip install no-such-package",
)  # fmt: skip


def weights() -> Path:
    return Path(__file__)


def state(path: Path) -> dict[str, np.ndarray]:
    return {"w": np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)}


def form() -> np.ndarray:
    return state(weights())["w"]


def load(split: str) -> Samples:
    rng = np.random.default_rng({"calibration": 1, "test": 2, "train": 3, CONFIRMATION: 4}[split])
    count = {"calibration": 32, "test": 300, "train": 128, CONFIRMATION: 200}[split]
    x = rng.normal(size=(count, 16)).astype(np.float32)
    return Samples({"x": x}, (x @ form()).argmax(axis=1))


def load_again(split: str) -> Samples:
    """The same, where the test samples stand for those that confirm as well."""
    return load("test" if split == CONFIRMATION else split)


class FakeQuantizer:
    name = "fakery"
    takes: Mapping[str, str] = {"numpy": "", "other-numpy": "other"}

    def refuse(self, model: Model, method: Method) -> str | None:
        return "the fake has no bfloat16; use fp32" if method.name == "bf16" else None

    def form(self, method: Method) -> str:
        return "other-numpy" if method.route == "other" else "numpy"

    def layers(self, model: Model) -> tuple[str, ...]:
        return ("w",)

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        misbehave(method.route)
        w = np.load(Path(model.trained) / "w.npy") if model.trained else form()
        if method.route == "narrow" or (method.weights == "int8" and method.route != "float"):
            scale = np.abs(w).max() / 127
            np.save(folder / "w.npy", np.rint(w / scale).astype(np.int8))
            np.save(folder / "scale.npy", scale)
        else:
            np.save(folder / "w.npy", w)
            np.save(folder / "scale.npy", np.float32(1))
        files, details = ("w.npy", "scale.npy"), {"route": method.route}
        if method.scales == "static":
            low, high = -4.0, 4.0
            if method.ranges == "injected":
                low, high = data.ranges["x"]
            details["range"] = f"{low} {high}"
        if method.weights == "int4":
            details["simulated"] = "the fake multiplies no 4-bit integers"
        return Artifact(folder, files, "fakery", *(model.inputs, model.outputs) * 2, details).save()

    def observe(self, model: Model, method: Method, data: Data, see: See) -> None:
        for batch in data.calibration.batches(4):
            see("x", batch[model.inputs[0].name])

    def levels(self, method: Method) -> int:
        return 256

    def inspect(self, artifact: Artifact, layers: tuple[str, ...] = ()) -> Record:
        w = np.load(artifact.path)
        layer = layers[0] if layers else ""
        integer = w.dtype == np.int8
        known = {
            "scale": (float(np.load(artifact.folder / "scale.npy")),),
            "qmin": -127,
            "qmax": 127,
        }
        weight = TensorRecord(
            "w", WEIGHT, str(w.dtype), w.shape, w.nbytes, layer=layer, **known if integer else {}
        )
        x = TensorRecord("x", ACTIVATION, "float32", (-1, 16))
        if "range" in artifact.details:
            low, high = map(float, artifact.details["range"].split())
            scale = (high - low) / 255
            zero = round(-low / scale)
            x = TensorRecord("x", ACTIVATION, "uint8", (-1, 16), 0, (scale,), (zero,), 0, 255)
        node = NodeRecord(
            "w", "matmul", MULTIPLY, "int8" if integer else "float32", macs=64, weights=w.size,
            weight_dtype=str(w.dtype), layer=layer,
        )  # fmt: skip
        return Record((x, weight), (node,))


class FakeTrainer:
    """Softmax regression by plain gradient steps; fake quantization rounds the weights."""

    def train(self, model: Model, method: Method, data: Data, course: Course) -> None:
        state = course.restore()
        w = form() / 2 if state is None else state["w"]
        if state is None:
            assert len(data.calibration) == method.samples
        for epoch in course.epochs():
            for step in course.steps(epoch):
                x = step.inputs[model.inputs[0].name]
                scores = np.exp(x @ fake_quantized(w, method))
                shares = scores / scores.sum(1, keepdims=True)
                loss = -np.log(shares[np.arange(len(x)), step.labels]).mean()
                course.record(step, float("nan") if method.route == "diverge" else float(loss))
                shares[np.arange(len(x)), step.labels] -= 1
                w = w - np.float32(step.learning_rate / len(x)) * (x.T @ shares)
            course.save(epoch, {"w": w})
            marker = course.workspace / "crashed"
            if method.route == "train-crash" and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        np.save(course.folder / "w.npy", w)
        course.finish()

    def outputs(self, model: Model, method: Method, inputs: Arrays) -> Arrays:
        w = np.load(Path(model.trained) / "w.npy")
        return {model.outputs[0].name: inputs[model.inputs[0].name] @ fake_quantized(w, method)}


def fake_quantized(w: np.ndarray, method: Method) -> np.ndarray:
    if method.training != "qat":
        return w
    scale = np.abs(w).max() / 127
    return (np.rint(w / scale) * scale).astype(np.float32)


def misbehave(route: str) -> None:
    if route == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if route == "hang":
        time.sleep(600)
    if route == "eat":
        hog = [np.ones(2_000_000) for _ in range(1000)]
        time.sleep(600 + len(hog))
    if route == "mendable" and not os.environ.get("FAKE_MENDED"):
        raise BadInput("something is missing; set FAKE_MENDED")
    if route == "error":
        raise RuntimeError("the converter gave up\nwith a second line")


class FakeRuntime:
    name = "fakery"
    factor = 1.0

    def refuse(self, target: Target, method: Method) -> str | None:
        return "the fake has no GPU" if target.device == "cuda" else None

    def environment(self, target: Target) -> dict[str, str]:
        return {"FAKE_THREADS": str(target.threads)}

    def load(self, artifact: Artifact, target: Target, batch_size: int) -> FakeSession:
        return FakeSession(artifact, batch_size, self.factor)

    def operations(self, artifact, target, inputs) -> tuple[Operation, ...]:
        dtype = str(np.load(artifact.path).dtype)
        return (
            Operation("x", "input", 0, "float32", role="input", writes={"x": 64}),
            Operation("w", "matmul", 64, dtype, "numpy", MULTIPLY, "none", 64, ("x",), {"y": 16}),
        )

    def profile(self, artifact, target, inputs, seconds) -> tuple[TimedOperation, ...]:
        """Integers are multiplied ten times slower than floats, as no fake kernel exists."""
        integer = np.load(artifact.path).dtype == np.int8
        return (
            TimedOperation("w", "matmul", "numpy", 1, 5000.0 if integer else 500.0),
            TimedOperation("", "copy", "numpy", 2, 100.0),
        )


class Unprofiled:
    """A runtime as of a plugin that tells no times."""

    name = "fakery"

    def environment(self, target: Target) -> dict[str, str]:
        return FakeRuntime().environment(target)

    def load(self, artifact: Artifact, target: Target, batch_size: int) -> FakeSession:
        return FakeRuntime().load(artifact, target, batch_size)


class OtherRuntime(FakeRuntime):
    """Computes another function: parity fails."""

    factor = 2.0


class FakeSession:
    def __init__(self, artifact: Artifact, batch_size: int, factor: float) -> None:
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self.effective = {"threads": os.environ.get("FAKE_THREADS", "?")}
        scale = np.load(artifact.folder / "scale.npy")
        self._w = np.load(artifact.path).astype(np.float32) * scale * np.float32(factor)
        self._route = artifact.details["route"]
        self._batch, self._calls = batch_size, 0
        self._last = np.empty(0)

    def bind(self, inputs) -> None:
        check_inputs(self.inputs, inputs, self._batch)
        self._x = inputs[self.inputs[0].name].copy()

    def run(self) -> None:
        self._calls += 1
        if self._route == "score-crash" or (self._route == "clock-crash" and self._is_timed()):
            os.kill(os.getpid(), signal.SIGABRT)
        if self._route == "cache" and np.array_equal(self._x, self._last):
            return
        self._last = self._x
        repeats = 20 if self._route == "slow" else 1
        for _ in range(repeats * 20):
            self._y = self._x @ self._w
        if self._route == "nan":
            self._y = self._y * np.nan
        if self._route == "noise":
            self._y = -self._y

    def _is_timed(self) -> bool:
        """Whether this is a worker of the clock, some calls after it was ready to be scored."""
        return self._calls == 60 and "batch" in Path(sys.argv[-1]).name

    def read(self):
        return {self.outputs[0].name: self._y}
