"""Names: what a file or a user calls a thing never becomes a path."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench import run
from quantbench.backend_api import Artifact
from quantbench.backend_api.artifact import MANIFEST
from quantbench.errors import BadArtifact
from quantbench.execution import Job, Process
from quantbench.results import load_results
from quantbench.runs import Store, export
from quantbench.spec import open_arrays, read_arrays, save_arrays
from quantbench.system import is_plain, stored_as

ROOT = Path(__file__).parents[2]
HOSTILE = (
    "../../../climbed", "/climbed", "save_infer_model/scale_0.tmp_1", "..", "", "a\0b", "n" * 300,
    "C:\\climbed", "labels", "hashes", "con",
)  # fmt: skip


@given(st.text())
def test_a_stored_name_is_plain_whatever_the_name(name):
    assert stored_as(name).isalnum()
    assert len(stored_as(name)) == 16
    assert is_plain(stored_as(name))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "..\\a", "a\0"])
def test_a_name_that_leads_elsewhere_is_not_plain(name):
    assert not is_plain(name)


def test_arrays_are_found_by_the_names_they_have(tmp_path):
    folder = tmp_path / "deep" / "er" / "still" / "folder"
    folder.mkdir(parents=True)
    arrays = {name: np.full((2, 3), i) for i, name in enumerate(HOSTILE)}

    save_arrays(folder, arrays)

    assert list(read_arrays(folder)) == list(HOSTILE)
    for name, array in open_arrays(folder, HOSTILE).items():
        np.testing.assert_array_equal(array, arrays[name])
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in written} == {folder}
    assert len(written) == len(HOSTILE) + 1


def test_two_names_that_read_the_same_are_two_files(tmp_path):
    stems = set()
    for name in ("score a/b", "score a_b", "score a b"):
        process = Process(Job(name, json.loads, {"s": "1"}), tmp_path)
        process.kill()
        stems.add(process.path.stem)
        assert process.path.parent == tmp_path

    assert len(stems) == 3


@pytest.mark.parametrize(
    "name",
    [
        "../../climbed",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("/climbed", "a/../../b")),
    ],
)
def test_an_artifact_that_names_a_file_elsewhere_is_refused(experiment_file, fakery, name):
    found = run(experiment_file("[fp32]"), results=fakery / "results")
    (trial,) = found.trials["trial"]
    folder = Store(found.folder).artifact(found.trials["artifact"].iloc[0])
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"] = {name: manifest["sha256"]["w.npy"]}
    manifest["files"] = [name]
    (folder / MANIFEST).unlink()  # it is linked to the cache's
    (folder / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(BadArtifact, match="not in its folder"):
        Artifact.open(folder)
    with pytest.raises(BadArtifact, match="not in its folder"):
        export(found.folder, trial, fakery / "out")
    assert not (fakery / "out").exists()


WATCH = """
import os, sys
_log = os.open(os.environ["WRITES"], os.O_WRONLY | os.O_APPEND)
def _see(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        if (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or (mode and set(mode) & set("wax+")):
            os.write(_log, (os.path.abspath(os.fsdecode(path)) + "\\n").encode())
    elif event in ("os.mkdir", "os.rename", "os.link", "shutil.copyfile"):
        for path in arguments[:2]:
            if isinstance(path, (str, bytes)):
                os.write(_log, (os.path.abspath(os.fsdecode(path)) + "\\n").encode())
sys.addaudithook(_see)
"""
"""Tells every file that a Python process opens for writing, in the runner and in each worker."""

RUN = """
import dataclasses, sys
from pathlib import Path
import pytest
from tests.harness import conftest, fake
patch, folder = pytest.MonkeyPatch(), Path(sys.argv[1])
x = dataclasses.replace(fake.X, name="../../../climbed-in")
y = dataclasses.replace(fake.Y, name="../../../climbed/out.tmp_1")
model = dataclasses.replace(
    fake.MODEL, inputs=(x,), outputs=(y,), preprocess="tests.harness.test_names:renamed"
)
conftest.install(
    patch, folder, backends={"fakery": fake.BACKEND}, models={"fake": model},
    tasks={"fake-task": fake.TASK},
)
from quantbench import run
run(sys.argv[2], results=folder / "results")
"""


def renamed(inputs):
    return {"../../../climbed-in": inputs["x"]}


@pytest.mark.slow
@pytest.mark.long
def test_nothing_is_written_outside_the_cache_and_the_results(experiment_file, fakery):
    (fakery / "watch").mkdir()
    (fakery / "watch" / "sitecustomize.py").write_text(WATCH)
    (log := fakery / "writes").touch()
    path = experiment_file(
        "[fp32, static-int8, {static-int8: {ranges: injected, samples: 8}}, qat-int8: {epochs: 1}]"
    )
    environment = {
        **os.environ,
        "WRITES": str(log),
        "PYTHONPATH": f"{fakery / 'watch'}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": str(fakery / "results" / "mpl"),
    }

    done = subprocess.run(
        [sys.executable, "-c", RUN, str(fakery), str(path)],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (fakery / "results" / "test").iterdir()
    trials = load_results(folder).trials
    assert set(trials["status"]) == {"ok"}, trials[["trial", "status", "reason"]].to_string()
    written = {Path(line) for line in log.read_text().splitlines()}
    assert len(written) > 50, "the watch saw next to nothing"
    ours = {p for p in written if not p.is_relative_to("/dev") and not p.is_relative_to("/proc")}
    allowed = (fakery / "cache", fakery / "results")
    assert not {p for p in ours if not any(p == a or p.is_relative_to(a) for a in allowed)}
    assert not {p for p in ours if "climbed" in p.name and p.parent.name != "logs"}
    assert not list(fakery.parent.rglob("*climbed*.npy"))


# --- read from the source ---

PARTS = {
    "quantbench.report.html: f'node-data-{name}.json'": "plain, or its hash",
    "quantbench.runs.interleaved_timing: f'generation-{generation.number:03d}'": "a number",
    "quantbench.execution.process: f'{stem}.json'": "letters, digits and a hash",
    "quantbench.execution.process: f'{stem}.log'": "letters, digits and a hash",
    "quantbench.report.drawing.slides: f'{stem}.{suffix}'": "the name of a figure of ours",
    "quantbench.results.tables: f'{name}.parquet'": "a table of ours",
    "quantbench.report.provenance: f'{name}.parquet'": "a table of ours",
    "quantbench.runs.store: f'{stamp}-{key[:8]}'": "a time and a hash",
    "quantbench.runs.store: f'{stamp}x-{key[:8]}'": "a time and a hash",
    "quantbench.backend_api.training_recipe: name": "the number of an epoch",
    "quantbench.backend_api.artifact: name": "read, and checked by Artifact.open",
    "quantbench.runs.exporting: name": "checked by Artifact.open",
    "quantbench.system.files: file.name": "a file of the folder that is linked",
    "quantbench.experiment.user_model: name": "read: a folder that the user names",
}
"""What may be joined to a path although it is no constant, and why it leads nowhere else."""


def ours(value: ast.expr) -> bool:
    """Whether a value in a name is a stored name, or a constant of a module."""
    called = getattr(value.func, "id", "") if isinstance(value, ast.Call) else ""
    return called == "stored_as" or (isinstance(value, ast.Name) and value.id.isupper())


def joined(source: str) -> set[str]:
    """What source code joins to a path by ``/`` that looks like a name, but is no constant."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)):
            continue
        right = node.right
        if isinstance(right, ast.JoinedStr):
            values = [v.value for v in right.values if isinstance(v, ast.FormattedValue)]
            if not all(map(ours, values)):
                found.add(ast.unparse(right))
        elif isinstance(right, ast.Name | ast.Attribute):
            text = ast.unparse(right)
            if "name" in text and not text.isupper():
                found.add(text)
    return found


def test_the_reader_sees_what_is_joined():
    source = "a / f'{x}.npy'\nb / spec.name\nc / FILE\nd / f'{stored_as(x)}.npy'\ne / 'plain'"

    assert joined(source) == {"f'{x}.npy'", "spec.name"}


def test_no_name_from_outside_is_joined_to_a_path_of_the_engine():
    found = {
        f"{'.'.join(path.relative_to(ROOT / 'harness').with_suffix('').parts)}: {text}"
        for path in (ROOT / "harness").rglob("*.py")
        for text in joined(path.read_text(encoding="utf-8"))
    }

    assert found <= set(PARTS), "store it under `quantbench.system.files.stored_as(name)`"
