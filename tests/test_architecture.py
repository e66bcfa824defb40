"""The architecture: who may import whom, read from the source and tried in fresh processes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness import registry

ROOT = Path(__file__).parents[1]
PARTS = ("harness", "backends", "experiments")
FRAMEWORKS: Mapping[str, frozenset[str]] = {
    "pytorch": frozenset({"torch", "torchao", "torchvision"}),
    "tflite": frozenset(
        {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "ai_edge_litert"}
    ),
    "onnxruntime": frozenset({"onnx", "onnxruntime", "onnxscript"}),
}
"""Packages by the backend whose framework they are."""

SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for part in PARTS
    for path in sorted((ROOT / part).rglob("*.py"))
}


def imported(source: str) -> Iterator[str]:
    """Modules that source code imports by name, wherever in the file, lazily too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")  # fmt: skip
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def imports(module: str) -> set[str]:
    return set(imported(SOURCES[module].read_text(encoding="utf-8")))


def packages(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)}


def frameworks(module: str) -> set[str]:
    found = packages(module)
    return {framework for framework, names in FRAMEWORKS.items() if names & found}


def converters() -> set[str]:
    """Modules of the registered form converters."""
    entries = registry._entry_points("quantbench.converters").values()
    return {entry.load().convert.partition(":")[0] for entry in entries}


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import torch.nn as nn",
        "from torch import nn",
        "from torch.nn import functional",
        "def f():\n    import torch",
        "if x:\n    from torch import nn",
        "import importlib\nimportlib.import_module('torch.ao')",
        "__import__('torch')",
    ],
)
def test_the_reader_sees_every_way_to_import(source):
    assert "torch" in {name.partition(".")[0] for name in imported(source)}


def test_the_reader_has_read_the_whole_source():
    assert {"harness.protocol", "backends.pytorch.session", "experiments.models.digits"} <= set(
        SOURCES
    )
    assert "torch" in packages("backends.pytorch.session")
    assert "harness" in packages("backends.pytorch.session")


@pytest.mark.parametrize("module", [name for name in SOURCES if name.startswith("harness")])
def test_the_harness_imports_no_framework_no_backend_and_no_experiment(module):
    assert not frameworks(module)
    assert not packages(module) & {"backends", "experiments", "tests"}


@pytest.mark.parametrize("module", [name for name in SOURCES if not name.startswith("harness")])
def test_backends_and_experiments_know_only_themselves_and_the_harness(module):
    part, _, rest = module.partition(".")
    others = {"backends", "experiments", "tests"} - {part}

    assert not packages(module) & others
    if part == "backends" and rest:
        own = ".".join(module.split(".")[:2])
        inside = {name for name in imports(module) if name.startswith("backends.")}
        assert all(name == own or name.startswith(f"{own}.") for name in inside)


def test_only_form_converters_import_two_frameworks():
    mixed = {module for module in SOURCES if len(frameworks(module)) > 1}

    assert mixed <= converters()


@pytest.mark.parametrize(
    "module", [n for n in SOURCES if n.startswith("backends.") and n not in converters()]
)
def test_a_backend_imports_its_own_framework_only(module):
    assert frameworks(module) <= {module.split(".")[1]}


def test_every_backend_has_its_frameworks_named_here():
    assert set(registry.names("backends")) == set(FRAMEWORKS)


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_is_named_after_what_it_is_and_says_so(module):
    assert not set(module.split(".")) & {"utils", "util", "helpers", "common", "misc", "base"}
    assert ast.get_docstring(ast.parse(SOURCES[module].read_text(encoding="utf-8")))


# --- tried in fresh processes ---


def brought_by(code: str) -> set[str]:
    """Packages that ``code`` imports into a fresh process, the standard library left out."""
    report = (
        "import sys; before = set(sys.modules)\n"
        f"{code}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*(name for name in new if name not in sys.stdlib_module_names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.split())


def test_the_process_shows_what_it_imports():
    assert {"numpy", "pandas"} <= brought_by("import pandas")


def test_importing_the_harness_imports_nothing_else():
    assert brought_by("import harness") == {"harness"}


def test_a_worker_imports_numpy_and_the_standard_library_only():
    modules = "harness.worker, harness.score, harness.burst, harness.startup, harness.protocol"

    assert brought_by(f"import {modules}") == {"harness", "numpy"}


@pytest.mark.parametrize("name", registry.names("backends"))
def test_a_backend_s_runtime_module_adds_only_itself_to_a_worker(name):
    locator = registry.backend(name).runtime

    brought = brought_by(f"from harness.score import load_runtime\nload_runtime({locator!r})")

    assert brought == {"harness", "numpy", "backends"}


def test_describing_everything_imports_no_framework():
    code = (
        "from harness import registry\n"
        "for name in registry.names('backends'):\n"
        "    found = registry.backend(name)\n"
        "    registry.locate(found.quantizer)(), registry.locate(found.runtime)()\n"
        "for name in registry.names('models'): registry.model(name)\n"
        "for name in registry.names('tasks'): registry.task(name)\n"
        "registry.converter('torch', 'onnx')\n"
    )

    brought = brought_by(code)

    assert not brought & frozenset().union(*FRAMEWORKS.values())
