"""A fake framework with three layers, quantized for real: what sensitivity analyses are tested on.

``y = relu(relu(x @ a) @ b) @ c``. The weights of one channel of ``b`` are a hundred times larger
than the others and negative, so that this channel is always 0: harmless in float, while one scale for
all of ``b`` leaves nothing of the other channels.
The route ``crash:LAYER`` kills the worker when that layer alone is quantized.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from quantbench.backend_api import (
    ACTIVATION,
    MULTIPLY,
    WEIGHT,
    Artifact,
    Backend,
    NodeRecord,
    Operation,
    Record,
    See,
    TensorRecord,
)
from quantbench.errors import BadInput
from quantbench.spec import (
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
from quantbench.stats import affine

X, Y = TensorSpec("x", (None, 16), "float32"), TensorSpec("y", (None, 4), "float32")
LAYERS = ("a", "b", "c")
INPUT_OF = {"a": "x", "b": "ya", "c": "yb"}
TASK = Task("deep-task", (X,), "top1", "tests.harness.deep:load", "1")
MODEL = Model(
    "deep", "deep-task", (X,), (Y,), "tests.harness.deep:weights", "tests.harness.deep:state",
    {"numpy": "tests.harness.deep:state"},
)  # fmt: skip
BACKEND = Backend(
    "deepery", "tests.harness.deep:DeepQuantizer", "tests.harness.deep:DeepRuntime",
    ("numpy",), ("numpy",), "pip install numpy", ("numpy",),
    {"static-int8": {"samples": 64, "granularity": "per-tensor"}},
)  # fmt: skip


def weights() -> Path:
    return Path(__file__)


def state(path: Path | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"a": (16, 48), "b": (48, 48), "c": (48, 4)}
    made = {k: rng.normal(size=s).astype(np.float32) / 3 for k, s in shapes.items()}
    made["b"][:, 0] = -100 * np.abs(made["b"][:, 0])
    return {f"{layer}.weight": w for layer, w in made.items()}


def layers(x: np.ndarray, w: Mapping[str, np.ndarray], see: See = lambda name, batch: None):
    for layer in LAYERS:
        see(INPUT_OF[layer], x)
        x = x @ w[f"{layer}.weight"]
        if layer != "c":
            x = np.maximum(x, 0)
    return x


def load(split: str) -> Samples:
    rng = np.random.default_rng({"calibration": 1, "test": 2, "train": 3}[split])
    x = rng.normal(size=({"calibration": 256, "test": 400}[split], 16)).astype(np.float32)
    return Samples({"x": x}, layers(x, state()).argmax(axis=1))


def quantizes(method: Method, layer: str) -> bool:
    if method.scales == "none":
        return False
    chosen = not method.only or any(fnmatch(layer, p) for p in method.only)
    return chosen and not any(fnmatch(layer, p) for p in method.keep_float)


class DeepQuantizer:
    name = "deepery"
    takes: Mapping[str, str] = {"numpy": ""}

    def refuse(self, model: Model, method: Method) -> str | None:
        if method.name not in ("fp32", "static-int8"):
            return f"the fake has no {method.name}; use static-int8"
        if method.int4_weights:
            return "the fake has no 4-bit weights; use int8"
        if method.calibrator == "entropy":
            return "the fake has no entropy; use mse"
        return None

    def form(self, method: Method) -> str:
        return "numpy"

    def layers(self, model: Model) -> tuple[str, ...]:
        return LAYERS

    def observe(self, model: Model, method: Method, data: Data, see: See) -> None:
        for batch in data.calibration.batches(32):
            layers(batch["x"], state(), see)

    def quantize(self, model: Model, method: Method, data: Data, folder: Path) -> Artifact:
        if method.only and method.route == f"crash:{method.only[0]}":
            os.kill(os.getpid(), signal.SIGSEGV)
        if method.route == f"bad:{','.join(method.only)}":
            raise BadInput("this layer cannot be quantized alone; take another")
        ranges = dict(data.ranges)
        if method.ranges == "native" and method.scales == "static":
            seen: dict[str, list[np.ndarray]] = {}
            self.observe(model, method, data, lambda n, x: seen.setdefault(n, []).append(x))
            ranges = {n: (float(np.min(v)), float(np.max(v))) for n, v in seen.items()}
        arrays: dict[str, np.ndarray] = {}
        for layer in LAYERS:
            w = state()[f"{layer}.weight"]
            if quantizes(method, layer) and method.parts != "activations":
                axis = 1 if method.granularity == "per-channel" else None
                low, high = affine.min_max(w, axis=axis)
                found = affine.from_range(low, high, affine.Grid(8), symmetric=True, axis=axis)
                arrays[f"{layer}.q"] = affine.quantize(w, found)
                arrays[f"{layer}.scale"] = np.asarray(found.scale)
            else:
                arrays[f"{layer}.w"] = w
            if quantizes(method, layer) and method.parts != "weights":
                low, high = ranges[INPUT_OF[layer]]
                scale = (max(high, 0.0) - min(low, 0.0)) / 255
                arrays[f"{layer}.in"] = np.array([scale, round(-min(low, 0.0) / scale)])
        np.savez(folder / "deep.npz", **arrays)
        details = {"layers": json.dumps(LAYERS)}
        return Artifact(folder, ("deep.npz",), "deepery", (X,), (Y,), (X,), (Y,), details).save()

    def activations(self, artifact: Artifact, inputs: Arrays, see: See) -> None:
        session = DeepSession(artifact, len(inputs["x"]))
        session.bind(inputs)
        session.run(see)

    def levels(self, method: Method) -> int:
        return 256

    def inspect(self, artifact: Artifact, layers: tuple[str, ...] = ()) -> Record:
        file = np.load(artifact.path)
        tensors, nodes = [], []
        for layer in LAYERS:
            known = {"qmin": 0, "qmax": 255}
            if f"{layer}.in" in file:
                scale, zero = (float(n) for n in file[f"{layer}.in"])
                tensors.append(
                    TensorRecord(
                        INPUT_OF[layer], ACTIVATION, "uint8", (-1, 16), 0, (scale,), (int(zero),),
                        layer=layer, **known,
                    )
                )  # fmt: skip
            integer = f"{layer}.q" in file
            w = file[f"{layer}.q"] if integer else file[f"{layer}.w"]
            grid = {"qmin": -128, "qmax": 127} if integer else {}
            scales = np.ravel(file[f"{layer}.scale"]) if integer else ()
            tensors.append(
                TensorRecord(
                    f"{layer}.weight", WEIGHT, str(w.dtype), w.shape, w.nbytes,
                    tuple(map(float, scales)), (0,) * len(scales), layer=layer,
                    axis=1 if len(scales) > 1 else None, **grid,
                )
            )  # fmt: skip
            nodes.append(
                NodeRecord(
                    layer, "matmul", MULTIPLY,
                    "uint8" if integer and f"{layer}.in" in file else "float32", "static",
                    w.size, w.size, str(w.dtype), layer,
                )
            )  # fmt: skip
        return Record(tuple(tensors), tuple(nodes))


class DeepRuntime:
    name = "deepery"

    def refuse(self, target: Target, method: Method) -> str | None:
        return None

    def environment(self, target: Target) -> dict[str, str]:
        return {}

    def load(self, artifact: Artifact, target: Target, batch_size: int) -> DeepSession:
        return DeepSession(artifact, batch_size)

    def operations(self, artifact, target, inputs) -> tuple[Operation, ...]:
        return (Operation("abc", "matmul", 3264, "float32", "numpy", MULTIPLY),)


class DeepSession:
    def __init__(self, artifact: Artifact, batch_size: int) -> None:
        self.inputs, self.outputs, self.effective = (X,), (Y,), {}
        file = np.load(artifact.path)
        self._file = {name: file[name] for name in file.files}
        self._batch = batch_size

    def bind(self, inputs: Arrays) -> None:
        check_inputs(self.inputs, inputs, self._batch)
        self._x = inputs["x"].copy()

    def run(self, see: See = lambda name, batch: None) -> None:
        x = self._x
        for layer in LAYERS:
            if f"{layer}.in" in self._file:
                scale, zero = self._file[f"{layer}.in"]
                x = ((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)
            see(INPUT_OF[layer], x)
            if f"{layer}.q" in self._file:
                w = self._file[f"{layer}.q"].astype(np.float32) * self._file[f"{layer}.scale"]
            else:
                w = self._file[f"{layer}.w"]
            x = (x @ w).astype(np.float32)
            if layer != "c":
                x = np.maximum(x, 0)
        self._y = x

    def read(self) -> Arrays:
        return {"y": self._y}
