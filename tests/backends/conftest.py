"""Fixtures of the conformance suite: every artifact of a session is built once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.method import Method
from harness.protocol import Artifact, Backend
from tests.backends.conformance import build, with_form
from tests.backends.samples import SAMPLES

# they import a framework each
collect_ignore = ["samples/torch_forms.py", "samples/keras_forms.py"]

TABLES = {"cell": "cells", "refusal": "refusals", "unbuilt": "not_built"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take a ``cell`` or a ``refusal`` run once for each in their class's table."""
    for argument, table in TABLES.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, getattr(metafunc.cls, table), ids=str)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Backend, str, Method], Artifact]:
    """A function that builds a sample with a method, or returns what it has built before."""
    artifacts: dict[str, Artifact] = {}
    forms: dict[str, Path] = {}

    def get(backend: Backend, sample: str, method: Method) -> Artifact:
        key = f"{backend.name} {sample} {method}"
        if key not in artifacts:
            form = forms.setdefault(sample, tmp_path_factory.mktemp(f"form-{sample}"))
            model = with_form(backend, SAMPLES[sample].model, form)
            folder = tmp_path_factory.mktemp(f"{backend.name}-{sample}")
            artifacts[key] = build(backend, model, method, folder)
        return artifacts[key]

    return get
