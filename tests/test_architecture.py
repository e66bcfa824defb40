"""The architecture: who may import whom, read from the source and tried in fresh processes."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from quantbench.backend_api import registry

ROOT = Path(__file__).parents[1]
ROOTS = {
    "quantbench": "harness",
    "quantbench_backends": "backends",
    "quantbench_experiments": "experiments",
}
FRAMEWORKS: Mapping[str, frozenset[str]] = {
    "pytorch": frozenset({"torch", "torchao", "torchvision"}),
    "tflite": frozenset(
        {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "ai_edge_litert"}
    ),
    "onnxruntime": frozenset({"onnx", "onnxruntime", "onnxscript"}),
}
"""Packages by the backend whose framework they are."""
SHARED: Mapping[str, frozenset[str]] = {"onnx_files": frozenset({"onnx"})}
"""Packages beside the backends that several may import, and the framework's packages they import."""

ORDER: Sequence[frozenset[str]] = tuple(
    frozenset(floor.split())
    for floor in (
        "__main__",
        "cli testing",
        "api",
        "report",
        "studies",
        "analysis",
        "runs",
        "experiment",
        "results",
        "steps",
        "execution",
        "backend_api",
        "units",
        "stats",
        "spec",
        "system",
        "errors __init__",
    )
)
"""Packages of the engine, top to bottom: each imports only those on floors below."""
LIGHT = ("spec", "backend_api", "execution", "steps", "system")
"""What workers and devices import: NumPy and the standard library."""

SOURCES = {
    ".".join(path.relative_to(ROOT / folder).with_suffix("").parts).removesuffix(".__init__"): path
    for package, folder in ROOTS.items()
    for path in sorted((ROOT / folder / package).rglob("*.py"))
}
ENGINE = [name for name in SOURCES if name.partition(".")[0] == "quantbench"]


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


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    return frozenset(imported(SOURCES[module].read_text(encoding="utf-8")))


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
    known = {"quantbench.spec.model", "quantbench_backends.pytorch.session", "quantbench_experiments.models.digits"}  # fmt: skip
    assert known <= set(SOURCES)
    assert {"torch", "quantbench"} <= packages("quantbench_backends.pytorch.session")


def test_the_engine_imports_no_framework_no_backend_and_no_experiment():
    for module in ENGINE:
        assert not frameworks(module), module
        assert not packages(module) & {*set(ROOTS) - {"quantbench"}, "tests", "tools"}, module


def floor(package: str) -> int:
    return next(i for i, packages in enumerate(ORDER) if package in packages)


def package_of(module: str) -> str:
    """``quantbench.spec.model`` -> ``spec``."""
    return [*module.split("."), "__init__"][1]


def test_each_package_of_the_engine_imports_only_those_below_it():
    for module in ENGINE:
        if module == "quantbench":
            continue  # names the API, which is imported when it is asked for
        own = package_of(module)
        for name in imports(module):
            if not name.startswith("quantbench.") or name == "quantbench.__version__":
                continue
            other = package_of(name)
            assert other == own or floor(other) > floor(own), f"{module} imports {name}"


def test_modules_of_a_package_import_each_other_in_no_circle():
    graph = {
        module: {name for name in imports(module) if name in SOURCES and SOURCES[name].name != "__init__.py"}
        for module in ENGINE
    }  # fmt: skip
    TopologicalSorter(graph).prepare()  # raises CycleError and names the circle


def test_every_package_has_one_doorway_that_says_what_it_is_for():
    for package in frozenset().union(*ORDER) - {"api", "errors", "__init__", "__main__"}:
        door = tree(f"quantbench.{package}")
        assert ast.get_docstring(door), package
        if package != "testing":  # pytest loads its plugin by name
            assert any("__all__" in ast.unparse(node) for node in door.body), package


def test_what_a_doorway_names_is_taken_there():
    """Other packages ask at the door; what is not named there is a matter of the package."""
    for package in frozenset().union(*ORDER) - {
        "api",
        "errors",
        "__init__",
        "__main__",
        "testing",
        "cli",
    }:
        face = set(importlib.import_module(f"quantbench.{package}").__all__)
        for module in [*ENGINE, *(m for m in SOURCES if m not in ENGINE)]:
            if package_of(module) == package and module in ENGINE:
                continue
            for node in ast.walk(tree(module)):
                if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"quantbench.{package}.")):  # fmt: skip
                    continue
                past = {alias.name for alias in node.names} & face
                assert not past, f"{module} takes {past} past the door of {package}"


def test_backends_and_experiments_know_only_themselves_and_the_engine():
    for module in SOURCES:
        root, _, rest = module.partition(".")
        if root == "quantbench":
            continue
        assert not packages(module) & ({*ROOTS, "tests", "tools"} - {root, "quantbench"}), module
        if root == "quantbench_backends" and rest:
            own = ".".join(module.split(".")[:2])
            known = {own, *(f"{root}.{shared}" for shared in SHARED)}
            if module.split(".")[1] in SHARED:
                known = {own}
            inside = {name for name in imports(module) if name.startswith(f"{root}.")}
            assert all(".".join(name.split(".")[:2]) in known for name in inside), module


def test_a_backend_imports_its_own_framework_only_and_a_converter_two():
    for module in SOURCES:
        if module in converters():
            assert len(frameworks(module)) <= 2, module
        elif (shared := package_of(module)) in SHARED:
            heavy = packages(module) & frozenset().union(*FRAMEWORKS.values())
            assert heavy <= SHARED[shared], module
        elif module.startswith("quantbench_backends."):
            assert frameworks(module) <= {module.split(".")[1]}, module
        else:
            assert len(frameworks(module)) <= 1, module


@pytest.mark.parametrize("package", SHARED)
def test_what_backends_share_is_taken_at_its_door(package):
    door = f"quantbench_backends.{package}"
    assert ast.get_docstring(tree(door))
    face = set(importlib.import_module(door).__all__)
    for module in SOURCES:
        if module == door or module.startswith(f"{door}."):
            continue
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(door):
                taken = {alias.name for alias in node.names}
                assert node.module == door, f"{module} takes {taken} past the door of {package}"
                assert taken <= face, f"{module} takes {taken - face}, which {door} does not name"


def test_every_backend_has_its_frameworks_named_here():
    assert set(registry.names("backends")) == set(FRAMEWORKS)


def test_a_module_is_named_after_what_it_is_and_says_so():
    for module, path in SOURCES.items():
        assert not set(module.split(".")) & {"utils", "util", "helpers", "common", "misc", "base"}
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), module


def locators() -> Iterator[str]:
    """Every locator that a registered backend, converter, model or task has."""
    for name in registry.names("backends"):
        backend = registry.backend(name)
        yield from filter(None, (backend.quantizer, backend.runtime, backend.trainer))
        yield from (f"{backend.own}:{function}" for function in ("outputs",) if backend.own)
    for entry in registry._entry_points("quantbench.converters").values():
        yield entry.load().convert
    for name in registry.names("models"):
        model = registry.model(name)
        # what is made or asked of a file: the locator within
        inner = (text.removesuffix(")").partition(":made(")[2] for text in (model.weights,))
        yield from (text for text in inner if ":" in text)
        texts = (model.weights, model.state, model.preprocess, *model.forms.values(), *model.ready.values())  # fmt: skip
        yield from (text for text in texts if ":" in text)
    for name in registry.names("tasks"):
        task = registry.task(name)
        yield task.load
        if ":" in task.metric:
            yield task.metric


def test_every_locator_names_a_function_or_a_class():
    """Read, not imported: the forms need their frameworks."""
    found = sorted(set(locators()))
    assert len(found) > 40
    for text in found:
        module, _, attribute = text.partition(":")
        name = attribute.partition("(")[0]
        assert module in SOURCES, text
        parsed = tree(module)
        taken = (alias for node in parsed.body if isinstance(node, ast.ImportFrom) for alias in node.names)  # fmt: skip
        defined = {getattr(node, "name", "") for node in parsed.body} | {a.asname or a.name for a in taken}  # fmt: skip
        assert name in defined, text


def test_no_locator_of_the_engine_is_typed():
    for module in ENGINE:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                typed = re.fullmatch(r"quantbench(\.[a-z_]+)+:\w+.*", node.value)
                assert not typed, f"{module} types {node.value}: use locator(function)"


def test_a_row_is_read_by_the_names_of_columns_in_one_package_only():
    """Elsewhere rows are the objects of `quantbench.results.rows`; whole columns are pandas'."""
    for module in ENGINE:
        if module.startswith("quantbench.results"):
            continue
        for node in ast.walk(tree(module)):
            named = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
            if named and isinstance(node.value, ast.Name) and node.value.id == "row":
                assert not isinstance(node.slice.value, str), f"{module}:{node.lineno}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("iterrows", "to_dict"), f"{module}:{node.lineno}"


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


def test_importing_the_package_imports_nothing_else():
    assert brought_by("import quantbench") == {"quantbench"}


@pytest.mark.parametrize("package", LIGHT)
def test_a_light_package_brings_numpy_and_nothing_else(package):
    modules = [m for m in ENGINE if package_of(m) == package]

    assert brought_by(f"import {', '.join(modules)}") <= {"quantbench", "numpy"}


@pytest.mark.parametrize("package", SHARED)
def test_a_door_that_backends_share_is_light(package):
    brought = brought_by(f"import quantbench_backends.{package}")

    assert brought == {"quantbench", "numpy", "quantbench_backends"}


@pytest.mark.parametrize("name", registry.names("backends"))
def test_a_backend_s_runtime_module_adds_only_itself_to_a_worker(name):
    text = registry.backend(name).runtime

    brought = brought_by(f"from quantbench.system import locate\nlocate({text!r})()")

    assert brought == {"quantbench", "numpy", "quantbench_backends"}


def test_describing_everything_imports_no_framework():
    code = (
        "from quantbench.backend_api import registry\n"
        "from quantbench.system import locate\n"
        "for name in registry.names('backends'):\n"
        "    found = registry.backend(name)\n"
        "    locate(found.quantizer)(), locate(found.runtime)()\n"
        "for name in registry.names('models'): registry.model(name)\n"
        "for name in registry.names('tasks'): registry.task(name)\n"
        "registry.converter('torch', 'onnx')\n"
    )

    brought = brought_by(code)

    assert not brought & frozenset().union(*FRAMEWORKS.values())
