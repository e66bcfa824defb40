"""Fixtures of the conformance suite: every artifact of a session is built once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quantbench.backend_api import Artifact, Backend
from quantbench.spec import Method, Model
from quantbench.system import locate
from tests.backends.conformance import build, with_form
from tests.backends.samples import SAMPLES

# they import a framework each
collect_ignore = [
    "samples/torch_forms.py",
    "samples/torch_eager_forms.py",
    "samples/keras_forms.py",
]

TABLES = {"cell": "cells", "refusal": "refusals", "unbuilt": "not_built"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take a ``cell`` or a ``refusal`` run once for each in their class's table."""
    for argument, table in TABLES.items():
        if argument in metafunc.fixturenames:
            rows = [
                pytest.param(
                    row,
                    marks=pytest.mark.long if argument == "cell" and is_long(str(row)) else (),
                    id=str(row),
                )
                for row in getattr(metafunc.cls, table)
            ]
            metafunc.parametrize(argument, rows)


def is_long(cell: str) -> bool:
    """Whether a cell takes many seconds: it is trained, and not on the smallest network."""
    return "qat-int8" in cell and ("pt2e" in cell or not cell.startswith("conv-"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Backend, str, Method], Artifact]:
    """A function that builds a sample with a method, or returns what it has built before."""
    artifacts: dict[str, Artifact] = {}
    models: dict[str, Model] = {}

    def get(backend: Backend, sample: str, method: Method) -> Artifact:
        key = f"{backend.name} {sample} {method}"
        if key not in artifacts:
            form = f"{sample} {locate(backend.quantizer)().form(method)}"
            if method.training != "ptq":
                form = key
            if form not in models:
                made = tmp_path_factory.mktemp(f"form-{sample}")
                models[form] = with_form(backend, SAMPLES[sample].model, method, made)
            model = models[form]
            folder = tmp_path_factory.mktemp(f"{backend.name}-{sample}")
            artifacts[key] = build(backend, model, method, folder)
        return artifacts[key]

    return get
