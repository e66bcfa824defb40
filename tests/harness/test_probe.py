"""The probe with a fake framework: what each cell becomes, and that nothing is done twice."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from quantbench.backend_api import Backend, registry
from quantbench.cli.terminal import show_differences, show_matrix
from quantbench.errors import BadInput
from quantbench.runs import Reporter
from quantbench.spec import Limits
from quantbench.studies import Matrix, capability, compare
from quantbench.studies.capability import BY_INSTALLATION, BY_MACHINE, Capability
from quantbench.studies.probe import lasting, probe
from tests.harness import conftest, fake

TROUBLE = ("", "crash", "error", "mendable", "nan", "float", "hang", "score-crash")
TROUBLED = dataclasses.replace(
    fake.BACKEND, routes={"static-int8": {route: {} for route in TROUBLE}}
)
LIMITS = Limits(build_s=4.0, train_s=30.0, score_s=30.0)


def probed(backend: Backend, folder: Path, **wanted) -> tuple[Matrix, str]:
    """A probe of the fake model, and what was said meanwhile."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        conftest.fakery.__wrapped__(patch, folder)
        patch.setattr(fake, "BACKEND", backend)
        patch.setattr(registry, "backend", {"fakery": backend, "absent": fake.ABSENT}.__getitem__)
        patch.setattr(registry, "names", lambda kind: ["fakery", "absent"])
        reporter = Reporter(Console(file=said, width=200, color_system=None))
        model = dataclasses.replace(fake.MODEL, task="tests.harness.fake:TASK")
        found = probe(models=[model], limits=LIMITS, reporter=reporter, **wanted)
    return found, said.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def matrix(folder: Path) -> Matrix:
    return probed(TROUBLED, folder)[0]


def cell(matrix: Matrix, method: str, route: str = "") -> Capability:
    (found,) = (c for c in matrix.capabilities if c.row == ("fakery", method, route))
    return found


@pytest.mark.parametrize(
    ("method", "route", "word", "says"),
    [
        ("fp32", "", "float", ""),
        ("bf16", "", "refused", "the fake has no bfloat16; use fp32"),
        ("static-int8", "", "int8 100 %", ""),
        ("qat-int8", "", "int8 100 %", ""),
        ("weight-only-int4", "", "simulated", "multiplies no 4-bit integers"),
        ("static-int8", "float", "no-op", "no int8 weights"),
        ("static-int8", "nan", "invalid", "not finite"),
        ("static-int8", "error", "failed", "RuntimeError: the converter gave up"),
        (
            "static-int8",
            "crash",
            "crashed",
            "while it was built, the worker was killed by signal 11",
        ),
        (
            "static-int8",
            "score-crash",
            "crashed",
            "while it was run, the worker was killed by signal 6",
        ),
        ("static-int8", "hang", "timeout", "limit of 4 s"),
    ],
)
def test_each_method_and_route_becomes_a_cell(matrix, method, route, word, says):
    found = cell(matrix, method, route)

    assert found.word == word
    assert says in found.reason


def test_a_cell_says_how_near_how_small_and_on_what(matrix):
    assert cell(matrix, "fp32").sqnr_db == 100
    int8 = cell(matrix, "static-int8")
    assert 30 < int8.sqnr_db < 60
    assert (int8.integer_macs, int8.weight_bytes, int8.narrower) == (1.0, 0.25, True)
    assert not cell(matrix, "static-int8", "float").narrower


def test_every_preset_is_there_and_what_is_not_installed_is_said(matrix):
    from quantbench.spec import PRESETS

    assert {c.method for c in matrix.capabilities} == set(PRESETS)
    assert matrix.backends == ("fakery",)
    assert matrix.absent == {
        "absent": "no-such-package is not installed; pip install no-such-package"
    }
    assert matrix.versions["numpy"]


def test_a_second_probe_runs_no_job_and_finds_the_same(matrix, folder):
    again, said = probed(TROUBLED, folder)

    assert again == matrix
    assert said == ""


def test_a_probe_of_some_methods_is_part_of_the_whole(matrix, folder):
    part, said = probed(TROUBLED, folder, methods=["fp32", "static-int8"])

    assert capability.cut(matrix, part).capabilities == part.capabilities
    assert said == ""


def test_unknown_methods_come_with_the_nearest(tmp_path):
    with pytest.raises(BadInput, match="Did you mean 'static-int8'"):
        probed(TROUBLED, tmp_path, methods=["static-in8"])


# --- differences ---

MACHINE = {"architecture": "x86_64", "isa": ["avx2", "avx512_vnni"], "compiler": True}
OTHER = {**MACHINE, "isa": ["avx2"]}
CELL = Capability(
    "onnxruntime", "static-int8", "qdq", "LSTM", "ok",
    integers="int8", integer_macs=0.02, sqnr_db=30.0, weight_bytes=0.9,
)  # fmt: skip


def one(cell: Capability = CELL, machine=MACHINE, **changed) -> Matrix:
    return Matrix((dataclasses.replace(cell, **changed),), machine, {"onnx": "1"}, {})


def test_a_changed_cell_says_what_it_was_and_what_it_is():
    new = one(status="failed", reason="ValueError: no LSTM", integer_macs=None, integers="",
              sqnr_db=None, weight_bytes=None)  # fmt: skip

    assert compare(one(), new).differences == (
        "onnxruntime static-int8 (qdq), LSTM: was int8 2 % 30 dB, 90 %; "
        "is failed (ValueError: no LSTM)",
    )


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"integer_macs": 0.5}, True),
        ({"weight_bytes": 1.01}, True),
        ({"weight_bytes": 0.91}, False),
        ({"sqnr_db": 26.5}, True),
        ({"sqnr_db": 28.0}, False),
        ({"status": "invalid", "reason": "SQNR 1 dB"}, True),
    ],
)
def test_what_is_a_difference_on_one_kind_of_machine(changed, differs):
    assert bool(compare(one(), one(**changed)).differences) == differs


@pytest.mark.parametrize("changed", [{"integer_macs": 0.5}, {"sqnr_db": 20.0}])
def test_what_kernels_do_is_not_compared_with_another_kind_of_machine(changed):
    found = compare(one(), one(machine=OTHER, **changed))

    assert found.differences == ()
    assert "machines differ" in found.left_out[0]
    assert compare(one(), one(machine=OTHER, status="crashed")).differences


def test_what_a_machine_refuses_is_compared_on_its_kind_only():
    refused = {"status": "unsupported", "reason": "no VNNI", "refused_by": BY_MACHINE}

    assert compare(one(), one(**refused)).differences
    assert compare(one(), one(machine=OTHER, **refused)).differences == ()


def test_what_is_not_installed_is_not_compared():
    missing = {"status": "unsupported", "reason": "pip install x", "refused_by": BY_INSTALLATION}
    nothing = Matrix((), MACHINE, {}, {"onnxruntime": "onnx is not installed; pip install onnx"})

    assert compare(one(), one(**missing)).differences == ()
    found = compare(one(), nothing)
    assert found.differences == ()
    assert found.left_out == ("onnxruntime: onnx is not installed; pip install onnx",)


def test_numbers_in_a_reason_are_no_difference():
    far = {"status": "invalid", "reason": "SQNR 1.2 dB, below the limit of 3 dB"}

    assert not compare(one(**far), one(**far | {"reason": far["reason"].replace("1.2", "-0.8")})).differences  # fmt: skip


def test_a_route_that_is_new_or_gone_is_a_difference():
    both = dataclasses.replace(
        one(), capabilities=(CELL, dataclasses.replace(CELL, route="qoperator"))
    )

    (new,) = compare(one(), both).differences
    (gone,) = compare(both, one()).differences
    assert new.startswith("onnxruntime static-int8 (qoperator), LSTM: is new: int8 2 %")
    assert "is gone" in gone


def test_a_reason_lasts_without_folders_addresses_and_last_words():
    died = "its float form could not be made: the worker was killed by signal 11 (SIGSEGV)"

    assert lasting(f"{died}: I0000 00:00:17952 x.cc:3] y; leave it out") == died
    assert lasting("OSError: /tmp/a/b.onnx and torch/nn/x.py") == "OSError: b.onnx and torch/nn/x.py"  # fmt: skip


# --- files and terminal ---


def test_a_matrix_survives_its_file_and_the_page_is_beside_it(matrix, tmp_path):
    page, data = capability.write(matrix, tmp_path / "m.md")

    assert capability.read(page) == capability.read(data) == matrix
    assert json.loads(data.read_text())["capabilities"]
    text = page.read_text()
    assert "| static-int8 | crash | crashed [" in text
    assert ". the fake has no bfloat16; use fp32\n" in text
    assert "[m.json](m.json)" in text


def test_a_missing_or_odd_file_says_what_to_do(tmp_path):
    with pytest.raises(BadInput, match="quantbench probe --output"):
        capability.read(tmp_path / "none.md")
    with pytest.raises(BadInput, match=r"neither a \.md nor a \.json"):
        capability.check_output(tmp_path / "m.txt")


def test_the_table_fits_eighty_columns_and_numbers_its_reasons():
    said = io.StringIO()
    long = dataclasses.replace(CELL, method="weight-only-int8", route="torchao-compiled")
    layers = ("convolution", "linear", "LSTM", "attention")
    cells = [dataclasses.replace(long, layer=layer) for layer in layers]
    cells[2] = dataclasses.replace(cells[2], status="simulated", reason="no kernel")
    shown = dataclasses.replace(one(), capabilities=tuple(cells))

    show_matrix(shown, Console(file=said, width=80, color_system=None))

    lines = said.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "simulated [1]" in lines[1]
    assert lines[-1] == "[1] no kernel"


def test_differences_are_shown_with_changed_versions():
    said = io.StringIO()
    newer = dataclasses.replace(one(integer_macs=0.5), versions={"onnx": "2"})

    code = show_differences(one(), newer, Console(file=said, width=80, color_system=None))

    assert code == 1
    assert said.getvalue().splitlines() == [
        "version: onnx 1 -> 2",
        "difference: onnxruntime static-int8 (qdq), LSTM: was int8 2 % 30 dB, 90 %; "
        "is int8 50 % 30 dB, 90 %",
    ]
    assert show_differences(one(), one(), Console(file=io.StringIO())) == 0
