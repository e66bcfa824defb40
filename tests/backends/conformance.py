"""Conformance: what every backend must do, as one class of tests that each backend subclasses.

A subclass states which cells (kind of layer x method) work and what they execute, what is refused,
and how the framework is called plainly; it changes no test.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from quantbench.backend_api import (
    Artifact,
    Backend,
    Course,
    Quantizer,
    Runtime,
    Session,
    TensorRecord,
    Transparent,
    integer_macs_fraction,
    midmean,
    missing_packages,
)
from quantbench.backend_api.artifact import MANIFEST
from quantbench.backend_api.registry import converter
from quantbench.errors import BadArtifact, BadInput, QuantbenchError
from quantbench.spec import (
    PRESETS,
    Array,
    Arrays,
    Data,
    Method,
    Model,
    Samples,
    Target,
    presets,
)
from quantbench.stats import sqnr_db
from quantbench.system import COMMON_ENVIRONMENT, locate
from tests.backends.asking import CALIBRATION, method_of
from tests.backends.samples import SAMPLES, Sample, numpy_forms

ROOT = Path(__file__).parents[2]


CPU = Target("cpu-1")


TRAINING = 64


COUNT = 32  # samples that a cell is judged on


HEAVY = frozenset(
    {
        "torch", "tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "onnx",
        "onnxruntime", "ai_edge_litert", "pandas", "pydantic", "pyarrow", "scipy", "sklearn",
        "matplotlib",
    }
)  # fmt: skip
"""What a process on a device must not import, but for the runtime itself."""


Built = Callable[[Backend, str, Method], Artifact]


@dataclass(frozen=True, slots=True)
class Newer(Method):
    """A method of a later version, with an axis that no backend of today knows."""

    smoothing: float = 0.0


@dataclass(frozen=True)
class Cell:
    """A sample and a method that a backend must build and run.

    Parameters
    ----------
    sample, method, axes
        Which sample; which preset, with which axes instead of the backend's defaults.
    floor_db : float
        Least signal-to-noise ratio of each output, against the NumPy form in float64.
    floats : tuple of str or None
        Layers whose multiplications stay on floats; None for all.
    weights : str
        Dtype in which the file holds the weights of the layers that are not in ``floats``, or of
        all layers where all are.
    left : tuple of str or None
        Layers whose weights the file leaves in float32, where those are not ``floats``.
    """

    sample: str
    method: str
    floor_db: float
    weights: str
    floats: tuple[str, ...] | None = ()
    axes: Mapping[str, Any] = field(default_factory=dict)
    left: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return "-".join([self.sample, self.method, *(f"{k}={v}" for k, v in self.axes.items())])

    @property
    def stored(self) -> tuple[str, ...]:
        """Layers whose weights the file holds as ``weights``."""
        left = (self.floats or ()) if self.left is None else self.left
        return tuple(n for n in SAMPLES[self.sample].layers if n not in left)

    @property
    def integer_fraction(self) -> float:
        """Share of the sample's multiply-accumulates that is done on integers."""
        sample = SAMPLES[self.sample]
        floats = sample.layers if self.floats is None else self.floats
        integer = [layer for layer in sample.layers if layer not in floats]
        return sum(map(sample.macs, integer)) / sum(map(sample.macs, sample.layers))


def grid(
    method: str,
    floor_db: float,
    weights: str,
    floats: tuple[str, ...] | Mapping[str, tuple[str, ...] | None] | None = (),
    left: Mapping[str, tuple[str, ...]] | None = None,
    axes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Cell]:
    """A method's cells for every sample; ``floats`` may differ by sample, None where it does nothing.

    ``left`` and ``axes`` of a cell are by sample too, where they are not the usual ones.
    """
    for name in SAMPLES:
        kept = floats.get(name, ()) if isinstance(floats, Mapping) else floats
        no_op = kept is None and isinstance(floats, Mapping)
        yield Cell(
            name, method, floor_db, "float32" if no_op else weights, kept,
            (axes or {}).get(name, {}), None if left is None else left.get(name, ()),
        )  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """Something that a framework cannot do, and an attempt to make it do that all the same.

    Parameters
    ----------
    says : str
        Words of the backend's reason.
    attempt : callable
        Asks the framework itself, without this project's code, given a fresh folder.
    fails, match
        The exception that the attempt ends in; or
    gives : object
        what it returns, which shows that the framework did something else.
    method, axes : str, mapping
        The preset, and the axes that differ from the backend's defaults.
    target : Target or None
        What the runtime is asked for, instead of the quantizer.
    """

    says: str
    attempt: Callable[[Path], object]
    fails: type[BaseException] | tuple[type[BaseException], ...] | None = None
    match: str | None = None
    gives: object = None
    method: str = "fp32"
    axes: Mapping[str, Any] = field(default_factory=dict)
    target: Target | None = None

    def __str__(self) -> str:
        where = [self.target.name] if self.target else []
        return "-".join([self.method, *(f"{k}={v}" for k, v in self.axes.items()), *where])


@dataclass(frozen=True)
class NotBuilt:
    """A preset, or an axis of one, that only this version of quantbench does not build."""

    method: str
    axes: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.method, *(f"{k}={v}" for k, v in self.axes.items())])


class Conformance:
    """The suite. Subclasses give the tables and `plain_call`."""

    backend: Backend
    cells: tuple[Cell, ...]
    refusals: tuple[Refusal, ...]
    not_built: tuple[NotBuilt, ...]
    by_definition: tuple[str, ...]
    """Words of refusals that hold by what a preset is, such as scales of a float method."""
    applied: ClassVar[Mapping[str, Mapping[str, str]]]
    """Target preset -> what ``session.effective`` must say; those missing are refused."""
    unoptimized: tuple[float, Mapping[str, str]]
    """Without graph optimization: static-int8's share of integer MACs, and what ``effective`` says."""

    @staticmethod
    def plain_call(artifact: Artifact, sample: Sample, inputs: Arrays) -> Arrays:
        """Outputs by name, computed by the framework itself in the shortest way."""
        raise NotImplementedError

    # --- what the tests work with ---

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        missing = missing_packages(self.backend.build_packages + self.backend.run_packages)
        if missing:
            pytest.skip(f"{', '.join(missing)} is not installed; {self.backend.install}")

    @pytest.fixture
    def quantizer(self) -> Quantizer:
        return locate(self.backend.quantizer)()

    @pytest.fixture
    def runtime(self) -> Runtime:
        return locate(self.backend.runtime)()

    @pytest.fixture
    def artifact(self, built: Built) -> Callable[..., Artifact]:
        """A function of sample, preset and axes."""
        return lambda sample, name, **axes: built(self.backend, sample, self.method(name, **axes))

    @pytest.fixture
    def session(self, artifact: Callable[..., Artifact], runtime: Runtime):
        """A session of the sample with two inputs and two outputs, for two samples a call."""
        return runtime.load(artifact("pair", "fp32"), CPU, 2)

    @classmethod
    def method(cls, name: str, **axes: Any) -> Method:
        return method_of(cls.backend, name, axes)

    @property
    def presets(self) -> list[str]:
        """The presets that the backend builds."""
        return list(dict.fromkeys(cell.method for cell in self.cells))

    # --- the description ---

    def test_the_backend_is_described_without_its_framework(self, quantizer, runtime):
        assert quantizer.name == runtime.name == self.backend.name
        assert self.backend.install.startswith("pip install ")
        assert set(self.backend.methods) <= set(PRESETS)
        for name in self.presets:
            assert quantizer.refuse(SAMPLES["conv"].model, self.method(name)) is None

    def test_the_table_of_cells_covers_every_kind_of_layer(self):
        assert {"fp32", "fp16", "dynamic-int8", "static-int8"} <= set(self.presets)
        for name in self.presets:
            assert {cell.sample for cell in self.cells if cell.method == name} == set(SAMPLES)

    @pytest.mark.parametrize("name", SAMPLES)
    def test_layers_have_their_canonical_names(self, quantizer, tmp_path, name):
        model = with_form(self.backend, SAMPLES[name].model, self.method("fp32"), tmp_path)

        assert sorted(quantizer.layers(model)) == sorted(SAMPLES[name].layers)

    # --- cells ---

    def test_a_cell_gives_the_model_s_outputs(self, cell, built, runtime):
        sample = SAMPLES[cell.sample]
        artifact = built(self.backend, cell.sample, self.method(cell.method, **cell.axes))
        inputs = sample.inputs(COUNT)

        session = runtime.load(artifact, CPU, COUNT)
        outputs = outputs_of(session, inputs)

        assert list(outputs) == [spec.name for spec in sample.model.outputs]
        reference = numpy_forms.outputs(cell.sample, inputs)
        for spec in sample.model.outputs:
            array = outputs[spec.name]
            assert array.shape == (COUNT, *spec.shape[1:])
            assert array.dtype == spec.dtype
            assert np.isfinite(array).all()
            assert sqnr_db(reference[spec.name], array) > cell.floor_db
        names = [spec.name for spec in sample.model.inputs]
        assert [spec.name for spec in session.inputs] == names
        assert [spec.name for spec in session.outputs] == list(outputs)

    def test_a_cell_executes_what_the_table_says(self, cell, built, runtime):
        sample = SAMPLES[cell.sample]
        artifact = built(self.backend, cell.sample, self.method(cell.method, **cell.axes))

        operations = runtime.operations(artifact, CPU, sample.inputs(1))

        assert sum(op.macs for op in operations) == sum(map(sample.macs, sample.layers))
        assert integer_macs_fraction(operations) == pytest.approx(cell.integer_fraction)

    def test_a_cell_stores_what_the_table_says(self, cell, built, quantizer):
        sample = SAMPLES[cell.sample]
        artifact = built(self.backend, cell.sample, self.method(cell.method, **cell.axes))

        record = quantizer.inspect(artifact)

        stored = sum(map(sample.elements, cell.stored)) * item_size(cell.weights)
        # beside weights: scales, zero points, biases and batch norms, a few numbers per channel
        channels = sum(sample.shapes[f"{n}.weight"][0] for n in sample.layers)
        found = record.weight_bytes.get(cell.weights, 0)
        assert stored <= found <= stored + 8 * channels * item_size(cell.weights)
        rest = sum(sample.elements(n) for n in sample.layers if n not in cell.stored) * 4
        others = sum(record.weight_bytes.values()) - found
        groups = sum(map(sample.elements, cell.stored)) // 32 if item_size(cell.weights) < 1 else 0
        assert rest <= others <= rest + 40 * channels + 8 * groups
        assert sum(record.weight_bytes.values()) <= artifact.size_bytes
        assert all(count > 0 for count in record.operators.values())

    @pytest.mark.parametrize("sample", ["conv", "pair", "residual"])
    def test_outputs_equal_the_framework_s_own_plain_call(self, artifact, runtime, sample):
        inputs = SAMPLES[sample].inputs(3)
        for name in self.presets:
            made = artifact(sample, name)

            ours = outputs_of(runtime.load(made, CPU, 3), inputs)
            plain = self.plain_call(made, SAMPLES[sample], inputs)

            assert list(plain) == list(ours)
            for key, array in plain.items():
                # the same file in the same kernels; a plain call may split the work otherwise
                np.testing.assert_allclose(ours[key], array, rtol=1e-6, atol=1e-6, err_msg=name)

    def test_a_batch_gives_what_its_samples_give_one_by_one(self, artifact, runtime):
        inputs = SAMPLES["pair"].inputs(3)
        made = artifact("pair", "fp32")

        together = outputs_of(runtime.load(made, CPU, 3), inputs)

        single = runtime.load(made, CPU, 1)
        for i in range(3):
            alone = outputs_of(single, {name: array[i : i + 1] for name, array in inputs.items()})
            for name, array in alone.items():
                # kernels for another batch size add float32 in another order
                np.testing.assert_allclose(together[name][i : i + 1], array, rtol=1e-5, atol=1e-5)

    # --- profile ---

    def test_a_profile_has_the_time_of_every_multiplication_that_is_executed(
        self, artifact, runtime
    ):
        inputs = SAMPLES["larger"].inputs(1)
        for name in self.presets:
            made = artifact("larger", name)
            executed = runtime.operations(made, CPU, inputs)

            timed = runtime.profile(made, CPU, inputs, 0.05)

            names = Counter(one.name for one in timed if one.name)
            assert max(names.values()) == 1, name
            assert set(names) <= {op.name for op in executed}, name
            # what a compiler generated multiplies what no operator that it calls does
            assert {op.name for op in executed if op.macs} <= set(names), name
            engines = {op.name: (op.kind, op.engine) for op in executed}
            assert all((t.kind, t.engine) == engines[t.name] for t in timed if t.name), name
            assert all(one.nanoseconds >= 0 and one.count >= 1 for one in timed), name

    def test_the_times_of_a_profile_are_those_of_a_call(self, artifact, runtime):
        inputs = SAMPLES["larger"].inputs(1)
        for name in self.presets:
            made = artifact("larger", name)
            session = runtime.load(made, CPU, 1)
            session.bind(inputs)

            told = sum(one.nanoseconds for one in runtime.profile(made, CPU, inputs, 0.05))

            call = midmean([nanoseconds_of(session.run) for _ in range(200)])
            # on calls of some tens of microseconds, noting an operator takes as long as it does
            assert 0.1 < told / call < 10, name

    # --- bad input ---

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda x: {"image": x["image"]}, ["features"]),
            (lambda x: {**x, "imagen": x["image"]}, ["imagen"]),
            (lambda x: {}, ["image", "features"]),
            (lambda x: {**x, "image": x["image"].astype("float64")}, ["image", "float64"]),
            (lambda x: {**x, "image": x["image"].astype("uint8")}, ["image", "uint8"]),
            (lambda x: {**x, "image": x["image"][0]}, ["image", "(3, 12, 10)"]),
            (lambda x: {**x, "image": x["image"].transpose(0, 2, 3, 1)}, ["image", "12, 10, 3"]),
            (lambda x: {**x, "features": x["features"][:, :9]}, ["features", "(2, 9)"]),
            (lambda x: {**x, "features": x["features"][:1]}, ["features", "batch_size=2"]),
            (lambda x: {**x, "image": x["image"].repeat(2, 0)}, ["image", "batch_size=2"]),
            (lambda x: {**x, "image": x["image"][:0]}, ["image", "batch_size=2"]),
        ],
        ids=[
            "missing", "unknown", "none", "double", "integers", "no-batch", "other-layout",
            "too-short", "one-sample", "four-samples", "no-samples",
        ],
    )  # fmt: skip
    def test_inputs_that_do_not_fit_are_bad_input(self, session, spoil, words):
        inputs = SAMPLES["pair"].inputs(2)

        with pytest.raises(BadInput) as raised:
            session.bind(spoil(inputs))

        message = str(raised.value)
        assert "\n" not in message
        for word in words:
            assert word in message

    def test_a_session_survives_bad_input(self, session):
        inputs = SAMPLES["pair"].inputs(2)
        before = outputs_of(session, inputs)
        with pytest.raises(BadInput):
            session.bind({**inputs, "features": inputs["features"][:, :9]})

        session.run()

        assert_equal(session.read(), before)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_calibration_samples_must_be_finite(self, quantizer, tmp_path, value):
        (tmp_path / "form").mkdir()
        model = with_form(
            self.backend, SAMPLES["conv"].model, self.method("static-int8"), tmp_path / "form"
        )
        images = SAMPLES["conv"].inputs(CALIBRATION)["image"].copy()
        images[5, 1, 2, 3] = value
        data = Data(Samples({"image": images}, np.zeros(CALIBRATION)), None, 0)

        with pytest.raises(BadInput, match="image") as raised:
            quantizer.quantize(model, self.method("static-int8"), data, tmp_path / "built")
        assert "\n" not in str(raised.value)

    def test_weights_must_be_numbers(self, tmp_path):
        spoiled = dataclasses.replace(
            SAMPLES["conv"].model, state="tests.backends.samples:spoiled_state"
        )

        def convert_and_build() -> None:
            model = with_form(self.backend, spoiled, self.method("fp32"), tmp_path)
            build(self.backend, model, self.method("fp32"), tmp_path / "built")

        (tmp_path / "built").mkdir()
        with pytest.raises(BadInput, match="NaN") as raised:
            convert_and_build()
        assert "\n" not in str(raised.value)

    # --- bind, run, read ---

    def test_bind_copies(self, session):
        inputs = SAMPLES["pair"].inputs(2)
        expected = outputs_of(session, inputs)
        mutable = {name: array.copy() for name, array in inputs.items()}

        session.bind(mutable)
        for array in mutable.values():
            array[...] = 7
        session.run()

        assert_equal(session.read(), expected)

    def test_bind_takes_views_and_read_only_arrays(self, session):
        inputs = SAMPLES["pair"].inputs(2)
        expected = outputs_of(session, inputs)
        views = {
            "image": np.asfortranarray(inputs["image"]),
            "features": np.repeat(inputs["features"], 2, axis=1)[:, ::2],
        }
        for array in views.values():
            array.setflags(write=False)

        assert_equal(outputs_of(session, views), expected)

    def test_run_again_gives_the_same_outputs_without_binding_again(self, artifact, runtime):
        for name in self.presets:
            session = runtime.load(artifact("pair", name), CPU, 2)
            first = outputs_of(session, SAMPLES["pair"].inputs(2))

            session.run()

            assert_equal(session.read(), first)

    # --- activations, where the quantizer is `Transparent` ---

    def test_a_float_file_has_no_error_against_itself(self, artifact, quantizer, runtime):
        made, inputs = artifact("linear", "fp32"), SAMPLES["linear"].inputs(40)

        once, again = shown(quantizer, made, inputs), shown(quantizer, made, inputs)

        assert list(once) == list(again)
        for name, values in once.items():
            assert sqnr_db(values, again[name]) == np.inf
        outputs = outputs_of(runtime.load(made, CPU, 40), inputs)
        # float32 sums of 128 products, in another order where the runtime optimizes
        np.testing.assert_allclose(list(once.values())[-1], outputs["logits"], rtol=1e-4, atol=1e-5)

    def test_an_activation_is_what_quantizing_by_hand_gives(self, artifact, quantizer):
        """The first layer, in the whole quantized model: its input, weights and output rounded."""
        sample, made = SAMPLES["linear"], artifact("linear", "static-int8")
        # nothing beyond the ranges: PyTorch's operators give 8 bits where its observers chose 7
        inputs = calibration("linear", CALIBRATION).calibration.inputs
        record = quantizer.inspect(made, sample.layers)
        quantized = [t for t in record.tensors if t.levels and len(t.scale) == 1]
        entering = next(t for t in quantized if t.role in ("input", "activation"))
        leaving = next(t for t in quantized if t.role == "activation" and t.layer == "first")
        weight = next(t for t in record.tensors if t.role == "weight" and t.layer == "first")
        layer_of = {t.name: t.layer for t in record.tensors}

        found = shown(quantizer, made, inputs)

        own = next(values for name, values in found.items() if layer_of.get(name) == "first")
        state = numpy_forms.state(numpy_forms.weights("linear"))
        x = rounded(inputs["features"], entering)
        w = rounded(state["first.weight"], weight)
        full = np.maximum(x @ w.T + state["first.bias"], 0)
        steps = np.abs(own - rounded(full, leaving)) / leaving.scale[0]
        # what lies at a tie is rounded to either side, by a bias in integers too: a step, of few values
        assert steps.max() < 1.01
        assert (steps > 0.01).mean() < 0.02
        # and so the error is the one that rounding by hand makes
        floats = np.maximum(inputs["features"] @ state["first.weight"].T + state["first.bias"], 0)
        by_hand = sqnr_db(floats, rounded(full, leaving))
        assert sqnr_db(floats, own) == pytest.approx(by_hand, abs=0.1)

    def test_other_inputs_give_other_outputs(self, artifact, runtime):
        for name in self.presets:
            session = runtime.load(artifact("pair", name), CPU, 2)
            first = outputs_of(session, SAMPLES["pair"].inputs(2, seed=1))
            second = outputs_of(session, SAMPLES["pair"].inputs(2, seed=2))

            for key, array in first.items():
                assert not np.array_equal(second[key], array)

    def test_read_gives_arrays_of_the_caller_s_own(self, session):
        inputs = SAMPLES["pair"].inputs(2)
        first = outputs_of(session, inputs)
        expected = {name: array.copy() for name, array in first.items()}

        for array in first.values():
            array[...] = 7

        assert_equal(session.read(), expected)
        session.run()
        assert_equal(session.read(), expected)

    def test_two_sessions_of_one_artifact_do_not_share_buffers(self, artifact, runtime):
        made = artifact("pair", "fp32")
        one, other = runtime.load(made, CPU, 2), runtime.load(made, CPU, 2)
        expected = outputs_of(one, SAMPLES["pair"].inputs(2, seed=1))

        other.bind(SAMPLES["pair"].inputs(2, seed=2))
        one.run()
        other.run()

        assert_equal(one.read(), expected)

    def test_run_allocates_no_array_of_an_input_s_size(self, artifact, runtime):
        inputs = SAMPLES["larger"].inputs(16)
        size = inputs["photo"].nbytes
        assert allocated_by(inputs["photo"].copy) >= size  # the probe sees a copy

        for name in self.presets:
            session = runtime.load(artifact("larger", name), CPU, 16)
            session.bind(inputs)
            session.run()

            assert allocated_by(session.run) < size / 8, name

    def test_run_converts_and_copies_nothing(self, artifact, runtime):
        inputs = SAMPLES["pair"].inputs(2)
        for name in self.presets:
            session = runtime.load(artifact("pair", name), CPU, 2)
            assert CONVERSIONS & called_by(lambda s=session: s.bind(inputs))  # the probe sees them

            assert not CONVERSIONS & called_by(session.run), name

            assert CONVERSIONS & called_by(session.read)

    # --- processes of their own ---

    def test_a_fresh_process_gives_the_same_outputs_with_nothing_but_the_runtime(
        self, artifact, runtime, tmp_path
    ):
        inputs = SAMPLES["pair"].inputs(2)
        made = [artifact("pair", name) for name in self.presets]

        found, modules, _ = run_apart(self.backend, made, CPU, inputs, tmp_path)

        own = {module.partition(".")[0] for module in self.backend.run_modules}
        assert modules & HEAVY == own & HEAVY
        for each, outputs in zip(made, found, strict=True):
            assert_equal(outputs, outputs_of(runtime.load(each, CPU, 2), inputs))

    @pytest.mark.long
    def test_a_fresh_process_builds_the_same_bytes(self, artifact, tmp_path):
        here = {name: artifact("pair", name).sha256 for name in self.presets}

        code = (
            "import json, sys; from pathlib import Path\n"
            "from quantbench.backend_api.registry import backend\n"
            "from tests.backends.conformance import build, method_of, with_form\n"
            "from tests.backends.samples import SAMPLES\n"
            "chosen, folder, hashes = backend(sys.argv[1]), Path(sys.argv[2]), {}\n"
            "for name in sys.argv[3:]:\n"
            "    method, target = method_of(chosen, name, {}), folder / name\n"
            "    model = with_form(chosen, SAMPLES['pair'].model, method, target / 'form')\n"
            "    (target / 'made').mkdir()\n"
            "    made = build(chosen, model, method, target / 'made')\n"
            "    hashes[name] = dict(made.sha256)\n"
            "print(json.dumps(hashes))\n"
        )
        there = apart(code, self.backend.name, str(tmp_path), *self.presets)

        assert there == here

    # --- damaged files ---

    @pytest.mark.parametrize("left", [0.0, 0.5, 0.99], ids=["empty", "half", "end-missing"])
    def test_a_truncated_file_is_a_bad_artifact(self, artifact, runtime, tmp_path, left):
        for name in self.presets:
            folder = copy_of(artifact("conv", name), tmp_path / name)
            path = Artifact.open(folder).path
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * left)])

            with pytest.raises(BadArtifact, match="truncated or altered") as raised:
                Artifact.open(folder)
            assert one_line(raised.value)
            with pytest.raises(BadArtifact) as raised:  # the runtime alone, without hashes
                runtime.load(Artifact.open(folder, verify=False), CPU, 1)
            assert one_line(raised.value)

    def test_an_altered_byte_is_a_bad_artifact(self, artifact, tmp_path):
        folder = copy_of(artifact("conv", "static-int8"), tmp_path / "copy")
        path = Artifact.open(folder).path
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

        with pytest.raises(BadArtifact, match="truncated or altered") as raised:
            Artifact.open(folder)
        assert one_line(raised.value)

    @pytest.mark.parametrize("which", ["manifest", "file"])
    def test_a_missing_file_is_a_bad_artifact(self, artifact, tmp_path, which):
        folder = copy_of(artifact("conv", "fp32"), tmp_path / "copy")
        (folder / MANIFEST if which == "manifest" else Artifact.open(folder).path).unlink()

        with pytest.raises(BadArtifact) as raised:
            Artifact.open(folder)
        assert one_line(raised.value)

    # --- targets ---

    @pytest.mark.parametrize("name", ["cpu-1", "cpu-all", "cpu-avx2", "cpu-reference", "cuda"])
    def test_a_target_is_applied_or_refused(self, artifact, runtime, tmp_path, name):
        target = dataclasses.replace(presets()[name], affinity=())
        if name == "cpu-all":
            target = dataclasses.replace(target, threads=2)  # also where there is one core only
        reason = runtime.refuse(target, self.method("static-int8"))
        if name not in self.applied:
            assert reason is not None
            return
        if reason is not None and name == "cpu-avx2":
            assert "this CPU has no AVX2" in reason
            pytest.skip(reason)
        assert reason is None
        inputs = SAMPLES["conv"].inputs(COUNT)

        (outputs,), _, effective = run_apart(
            self.backend, [artifact("conv", "static-int8")], target, inputs, tmp_path
        )

        expected = {"threads": str(target.threads), **self.applied[name]}
        assert {key: effective.get(key) for key in expected} == expected
        reference = numpy_forms.outputs("conv", inputs)["logits"]
        assert sqnr_db(reference, outputs["logits"]) > 20

    def test_optimization_is_switched_off_where_the_target_says_so(self, artifact, runtime):
        made, inputs = artifact("residual", "static-int8"), SAMPLES["residual"].inputs(1)
        plain = Target("plain", optimize=False)
        fraction, effective = self.unoptimized

        session = runtime.load(made, plain, 1)

        usual = runtime.load(made, CPU, 1).effective
        assert {key: session.effective[key] for key in effective} == effective
        assert {key: usual[key] for key in effective} != effective
        operations = runtime.operations(made, plain, inputs)
        assert integer_macs_fraction(operations) == fraction
        assert sqnr_db(outputs_of(runtime.load(made, CPU, 1), inputs)["map"],
                       outputs_of(session, inputs)["map"]) > 25  # fmt: skip

    # --- refusals ---

    @pytest.fixture(scope="class")
    @classmethod
    def asked(cls) -> tuple[Mapping[str, str], frozenset[str]]:
        """Reasons for every preset with every axis changed, and what asking has imported."""
        code = (
            "import json, sys\n"
            "from quantbench.backend_api.registry import backend\n"
            "from tests.backends.asking import every_reason\n"
            "reasons = every_reason(backend(sys.argv[1]))\n"
            "print(json.dumps([reasons, sorted({m.partition('.')[0] for m in sys.modules})]))\n"
        )
        reasons, modules = apart(code, cls.backend.name)
        return reasons, frozenset(modules)

    def test_asking_imports_no_framework(self, asked):
        _, modules = asked

        assert not modules & HEAVY

    def test_an_axis_that_it_does_not_know_is_refused(self, quantizer):
        model = SAMPLES["conv"].model
        for name in self.presets:
            known = self.method(name)
            axes = {f.name: getattr(known, f.name) for f in dataclasses.fields(known)}

            assert quantizer.refuse(model, Newer(**axes)) == quantizer.refuse(model, known)
            reason = quantizer.refuse(model, Newer(**axes, smoothing=0.5)) or ""
            assert reason.startswith("smoothing is 0.5"), name

    def test_every_preset_is_built_or_refused(self, quantizer):
        model = SAMPLES["conv"].model

        taken = {name for name in PRESETS if quantizer.refuse(model, self.method(name)) is None}

        assert taken == set(self.presets)

    def test_every_reason_is_one_sentence_with_a_way_out(self, asked):
        reasons, _ = asked

        for reason in reasons.values():
            assert "\n" not in reason
            assert reason == reason.strip()
            assert "; use " in reason

    def test_every_reason_is_the_framework_s_or_ours_and_says_which(self, asked):
        reasons, _ = asked
        known = [r.says for r in self.refusals if r.target is None] + list(self.by_definition)

        unknown = {
            reason: which
            for which, reason in reasons.items()
            if "quantbench" not in reason and not any(words in reason for words in known)
        }

        assert not unknown

    def test_a_refusal_says_what_it_is_about(self, refusal, quantizer, runtime):
        method = self.method(refusal.method, **refusal.axes)

        if refusal.target is None:
            reason = quantizer.refuse(SAMPLES["conv"].model, method)
        else:
            reason = runtime.refuse(refusal.target, method)

        assert reason is not None
        assert refusal.says in reason

    def test_the_framework_itself_does_not_do_what_is_refused(self, refusal, tmp_path):
        if refusal.fails is None:
            assert refusal.attempt(tmp_path) == refusal.gives
        else:
            with pytest.raises(refusal.fails, match=refusal.match):
                refusal.attempt(tmp_path)

    def test_what_only_this_version_does_not_build_says_so(self, unbuilt, quantizer):
        reason = quantizer.refuse(
            SAMPLES["conv"].model, self.method(unbuilt.method, **unbuilt.axes)
        )

        assert reason is not None
        assert "quantbench" in reason

    def test_a_refused_method_is_not_built(self, quantizer, tmp_path):
        data = calibration("conv", 0)
        method = next(self.method(n) for n in PRESETS if n not in self.presets)

        with pytest.raises(QuantbenchError):
            quantizer.quantize(SAMPLES["conv"].model, method, data, tmp_path)

        assert not list(tmp_path.iterdir())


def with_form(backend: Backend, model: Model, method: Method, folder: Path) -> Model:
    """The model trained if the method asks for it, with the form that the method starts from."""
    folder.mkdir(parents=True, exist_ok=True)
    if method.training != "ptq":
        model = trained(backend, model, method, folder / "trained")
    wanted = locate(backend.quantizer)().form(method)
    if wanted in model.forms:
        return model
    for source in model.forms:
        if found := converter(source, wanted):
            path = locate(found.convert)(model, folder)
            return dataclasses.replace(model, forms={**model.forms, wanted: str(path)})
    raise AssertionError(f"nothing converts a form of {model.name} to {wanted}")


def trained(backend: Backend, model: Model, method: Method, folder: Path) -> Model:
    """The model after the method's training, towards what its float form gives."""
    folder.mkdir()
    inputs = SAMPLES[model.name].inputs(TRAINING, seed=2)
    wanted = numpy_forms.outputs(model.name, inputs)[model.outputs[0].name]
    samples = Samples(inputs, wanted.astype(np.float32))
    layouts = {spec.name: spec.layout for spec in model.inputs}
    course = Course(method, samples, layouts, "mean-squared-error", folder, folder / "workspace")
    known = calibration(model.name, method.samples)
    data = Data(known.calibration, samples, method.seed)
    locate(backend.trainer)().train(model, method, data, course)
    return dataclasses.replace(model, trained=str(folder))


def build(backend: Backend, model: Model, method: Method, folder: Path) -> Artifact:
    """The artifact, built as the engine builds it: asked first, then with exactly the samples."""
    quantizer: Quantizer = locate(backend.quantizer)()
    assert quantizer.refuse(model, method) is None
    return quantizer.quantize(model, method, calibration(model.name, method.samples), folder)


def calibration(sample: str, count: int) -> Data:
    return Data(Samples(SAMPLES[sample].inputs(count, seed=0), np.zeros(count)), None, 0)


def outputs_of(session: Session, inputs: Arrays) -> Arrays:
    session.bind(inputs)
    session.run()
    return session.read()


def shown(quantizer: Any, artifact: Artifact, inputs: Arrays) -> dict[str, Array]:
    """What a `Transparent` quantizer shows, by name, all batches in one."""
    assert isinstance(quantizer, Transparent)
    batches: dict[str, list[Array]] = {}
    quantizer.activations(
        artifact, inputs, lambda name, values: batches.setdefault(name, []).append(values.copy())
    )
    return {name: np.concatenate(values) for name, values in batches.items()}


def rounded(values: Array, grid: TensorRecord) -> Array:
    """Real values on a grid: one scale, or one for each row of a matrix."""
    scale = np.array(grid.scale, np.float64).reshape(-1, *[1] * (values.ndim - 1))
    point = grid.zero_point[0] if grid.zero_point else 0
    levels = np.clip(np.rint(values.astype(np.float64) / scale) + point, grid.qmin, grid.qmax)
    return (levels - point) * scale


def assert_equal(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def nanoseconds_of(call: Callable[[], object]) -> int:
    """Wall time of one call."""
    before = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - before


def allocated_by(call: Callable[[], Any]) -> int:
    """The most bytes that Python and NumPy held at once during a call, beyond those before it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


CONVERSIONS = frozenset(
    {
        "check_inputs", "encode", "decode", "relayout", "array", "ascontiguousarray", "astype",
        "copy", "copy_", "copyto", "from_numpy", "numpy", "tensor", "set_tensor", "get_tensor",
        "io_binding", "bind_input", "bind_ortvalue_input", "update_inplace", "ortvalue_from_numpy",
    }
)  # fmt: skip
"""Functions of the harness, NumPy and the runtimes that convert, copy or bind arrays."""


def called_by(call: Callable[[], Any]) -> set[str]:
    """Names of all functions, compiled ones too, that Python code calls during ``call``."""
    names = set()

    def note(frame: Any, event: str, function: Any) -> None:
        if event == "call":
            names.add(frame.f_code.co_name)
        elif event == "c_call":
            names.add(function.__name__)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return names


def item_size(dtype: str) -> float:
    odd = {"bfloat16": 2, "int4": 0.5, "nf4": 0.5}
    return odd[dtype] if dtype in odd else np.dtype(dtype).itemsize


def copy_of(artifact: Artifact, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in (*artifact.files, MANIFEST):
        (folder / name).write_bytes((artifact.folder / name).read_bytes())
    return folder


def one_line(error: BaseException) -> bool:
    return bool(str(error)) and "\n" not in str(error)


def apart(code: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """What a fresh Python process prints last, read as JSON."""
    # a hash seed of its own: nothing may depend on the order of a set
    variables = {**os.environ, **COMMON_ENVIRONMENT, "PYTHONHASHSEED": "random"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**variables, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


RUN = """
import json, sys
from pathlib import Path
import numpy as np
from quantbench.backend_api.protocol import Artifact
from quantbench.system.locators import locate
from quantbench.spec.target import Target

locator, target, batch, *folders = sys.argv[1:]
runtime, where = locate(locator)(), Target.from_json(json.loads(target))
for i, folder in enumerate(folders):
    artifact = Artifact.open(Path(folder))
    inputs = {spec.name: np.load(f"{batch}/{spec.name}.npy") for spec in artifact.task_inputs}
    session = runtime.load(artifact, where, len(next(iter(inputs.values()))))
    session.bind(inputs)
    session.run()
    for name, array in session.read().items():
        np.save(f"{batch}/out-{i}-{name}.npy", array)
    runtime.operations(artifact, where, {name: array[:1] for name, array in inputs.items()})
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([modules, dict(session.effective)]))
"""


def run_apart(
    backend: Backend, artifacts: list[Artifact], target: Target, inputs: Arrays, folder: Path
) -> tuple[list[dict[str, Array]], frozenset[str], dict[str, str]]:
    """One call of each in a process as the engine starts it.

    Returns their outputs, the packages that were imported, and ``effective`` of the last.
    """
    runtime: Runtime = locate(backend.runtime)()
    for name, array in inputs.items():
        np.save(folder / f"{name}.npy", array)
    modules, effective = apart(
        RUN, backend.runtime, json.dumps(target.to_json()), str(folder),
        *(str(artifact.folder) for artifact in artifacts),
        environment=runtime.environment(target),
    )  # fmt: skip
    names = [spec.name for spec in artifacts[0].task_outputs]
    outputs = [
        {name: np.load(folder / f"out-{i}-{name}.npy") for name in names}
        for i in range(len(artifacts))
    ]
    return outputs, frozenset(modules), effective


def instruction_set_caps(package: str) -> tuple[str, ...]:
    """Names in a package's libraries that may be of a variable that caps the instruction set.

    oneDNN's is called ONEDNN_MAX_CPU_ISA, PyTorch's ATEN_CPU_CAPABILITY, FBGEMM's and MKL's
    ..._ENABLE_INSTRUCTIONS, NumPy's NPY_DISABLE_CPU_FEATURES.
    """
    words = re.compile(
        rb"CPU_ISA|CPU_CAPABILITY|CPU_FEATURES|_INSTRUCTIONS|_ISA_|"
        rb"(?:DISABLE|ENABLE|MAX|FORCE|NO)_(?:AVX|SSE|ISA|SIMD|VNNI|AMX)"
    )
    name = re.compile(rb"[A-Z][A-Z0-9_]+")
    (folder,) = importlib.import_module(package).__path__
    found: set[str] = set()
    for library in Path(folder).rglob("*.so*"):
        content = library.read_bytes()
        for match in words.finditer(content):
            around = content[max(0, match.start() - 40) : match.end() + 40].split(b"\0")
            texts = [text for text in around if match[0] in text]
            found.update(t.decode() for t in texts if name.fullmatch(t))
    return tuple(sorted(found))
