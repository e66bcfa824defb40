"""What is specific to the PyTorch backend, on models small enough to count by hand."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.utils.show_pickle import DumpUnpickler

from quantbench.backend_api import (
    Artifact,
    Course,
    integer_macs_fraction,
    state_of,
)
from quantbench.errors import BadArtifact, BadInput, TargetNotApplied
from quantbench.spec import (
    Data,
    Method,
    Model,
    Samples,
    Target,
    TensorSpec,
    preset,
)
from quantbench.system import locate
from quantbench_backends.pytorch import BACKEND, runtime
from quantbench_backends.pytorch.quantizer import PyTorchQuantizer
from quantbench_backends.pytorch.runtime import PyTorchRuntime
from quantbench_backends.pytorch.trainer import PyTorchTrainer

CPU = Target("cpu-1")
QUANTIZER = PyTorchQuantizer()
RUNTIME = PyTorchRuntime()


class Convolutional(nn.Module):
    """3x8x8 -> conv 3x3 to 4 channels, batch norm, relu -> grouped conv to 6 -> linear to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3, stride=2, groups=2)
        self.head = nn.Linear(6, 5)

    def forward(self, image):
        x = nn.functional.relu(self.norm(self.first(image)))
        return self.head(nn.functional.relu(self.second(x)).mean((2, 3)))


FIRST, SECOND, HEAD = 4 * 8 * 8 * 27, 6 * 3 * 3 * 18, 5 * 6


class Recurrent(nn.Module):
    """6 steps of 5 features -> bidirectional LSTM of 7 -> GRU of 3 -> linear to 2."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 7, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(14, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, sequence):
        return self.head(self.gru(self.lstm(sequence)[0])[0][:, -1])


RECURRENT = 6 * (2 * (28 * 5 + 28 * 7) + 9 * 14 + 9 * 3)


class Paired(nn.Module):
    """Two inputs, one of them integers; a tuple of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.left = nn.Linear(3, 4)
        self.right = nn.Linear(4, 2)

    def forward(self, values, tokens):
        hidden = nn.functional.relu(self.left(values) + self.embedding(tokens).mean(1))
        return self.right(hidden), hidden


class Tied(nn.Module):
    """Three linear layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.c.weight = self.a.weight

    def forward(self, values):
        return self.c(self.b(self.a(values)))


class Linear(nn.Module):
    """64 features -> 320."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 320)

    def forward(self, values):
        return self.head(values)


def linear() -> nn.Module:
    return Linear()


def convolutional() -> nn.Module:
    return Convolutional()


def recurrent() -> nn.Module:
    return Recurrent()


def paired() -> nn.Module:
    return Paired()


def tied() -> nn.Module:
    return Tied()


def no_weights() -> Path:
    return Path()


def seeded(form: str) -> dict[str, np.ndarray]:
    torch.manual_seed(3)
    module = locate(form)()
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return {name: value.numpy() for name, value in module.state_dict().items()}


def convolutional_state(path: Path) -> dict[str, np.ndarray]:
    return seeded(f"{__name__}:convolutional")


def recurrent_state(path: Path) -> dict[str, np.ndarray]:
    return seeded(f"{__name__}:recurrent")


def paired_state(path: Path) -> dict[str, np.ndarray]:
    return seeded(f"{__name__}:paired")


def tied_state(path: Path) -> dict[str, np.ndarray]:
    return seeded(f"{__name__}:tied")


def linear_state(path: Path) -> dict[str, np.ndarray]:
    return seeded(f"{__name__}:linear")


def spoiled(path: Path) -> dict[str, np.ndarray]:
    arrays = linear_state(path)
    arrays["head.weight"][3, 5] = np.nan
    return arrays


def a_model(form: str, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Model:
    return Model(
        name=form,
        task="none",
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        weights=f"{__name__}:no_weights",
        state=f"{__name__}:{form}_state",
        forms={"torch": f"{__name__}:{form}"},
    )


CONVOLUTIONAL = a_model(
    "convolutional",
    [TensorSpec("image", (None, 3, 8, 8), "float32", "NCHW")],
    [TensorSpec("logits", (None, 5), "float32")],
)
RECURRENT_MODEL = a_model(
    "recurrent",
    [TensorSpec("sequence", (None, 6, 5), "float32")],
    [TensorSpec("logits", (None, 2), "float32")],
)
PAIRED = a_model(
    "paired",
    [TensorSpec("values", (None, 3), "float32"), TensorSpec("tokens", (None, None), "int64")],
    [TensorSpec("logits", (None, 2), "float32"), TensorSpec("hidden", (None, 4), "float32")],
)


LINEAR = a_model(
    "linear",
    [TensorSpec("values", (None, 64), "float32")],
    [TensorSpec("logits", (None, 320), "float32")],
)
TIED = a_model(
    "tied",
    [TensorSpec("values", (None, 4), "float32")],
    [TensorSpec("logits", (None, 4), "float32")],
)


def a_method(name: str, **overrides) -> Method:
    axes = BACKEND.axes(name, overrides)
    if name in ("static-int8", "qat-int8"):
        axes.setdefault("samples", 40)
    if name == "qat-int8" or overrides.get("training"):
        axes = {"batch_size": 16, "learning_rate": 0.01, **axes}
    return preset(name, axes)


def inputs_of(model: Model, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for spec in model.inputs:
        shape = (count, *(n or 7 for n in spec.shape[1:]))
        integers = spec.dtype == "int64"
        arrays[spec.name] = (
            rng.integers(0, 10, shape) if integers else rng.normal(size=shape).astype("float32")
        )
    return arrays


def build(model: Model, method: Method, folder: Path) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    samples = Samples(inputs_of(model, method.samples), np.zeros(method.samples))
    assert QUANTIZER.refuse(model, method) is None
    return QUANTIZER.quantize(model, method, Data(samples, None, 0), folder)


def outputs_of(artifact: Artifact, inputs: dict[str, np.ndarray], target: Target = CPU):
    session = RUNTIME.load(artifact, target, len(next(iter(inputs.values()))))
    session.bind(inputs)
    session.run()
    return session.read()


def plain(model: Model, inputs: dict[str, np.ndarray]):
    module = locate(model.forms["torch"])().eval()
    state = locate(model.state)(Path())
    module.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(inputs[spec.name]) for spec in model.inputs))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return {s.name: o.numpy() for s, o in zip(model.outputs, outputs, strict=True)}


@pytest.mark.parametrize("model", [CONVOLUTIONAL, RECURRENT_MODEL, PAIRED], ids=lambda m: m.name)
@pytest.mark.parametrize("route", ["eager", "traced"])
def test_float_outputs_equal_a_plain_call_at_any_batch_size(model, route, tmp_path):
    artifact = build(model, a_method("fp32", route=route), tmp_path)

    for count in (1, 5):
        inputs = inputs_of(model, count)
        for name, want in plain(model, inputs).items():
            got = outputs_of(artifact, inputs)[name]
            assert got.dtype == np.float32
            # kernels for another batch size, and traced code, add float32 in another order
            np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(("name", "tolerance"), [("fp16", 5e-3), ("bf16", 5e-2)])
def test_half_precision_is_near_float_and_half_the_bytes(name, tolerance, tmp_path):
    inputs = inputs_of(CONVOLUTIONAL, 2)
    artifact = build(CONVOLUTIONAL, a_method(name), tmp_path)

    got = outputs_of(artifact, inputs)["logits"]
    want = plain(CONVOLUTIONAL, inputs)["logits"]

    assert 0 < np.abs(got - want).max() < tolerance
    # weights of both convolutions, 4 vectors of batch norm, two biases, the head; and a counter
    numbers = 4 * 27 + 6 * 18 + 4 * 4 + 6 + 5 + 5 * 6
    dtype = {"fp16": "float16", "bf16": "bfloat16"}[name]
    assert QUANTIZER.inspect(artifact).weight_bytes == {dtype: 2 * numbers, "int64": 8}


def test_a_shared_weight_is_stored_once(tmp_path):
    artifact = build(TIED, a_method("fp32"), tmp_path)
    inputs = inputs_of(TIED, 2)

    assert QUANTIZER.inspect(artifact).weight_bytes == {"float32": 4 * (4 * 4 + 3 * 4)}
    # the same weights in the same kernels; a copy that was not tied is off by far more
    np.testing.assert_allclose(
        outputs_of(artifact, inputs)["logits"], plain(TIED, inputs)["logits"], atol=1e-6
    )


def test_static_int8_multiplies_integers_only(tmp_path):
    artifact = build(CONVOLUTIONAL, a_method("static-int8"), tmp_path)

    operations = RUNTIME.operations(artifact, CPU, inputs_of(CONVOLUTIONAL, 1))

    macs = [op.macs for op in operations if op.macs]
    assert macs == [FIRST, SECOND, HEAD]
    assert integer_macs_fraction(operations) == 1.0
    record = QUANTIZER.inspect(artifact)
    assert record.operators["quantized::conv2d_relu"] == 2
    assert record.weight_bytes["int8"] == 4 * 27 + 6 * 18 + 5 * 6


def test_per_tensor_weights_have_no_vectors_of_scales(tmp_path):
    artifact = build(CONVOLUTIONAL, a_method("static-int8", granularity="per-tensor"), tmp_path)

    assert "float64" not in QUANTIZER.inspect(artifact).weight_bytes


def test_static_int8_without_fusion_keeps_batch_norm_as_an_operator(tmp_path):
    artifact = build(CONVOLUTIONAL, a_method("static-int8", fusion=False), tmp_path)

    operators = QUANTIZER.inspect(artifact).operators

    assert operators["quantized::batch_norm2d"] == 1
    assert "quantized::conv2d_relu" not in operators


@pytest.mark.parametrize("calibrator", ["histogram", "minmax", "moving-average"])
def test_calibrators_give_different_files_near_float(calibrator, tmp_path):
    method = a_method("static-int8", calibrator=calibrator)
    artifact = build(CONVOLUTIONAL, method, tmp_path / calibrator)
    other = build(CONVOLUTIONAL, a_method("static-int8", samples=7), tmp_path / "other")
    inputs = inputs_of(CONVOLUTIONAL, 8, seed=1)

    got, want = outputs_of(artifact, inputs)["logits"], plain(CONVOLUTIONAL, inputs)["logits"]

    assert artifact.digest != other.digest
    assert 0 < np.abs(got - want).max() < 0.1


def test_symmetric_activations_stay_in_the_seven_bits_of_the_engine():
    from quantbench_backends.pytorch import observers

    method = a_method("static-int8", symmetric_activations=True, calibrator="minmax")
    observer = observers.activation(method, "uint8", fake=False)()
    observer(torch.tensor([-2.0, 3.0]))

    scale, zero_point = observer.calculate_qparams()

    assert zero_point.item() == 63
    assert scale.item() == pytest.approx(3.0 / 63.5)


def test_a_kept_layer_is_multiplied_in_float(tmp_path):
    artifact = build(CONVOLUTIONAL, a_method("static-int8", keep_float=["first"]), tmp_path)

    operations = RUNTIME.operations(artifact, CPU, inputs_of(CONVOLUTIONAL, 1))

    assert [op.macs for op in operations if op.macs and not op.integer] == [FIRST]
    with pytest.raises(BadInput, match="Did you mean 'first'"):
        build(CONVOLUTIONAL, a_method("static-int8", keep_float=["frist"]), tmp_path)


def test_dynamic_int8_leaves_convolutions_in_float(tmp_path):
    artifact = build(CONVOLUTIONAL, a_method("dynamic-int8"), tmp_path)

    operations = RUNTIME.operations(artifact, CPU, inputs_of(CONVOLUTIONAL, 1))

    assert {op.macs: op.integer for op in operations if op.macs} == {
        FIRST: False, SECOND: False, HEAD: True,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "fraction"), [("fp32", 0.0), ("dynamic-int8", 1.0)])
def test_recurrent_layers_are_counted_like_their_matrices(name, fraction, tmp_path):
    artifact = build(RECURRENT_MODEL, a_method(name), tmp_path)

    operations = RUNTIME.operations(artifact, CPU, inputs_of(RECURRENT_MODEL, 1))

    assert sum(op.macs for op in operations) == RECURRENT + 3 * 2
    assert integer_macs_fraction(operations) == fraction


def test_two_inputs_and_two_outputs_are_quantized_too(tmp_path):
    inputs = inputs_of(PAIRED, 4)
    want = plain(PAIRED, inputs)

    for name in ("dynamic-int8", "static-int8"):
        got = outputs_of(build(PAIRED, a_method(name), tmp_path / name), inputs)
        assert list(got) == ["logits", "hidden"]
        for key in want:
            assert 0 < np.abs(got[key] - want[key]).max() < 0.2


@pytest.mark.parametrize(
    "method",
    [
        a_method("fp32"),
        a_method("fp32", route="traced"),
        a_method("dynamic-int8"),
        a_method("static-int8"),
    ],
    ids=lambda m: f"{m.name}-{m.route}",
)
def test_the_same_build_gives_the_same_bytes_without_paths(method, tmp_path):
    one = build(CONVOLUTIONAL, method, tmp_path / "one")
    build(RECURRENT_MODEL, a_method("dynamic-int8"), tmp_path / "between")
    two = build(CONVOLUTIONAL, method, tmp_path / "two")

    assert one.digest == two.digest
    if one.path.suffix == ".pt":
        with zipfile.ZipFile(one.path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
        assert Path(__file__).name.encode() not in content


def test_optimize_false_switches_torchscript_passes_off(tmp_path):
    artifact = build(CONVOLUTIONAL, a_method("static-int8"), tmp_path)
    target = dataclasses.replace(CPU, optimize=False)
    inputs = inputs_of(CONVOLUTIONAL, 2)

    session = RUNTIME.load(artifact, target, 2)

    assert session.effective["graph_optimization"] == "off"
    np.testing.assert_array_equal(
        outputs_of(artifact, inputs, target)["logits"], outputs_of(artifact, inputs)["logits"]
    )


def test_a_target_that_cannot_be_applied_is_an_error(tmp_path):
    artifact = build(CONVOLUTIONAL, a_method("fp32"), tmp_path)

    with pytest.raises(TargetNotApplied, match="before torch is imported"):
        RUNTIME.load(artifact, Target("avx2", isa="avx2"), 1)


def test_truncated_files_are_bad_artifacts(tmp_path):
    for name in ("fp32", "static-int8"):
        artifact = build(CONVOLUTIONAL, a_method(name), tmp_path / name)
        artifact.path.write_bytes(artifact.path.read_bytes()[:-200])
        with pytest.raises(BadArtifact, match="cannot be read") as raised:
            RUNTIME.load(artifact, CPU, 1)
        assert "\n" not in str(raised.value)
        with pytest.raises(BadArtifact):
            QUANTIZER.inspect(artifact)


def test_nan_in_calibration_samples_is_refused(tmp_path):
    inputs = inputs_of(CONVOLUTIONAL, 4)
    inputs["image"][2, 0, 0, 0] = np.nan
    data = Data(Samples(inputs, np.zeros(4)), None, 0)

    with pytest.raises(BadInput, match="NaN"):
        QUANTIZER.quantize(CONVOLUTIONAL, a_method("static-int8", samples=4), data, tmp_path)


@pytest.mark.parametrize(
    ("name", "axes", "words"),
    [
        ("static-int8", {"activations": "int8"}, "use activations: uint8"),
        ("static-int8", {"calibrator": "entropy"}, "or ranges: injected"),
        ("static-int8", {"ranges": "injected"}, "or ranges: native"),
        ("static-int8", {"percentile": 99.9}, "use calibrator: percentile"),
        ("static-int8", {"sigmas": 3.0}, "use calibrator: mean-std"),
        ("qat-int8", {"ranges": "injected"}, "use ranges: native"),
        ("dynamic-int8", {"ranges": "injected"}, "use ranges: native"),
        ("weight-only-int8", {"only": ["head"]}, "use only: []"),
        ("static-int8", {"route": "pt2e", "parts": "weights"}, "use parts: both"),
        ("static-int8", {"samples": 0}, "samples: 256"),
        ("static-int8", {"io": "int8"}, "use io: float32"),
        ("dynamic-int8", {"fusion": False}, "use fusion: true"),
        ("fp32", {"keep_float": ["head"]}, "use keep_float: []"),
        ("fp32", {"fusion": False}, "route: traced"),
        ("fp32", {"route": "fx"}, "use route: eager or traced or compiled"),
        ("static-int8", {"route": "eager"}, "use route: fx"),
        ("static-int8", {"training": "qat"}, "use training: ptq"),
        ("static-int8", {"epochs": 2}, "use training: qat or finetune"),
        ("dynamic-int4", {}, "use weight-only-int4"),
        ("weight-only-int4", {"group_size": 48}, "use group_size: 32 or 64"),
        ("qat-int8", {"epochs": 0}, "use epochs: 1"),
    ],
)
def test_refusals_say_what_to_use(name, axes, words):
    reason = QUANTIZER.refuse(CONVOLUTIONAL, a_method(name, **axes))

    assert reason is not None
    assert words in reason


def test_int8_activations_would_really_stay_in_float(tmp_path, monkeypatch):
    import torch.ao.quantization as ao

    from quantbench_backends.pytorch import observers

    observer = ao.MinMaxObserver.with_args(dtype=torch.qint8, reduce_range=True)
    monkeypatch.setattr(observers, "activation", lambda *_, **__: observer)
    artifact = build(CONVOLUTIONAL, a_method("static-int8"), tmp_path)

    operations = RUNTIME.operations(artifact, CPU, inputs_of(CONVOLUTIONAL, 1))

    assert integer_macs_fraction(operations) == 0.0


def test_runtime_refusals_are_about_the_target():
    assert "reference" in RUNTIME.refuse(Target("r", kernels="reference"), a_method("fp32"))
    assert "GPU" in RUNTIME.refuse(Target("g", device="cuda"), a_method("fp32")) or (
        "CPU only" in RUNTIME.refuse(Target("g", device="cuda"), a_method("static-int8"))
    )
    assert "route: eager" in RUNTIME.refuse(
        Target("o", optimize=False), a_method("fp32", route="compiled")
    )
    assert RUNTIME.refuse(CPU, a_method("static-int8")) is None


def test_describing_and_refusing_imports_no_framework():
    code = (
        "import sys; import quantbench_backends.pytorch.quantizer, quantbench_backends.pytorch.runtime;"
        "from quantbench.spec.method import preset; from quantbench.spec.target import Target;"
        "quantbench_backends.pytorch.runtime.PyTorchRuntime().refuse(Target('t'), preset('fp32'));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_compiled_code_equals_eager_and_hides_no_multiplication(tmp_path):
    method = a_method("fp32", route="compiled")
    if reason := RUNTIME.refuse(CPU, method):
        pytest.skip(reason)
    artifact = build(CONVOLUTIONAL, method, tmp_path)
    inputs = inputs_of(CONVOLUTIONAL, 1)

    got = outputs_of(artifact, inputs)["logits"]
    operations = RUNTIME.operations(artifact, CPU, inputs)

    # compiled kernels add float32 in another order
    np.testing.assert_allclose(got, plain(CONVOLUTIONAL, inputs)["logits"], atol=1e-5)
    assert sum(op.macs for op in operations) == FIRST + SECOND + HEAD
    assert any(op.engine == "onednn" and op.macs == FIRST for op in operations)


# --- training ------------------------------------------------------------------------------------


def samples_of(model: Model, count: int) -> Samples:
    inputs = inputs_of(model, count, seed=3)
    return Samples(inputs, np.arange(count) % 5)


def train(model: Model, method: Method, folder: Path, course: type[Course] = Course) -> Model:
    """The model after the method's training on 64 samples, resumed where one was interrupted."""
    result = folder / "result"
    result.mkdir(parents=True, exist_ok=True)
    layouts = {spec.name: spec.layout for spec in model.inputs}
    given = course(method, samples_of(model, 64), layouts, "cross-entropy", result, folder / "work")
    calibration = samples_of(model, method.samples or 1)
    PyTorchTrainer().train(model, method, Data(calibration, None, 0), given)
    return dataclasses.replace(model, trained=str(result))


def losses(model: Model) -> list[float]:
    lines = (Path(model.trained) / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


class Interrupted(Course):
    """A course that ends like a killed process after its first epoch."""

    def save(self, epoch, arrays):
        super().save(epoch, arrays)
        raise KeyboardInterrupt


TRAININGS = [
    a_method("fp32", training="finetune", epochs=2),
    a_method("qat-int8", epochs=2),
    a_method("qat-int8", epochs=2, optimizer="adam", weights="int4", learned_scales=True),
    a_method("qat-int8", epochs=2, freeze_batchnorm=1),
]


@pytest.mark.parametrize("method", TRAININGS, ids=lambda m: f"{m.name}-{m.optimizer}-{m.weights}")
def test_a_resumed_training_gives_the_bytes_of_an_uninterrupted_one(method, tmp_path):
    whole = train(CONVOLUTIONAL, method, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(CONVOLUTIONAL, method, tmp_path / "cut", Interrupted)

    resumed = train(CONVOLUTIONAL, method, tmp_path / "cut")

    assert losses(resumed) == losses(whole)
    for file in Path(whole.trained).iterdir():
        assert (Path(resumed.trained) / file.name).read_bytes() == file.read_bytes(), file.name


def test_training_lowers_the_loss_and_the_artifact_is_the_trained_model(tmp_path):
    for method in (TRAININGS[0], TRAININGS[1]):
        chosen = dataclasses.replace(method, epochs=8, learning_rate=0.05)
        model = train(CONVOLUTIONAL, chosen, tmp_path / method.name)
        known = losses(model)
        inputs = inputs_of(CONVOLUTIONAL, 8, seed=1)

        before = outputs_of(build(CONVOLUTIONAL, a_method("fp32"), tmp_path / "float"), inputs)
        after = outputs_of(build(model, chosen, tmp_path / f"{method.name}-built"), inputs)

        assert np.mean(known[-4:]) < np.mean(known[:4]) - 0.05
        assert np.abs(after["logits"] - before["logits"]).max() > 0.05


@pytest.mark.long
@pytest.mark.parametrize("route", ["fx", "pt2e"])
def test_the_fake_quantized_outputs_are_near_those_of_the_integers(route, tmp_path):
    method = a_method("qat-int8", route=route)
    model = train(CONVOLUTIONAL, method, tmp_path)
    inputs = inputs_of(CONVOLUTIONAL, 8, seed=1)

    fake = PyTorchTrainer().outputs(model, method, inputs)["logits"]
    real = outputs_of(build(model, method, tmp_path / "built"), inputs)["logits"]

    assert 0 < np.abs(fake - real).max() < 0.1
    np.testing.assert_array_equal(fake, PyTorchTrainer().outputs(model, method, inputs)["logits"])


def test_batch_norm_statistics_are_frozen_from_the_epoch_that_the_recipe_says(tmp_path):
    def statistics(**axes) -> np.ndarray:
        method = a_method("fp32", training="finetune", **axes)
        return state_of(train(CONVOLUTIONAL, method, tmp_path / str(axes)))["norm.running_mean"]

    given = locate(CONVOLUTIONAL.state)(Path())["norm.running_mean"]

    np.testing.assert_array_equal(statistics(freeze_batchnorm=0), given)
    assert np.abs(statistics(freeze_batchnorm=1) - given).max() > 0


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("static-int8", {}),
        ("qat-int8", {}),
        ("qat-int8", {"learned_scales": True, "epochs": 4, "learning_rate": 0.1}),
    ],
)
def test_four_bit_weights_have_fifteen_values_and_no_more(name, axes, tmp_path):
    method = a_method(name, weights="int4", **axes)
    model = train(CONVOLUTIONAL, method, tmp_path) if name == "qat-int8" else CONVOLUTIONAL
    artifact = build(model, method, tmp_path / "built")

    found = integers_in(artifact.path)

    assert len(found) == 4 * 27 + 6 * 18 + 5 * 6
    assert np.abs(found).max() == 7
    assert "4-bit" in artifact.details["simulated"]


class Storages(DumpUnpickler):
    """Notes the class of each tensor storage by its key in the archive."""

    def persistent_load(self, pid):
        _, storage, key, *_ = pid
        self.known = {**getattr(self, "known", {}), key: storage.name}


def integers_in(path: Path) -> np.ndarray:
    """Every int8 weight in a TorchScript file."""
    found = []
    with zipfile.ZipFile(path) as file:
        for part in ("data", "constants"):
            reader = Storages(io.BytesIO(file.read(f"model/{part}.pkl")))
            reader.load()
            found += [
                np.frombuffer(file.read(f"model/{part}/{key}"), np.int8)
                for key, storage in getattr(reader, "known", {}).items()
                if storage in ("QInt8Storage", "CharStorage")
            ]
    return np.concatenate(found)


def test_diverging_training_says_what_to_use(tmp_path):
    method = a_method("qat-int8", learning_rate=1e30, epochs=3)

    with pytest.raises(BadInput, match=r"training diverged: .*use a learning_rate below 1e"):
        train(CONVOLUTIONAL, method, tmp_path)


@pytest.mark.parametrize("name", ["qat-int8", "static-int8", "weight-only-int8"])
def test_nan_weights_are_refused_in_one_line(name, tmp_path):
    model = dataclasses.replace(LINEAR, state=f"{__name__}:spoiled")

    with pytest.raises(BadInput, match=r"'head\.weight' holds NaN"):
        (train if name == "qat-int8" else build)(model, a_method(name), tmp_path)


def test_a_group_size_that_does_not_divide_names_the_layer_and_one_that_does(tmp_path):
    method = a_method("weight-only-int8", granularity="group", group_size=48)

    with pytest.raises(
        BadInput, match="48 does not divide the 64 inputs of layer 'head'; use group_size: 64"
    ):
        build(LINEAR, method, tmp_path)


def test_four_bits_are_smaller_on_disk_than_eight(tmp_path):
    sizes = [
        build(
            LINEAR, a_method(f"weight-only-int{bits}", route=route), tmp_path / f"{bits}{route}"
        ).size_bytes
        for bits in (4, 8)
        for route in ("torchao", "bitsandbytes")
    ]

    assert sizes[0] < sizes[2]
    assert sizes[1] < sizes[3]


# --- exported programs ---------------------------------------------------------------------------


def test_a_pt2e_file_holds_no_float_copy_of_quantized_weights(tmp_path):
    artifact = build(CONVOLUTIONAL, a_method("static-int8", route="pt2e"), tmp_path)

    found = QUANTIZER.inspect(artifact).weight_bytes

    assert found["int8"] == 4 * 27 + 6 * 18 + 5 * 6
    assert found["float32"] < found["int8"]  # scales and biases


def test_an_exported_program_has_the_same_bytes_each_time_and_no_paths(tmp_path):
    method = a_method("static-int8", route="pt2e")

    one, two = (build(CONVOLUTIONAL, method, tmp_path / name) for name in ("one", "two"))

    assert one.digest == two.digest
    with zipfile.ZipFile(one.path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"site-packages" not in content
    assert Path(__file__).name.encode() not in content


@pytest.mark.parametrize("spoil", ["pickle", "expression", "guard"])
def test_an_exported_program_with_code_in_it_is_never_loaded(spoil, tmp_path):
    artifact = build(LINEAR, a_method("weight-only-int8"), tmp_path)
    with zipfile.ZipFile(artifact.path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    weights = next(name for name in entries if name.endswith("_weights_config.json"))
    graph = next(name for name in entries if "/models/" in name)
    if spoil == "pickle":
        entries[weights] = entries[weights].replace(b'"use_pickle": false', b'"use_pickle": true')
    elif spoil == "expression":
        entries[graph] = entries[graph].replace(b"Symbol('s", b"exec('s")
    else:
        entries[graph] = entries[graph].replace(b'"guards_code": []', b'"guards_code": ["x"]')
    with zipfile.ZipFile(artifact.path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)

    with pytest.raises(BadArtifact, match="never loaded"):
        RUNTIME.load(artifact, CPU, 1)


def test_pt2e_is_compiled_and_frozen_or_refused(monkeypatch):
    method = a_method("static-int8", route="pt2e")

    assert "route: eager" in RUNTIME.refuse(Target("o", optimize=False), method)
    assert "saturate without VNNI" in RUNTIME.refuse(Target("avx2", isa="avx2"), method)
    monkeypatch.setattr(runtime, "cpu_flags", lambda: frozenset({"avx2"}))
    assert "use route: fx" in RUNTIME.refuse(CPU, method)


def test_what_is_compiled_for_one_instruction_set_is_not_run_under_another():
    """With a cache in common, capped code ran uncapped and aborted, or gave outputs that are no numbers."""
    folders = {
        isa: RUNTIME.environment(Target("cpu", isa=isa))["TORCHINDUCTOR_CACHE_DIR"]
        for isa in ("native", "avx2")
    }

    assert folders["native"] != folders["avx2"]
