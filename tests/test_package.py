"""The package: what it declares, what its wheel holds, and that it stands beside anybody's project."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.test_architecture import ENGINE, SOURCES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN_ZOOS = {"torchvision", "timm", "transformers"}
"""Collections of models that a user names; the refusal says how to install them."""


INSTALLED = packages_distributions()
ELSEWHERE = {"google": ["protobuf"], "pynvml": ["nvidia-ml-py"]}
"""Distributions whose module is called otherwise, and which may not be installed here."""


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {normal(match[0]) for match in found if match} - {"quantbench"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def third_party(module: str) -> Iterator[tuple[str, bool]]:
    """Distributions that a module imports, each with whether it does when it is imported itself."""
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    at_once = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [node.module]
        else:
            continue
        for name in found:
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top.startswith("quantbench") or top in OWN_ZOOS:
                continue
            given = ELSEWHERE.get(top) or INSTALLED.get(top, [top])
            yield from ((normal(one), id(node) in at_once) for one in dict.fromkeys(given))


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    base = names(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    optional = set().union(
        *(names(extras[extra]) for extra in extras if extra not in ("dev", "all"))
    )
    imported: set[str] = set()
    for module in SOURCES:
        for distribution, at_once in third_party(module):
            imported.add(distribution)
            if distribution == "pytest":
                continue  # it loads our plugin, not we it
            allowed = base if at_once and module in ENGINE else base | optional
            assert {distribution, distribution.removesuffix("-cpu")} & allowed, f"{module}: {distribution}"  # fmt: skip

    # pandas writes Parquet through pyarrow's engine; onnx-ir and tensorflow's parts are asked for by theirs
    assert base <= imported


# --- the wheel -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "-w", str(folder), str(ROOT)], check=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with the wheel, which sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
    )  # fmt: skip
    (mine,) = {Path(p) for p in sys.path if p.endswith("site-packages")}
    # a path in a .pth file is taken without the .pth files that lie there: ours is not editable
    (site / "packages.pth").write_text(f"{mine}\n", encoding="utf-8")
    return folder / "bin" / "python"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose packages are called as our folders are."""
    for name in ("harness", "backends", "experiments"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"OWNER = 'the user, {name}'\n")
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from backends import OWNER\n"
        "def build():\n"
        "    assert OWNER == 'the user, backends'\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()\n"
    )
    (tmp_path / "test_mine.py").write_text(
        "import harness, experiments\ndef test_mine(): assert harness.OWNER and experiments.OWNER\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "model: {torch: 'mine:build', name: mine, task: digits}\n"
        "backends: [pytorch]\nmethods: [fp32]\nprecision: preview\n"
    )
    return tmp_path


def done(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "QUANTBENCH_CACHE": str(folder / "cache")},
    )  # fmt: skip


@pytest.mark.long
def test_the_wheel_holds_everything_that_git_has_of_the_packages(wheel):
    listed = subprocess.run(
        ["git", "ls-files", "harness", "backends", "experiments"], cwd=ROOT, check=True,  # noqa: S607
        capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    held = set(zipfile.ZipFile(wheel).namelist())

    for file in listed:
        inside = file.partition("/")[2]
        inside = f"quantbench_experiments/sweeps/{inside}" if inside.endswith(".yaml") else inside
        assert inside in held, file


@pytest.mark.long
def test_a_project_with_packages_called_as_our_folders_is_not_disturbed(python, project):
    told = done(python, project, "-c", "import quantbench; print(quantbench.__file__)")
    assert str(python.parents[1]) in told.stdout, "not the wheel"

    tested = done(python, project, "-m", "pytest", "-q", "-p", "no:anyio", "test_mine.py")
    assert "1 passed" in tested.stdout, tested.stdout + tested.stderr

    run = done(python, project, "-m", "quantbench", "run", "mine.yaml")
    assert run.returncode == 0, run.stdout + run.stderr
    assert list(project.glob("results/mine/*/report.html"))


@pytest.mark.long
def test_an_installed_experiment_is_run_by_its_name(python, project):
    planned = done(python, project, "-m", "quantbench", "run", "quickstart", "--dry-run")

    assert "digits-mobilenet/tflite/fp32/cpu-1" in planned.stdout, planned.stderr
